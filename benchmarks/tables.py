"""Formats the tables, with the machine and the versions below each."""

import ctypes
import datetime
import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from caffe_clr import locations
from caffe_clr.cli import console as shown
from caffe_clr.cli.report import ConsoleReport
from caffe_clr.harness import source, toolchain

# the tables fit into the lines of a README
console = Console(highlight=False, width=100)
report = ConsoleReport(console)


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def table(title: str, first: str, headings: Sequence[str], notes: Sequence[str]) -> Table:
    """An empty table: a column of names, then numbers; the machine and the notes below."""
    caption = "\n".join([machine(), *notes])
    return shown.table(title, [first], headings, caption=caption, caption_justify="left")


def machine() -> str:
    """The processor, the date and the versions of what is measured."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in information if line.startswith("model name")]
    caffe = source.load_upstream(locations.shipped("caffe_patch")).revision
    versions = {
        "Caffe": caffe,
        "g++": toolchain.version("g++"),
        "OpenBLAS": _openblas(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "PyTorch": importlib.metadata.version("torch") if has_torch() else "",
    }
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    where = f"{models[0] if models else platform.machine()}, {len(models)} cores"
    return f"{where}, {datetime.date.today()}\n{known}"


def quartiles(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    """The median, the first and the third quartile."""
    first, median, third = np.percentile(values, [25, 50, 75])
    return float(median), float(first), float(third)


def significant(value: float) -> str:
    """Three significant digits, or every digit before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def spread(values: tuple[float, float, float]) -> str:
    """The quartiles, as in 1.20-1.30."""
    return "-".join(map(significant, values[1:]))


def ratio(values: tuple[float, float, float]) -> str:
    """A median with its quartiles, as in 0.45 (0.44-0.46)."""
    return "{:.2f} ({:.2f}-{:.2f})".format(*values)


def _openblas() -> str:
    """The version and the kernels of the OpenBLAS that Caffe is linked with, if it is found."""
    try:
        library = ctypes.CDLL("libopenblas.so.0")
    except OSError:
        return ""
    for function in (library.openblas_get_config, library.openblas_get_corename):
        function.restype = ctypes.c_char_p
    version = library.openblas_get_config().decode().split()[1]
    return f"{version} ({library.openblas_get_corename().decode()})"
