"""The results of a comparison: the runs of each solver, a table and a plot."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caffe_clr.errors import counted
from caffe_clr.runs import drawing, history, metrics, notebook
from caffe_clr.runs.drawing import literal
from caffe_clr.runs.history import History, Row
from caffe_clr.runs.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

HEADING = ("solver", "iterations", "final", "best", "reached", "ratio")
_MOST_NAMES = 60  # characters of the names in a title


@dataclass(frozen=True, repr=False)
class Entry:
    """The runs of one solver.

    Attributes:
        histories: the records of each run, by seed.
        diverged: the messages of the runs that diverged, by seed.
        schedule: iteration, lr, cycle, and momentum if it cycles, as schedule.rows returns
            them.
        solver_type: such as SGD or Adam.
    """

    name: str
    metric: Metric
    max_iter: int
    histories: dict[int, History]
    diverged: dict[int, str]
    schedule: Sequence[Mapping[str, Any]]
    solver_type: str = "SGD"

    @property
    def is_cyclical(self) -> bool:
        """Whether its rate has cycles, in any stage."""
        return any(row.get("cycle") is not None for row in self.schedule)

    def curve(self) -> list[Row]:
        """Rows with iteration, lr, mean, low and high, where all seeds have the metric."""
        seeds = [self.metric.rows(history) for history in self.histories.values()]
        return metrics.over_seeds(seeds, self.metric.name)

    def rates(self) -> dict[float, float]:
        """The learning rate by iteration, up to the last iteration that any seed recorded."""
        return self._scheduled("lr")

    def momenta(self) -> dict[float, float]:
        """The momentum by iteration, likewise; empty if it does not cycle."""
        return self._scheduled("momentum")

    def _scheduled(self, name: str) -> dict[float, float]:
        recorded = (
            row["iteration"]
            for history in self.histories.values()
            for row in history.train + history.test
        )
        last = max(recorded, default=0)
        return {
            row["iteration"]: row[name]
            for row in self.schedule
            if name in row and row["iteration"] <= last
        }

    def finals(self) -> list[float]:
        """The last value of each seed that reached max_iter."""
        return [self._values(seed)[-1] for seed in self._whole()]

    def bests(self) -> list[float]:
        """The best value of each seed that reached max_iter."""
        return [self.metric.best(self._values(seed)) for seed in self._whole()]

    def reached(self, value: float) -> int | None:
        """The iteration at which the solver is as good as `value`; None if it never is.

        It is that of the first of two tests in a row in which the mean over the seeds is, so
        that a single lucky test does not count. The last test counts alone. Seeds that did
        not reach max_iter are left out. Where nothing is tested, displays count instead.
        """
        seeds = [self.metric.rows(self.histories[seed]) for seed in self._whole()]
        rows = metrics.over_seeds(seeds, self.metric.name) if seeds else []
        good = [self.metric.best(row["mean"], value) == row["mean"] for row in rows]
        in_a_row = zip(rows, pairwise([*good, True]), strict=True)
        return next((int(row["iteration"]) for row, both in in_a_row if all(both)), None)

    def _whole(self) -> list[int]:
        return [seed for seed in self.histories if seed not in self.diverged and self._ends(seed)]

    def _ends(self, seed: int) -> bool:
        """Whether the last row of a seed is a result."""
        history = self.histories[seed]
        recorded = history.test if self.metric.of_test else history.train
        return self.metric.rows(history)[-1:] == recorded[-1:] != []

    def _values(self, seed: int) -> list[float]:
        return [row[self.metric.name] for row in self.metric.rows(self.histories[seed])]

    def to_frame(self) -> "DataFrame":
        """The rows of `curve` as a pandas DataFrame.

        Raises:
            ClrError: pandas is not installed.
        """
        return history.frame(self.curve())

    def __repr__(self) -> str:
        lost = f", {len(self.diverged)} diverged" if self.diverged else ""
        return f"Entry({self.name!r}, {counted(len(self.histories), 'run')}{lost})"


@dataclass(frozen=True)
class TableLine:
    """One line of the comparison table.

    Attributes:
        final: mean and standard deviation over the seeds; None if no seed has a result.
        best: the same for the best value of each seed.
        reached: iterations until the mean over the seeds is as good as that of the first
            solver at its end, in two tests in a row (see Entry.reached); None if it never is.
            The first solver gets there at its end at the latest.
        ratio: `reached` divided by that of the first solver.
    """

    name: str
    seeds: int
    diverged: int
    iterations: int
    final: tuple[float, float] | None
    best: tuple[float, float] | None
    reached: int | None
    ratio: float | None

    def row(self) -> dict[str, Any]:
        """The line with a column for each number, as in comparison.csv."""
        numbers = {key: value for key, value in vars(self).items() if key not in ("final", "best")}
        for key, values in (("final", self.final), ("best", self.best)):
            mean, deviation = values or (None, None)
            numbers |= {f"{key}_mean": mean, f"{key}_deviation": deviation}
        return numbers


class Comparison(list[Entry]):
    """The entry of each solver; the first is the baseline."""

    @property
    def metric(self) -> Metric:
        """The output that all are judged by."""
        return self[0].metric

    @property
    def title(self) -> str:
        """What the table shows, and of how many seeds."""
        label, net = self.metric.label, self.metric.net
        where = f" of test net #{net}" if net else ""
        seeds = len(self[0].histories)
        told = counted(seeds, "seed") if seeds > 1 else "one seed"
        return f"{label[:1].upper()}{label[1:]}{where}, {told}"

    def table(self) -> list[TableLine]:
        """A line for each solver."""
        finals = self[0].finals() if self else []
        goal = statistics.fmean(finals) if finals else None
        reached = [None if goal is None else entry.reached(goal) for entry in self]
        return [
            TableLine(
                name=entry.name,
                seeds=len(entry.histories),
                diverged=len(entry.diverged),
                iterations=entry.max_iter,
                final=_mean_and_spread(entry.finals()),
                best=_mean_and_spread(entry.bests()),
                reached=iterations,
                ratio=iterations / reached[0] if iterations is not None and reached[0] else None,
            )
            for entry, iterations in zip(self, reached, strict=True)
        ]

    def plot(self, title: str = "") -> "Figure":
        """Draw the metric of each solver over the iterations, with its learning rate below.

        Lines are means over the seeds; bands span the lowest to the highest seed. Lines are
        dashed where the rate has no cycles. Each solver type has a hue; if there is one type,
        each solver has. Momenta are drawn at the bottom if they cycle.

        Args:
            title: what is compared, by default the names of the solvers; a line about the
                seeds is added.
        """
        moving = any(entry.momenta() for entry in self)
        heights = [2.4, 1, 1] if moving else [2.4, 1]
        figure = drawing.figure(8, 1.6 * sum(heights))
        upper, *lower = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        metric = self.metric
        curves = [_columns(entry.curve()) for entry in self]
        scale = metric.scale(max((value for *_, high in curves for value in high), default=0))
        styles = drawing.styles(
            [entry.solver_type for entry in self], [entry.is_cyclical for entry in self]
        )
        for entry, style, (at, _, low, high) in zip(self, styles, curves, strict=True):
            if len(entry.histories) > 1:
                band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
                upper.fill_between(at, scale * low, scale * high, **band)
        marked = [
            {**style, "marker": drawing.marker(len(at))}
            for style, (at, *_) in zip(styles, curves, strict=True)
        ]
        lines = drawing.draw(upper, [(at, scale * mean) for at, mean, *_ in curves], marked)
        upper.set(ylabel=literal(metric.label, 40, 1), ylim=_where_they_differ(self, scale))
        for axes, scheduled in zip(lower, (Entry.rates, Entry.momenta), strict=False):
            drawing.draw(axes, [drawing.as_curve(scheduled(entry)) for entry in self], styles)
        drawing.rates_from_zero(lower[0])
        if lower[0].dataLim.x1 > 0:
            lower[0].set(xlim=(0, None))
        if moving:
            lower[1].set(ylabel="momentum")
        drawing.over_iterations(lower[-1])
        for axes in (upper, *lower):
            drawing.plain(axes)
        drawing.title(upper, title or compared(self), _of_seeds(self))
        drawing.key(figure, dict(zip(map(_label, self), lines, strict=True)))
        figure.align_ylabels()
        return figure

    def to_frame(self) -> "DataFrame":
        """The table as a pandas DataFrame, with a row for each solver.

        Raises:
            ClrError: pandas is not installed.
        """
        return history.frame([line.row() for line in self.table()])

    def __repr__(self) -> str:
        told = [f"{cells[0]}: {cells[2]}" for cells in map(self.cells, self.table())]
        return f"Comparison({', '.join(told)})"

    def _repr_html_(self) -> str:
        """The table and the plot, for a notebook."""
        if not self:
            return escape(repr(self))
        lines = self.table()
        cells = list(map(self.cells, lines))
        shown = notebook.table(HEADING, cells, self.notes(lines), caption=self.title)
        return shown + drawing.html(self.plot())

    def cells(self, line: TableLine) -> list[str]:
        """A line of the table as it is shown."""
        return [
            line.name,
            f"{line.iterations:,}",
            _spread(line.final, line, self.metric),
            _spread(line.best, line, self.metric),
            "never" if line.reached is None else f"{line.reached:,}",
            "" if line.ratio is None else f"{line.ratio:.2f}",
        ]

    def notes(self, lines: Sequence[TableLine]) -> list[str]:
        """What the columns of the table are."""
        first = lines[0]
        run = "the mean of the seeds" if first.seeds > 1 else "a run"
        notes = [
            f"reached: iterations until {run} is as good as {first.name} at its end,"
            f" in two {'tests' if self.metric.of_test else 'displays'} in a row",
            f"ratio: reached, divided by that of {first.name}",
        ]
        return ["±: standard deviation over the seeds", *notes][first.seeds == 1 :]


def compared(entries: Sequence[Entry], net: str = "") -> str:
    """What is compared, for a title: the net if it has a name, and the solvers."""
    *most, last = (entry.name for entry in entries)
    names = f"{', '.join(most)} and {last}" if most else last
    if len(names) > _MOST_NAMES:
        names = f"{len(entries)} solvers"
    return f"{net}: {names}" if net else names


def _where_they_differ(entries: Sequence[Entry], scale: float) -> tuple[float, float]:
    """The limits of the values that come after the first tenth of each curve."""
    values = [
        scale * row[end]
        for curve in map(Entry.curve, entries)
        for row in curve
        if row["iteration"] >= curve[-1]["iteration"] / 10
        for end in ("low", "high")
    ]
    values = [value for value in values if np.isfinite(value)] or [0, 1]
    margin = 0.05 * (max(values) - min(values)) or 1
    return min(values) - margin, max(values) + margin


def _of_seeds(entries: Sequence[Entry]) -> str:
    """What the lines and bands of a comparison are."""
    counts = sorted({len(entry.histories) for entry in entries})
    if counts[-1] == 1:
        return "one run each" if len(entries) > 1 else "one run"
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"mean of {seeds} seeds, band: lowest to highest"


def _label(entry: Entry) -> str:
    """The name of an entry, and how many of its runs diverged."""
    lost, runs = len(entry.diverged), len(entry.histories)
    how_many = f"{lost} of {runs} " if lost < runs else ""
    return f"{entry.name} ({how_many}diverged)" if lost else entry.name


def _columns(rows: Sequence[Row]) -> tuple[NDArray[np.float64], ...]:
    return tuple(
        np.array([row[key] for row in rows]) for key in ("iteration", "mean", "low", "high")
    )


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    if not all(map(math.isfinite, values)):  # as a test's loss may be
        return statistics.fmean(values), math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _spread(values: tuple[float, float] | None, line: TableLine, metric: Metric) -> str:
    if values is None:
        return "diverged" if line.diverged == line.seeds else "no result"
    mean, deviation = values
    scale = metric.scale(mean)
    shown = f"{scale * mean:.2f}" if metric.is_accuracy else f"{mean:.4g}"
    if line.seeds == 1:
        return shown
    return f"{shown} ± {scale * deviation:.2{'f' if metric.is_accuracy else 'g'}}"
