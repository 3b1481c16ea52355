"""The result of a range test: its curves, the suggested bounds, a table and a plot."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_clr.errors import ClrError
from caffe_clr.method.suggestions import Suggestions
from caffe_clr.method.sweeps import Step
from caffe_clr.runs import drawing, history, notebook
from caffe_clr.runs.drawing import GREY, HUES, literal
from caffe_clr.runs.history import Row
from caffe_clr.runs.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_BADGE = 0.04  # of the width of a panel


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The result of a range test.

    Attributes:
        rows: one row for each test: iteration, lr, the metric (the mean over the seeds)
            and, with several seeds, its lowest and highest value as <metric>_low and
            <metric>_high.
        losses: the mean training loss at each display, with its lr.
        diverged_at: the lowest rate at which a seed diverged, if one did.
        stopped: a message if a seed diverged, else empty.
        others: the outputs of the tests that are not judged.
        guess: what else a sweep is judged by; see suggestions.swept.
        chance, epochs: what else a test in a given range is judged by; see
            suggestions.suggest.
        iterations: how many were trained, over all seeds and steps.
        steps: the tests by which the range was found, if it was not given. The rows and
            losses are those of the last.
        solvers: the solver files that were written with the bounds, as stages of a run.
    """

    metric: Metric
    seeds: Sequence[int]
    rows: list[Row]
    losses: list[Row]
    diverged_at: float | None
    suggestions: Suggestions
    stopped: str = ""
    others: Sequence[str] = ()
    chance: float | None = None
    guess: float | None = None
    epochs: float | None = None
    iterations: int = 0
    steps: Sequence[Step] = ()
    solvers: list[Path] = field(default_factory=list)

    def plot(self, title: str = "") -> "Figure":
        """Draw accuracy and training loss against the rate, with the suggested cycle.

        The axis of the rate is logarithmic if the rates are spaced by factors. Losses above
        twice those at the start are cut off. Without recorded training losses, only the
        accuracy is drawn; without tests, only the loss. The bounds, the rate where the curve
        turns and the one where training diverges are numbered, with a key below.

        Args:
            title: the title of the plot; a line about the seeds is added.

        Raises:
            ClrError: nothing is recorded.
        """
        if not self.rows:
            raise ClrError("nothing is recorded; there is nothing to plot")
        heights = [2, 1] if self.losses and self.metric.of_test else [2]
        figure = drawing.figure(8, 1.2 + 1.4 * sum(heights))
        grid = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
        panels = list(grid.flat)
        name = self.metric.name
        rates = np.array([row["lr"] for row in self.rows])
        values = np.array([row[name] for row in self.rows])
        scale = self.metric.scale(values.max())
        upper, *lower = panels
        upper.plot(rates, scale * values, color=HUES[0], marker=".", markersize=5)
        has_band = f"{name}_low" in self.rows[0]
        if has_band:
            low, high = (
                scale * np.array([row[f"{name}_{end}"] for row in self.rows])
                for end in ("low", "high")
            )
            upper.fill_between(rates, low, high, color=HUES[0], alpha=0.2, linewidth=0)
        for axes in lower:
            losses = [row["loss"] for row in self.losses]
            axes.plot([row["lr"] for row in self.losses], losses, color=GREY)
            drawing.until_it_diverges(axes, losses)
        if not self.metric.is_accuracy:
            drawing.until_it_diverges(upper, list(values))
        for axes, label in zip(panels, (self.metric.label, "training loss"), strict=False):
            axes.set(ylabel=literal(label, 24, 1))
            drawing.plain(axes)
        drawing.over_rates(upper, list(rates))
        panels[-1].set(xlabel="learning rate")
        levels = _mark_rates(self, panels)
        count = len(self.seeds)
        mean = f"mean of {count} seeds" if count > 1 else "mean of the seeds" if has_band else ""
        band = ", band: lowest to highest" if has_band else ""
        drawing.title(upper, title, mean + band, pad=8 + 14 * levels)
        figure.align_ylabels()
        return figure

    def to_frame(self) -> "DataFrame":
        """The rows as a pandas DataFrame.

        Raises:
            ClrError: pandas is not installed.
        """
        return history.frame(self.rows)

    def __repr__(self) -> str:
        bounds = (f"{name}={_shown(bound.rate)}" for name, bound in self.suggestions.bounds.items())
        return f"RangeTest({', '.join(bounds)})"

    def _repr_html_(self) -> str:
        """The bounds and the plot, for a notebook."""
        bounds = self.suggestions.bounds
        cells = [[name, _shown(bound.rate), bound.reason] for name, bound in bounds.items()]
        notes = [f"Solver: {file}" for file in self.solvers]
        if self.stopped and not self.steps:
            notes.insert(0, self.stopped)
        shown = notebook.table(["", "rate", "why"], cells, notes)
        return shown + drawing.html(self.plot()) if self.rows else shown


def _shown(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.2g}"


def _mark_rates(result: RangeTest, panels: Sequence["Axes"]) -> int:
    """The suggested cycle and the rates that matter, each with a number and a line in the key.

    Returns:
        How many rows the numbers take above the plot.
    """
    labels: dict[str, Any] = {}
    last, level, levels = -math.inf, 0, 0
    figure, top = panels[0].get_figure(root=True), panels[0]
    for number, (rate, label, colour, dash) in enumerate(_rates_that_matter(result), 1):
        for axes in panels:
            line = axes.axvline(rate, color=colour, linestyle=dash, linewidth=1.4, zorder=1)
        labels[f"{number}  {label}"] = line
        at = top.transAxes.inverted().transform(top.transData.transform((rate, 0)))[0]
        level = level + 1 if at - last < _BADGE else 0
        last, levels = at, max(levels, level + 1)
        top.annotate(
            str(number),
            (rate, 1),
            (0, 9 + 14 * level),
            xycoords=top.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color="white",
            bbox={"boxstyle": "circle,pad=0.25", "color": colour},
        )
    base_lr, max_lr = result.suggestions.base_lr.rate, result.suggestions.max_lr.rate
    if base_lr is not None and max_lr is not None:
        for axes in panels:
            span = axes.axvspan(base_lr, max_lr, color=HUES[2], alpha=0.12, zorder=0, linewidth=0)
        labels["the suggested cycle"] = span
    if figure and labels:
        drawing.key(figure, labels)
    return levels


def _rates_that_matter(result: RangeTest) -> Iterator[tuple[float, str, str, str]]:
    """Rate, label, colour and dash of each mark of a range test, from the lowest rate up."""
    found = result.suggestions
    for (name, bound), colour in zip(found.bounds.items(), HUES[1:], strict=False):
        if bound.rate is not None:
            yield bound.rate, f"{name} {bound.rate:.2g}", colour, "--"
    if found.turn is not None:
        best = "highest" if result.metric.is_accuracy else "lowest"
        output = result.metric.label.removesuffix(" (%)")
        what = "lowest training loss" if found.by_loss else f"{best} {output}"
        yield found.turn, f"{what}, at {found.turn:.3g}", "black", ":"
    if result.diverged_at is not None:
        yield result.diverged_at, f"diverged, at {result.diverged_at:.3g}", "#b2182b", "-"
