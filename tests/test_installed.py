"""What the installed Caffe is said to be, and what it lacks."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from caffe_clr import policies
from caffe_clr.errors import ClrError
from caffe_clr.harness import build_record, pipeline, series, source, toolchain
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.report import Report

Cli = Callable[..., subprocess.CompletedProcess[str]]


def has_layer(name: str) -> bool:
    code = f"import caffe; print({name!r} in caffe.layer_type_list())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout == "True\n"


def test_the_version_is_the_packages(run_cli: Cli) -> None:
    done = run_cli("--version")
    assert (done.returncode, done.stdout) == (0, f"caffe-clr {metadata.version('caffe-clr')}\n")


def test_doctor_tells_what_the_installed_caffe_is(
    tree: Tree, upstream: source.Upstream, patches: list[series.Patch], run_cli: Cli
) -> None:
    done = run_cli("doctor", OMP_NUM_THREADS="3")
    told = dict(re.findall(r"^(\w+) +(.*)$", done.stdout, re.MULTILINE))
    assert told["Caffe"] == str(tree.python / "caffe")
    assert told["revision"] == upstream.revision
    assert told["patches"].split(", ") == [patch.name for patch in patches]
    assert told["CUDA"] == "no: trains only on the CPU"
    assert "cuDNN" not in told
    assert told["oneDNN"] == "yes"
    assert told["works"] == f"yes, with the policies {', '.join(policies.BOUNDED)}"
    assert told["threads"] == "3, from OMP_NUM_THREADS"
    if has_layer("ImageData"):
        assert told["OpenCV"] == "yes"
    else:
        assert told["OpenCV"].startswith("no: ImageData and WindowData are missing")


@pytest.fixture
def moved(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of pycaffe that Python finds first; one that is imported would hide it."""
    monkeypatch.delitem(sys.modules, "caffe", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return Path(shutil.copytree(tree.python / "caffe", tmp_path / "caffe"))


def described() -> dict[str, str]:
    caffe = build_record.find()
    assert caffe
    return dict(build_record.describe(caffe))


def test_a_caffe_of_another_origin_has_no_known_revision(moved: Path) -> None:
    (moved / "caffe-clr.json").unlink()
    assert described()["Caffe"] == str(moved)
    assert described()["revision"] == "unknown: this caffe-clr did not build it"
    (moved / "caffe-clr.json").write_text("{")
    assert "unknown" in described()["revision"]


def test_a_caffe_without_the_threads_of_the_series(moved: Path) -> None:
    build_record.write_record(moved, "that of /src/caffe", ("cyclical-learning-rates",))
    assert described()["revision"] == "that of /src/caffe"
    assert described()["threads"].startswith("used only by BLAS")


def test_a_caffe_that_lost_its_library_is_broken(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = (moved / "_caffe.so").read_bytes()
    (moved / "_caffe.so").write_bytes(extension.replace(b"libcaffe.so.1.0.0", b"libcaffe.so.9.9.9"))
    assert "not found: libcaffe.so.9.9.9" in described()["broken"]


def test_a_caffe_that_cannot_be_imported_is_broken(moved: Path) -> None:
    (moved / "__init__.py").write_text("import a_module_of_nobody\n")
    assert described()["broken"] == (
        "`import caffe` fails: ModuleNotFoundError: No module named 'a_module_of_nobody'; build it"
        " again, or run `caffe-clr build`"
    )


def test_a_caffe_without_the_first_patch_is_broken(moved: Path) -> None:
    fields = "class SolverParameter: DESCRIPTOR = type('', (), {'fields_by_name': {}})\n"
    (moved / "proto/caffe_pb2.py").write_text(fields)
    (moved / "__init__.py").write_text("")
    assert (
        "it lacks the patch cyclical-learning-rates; `caffe-clr patch apply`"
        in (described()["broken"])
    )


def test_no_caffe_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build_record.find() is None


def test_another_caffe_is_copied_and_patched(
    checkout: Path, tmp_path: Path, build_report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as CMake, which this tree stops; the rest is as for the pinned revision."""
    (checkout / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14)\nproject(Mine)\n"
    )
    (checkout / "Makefile.config").write_text("CPU_ONLY := 1\n")
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    work = tmp_path / "work"
    options = pipeline.Options(
        prefix=tmp_path / "prefix", source=checkout, work=work, import_here=False
    )
    monkeypatch.setattr(toolchain, "has_opencv", lambda: False)
    with pytest.raises(ClrError, match="cmake failed"):
        pipeline.build(options, build_report)
    assert {path: path.read_bytes() for path in before} == before
    assert (work / "source/Makefile.config").read_text() == "CPU_ONLY := 1\n"
    solver = (work / "source/src/caffe/solvers/sgd_solver.cpp").read_text()
    assert "triangular2" in solver
