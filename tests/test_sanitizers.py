"""The policy code under AddressSanitizer and UndefinedBehaviorSanitizer."""

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

from caffe_clr.harness.compilation import Tree

PARAMETERS = 1_000_000


def compiler_options(tree: Tree) -> list[str]:
    """The include folders and macros that Caffe's own sources are compiled with."""
    commands = json.loads((tree.binary / "compile_commands.json").read_text())
    of_caffe = next(c["command"] for c in commands if "/caffe.dir/" in c["file"])
    words = shlex.split(of_caffe)
    folders = [folder for word, folder in pairwise(words) if word == "-isystem"]
    taken = [word for word in words if re.match(r"-[DI]", word)]
    return taken + [f"-isystem{folder}" for folder in folders]


def test_a_million_random_solver_parameters(tree: Tree, tmp_path: Path) -> None:
    program = tmp_path / "policy_fuzz"
    solver = tree.source / "src/caffe/solvers/sgd_solver.cpp"
    subprocess.run(
        [
            *("g++", "-O1", "-g0", "-fsanitize=address,undefined,float-cast-overflow"),
            *("-fno-sanitize-recover=all", f'-DSGD_SOLVER="{solver}"', *compiler_options(tree)),
            *(Path(__file__).with_name("policy_fuzz.cpp"), "-o", program),
            *(f"-L{tree.prefix}/lib", f"-Wl,-rpath,{tree.prefix}/lib"),
            # what libcaffe is linked with counts, too
            *("-Wl,--copy-dt-needed-entries", "-lcaffe"),
        ],
        check=True,
    )
    done = subprocess.run([program, str(PARAMETERS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    counts = re.fullmatch(
        r"of (\d+), (\d+) accepted for their rate, (\d+) for their momentum\n", done.stdout
    )
    assert counts
    tried, *accepted = map(int, counts.groups())
    assert tried == PARAMETERS
    for number in accepted:
        assert PARAMETERS // 5 < number < PARAMETERS - PARAMETERS // 5
