"""OpenBLAS on a CPU that it does not know, which it takes for a Prescott."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT = """
import ctypes, os, sys

blas = ctypes.CDLL("libopenblas.so.0")
blas.openblas_get_corename.restype = ctypes.c_char_p
chosen = blas.openblas_get_corename().decode()
if "forget" in sys.argv:
    del os.environ["OPENBLAS_CORETYPE"]
    ctypes.CDLL(None).unsetenv(b"OPENBLAS_CORETYPE")
import caffe
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(chosen, blas.openblas_get_corename().decode(), getenv(b"OPENBLAS_CORETYPE"))
"""
pytestmark = pytest.mark.usefixtures("tree")


def kernels(*arguments: str) -> list[str]:
    """The kernels before and after the import, and OPENBLAS_CORETYPE then.

    With "forget", OpenBLAS has chosen the Prescott's as if by itself.
    """
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *arguments],
        env={"PATH": "/usr/bin:/bin", "OPENBLAS_CORETYPE": "Prescott"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def fit() -> str:
    """The kernels that suit this machine."""
    flags = set()
    if platform.machine() == "x86_64":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = set(next(line for line in lines if line.startswith("flags")).split())
    if not flags >= {"avx2", "fma"}:
        return "Prescott"
    avx512 = flags >= {f"avx512{part}" for part in ("f", "cd", "bw", "dq", "vl")}
    return "SkylakeX" if avx512 else "Haswell"


def test_an_unknown_cpu_gets_the_kernels_for_its_instructions() -> None:
    assert kernels("forget") == ["Prescott", fit(), "None"]


def test_the_users_choice_is_kept() -> None:
    assert kernels() == ["Prescott", "Prescott", "b'Prescott'"]
