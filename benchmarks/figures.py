"""Draws the figures in models/ from the recorded runs, and the plot of the policies."""

from dataclasses import replace
from pathlib import Path

from benchmarks import tables
from caffe_clr.experiments import paper, paper_figures
from caffe_clr.method import curves, plots, suggestions
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.runs.history import read_table
from caffe_clr.runs.metrics import TRAINING_LOSS

_PAPERS_CYCLE = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}  # on CIFAR-10
_POLICIES = {
    "triangular": _PAPERS_CYCLE,
    "triangular2": _PAPERS_CYCLE,
    "exp_range": {**_PAPERS_CYCLE, "gamma": 0.99994},
    "decay": {"base_lr": 0.001, "max_lr": 0.007, "stepsize": 4000},
}


def draw(root: Path, out: Path) -> None:
    """Draw every figure from what is recorded in the checkout at `root`.

    Args:
        out: where the figures go, into folders like the checkout's.
    """
    for table in paper.tables(root / "models").values():
        tests = paper.recorded(table.rows.values())
        for figure in table.figures:
            picture = _new(out / "models" / table.folder.name / "results" / f"{figure.name}.png")
            plots.plot_comparison(paper_figures.entries(figure, tests), figure.title, picture)
            tables.console.print(f"Plot: {picture}", soft_wrap=True)
    for model, result in (("cifar10_full", _paper_test(root)), ("digits", _sweep(root))):
        picture = _new(out / "models" / model / "results" / "range_test.png")
        plots.plot_range_test(result, f"LR range test of {model}", picture)
        tables.console.print(f"Plot: {picture}", soft_wrap=True)
    picture = _new(out / "caffe_patch" / "policies.png")
    plots.plot_policies(_POLICIES, picture)
    tables.console.print(f"Plot: {picture}", soft_wrap=True)


def _new(picture: Path) -> Path:
    picture.parent.mkdir(parents=True, exist_ok=True)
    return picture


def _paper_test(root: Path) -> RangeTest:
    """The paper's test of cifar10_full."""
    results = root / "models" / "cifar10_full" / "results"
    return replace(curves.read(results / "range_test.csv"), seeds=(1, 2, 3))


def _sweep(root: Path) -> RangeTest:
    """The last sweep of the digits' range test, in whose last row a seed diverged."""
    rows, _ = read_table(root / "models" / "digits" / "results" / "sweep.csv")
    columns = ([row[name] for row in rows] for name in ("iteration", "lr", "loss"))
    diverged_at = rows[-1]["lr"]
    suggested = suggestions.swept(*columns, diverged_at=diverged_at)
    return RangeTest(TRAINING_LOSS, (1701, 1702, 1703), rows, rows, diverged_at, suggested)
