"""The build: what it makes, what a second run does, and what its faults look like."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from rich.console import Console

from caffe_clr import locations
from caffe_clr.cli.report import ConsoleReport
from caffe_clr.errors import ClrError, Interrupted, UsageError
from caffe_clr.harness import commands, compilation, import_path, pipeline, toolchain
from caffe_clr.harness.compilation import Tree

pytestmark = pytest.mark.alone


Cli = Callable[..., subprocess.CompletedProcess[str]]


def run_build(**options: Any) -> str:
    """Build into the default prefix and return what was printed."""
    printed = io.StringIO()
    prefix = options.pop("prefix", locations.build() / "caffe")
    pipeline.build(
        pipeline.Options(prefix=prefix, **options), ConsoleReport(Console(file=printed, width=200))
    )
    return printed.getvalue()


def steps(printed: str) -> list[str]:
    return re.findall(r"^(\w+) +\d+\.\d s", printed, re.MULTILINE)


def test_caffe_can_be_imported_and_knows_the_fields(tree: Tree) -> None:
    code = (
        "import caffe; from caffe.proto import caffe_pb2;"
        "print(caffe_pb2.SolverParameter(max_lr=1, start_lr_policy=2), caffe.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "start_lr_policy: 2\nmax_lr: 1" in done.stdout
    assert str(tree.prefix) in done.stdout


def test_the_messages_are_the_same_before_and_after_importing_caffe(tree: Tree) -> None:
    code = (
        "from caffe_clr import prototxt; from caffe_clr.runs import solvers;"
        "before = prototxt.caffe_pb2();"
        "caffe = solvers.import_caffe(); import caffe.proto.caffe_pb2 as after;"
        "assert before is after is caffe.proto.caffe_pb2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import caffe; from caffe_clr import prototxt; prototxt.caffe_pb2().Datum()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_process_that_builds_can_import_what_it_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "python").mkdir()
    assert importlib.util.find_spec("made_by_a_build") is None
    (tmp_path / "python" / "made_by_a_build.py").write_text("")
    file = import_path.add(tmp_path / "python")
    assert file.read_text() == f"{tmp_path}/python\n"
    assert importlib.util.find_spec("made_by_a_build") is not None


def test_an_environment_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/proc")
    with pytest.raises(ClrError, match=r"/proc/caffe-clr\.pth cannot be written: .*activate a"):
        import_path.add(Path("/tmp"))


def test_the_programs_of_caffe_are_installed(tree: Tree) -> None:
    done = subprocess.run([tree.caffe, "--version"], capture_output=True, text=True, check=True)
    assert "caffe version 1.0.0" in done.stdout
    programs = {path.name for path in (tree.prefix / "bin").iterdir()}
    assert {"caffe", "compute_image_mean", "convert_imageset", "extract_features"} <= programs


def test_a_second_build_does_nothing(tree: Tree) -> None:
    products = [path.stat().st_mtime_ns for path in tree.products]
    printed = run_build()
    assert steps(printed) == ["compile"]
    assert (tree.logs / "compile.log").read_text().endswith("ninja: no work to do.\n")
    assert products == [path.stat().st_mtime_ns for path in tree.products]
    assert str(tree.caffe) in printed


@pytest.mark.parametrize("lost", ["bin/caffe", "lib/libcaffe.so", "python/caffe/_caffe.so"])
def test_a_lost_installation_is_made_again(lost: str, tree: Tree) -> None:
    (tree.prefix / lost).unlink()
    assert "install" in steps(run_build())
    assert (tree.prefix / lost).is_file()


def test_a_changed_patch_rebuilds_what_it_changes(
    tree: Tree, tmp_path: Path, patch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "caffe_patch"
    shutil.copytree(patch_folder, changed)
    patch = changed / "feature/cyclical-learning-rates.patch"
    assert "TestEqualBounds" in patch.read_text()
    patch.write_text(patch.read_text().replace("TestEqualBounds", "TestSameBounds"))
    log = tree.logs / "compile.log"
    with monkeypatch.context() as patched:
        patched.setattr(locations, "shipped", lambda name: changed)
        log.unlink()
        assert steps(run_build())[:4] == ["fetch", "patch", "configure", "compile"]
        # one gtest changed, and those are not among what is compiled here
        assert "ninja: no work to do" in log.read_text()
        assert (
            "TestSameBounds"
            in (tree.source / "src/caffe/test/test_cyclical_learning_rate.cpp").read_text()
        )
    assert steps(run_build())[:4] == ["fetch", "patch", "configure", "compile"]
    assert (
        "TestEqualBounds"
        in (tree.source / "src/caffe/test/test_cyclical_learning_rate.cpp").read_text()
    )


def test_a_given_source_is_checked_even_when_nothing_is_to_be_done(
    tree: Tree, tmp_path: Path, pristine: Path
) -> None:
    with pytest.raises(ClrError, match="is not Caffe's source"):
        run_build(source=tmp_path)
    assert steps(run_build(source=pristine)) == ["fetch", "patch", "compile"]


def test_the_patches_gtests_and_upstreams_solver_gtests_pass(gtests_tree: Tree) -> None:
    def run(tests: str) -> int:
        return compilation.run_gtests(gtests_tree, lambda done, total: None, tests)

    assert run("CyclicalLearningRateTest*") == 30
    assert run("*SolverTest*") >= 100


def test_a_failing_gtest_is_an_error(gtests_tree: Tree, tmp_path: Path) -> None:
    """In an empty folder the tests that read sample data fail."""
    empty = compilation.Tree(tmp_path, gtests_tree.binary, tmp_path, tmp_path / "logs")
    with pytest.raises(ClrError, match=r"test.testbin failed[\s\S]*full log: .*gtests.log"):
        compilation.run_gtests(empty, lambda done, total: None, "HDF5DataLayerTest*")


def test_a_prefix_that_cannot_be_written(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("build", "--prefix", tmp_path / "file" / "caffe")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/file/caffe cannot be written: Not a directory\n"
    done = run_cli("build", "--prefix", "/proc/caffe")
    assert done.returncode == 1
    assert re.fullmatch(r"error: /proc/caffe cannot be written: .+\n", done.stderr)


@pytest.mark.parametrize(
    "arguments", [["--jobs", "0"], ["--jobs", "many"], ["--fast"], ["caffe"], ["--prefix", ""]]
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], run_cli: Cli) -> None:
    assert run_cli("build", *arguments).returncode == 2


@pytest.mark.caffe
def test_opencv_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "has_opencv", lambda: False)
    with pytest.raises(ClrError, match="Debian package libopencv-dev"):
        run_build(opencv=True)


def test_two_builds_at_once_in_one_folder(tree: Tree) -> None:
    with (
        pipeline._locked(locations.build()),
        pytest.raises(ClrError, match="another build is running"),
    ):
        run_build()


def test_the_first_error_and_the_log_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "compile.log"
    script = "echo fine; echo 'a.cpp:3:1: error: no such thing'; echo context; echo; exit 3"
    with pytest.raises(ClrError) as failed:
        commands.run(["sh", "-c", script], log)
    assert str(failed.value) == (
        "sh failed (exit status 3):\n  a.cpp:3:1: error: no such thing\n  context\n  \n"
        f"full log: {log}"
    )
    assert log.read_text().startswith("+ sh -c ")
    with pytest.raises(ClrError, match=r"fatal error: .*No space left on device"):
        commands.run(["sh", "-c", "echo 'fatal error: a.o: No space left on device'; exit 1"], log)
    with pytest.raises(ClrError, match="not-there is not installed; see `caffe-clr doctor`"):
        commands.run(["not-there"], log)


def test_a_full_disk(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "configure.log").symlink_to("/dev/full")
    process = start_build(tmp_path)
    printed, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(r"^configure .* failed$", printed, re.MULTILINE)
    told = "error: No space left on device; free some space and run the same command again\n"
    assert errors == told


def start_build(folder: Path) -> subprocess.Popen[str]:
    """Start a build from nothing in a folder."""
    code = (
        "import sys; from pathlib import Path; from caffe_clr import cli, locations;"
        f"locations.build = lambda: Path({str(folder)!r});"
        "sys.argv = ['caffe-clr', 'build', '--jobs', '1'];"
        "cli.main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running_in(folder: Path) -> list[bytes]:
    """The command lines of processes that name a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(file.read_bytes())
    return [line for line in found if str(folder).encode() in line]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600  # a machine may have other work
    while not condition():
        assert time.monotonic() < deadline, "the build did not get that far"
        time.sleep(0.05)


@pytest.mark.usefixtures("tarball")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_ends_its_compilers_and_goes_on_later(
    number: signal.Signals, tmp_path: Path
) -> None:
    compiling = tmp_path / "logs" / "compile.log"

    def interrupt_while(log: Path, text: str) -> tuple[str, str]:
        process = start_build(tmp_path)
        wait_for(lambda: log.is_file() and text in log.read_text())
        process.send_signal(number)
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 128 + number
        assert errors == "error: interrupted; finished steps are kept; run the same command again\n"
        assert running_in(tmp_path) == []
        return printed, errors

    printed, _ = interrupt_while(tmp_path / "logs" / "configure.log", "compiler")
    assert steps(printed) == ["fetch", "patch", "configure"]
    assert "interrupted" in printed
    printed, _ = interrupt_while(compiling, "[1/")
    assert steps(printed) == ["configure", "compile"]
    compiling.unlink()
    printed, _ = interrupt_while(compiling, "+ ninja")
    assert steps(printed) == ["compile"]


def test_a_program_that_has_just_been_started_is_ended_with_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Popen(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(Interrupted):
            commands.run(["sleep", "600"], tmp_path / "log")
        assert started[0].poll() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
        started[0].kill()


def test_state_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"source": "torn')
    state = pipeline._State(tmp_path / "state.json")
    assert state["source"] is None
    state["source"] = "whole"
    assert json.loads((tmp_path / "state.json").read_text()) == {"source": "whole"}
    assert os.listdir(tmp_path) == ["state.json"]


def test_jobs_are_checked() -> None:
    with pytest.raises(UsageError, match="--jobs 0: give 1 or more"):
        run_build(jobs=0)
