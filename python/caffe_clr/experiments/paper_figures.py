"""Reads the lines of the paper's figures."""

from collections.abc import Mapping
from pathlib import Path

from caffe_clr import prototxt
from caffe_clr.experiments.paper import Figure, Row
from caffe_clr.method import schedule
from caffe_clr.method.results import Entry
from caffe_clr.runs.history import History, read_table
from caffe_clr.runs.metrics import Metric

Tests = Mapping[str, Mapping[int, Path]]  # CSVs by the name of the row, and by seed


def entries(figure: Figure, tests: Tests) -> list[Entry]:
    """The lines of a figure that have tests, for plots.plot_comparison."""
    return [
        _entry(label, row, tests[row.name])
        for label, row in figure.lines.items()
        if tests.get(row.name)
    ]


def _entry(label: str, row: Row, tests: Mapping[int, Path]) -> Entry:
    stages = schedule.read_stages(row.solvers)
    return Entry(
        name=label,
        metric=Metric(row.metric, of_test=True, is_accuracy=True),
        max_iter=row.iterations,
        histories={seed: History([], read_table(file)[0]) for seed, file in tests.items()},
        diverged={},
        schedule=schedule.rows(stages),
        solver_type=prototxt.solver_type(stages[-1].solver),
    )
