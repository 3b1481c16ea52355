"""Times training iterations of this build, stock Caffe and PyTorch in turns."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import builds, nets, tables
from benchmarks.workers import INSTRUCTIONS, Worker, started
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree

THIS, STOCK, TORCH, CHANNELS_LAST = (
    *("this build", "stock Caffe"),
    *("PyTorch", "channels_last"),
)
LIMIT = "SGEMM"

Times = dict[str, NDArray[np.float64]]


def show(names: Sequence[str], repeats: int, threads: Sequence[int]) -> None:
    """Measure the nets with each number of threads, and print a table.

    Args:
        names: of benchmarks.nets.NETS.
        repeats: how many blocks of iterations each of them does.
    """
    this, stock = builds.this_build(tables.report), builds.stock(tables.report)
    notes = [
        f"ms: median and quartiles of {repeats} blocks of iterations; the subjects take turns",
        "(1, AVX2): the number of threads, and the vector instructions: oneDNN, PyTorch and"
        " OpenBLAS use no newer ones",
        "/ stock, / PyTorch, / channels_last: median and quartiles of the ratio to that row",
        "this build uses triangular2, PyTorch CyclicLR, stock Caffe a fixed rate",
        "channels_last: PyTorch with tensors in that memory format",
        f"{LIMIT}: NumPy's time for the net's multiply-adds as products of large matrices",
        "Caffe reads cifar10_full and digits from an LMDB; every other batch is in memory",
    ]
    if not tables.has_torch():
        notes[-1] = "PyTorch is not installed, so its rows are missing"
    headings = ("ms", "quartiles", "/ stock", "/ PyTorch", "/ channels_last")
    table = tables.table("Time of a training iteration", "", headings, notes)
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        for net in nets.make(names, this, Path(folder)):
            for count, each in itertools.product(threads, instructions()):
                table.add_row(f"{net.name} ({count}, {each})", style="bold")
                times = measure(net, count, each, repeats, this, stock)
                for subject, blocks in times.items():
                    table.add_row(f"  {subject}", *_cells(times, blocks))
                table.add_section()
    tables.console.print(table)


def instructions() -> list[str]:
    """Those of workers.INSTRUCTIONS that this processor has."""
    has_all = "avx512f" in Path("/proc/cpuinfo").read_text()
    return [each for each in INSTRUCTIONS if has_all or each != "AVX-512"]


def measure(
    net: nets.Net, threads: int, instructions: str, repeats: int, this: Tree, stock: Tree
) -> Times:
    """The milliseconds of iterations, blocks x iterations, by subject."""

    def subject(*arguments: str, tree: Tree | None = None) -> Worker:
        return Worker(list(arguments), threads, tree, instructions)

    subjects = {
        THIS: subject("caffe", str(net.triangular2), tree=this),
        STOCK: subject("caffe", str(net.fixed), tree=stock),
    }
    if tables.has_torch():
        subjects[TORCH] = subject("torch", net.name, "contiguous_format")
        subjects[CHANNELS_LAST] = subject("torch", net.name, "channels_last")
    subjects[LIMIT] = subject("matmul")
    blocks: dict[str, list[list[float]]] = {name: [] for name in subjects}
    with started(subjects):
        _check_same_net(net.name, subjects)
        for worker in subjects.values():
            worker.step(2)  # the first iterations allocate
        description = f"{net.name}, {threads} threads, {instructions}"
        for _ in track(range(repeats), description, console=tables.console, transient=True):
            for name, worker in subjects.items():
                blocks[name].append(worker.step(net.block))
        times = {name: np.array(each) for name, each in blocks.items()}
        multiply_adds = subjects[THIS].facts["multiply_adds"]
        times[LIMIT] *= multiply_adds / subjects[LIMIT].facts["multiply_adds"]
    return times


def _check_same_net(name: str, subjects: dict[str, Worker]) -> None:
    counts = {
        subject: worker.facts["parameters"]
        for subject, worker in subjects.items()
        if "parameters" in worker.facts
    }
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{subject}: {count:,}" for subject, count in counts.items())
        raise ClrError(f"{name} differs between the subjects; parameters: {listed}")


def _cells(times: Times, blocks: NDArray[np.float64]) -> list[str]:
    milliseconds = tables.quartiles(blocks)
    cells = [tables.significant(milliseconds[0]), tables.spread(milliseconds)]
    for other in (STOCK, TORCH, CHANNELS_LAST):
        if other not in times:
            continue
        if times[other] is blocks:
            cells.append("1")
            continue
        paired = np.median(blocks, axis=1) / np.median(times[other], axis=1)
        cells.append(tables.ratio(tables.quartiles(paired)))
    return cells
