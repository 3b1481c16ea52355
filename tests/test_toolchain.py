"""What a machine lacks, and how `caffe-clr doctor` and `./clr` say so."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffe_clr.errors import ClrError
from caffe_clr.harness import toolchain
from caffe_clr.harness.compilation import Tree

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., str]:
    """A PATH that has just the programs named."""

    def make(*names: str) -> str:
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in names:
            found = shutil.which(name)
            assert found, name
            (folder / name).symlink_to(found)
        return str(folder)

    return make


@pytest.mark.caffe
def test_nothing_is_missing_here(run_cli: Cli) -> None:
    done = run_cli("doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^to build +nothing is missing; it would be with(out)? OpenCV$", done.stdout, re.M
    )


@pytest.mark.caffe
def test_no_compiler_and_no_cmake(run_cli: Cli, programs: Callable[..., str]) -> None:
    path = programs("git", "ninja", "protoc", "h5cc")
    done = run_cli("build", PATH=path)
    assert done.returncode == 1
    assert "cannot build Caffe here:\n  missing: program g++, program cmake, " in done.stderr
    assert "ninja" not in done.stderr
    stub(path, "apt-get", "")
    done = run_cli("build", PATH=path)
    assert re.search(
        r"here:\n  \d+ packages missing: apt-get install g\+\+ cmake [^\n]+\n$", done.stderr
    )


@pytest.mark.caffe
def test_a_caffe_that_works_needs_no_compiler(
    tree: Tree, run_cli: Cli, programs: Callable[..., str]
) -> None:
    done = run_cli("doctor", PATH=programs("git"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Caffe      {tree.python / 'caffe'}\nworks      yes")
    assert re.search(r"^to build +missing: program g\+\+, ", done.stdout, re.M)


def test_without_a_caffe_and_a_compiler_it_fails(
    run_cli: Cli, programs: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe/__init__.py").write_text("import a_module_of_nobody\n")
    done = run_cli("doctor", PATH=programs("git"), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "broken     `import caffe` fails: " in done.stdout
    assert done.stderr.startswith("error: cannot build Caffe here:\n  missing: program g++, ")


@pytest.mark.parametrize("requirement", toolchain.requirements(), ids=lambda r: r.package)
def test_each_missing_package_is_named(
    requirement: toolchain.Requirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_is_met", lambda r: r.package != requirement.package)
    for there, told in (("/usr/bin/apt-get", requirement.package), (None, str(requirement))):
        monkeypatch.setattr(shutil, "which", lambda name, there=there: there)
        with pytest.raises(ClrError, match=rf"missing: .*{re.escape(told)}"):
            toolchain.check()


@pytest.mark.caffe
def test_probes_tell_what_is_there_from_what_is_not() -> None:
    for kind, there, absent in (
        ("program", "g++", "g++-0"),
        ("header", "lmdb.h", "lmdb0.h"),
        ("library", "openblas", "openblas0"),
        ("python-header", "Python.h", "Python0.h"),
        ("python-module", "ensurepip", "ensurepip0"),
    ):
        assert toolchain._is_met(toolchain.Requirement("any", kind, there)), there
        assert not toolchain._is_met(toolchain.Requirement("any", kind, absent)), absent


@pytest.mark.caffe
def test_a_python_without_boost_python_is_told_which_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = toolchain.boost_python_versions()
    monkeypatch.setattr(toolchain, "_PY", "399")
    message = " ".join(toolchain.problems())
    dotted = ", ".join(f"{version[0]}.{version[1:]}" for version in here)
    assert "libboost-python-dev" in message or "library boost_python399" in message
    assert f"this is Python 3.99, but Boost.Python here is built for {dotted}: use that" in message


@pytest.mark.parametrize(("machine", "wants"), [("x86_64", True), ("aarch64", False)])
def test_onednn_is_needed_where_it_is_fast(
    machine: str, wants: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_is_met", lambda requirement: False)
    monkeypatch.setattr("platform.machine", lambda: machine)
    for problems, expected in (
        (toolchain.problems(), wants),
        (toolchain.problems(onednn=True), True),
        (toolchain.problems(onednn=False), False),
    ):
        assert (" libdnnl-dev" in problems[0] or "library dnnl" in problems[0]) == expected


def run_clr(root: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [root / "clr", *(arguments or ["build"])]
    return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)


def stub(path: str, name: str, script: str) -> None:
    file = Path(path) / name
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def copied_clr(root: Path, tmp_path: Path) -> Path:
    """A folder with `clr` and the files that it reads, and nothing that it made."""
    folder = tmp_path / "caffe-clr"
    packages = "python/caffe_clr/harness/debian-packages.txt"
    for name in ("pyproject.toml", "constraints.txt", "clr", packages):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    return folder


def test_clr_without_root_or_sudo_names_what_is_missing(
    root: Path, programs: Callable[..., str]
) -> None:
    path = programs("sh", "sed", "cat", "cksum", "dirname", "date", "readlink")
    stub(path, "id", "echo 1000")
    stub(path, "dpkg-query", 'case "$4" in cmake|libhdf5-dev) ;; *) echo installed ;; esac')
    done = run_clr(root, path)
    assert done.returncode == 1
    assert done.stderr == "error: neither root nor sudo; have these installed: cmake libhdf5-dev\n"


def test_clr_uses_sudo_once_and_says_what_it_installs(
    copied_clr: Path, programs: Callable[..., str], tmp_path: Path
) -> None:
    path = programs(
        "sh", "sed", "cat", "cksum", "dirname", "date", "readlink", "mkdir", "tail", "grep"
    )
    stub(path, "id", "echo 1000")
    stub(path, "dpkg-query", 'case "$4" in cmake|libhdf5-dev) ;; *) echo installed ;; esac')
    stub(path, "sudo", f'echo "$@" >>{tmp_path}/sudo; echo password refused; exit 1')
    done = run_clr(copied_clr, path)
    assert done.returncode == 1
    assert "installing with apt-get: cmake libhdf5-dev" in done.stdout
    log = copied_clr / "build/logs/packages.log"
    assert done.stderr == (
        f"password refused\nerror: setting up packages failed; full log: {log}\n"
    )
    assert (tmp_path / "sudo").read_text().count("apt-get install") == 1
    recorded = copied_clr / "build/debian-packages"
    assert recorded.read_text().split() == ["cmake", "libhdf5-dev"]


def test_clr_on_a_system_without_apt_goes_on_to_what_build_says(
    root: Path, programs: Callable[..., str]
) -> None:
    path = programs("sh", "sed", "cat", "cksum", "dirname", "date", "readlink", "git")
    done = run_clr(root, path, "build")
    assert done.returncode == 1
    assert "missing: program g++, " in done.stderr


def test_clr_installs_nothing_for_a_command_that_does_not_compile(
    root: Path, programs: Callable[..., str]
) -> None:
    path = programs("sh", "sed", "cat", "cksum", "dirname", "date", "readlink", "git")
    stub(path, "id", "echo 1000")
    stub(path, "dpkg-query", 'case "$4" in python3-venv) echo installed ;; esac')
    done = run_clr(root, path, "doctor")
    assert "missing: program g++, " in done.stdout + done.stderr
    done = run_clr(root, path, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_clr_refuses_an_old_python_before_it_installs_anything(
    copied_clr: Path, programs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = programs("sh", "sed", "cat", "cksum", "dirname", "date", "readlink")
    stub(path, "dpkg-query", "")
    stub(path, "old", 'if [ "$1" = --version ]; then echo Python 3.10.12; else exit 1; fi')
    monkeypatch.setenv("PYTHON", f"{path}/old")
    for arguments in (["build"], ["--version"]):
        done = run_clr(copied_clr, path, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error: Python 3.10.12 is too old, caffe-clr needs 3.11 or later: " in done.stderr


def test_clr_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "clr").symlink_to(root / "clr")
    done = subprocess.run([tmp_path / "clr", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "caffe-clr" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["test", "--fast"], ["test", "-k", "labels", "--fast"], ["test", "-k", "fast"]]
)
@pytest.mark.parametrize("minor", [12, 13])
def test_clr_asks_for_no_compiler_where_a_test_needs_none(
    arguments: list[str],
    minor: int,
    root: Path,
    programs: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = programs("sh", "sed", "cat", "cksum", "dirname", "date", "readlink")
    stub(path, "id", "echo 1000")
    stub(path, "dpkg-query", "")
    of_minor = f"import sys; sys.version_info = (3, {minor})"
    stub(path, "python", f'shift; exec {sys.executable} -c "{of_minor}; ${{1#import sys;}}"')
    monkeypatch.setenv("PYTHON", f"{path}/python")
    done = run_clr(root, path, *arguments)
    assert done.returncode == 1
    asked = done.stderr.removeprefix("error: neither root nor sudo; have these installed: ").split()
    assert ("cmake" in asked) == ("--fast" not in arguments)
    assert ("g++" in asked) == ("--fast" not in arguments or minor == 13)  # plyvel-ci is compiled
    assert {"git", "python3-venv"} <= set(asked)


def test_clr_leaves_an_environment_that_it_did_not_make(copied_clr: Path) -> None:
    mine = copied_clr / ".venv" / "lib" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = subprocess.run([copied_clr / "clr", "--version"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{copied_clr}/.venv is an environment that clr did not make; move it" in done.stderr
    assert mine.read_text() == "mine"
