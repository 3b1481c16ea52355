"""Measures the test accuracy within an epoch, for solvers that test only at its end.

Caffe reads a data set in the same order in every epoch, so such a solver always tests
after the same batches.
"""

from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks import tables
from caffe_clr import prototxt
from caffe_clr.errors import UsageError
from caffe_clr.preflight import epochs
from caffe_clr.runs import metrics, run_folder, solvers
from caffe_clr.runs.history import write_csv

_TESTS = 25


def show(solver_file: Path, snapshot: Path, csv: Path) -> None:
    """Train for an epoch more, as the solver would go on, print a table and write the tests.

    Args:
        snapshot: the .solverstate of an iteration that starts an epoch; its
            .caffemodel is beside it.
        csv: iteration, rate and accuracy of each test.

    Raises:
        ClrError: the snapshot is not one of this solver.
        UsageError: it is not of an epoch's start, the net is not tested, or there
            is no folder to write to.
    """
    if not csv.parent.is_dir():
        raise UsageError(f"{csv}: the folder {csv.parent} does not exist")
    file = prototxt.open_solver(solver_file)
    metric = metrics.metric_of(file)
    if not metric.is_accuracy:
        raise UsageError(f"{solver_file}: the net has no test accuracy")
    epoch = epochs.epoch(file).iterations
    parameter = file.parameter
    parameter.display = 0
    solver = solvers.load_solver(solvers.only_training(parameter))
    solvers.restore(solver, snapshot, snapshot.with_suffix(".caffemodel"))
    start = solver.iter
    if start % epoch:
        raise UsageError(
            f"{snapshot}: iteration {start:,} is not the start of an epoch of {epoch:,}"
            " iterations; a restored solver reads the data from the first image"
        )
    rows = []
    for test in track(range(_TESTS + 1), "Training", transient=True, console=tables.console):
        solver.step(start + test * epoch // _TESTS - solver.iter)
        *_, means = solvers.test(solver, list(parameter.test_iter))
        rows.append({"iteration": solver.iter, "lr": solver.lr, "accuracy": means[metric.name]})
    write_csv(rows, csv)
    values = [100 * row["accuracy"] for row in rows[1:]]
    headings = ("iteration", "lr", "accuracy (%)", "mean", "lowest", "highest")
    notes = [f"mean, lowest, highest: over {_TESTS} tests in the next epoch"]
    table = tables.table("Test accuracy within an epoch", "solver", headings, notes)
    table.add_row(
        run_folder.solver_name(solver_file),
        f"{start:,}",
        f"{rows[0]['lr']:.3g}",
        f"{100 * rows[0]['accuracy']:.1f}",
        f"{np.mean(values):.1f}",
        f"{min(values):.1f}",
        f"{max(values):.1f}",
    )
    tables.console.print(table)
