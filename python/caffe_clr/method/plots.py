"""Draws runs, comparisons, range tests and schedules as PNG files."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caffe_clr import policies
from caffe_clr.method.results import Entry, RangeTest
from caffe_clr.runs import metrics
from caffe_clr.runs.history import OWN_COLUMNS, History, Phase, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# distinguishable with any colour vision, and in print
_COLOURS = ("#666666", "#0072b2", "#d55e00", "#009e73")
_CURVE_COLOURS = (*_COLOURS[1:], "#cc79a7", "#56b4e9", "#e69f00", _COLOURS[0])
_MOST_MARKED = 100  # points of a line
_NO_CURVES = (*OWN_COLUMNS, "output loss")  # of which "loss" is the mean

Points = dict[float, float]  # values by iteration


def plot_policies(shown: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw policies side by side, over 12,000 iterations and with rates up to 0.0075.

    Args:
        shown: the solver fields of each policy, by its name.
        path: the PNG to write.
    """
    iterations = np.arange(0, 12_001, 10)
    figure = _figure(9, 2.6)
    for axes, (policy, fields) in zip(
        figure.subplots(1, len(shown), sharex=True, sharey=True), shown.items(), strict=True
    ):
        rates = policies.POLICIES[policy].rates(iterations, **fields)
        axes.plot(iterations, rates, color=_COLOURS[1])
        axes.set(title=policy, xlim=(0, 12_000), ylim=(0, 0.0075), xticks=[0, 4000, 8000, 12_000])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(labelsize=8)
        _plain(axes)
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    figure.savefig(path, dpi=150)


def plot_comparison(entries: Sequence[Entry], title: str, path: Path) -> None:
    """Draw the metric of each solver over the iterations, with its learning rate below.

    Lines are means over the seeds; bands span the lowest to the highest seed. Momenta are
    drawn at the bottom if they cycle.

    Args:
        entries: the runs of each solver.
        title: the title of the plot; may be empty.
        path: the PNG to write.
    """
    moving = any(entry.momenta() for entry in entries)
    figure = _figure(8, 7 if moving else 5.5)
    heights = [2, 1, 1] if moving else [2, 1]
    upper, *lower = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    metric = entries[0].metric
    curves = [row["high"] for entry in entries for row in entry.curve()]
    scale = metric.scale(max(curves, default=0))
    for entry, colour in zip(entries, itertools.cycle((_COLOURS[0], *_CURVE_COLOURS))):
        iterations, mean, low, high = _columns(entry.curve())
        upper.plot(
            iterations,
            scale * mean,
            color=colour,
            label=_literal(entry.name),
            marker="." if len(mean) < _MOST_MARKED else "",
            markersize=4,
        )
        if len(entry.histories) > 1:
            upper.fill_between(
                iterations, scale * low, scale * high, color=colour, alpha=0.2, linewidth=0
            )
        for axes, values in zip(lower, (entry.rates(), entry.momenta()), strict=False):
            axes.plot(list(values), list(values.values()), color=colour)
    upper.set(
        ylabel=_literal(metric.label),
        title=_literal(title),
        ylim=_where_they_differ(entries, scale),
    )
    upper.legend(loc="lower right" if metric.is_accuracy else "upper right", frameon=False)
    lower[0].set(ylabel="learning rate", ylim=(0, None), xlim=(0, None))
    if moving:
        lower[1].set(ylabel="momentum")
    lower[-1].set(xlabel="iteration")
    lower[-1].xaxis.set_major_formatter("{x:,.0f}")
    for axes in (upper, *lower):
        _plain(axes)
    figure.savefig(path, dpi=150)


def plot_range_test(result: RangeTest, title: str, path: Path) -> None:
    """Draw accuracy and training loss against the rate, on a linear and a logarithmic axis.

    Without recorded training losses, only the accuracy is drawn; without tests, only the loss.

    Args:
        result: the range test, whose suggested bounds are drawn.
        title: the title of the plot.
        path: the PNG to write.
    """
    heights = [2, 1] if result.losses and result.metric.of_test else [2]
    figure = _figure(10, 1 + 1.5 * sum(heights))
    grid = figure.subplots(
        len(heights), 2, sharex="col", sharey="row", height_ratios=heights, squeeze=False
    )
    name = result.metric.name
    rates = np.array([row["lr"] for row in result.rows])
    values = np.array([row[name] for row in result.rows])
    scale = result.metric.scale(values.max())
    values *= scale
    for column, (upper, *lower) in enumerate(zip(*grid, strict=True)):
        shown = rates > 0 if column else rates >= 0
        upper.plot(rates[shown], values[shown], color=_COLOURS[1], marker=".", markersize=4)
        if f"{name}_low" in result.rows[0]:
            low, high = (
                scale * np.array([row[f"{name}_{end}"] for row in result.rows])
                for end in ("low", "high")
            )
            upper.fill_between(
                rates[shown], low[shown], high[shown], color=_COLOURS[1], alpha=0.2, linewidth=0
            )
        losses = [row for row in result.losses if row["lr"] > 0 or not column]
        for axes in lower:
            axes.plot(
                [row["lr"] for row in losses], [row["loss"] for row in losses], color=_COLOURS[0]
            )
        _draw_bounds(result, upper, *lower)
        if column:
            upper.set_xscale("log")
        else:
            _mark_turn(result, upper)
            upper.locator_params(axis="x", nbins=5)
        grid[-1][column].set(xlabel=f"learning rate ({'logarithmic' if column else 'linear'})")
        for axes in (upper, *lower):
            _plain(axes)
    labels = (_literal(result.metric.label), "training loss")
    for axes, label in zip(grid[:, 0], labels, strict=False):
        axes.set(ylabel=label)
    if any(bound.rate is not None for bound in result.suggestions.bounds.values()):
        bounds = grid[0][0].get_legend_handles_labels()
        figure.legend(*bounds, loc="outside lower center", ncols=2)
    figure.suptitle(_literal(title))
    figure.savefig(path, dpi=150)


def _figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches; here, since it is slow, Matplotlib is imported."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_bounds(result: RangeTest, *axes: "Axes") -> None:
    """The suggested bounds as lines."""
    bounds = result.suggestions.bounds.items()
    for (field, bound), colour in zip(bounds, _COLOURS[2:], strict=False):
        if bound.rate is not None:
            label = f"{field} {bound.rate:.2g}"
            for each in axes:
                each.axvline(bound.rate, color=colour, linestyle="--", label=label)


def _mark_turn(result: RangeTest, axes: "Axes") -> None:
    """Where training starts to get worse, as a mark along the top."""
    turn = result.suggestions.turn
    if turn is not None:
        top = axes.get_xaxis_transform()
        axes.plot(turn, 1, marker="v", color="black", clip_on=False, transform=top)
        axes.text(turn, 1.04, f"turns at {turn:.3g}", fontsize=8, transform=top)


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


def _columns(rows: Sequence[Row]) -> tuple[NDArray[np.float64], ...]:
    return tuple(
        np.array([row[key] for row in rows]) for key in ("iteration", "mean", "low", "high")
    )


def _plain(axes: "Axes") -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def plot_log(history: History, title: str, path: Path) -> None:
    """Draw the losses of a run, its outputs from 0 to 1, such as accuracies, and its rate.

    The momentum is drawn at the bottom if it changes.

    Args:
        history: the rows of one run. Other outputs are not drawn, and a panel has at
            most seven curves.
        title: the title of the plot.
        path: the PNG to write.
    """
    losses, shares = _curves(history)
    outputs = {name.split(" ", 1)[1] for name in shares}  # without the phase
    kind = outputs.pop() if len(outputs) == 1 else "output"
    panels = [(label, curves) for label, curves in (("loss", losses), (kind, shares)) if curves]
    below = {"learning rate": history.rates()}
    momenta = history.momenta()
    if len(set(momenta.values())) > 1:
        below["momentum"] = momenta
    heights = [2] * len(panels) + [1] * len(below)
    figure = _figure(8, 1 + 1.25 * sum(heights))
    grid = list(
        figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False).flat
    )
    for axes, (label, curves) in zip(grid, panels, strict=False):
        for (name, points), colour in zip(curves.items(), _CURVE_COLOURS, strict=False):
            _plot_points(axes, points, color=colour, label=_literal(name))
        hidden = len(curves) - len(_CURVE_COLOURS)
        _legend(axes, f"{hidden:,} more not shown" if hidden > 0 else None)
        values = [value for points in curves.values() for value in points.values()]
        axes.set(ylabel=label, yscale=_scale(values))
    for axes, (label, points) in zip(grid[len(panels) :], below.items(), strict=True):
        _plot_points(axes, points, color=_COLOURS[0])
        axes.set(ylabel=label)
    grid[-1].set(xlabel="iteration")
    grid[-1].xaxis.set_major_formatter("{x:,.0f}")
    for axes in grid:
        _plain(axes)
    grid[0].set(title=_literal(title))
    figure.align_ylabels()
    figure.savefig(path, dpi=150)


def plot_schedule(
    rows: Sequence[Mapping[str, Any]], logged: Mapping[int, float], title: str, path: Path
) -> None:
    """Draw the learning rate over the iterations, with a colour for each stage.

    The momentum is drawn below if it cycles.

    Args:
        rows: iteration, lr, momentum, stage and cycle, as schedule.schedule returns them.
        logged: the rates of a log by iteration, drawn as dots; may be empty.
        title: the title of the plot.
        path: the PNG to write.
    """
    moving = "momentum" in rows[0]
    figure = _figure(8, 5 if moving else 3.2)
    if moving:
        axes, lower = figure.subplots(2, sharex=True, height_ratios=[2, 1])
        _plot_stages(lower, rows, "momentum")
        lower.set(ylabel="momentum", xlabel="iteration")
        _plain(lower)
    else:
        axes = figure.subplots()
        axes.set(xlabel="iteration")
    _plot_stages(axes, rows, "lr")
    if logged:
        axes.plot(list(logged), list(logged.values()), "k.", markersize=3, label="logged")
    if logged or rows[-1]["stage"] > 1:
        _legend(axes)
    has_cycles = any(row["cycle"] is not None for row in rows)
    yscale = "linear" if has_cycles else _scale(row["lr"] for row in rows)
    axes.set(ylabel="learning rate", yscale=yscale, title=_literal(title))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _plain(axes)
    figure.savefig(path, dpi=150)


def _plot_stages(axes: "Axes", rows: Sequence[Mapping[str, Any]], name: str) -> None:
    stages = itertools.groupby(rows, key=lambda row: row["stage"])
    for (stage, shown), colour in zip(stages, itertools.cycle(_CURVE_COLOURS), strict=False):
        points = {row["iteration"]: row[name] for row in shown}
        label = f"stage {stage}" if rows[-1]["stage"] > 1 else "scheduled"
        axes.plot(list(points), list(points.values()), color=colour, label=label)


def _curves(history: History) -> tuple[dict[str, Points], dict[str, Points]]:
    """The losses of a history, and its other outputs that are from 0 to 1."""
    losses: dict[str, Points] = {}
    others: dict[str, Points] = {}
    for phase in Phase:
        for row in history.rows(phase):
            for name, value in row.items():
                if name in _NO_CURVES:
                    continue
                curves = losses if metrics.is_loss(name, history.losses) else others
                known = curves is losses or metrics.has_scores(row, name, history.losses)
                curve = curves.setdefault(f"{phase} {name}", {})
                curve[row["iteration"]] = value if known else math.nan
    shares = {
        name: curve
        for name, curve in others.items()
        if not any(value < 0 or value > 1 for value in curve.values())
    }
    return losses, shares


def _plot_points(axes: "Axes", points: Points, **style: Any) -> None:
    """A line, with its points marked where they are few; nan and inf leave a gap."""
    marker = "." if len(points) <= _MOST_MARKED else None
    axes.plot(
        list(points), list(points.values()), marker=marker, markersize=4, linewidth=1.2, **style
    )


def _literal(text: str) -> str:
    """A name as Matplotlib can draw it, with nothing in it taken for a formula."""
    return text.encode(errors="backslashreplace").decode().replace("$", "\\$")


def _legend(axes: "Axes", title: str | None = None) -> None:
    """At the right of a plot, where no line is."""
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        fontsize=8,
        title=title,
        title_fontsize=8,
    )


def _scale(values: Iterable[float]) -> str:
    """Logarithmic for values that span two orders of magnitude or more."""
    finite = [value for value in values if math.isfinite(value)]
    is_wide = bool(finite) and 0 < 100 * min(finite) <= max(finite)
    return "log" if is_wide else "linear"
