"""`patch` with nothing but Python itself: caffe-clr.pyz, and `./clr patch` in a fresh clone."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import contents

from caffe_clr import locations
from caffe_clr.cli.commands import building
from caffe_clr.cli.patching import apply_patches
from caffe_clr.errors import ClrError
from caffe_clr.harness import removal, series, single_file

Run = Callable[..., subprocess.CompletedProcess[str]]
FEATURE = series.FEATURE
TREE = {  # as much of a Caffe as the policies have to do with; a fork's, so that git fits nowhere
    series.PROTO: """syntax = "proto2";
message SolverParameter {
  optional float base_lr = 5;
  optional string lr_policy = 8;
  optional int32 stepsize = 13;
  repeated int32 stepvalue = 34;
}
""",
    "src/caffe/solvers/sgd_solver.cpp": """#include "caffe/sgd_solvers.hpp"
namespace caffe {
template <typename Dtype>
Dtype SGDSolver<Dtype>::GetLearningRate() {
  Dtype rate;
  const string& lr_policy = this->param_.lr_policy();
  if (lr_policy == "fixed") {
    rate = this->param_.base_lr();
  } else {
    LOG(FATAL) << "no such policy";
  }
  return rate;
}
template <typename Dtype>
void SGDSolver<Dtype>::PreSolve() {
  history_.clear();
}
}  // namespace caffe
""",
    "Makefile": "all:\n",
}


def write_tree(folder: Path) -> Path:
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "caffe")


@pytest.fixture(scope="module")
def file(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return single_file.pack(root, tmp_path_factory.mktemp("packed"))


@pytest.fixture
def run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the file beside the tree, in a Python that sees no packages."""
    shutil.copy(file, tmp_path)
    monkeypatch.delenv("CLR_COMMAND", raising=False)  # which ./clr test sets

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", single_file.NAME, *arguments],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )

    return run


def test_it_does_what_the_command_does(
    tree: Path, run: Run, patches: list[series.Patch], tmp_path: Path
) -> None:
    other = write_tree(tmp_path / "other")
    removal.apply(other, series.select(patches, [FEATURE]))
    done = run("patch", "check", "caffe", FEATURE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Can be applied: {FEATURE}.\n")
    assert f"\n{FEATURE}: {series.PROTO}: applies\n" in done.stdout
    done = run("patch", "apply", "caffe", FEATURE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Applied: {FEATURE}.\n")
    assert contents(tree) == contents(other)
    assert "start_lr_policy" in (tree / series.PROTO).read_text()
    done = run("patch", "apply", "caffe", FEATURE)
    assert done.stdout == f"Already applied: {FEATURE}. There is nothing to do.\n"
    done = run("patch", "remove", "caffe")
    assert (done.returncode, done.stdout) == (0, f"Removed: {FEATURE}.\n")
    assert contents(tree) == {name: text.encode() for name, text in TREE.items()}


def test_what_it_prints_is_what_the_command_prints(
    tree: Path, run: Run, patch_folder: Path, tmp_path: Path
) -> None:
    other = write_tree(tmp_path / "other")
    expected = apply_patches(patch_folder, other, [FEATURE, "one-cycle"])
    told = run("patch", "apply", "caffe", FEATURE, "one-cycle").stdout.splitlines()
    assert len(told) == len(expected)
    same = [line.replace(str(other), "caffe") for line in expected]
    assert [line for line in told if line not in same] == [
        "    python3 caffe-clr.pyz patch solver | caffe/build/tools/caffe train --solver=/dev/stdin"
        ' 2>&1 | grep "lr ="',
        "`python3 caffe-clr.pyz patch remove caffe` takes it back.",
    ]
    solver = run("patch", "solver")
    assert solver.stdout == (patch_folder / series.SOLVER).read_text()


def test_an_error_is_one_message(tree: Path, run: Run) -> None:
    for arguments, status, told in (
        (["apply", "caffe", "nothing"], 2, "error: no patch nothing; the series has cyclical"),
        (["apply", "nowhere"], 1, "error: nowhere is not a folder\n"),
        (["apply", "caffe"], 1, "error: caffe: nothing was changed, because "),
        (["check", "caffe"], 1, "error: caffe: "),
        (["remove"], 2, "usage: python3 caffe-clr.pyz patch remove [-h] DIR [PATCH"),
    ):
        done = run("patch", *arguments)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert done.stderr.startswith(told)
        assert "Traceback" not in done.stderr
    assert run("patch", "check", "caffe", PATH="").stderr.startswith("error: git is not installed")
    assert contents(tree).keys() == TREE.keys()


def test_it_leaves_no_folder_behind(tree: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    assert run("patch", "check", "caffe", FEATURE, TMPDIR=str(tmp_path / "temporary")).stdout
    assert not [*(tmp_path / "temporary").iterdir()]


def test_it_holds_the_files_of_the_checkout(
    file: Path, root: Path, patches: list[series.Patch], tmp_path: Path
) -> None:
    with zipfile.ZipFile(file) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for name, content in held.items():
        folder = root / "python" if name.startswith(("caffe_clr/", "__main__")) else root
        assert content == (folder / name).read_bytes()
    assert {f"caffe_patch/{patch.entry}" for patch in patches} <= held.keys()
    assert single_file.pack(root, tmp_path).read_bytes() == file.read_bytes()
    assert file.stat().st_mode & 0o111


def test_its_modules_are_of_the_syntax_of_python_3_8(root: Path) -> None:
    for name in single_file.modules(root / "python"):
        module = ast.parse((root / "python" / name).read_text(), feature_version=(3, 8))
        evaluated = [node.value for node in module.body if isinstance(node, ast.Assign)]
        evaluated += [
            node.args[1]
            for node in ast.walk(module)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
        ]
        for node in (each for value in evaluated for each in ast.walk(value)):
            assert not isinstance(node, ast.BitOr), f"{name}: 3.8 has no unions of types"


def test_the_command_packs_a_checkout(
    file: Path, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_cli("patch", "pack", "out")
    assert re.fullmatch(r"out/caffe-clr\.pyz, 1\d\d KB\n", done.stdout), done.stderr
    assert (tmp_path / "out/caffe-clr.pyz").read_bytes() == file.read_bytes()
    monkeypatch.setattr(locations, "checkout", lambda: None)
    with pytest.raises(ClrError, match="it cannot pack an installed package"):
        building.patch_pack(tmp_path)


def test_an_older_python_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (root / "python/__main__.py").read_text()
    ast.parse(source, feature_version=(3, 0))
    monkeypatch.setattr(sys, "hexversion", 0x30709F0)
    with pytest.raises(SystemExit, match=r"error: this needs Python 3\.8 or later, and runs on "):
        exec(compile(source, "__main__.py", "exec"))


def test_clr_needs_no_environment_to_patch(root: Path, tree: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("clr", "LICENSE"):
        shutil.copy(root / name, clone)
    for folder in ("python", "caffe_patch"):
        shutil.copytree(root / folder, clone / folder)
    done = subprocess.run(
        [clone / "clr", "patch", "apply", tree, FEATURE], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--solver={clone}/caffe_patch/triangular.prototxt" in done.stdout
    assert f"`{clone}/clr patch remove {tree}` takes it back." in done.stdout
    done = subprocess.run(
        [clone / "clr", "patch", "pack", tmp_path], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{tmp_path}/caffe-clr.pyz, ")
    assert not (clone / ".venv").exists()
