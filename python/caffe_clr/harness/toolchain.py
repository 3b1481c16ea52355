"""Checks that this machine has everything that building Caffe needs.

debian-packages.txt lists the packages, each with a test of its content, so that a
compiler or library from another source than Debian counts as well.
"""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from caffe_clr.errors import ClrError, counted

PACKAGES = Path(__file__).with_name("debian-packages.txt")
_PY = f"{sys.version_info.major}{sys.version_info.minor}"


@dataclass(frozen=True)
class Requirement:
    """A Debian package and what tells that its content is there, as in header:lmdb.h."""

    package: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".replace("-", " ")


def requirements(*extras: str) -> list[Requirement]:
    """What debian-packages.txt lists, for this Python, and with the extras opencv and cuda."""
    listed = []
    section = None
    for line in PACKAGES.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] != "#" and (section is None or section in extras):
            package, probe = line.split()
            listed.append(Requirement(package, *probe.format(py=_PY).split(":", 1)))
    return listed


def has_fast_onednn() -> bool:
    """Whether oneDNN, as distributions build it, has fast code for this machine's processor.

    Theirs has none for ARM without SVE: it lacks the Arm Compute Library.
    """
    return platform.machine() == "x86_64"


def missing(onednn: bool) -> list[Requirement]:
    """The requirements that this machine does not meet; oneDNN is one where it is wanted."""
    return [r for r in requirements() if not _is_met(r) and (onednn or r.name != "dnnl")]


def problems(onednn: bool | None = None) -> list[str]:
    """What keeps this machine from building Caffe, a sentence each; empty where nothing does.

    Args:
        onednn: whether to build with oneDNN. Default: where it is fast.
    """
    if onednn is None:
        onednn = has_fast_onednn()
    lacking = missing(onednn)
    found = [_remedy(lacking)] if lacking else []
    if any(r.package == "libboost-python-dev" for r in lacking):
        versions = boost_python_versions()
        if versions:
            found.append(
                f"this is Python {_dotted(_PY)}, but Boost.Python here is built for"
                f" {', '.join(map(_dotted, versions))}: use that Python"
            )
    if not _is_python_linkable():
        found.append(
            f"{sys.executable} was built without a shared libpython, which the caffe program"
            " needs: use the system's python3"
        )
    return found


def check(onednn: bool | None = None) -> None:
    """Raise ClrError where this machine cannot build Caffe, naming all that is missing."""
    found = problems(onednn)
    if found:
        raise ClrError("\n".join(["cannot build Caffe here:", *(f"  {p}" for p in found)]))


def _remedy(lacking: list[Requirement]) -> str:
    """What is missing, by the names of this system: Debian's packages, or their content."""
    if shutil.which("apt-get"):
        names = " ".join(r.package for r in lacking)
        return f"{counted(len(lacking), 'package')} missing: apt-get install {names}"
    return f"missing: {', '.join(map(str, lacking))}"


def has_opencv() -> bool:
    """Whether the development files of the parts of OpenCV that Caffe uses are here."""
    parts = ("core", "highgui", "imgcodecs", "imgproc")
    return all(_compiler_file(f"libopencv_{part}.so") for part in parts)


def cuda() -> str:
    """The version of CUDA that `nvcc` is of, as in 12.4.

    Raises:
        ClrError: there is none.
    """
    try:
        done = subprocess.run(["nvcc", "--version"], capture_output=True, text=True)
    except FileNotFoundError:
        raise ClrError(
            "--cuda: CUDA's compiler nvcc is not on the PATH (Debian package nvidia-cuda-toolkit,"
            " in contrib and non-free)"
        ) from None
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    if found is None:
        raise ClrError(f"nvcc does not work: {(done.stderr or done.stdout).strip()}")
    return found[1]


def nvidia_library(name: str, header: str) -> Path | None:
    """Where cudnn or nccl is: the folder that holds its include/ and lib/, or None.

    <NAME>_ROOT goes first, then a wheel of this Python environment
    (nvidia-cudnn-cu12, nvidia-nccl-cu12), then the toolkit and the system.
    """
    given = os.environ.get(f"{name.upper()}_ROOT")
    if given:
        return Path(given)
    with contextlib.suppress(ModuleNotFoundError):
        found = importlib.util.find_spec(f"nvidia.{name}")
        if found and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations)))
    toolkit = Path(shutil.which("nvcc") or "").resolve().parent.parent
    if (toolkit / "include" / header).is_file():
        return toolkit
    return Path("/usr") if _compiles(f"#include <{header}>") else None


def version(program: str) -> str:
    """The version number that a program prints of itself, or "missing"."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True)
    except FileNotFoundError:
        return "missing"
    number = re.search(r"\d+(\.\d+)+", done.stdout)
    return number[0] if number else "unknown"


def boost_python_versions() -> list[str]:
    """The Python versions, as in 311, that Boost.Python is installed for."""
    folder = Path(_compiler_file("libboost_system.so") or "/usr/lib/libboost_system.so").parent
    names = (path.name for path in folder.glob("libboost_python3*.so"))
    return sorted(re.sub(r"\D", "", name) for name in names)


def _is_met(requirement: Requirement) -> bool:
    name = requirement.name
    if requirement.kind == "program":
        return shutil.which(name) is not None
    if requirement.kind == "library":
        return _compiler_file(f"lib{name}.so") is not None
    if requirement.kind == "header":
        return _compiles(f"#include <{name}>")
    if requirement.kind == "python-header":
        return (Path(sysconfig.get_path("include")) / name).is_file()
    assert requirement.kind == "python-module", requirement
    return importlib.util.find_spec(name) is not None


def _compiler_file(name: str) -> str | None:
    try:
        done = subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    found = done.stdout.strip()
    return found if "/" in found else None


def _compiles(code: str) -> bool:
    try:
        done = subprocess.run(
            ["g++", "-x", "c++", "-E", "-o", "/dev/null", "-"],
            input=code,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _is_python_linkable() -> bool:
    return bool(sysconfig.get_config_var("Py_ENABLE_SHARED")) or bool(
        _compiler_file(f"libpython{_dotted(_PY)}.so")
    )


def _dotted(version: str) -> str:
    return f"{version[0]}.{version[1:]}"
