"""Times an iteration of two ranks with one thread each, beside one process with two threads."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from rich.progress import track

from benchmarks import builds, nets, tables
from benchmarks.workers import Worker, started
from caffe_clr import prototxt

RANKS = 2
ALONE, TOGETHER = "1 process, 2 threads", "2 ranks, 1 thread each"


def show(names: Sequence[str], repeats: int) -> None:
    """Measure the nets, and print a table.

    Args:
        names: of nets.OF_RANKS.
        repeats: how many blocks of iterations each does.
    """
    this = builds.this_build(tables.report)
    notes = [
        f"ms: median and quartiles of {repeats} blocks of iterations, in turns",
        "/ 1 process: median and quartiles of the ratio; both train on the same number of images",
        "MB: the gradients of an iteration",
        "averaging: theirs, by MPI, with the wait for the slower rank",
        "every batch is in memory",
    ]
    headings = ("ms", "quartiles", "/ 1 process", "averaging ms", "of the time")
    table = tables.table("Time of an iteration on two ranks", "", headings, notes)
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        for net in nets.in_memory(this, Path(folder)):
            if net.name not in names:
                continue
            subjects = {
                ALONE: Worker(["caffe", str(net.triangular2)], RANKS, this),
                TOGETHER: Worker(["rank", str(_of_a_rank(net))], 1, this, ranks=RANKS),
            }
            blocks: dict[str, list[float]] = {name: [] for name in subjects}
            averaging = []
            with started(subjects) as workers:
                for worker in workers.values():
                    worker.step(2)  # the first iterations allocate
                workers[TOGETHER].averaging()
                for _ in track(range(repeats), net.name, console=tables.console, transient=True):
                    for name, worker in workers.items():
                        blocks[name].append(float(np.median(worker.step(net.block))))
                    averaging.append(float(np.median(workers[TOGETHER].averaging())))
                megabytes = 4 * workers[ALONE].facts["parameters"] / 1e6
            table.add_row(f"{net.name}, {megabytes:,.1f} MB", style="bold")
            alone, together = (np.array(blocks[name]) for name in (ALONE, TOGETHER))
            table.add_row(f"  {ALONE}", *_times(alone), "1")
            ratio = tables.ratio(tables.quartiles(together / alone))
            averaged = np.array(averaging)
            share = f"{np.median(averaged / together):.0%}"
            mean = tables.significant(float(np.median(averaged)))
            table.add_row(f"  {TOGETHER}", *_times(together), ratio, mean, share)
            table.add_section()
    tables.console.print(table)


def _of_a_rank(net: nets.Net) -> Path:
    """The solver with a rank's share of the batch."""
    parameter = prototxt.read_solver(net.triangular2)
    layers = prototxt.read_net(Path(parameter.net))
    for shape in layers.layer[0].input_param.shape:
        shape.dim[0] //= RANKS
    file = net.triangular2.with_name(f"{net.name}_of_a_rank.prototxt")
    file.write_text(text_format.MessageToString(layers))
    parameter.net = str(file)
    solver = file.with_name(f"{net.name}_of_a_rank_solver.prototxt")
    solver.write_text(text_format.MessageToString(parameter))
    return solver


def _times(blocks: np.ndarray) -> tuple[str, str]:
    milliseconds = tables.quartiles(blocks)
    return tables.significant(milliseconds[0]), tables.spread(milliseconds)
