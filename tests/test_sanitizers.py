"""The policy code under AddressSanitizer and UndefinedBehaviorSanitizer, and with FMA."""

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


def compiled(tree: Tree, program: Path, *options: str) -> Path:
    """tests/policy_fuzz.cpp."""
    solver = tree.source / "src/caffe/solvers/sgd_solver.cpp"
    subprocess.run(
        [
            *("g++", *options, f'-DSGD_SOLVER="{solver}"', *compiler_options(tree)),
            *(Path(__file__).with_name("policy_fuzz.cpp"), "-o", program),
            *(f"-L{tree.prefix}/lib", f"-Wl,-rpath,{tree.prefix}/lib"),
            # what libcaffe is linked with counts, too
            *("-Wl,--copy-dt-needed-entries", "-lcaffe"),
        ],
        check=True,
    )
    return program


def test_a_million_random_solver_parameters(tree: Tree, tmp_path: Path) -> None:
    sanitizers = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
    program = compiled(tree, tmp_path / "policy_fuzz", "-O1", "-g0", *sanitizers)
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


def test_values_are_the_same_where_the_processor_multiplies_and_adds_at_once(
    tree: Tree, tmp_path: Path
) -> None:
    # on ARM, compilers do so unasked
    fused = ["-mfma"] if " fma " in Path("/proc/cpuinfo").read_text() else []
    values = []
    for name, options in (("fused", fused), ("separate", ["-ffp-contract=off"])):
        program = compiled(tree, tmp_path / name, "-O2", "-g0", *options)
        done = subprocess.run([program, "20000", "print"], capture_output=True, text=True)
        values.append(done.stdout.splitlines())
    assert len(values[0]) > 50_000
    assert values[0] == values[1]
