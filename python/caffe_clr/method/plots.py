"""Draws runs, comparisons, range tests and schedules, as PNG, SVG or PDF by the file's suffix."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caffe_clr import policies
from caffe_clr.method.results import Entry, RangeTest
from caffe_clr.runs import drawing, output_kinds
from caffe_clr.runs.drawing import GREY, HUES, literal
from caffe_clr.runs.history import OWN_COLUMNS, History, Phase, Row
from caffe_clr.system import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NO_CURVES = (*OWN_COLUMNS, "output loss")  # of which "loss" is the mean
_MOST_NAMES = 60  # characters of the names in a title
_BADGE = 0.04  # of the width of a panel

Points = dict[float, float]  # values by iteration


def plot_policies(shown: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw policies with their fields, over 12,000 iterations and with rates up to 0.0075.

    Args:
        shown: the solver fields of each policy, by its name.
        path: the picture to write.
    """
    iterations = np.arange(0, 12_001, 10)
    figure = drawing.figure(8, 5)
    grid = figure.subplots(-(-len(shown) // 2), 2, sharex=True, sharey=True)
    for axes, (policy, fields) in zip(grid.flat, shown.items(), strict=True):
        rates = policies.POLICIES[policy].rates(iterations, **fields)
        for field in ("base_lr", "max_lr"):
            axes.axhline(fields[field], color=GREY, linewidth=0.8, linestyle=":")
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(field, (12_000, fields[field]), **place, fontsize=9)
        half = fields["stepsize"]
        axes.annotate("", (0, 0.0004), (half, 0.0004), arrowprops={"arrowstyle": "<->"})
        axes.annotate("stepsize", (half * 1.1, 0.0004), va="center", fontsize=9)
        axes.plot(iterations, rates, color=HUES[0], linewidth=2)
        axes.set(xlim=(0, 12_000), ylim=(0, 0.0075), xticks=[0, 4000, 8000, 12_000])
        axes.set_title(policy, loc="left", fontsize=11, fontweight="bold")
        given = [f"{field} {value:g}" for field, value in fields.items()]
        parameters = f"{', '.join(given[:2])}\n{', '.join(given[2:])}"
        axes.set_title(parameters, loc="right", fontsize=9)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        drawing.plain(axes)
    figure.supxlabel("iteration", fontsize=10)
    figure.supylabel("learning rate", fontsize=10)
    _save(figure, path)


def compared(entries: Sequence[Entry], net: str = "") -> str:
    """What is compared, for a title: the net if it has a name, and the solvers."""
    *most, last = (entry.name for entry in entries)
    names = f"{', '.join(most)} and {last}" if most else last
    if len(names) > _MOST_NAMES:
        names = f"{len(entries)} solvers"
    return f"{net}: {names}" if net else names


def plot_comparison(entries: Sequence[Entry], title: str, path: Path) -> None:
    """Draw the metric of each solver over the iterations, with its learning rate below.

    Lines are means over the seeds; bands span the lowest to the highest seed. Lines are
    dashed where the rate has no cycles. Each solver type has a hue; if there is one type,
    each solver has. Momenta are drawn at the bottom if they cycle.

    Args:
        entries: the runs of each solver.
        title: what is compared, see `compared`; a line about the seeds is added.
        path: the picture to write.
    """
    moving = any(entry.momenta() for entry in entries)
    heights = [2.4, 1, 1] if moving else [2.4, 1]
    figure = drawing.figure(8, 1.6 * sum(heights))
    upper, *lower = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    metric = entries[0].metric
    curves = [_columns(entry.curve()) for entry in entries]
    scale = metric.scale(max((value for *_, high in curves for value in high), default=0))
    styles = drawing.styles(
        [entry.solver_type for entry in entries], [entry.is_cyclical for entry in entries]
    )
    for entry, style, (at, _, low, high) in zip(entries, styles, curves, strict=True):
        if len(entry.histories) > 1:
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            upper.fill_between(at, scale * low, scale * high, **band)
    marked = [
        {**style, "marker": drawing.marker(len(at))}
        for style, (at, *_) in zip(styles, curves, strict=True)
    ]
    lines = drawing.draw(upper, [(at, scale * mean) for at, mean, *_ in curves], marked)
    upper.set(ylabel=literal(metric.label, 40, 1), ylim=_where_they_differ(entries, scale))
    for axes, scheduled in zip(lower, (Entry.rates, Entry.momenta), strict=False):
        drawing.draw(axes, [_as_curve(scheduled(entry)) for entry in entries], styles)
    drawing.rates_from_zero(lower[0])
    if lower[0].dataLim.x1 > 0:
        lower[0].set(xlim=(0, None))
    if moving:
        lower[1].set(ylabel="momentum")
    drawing.over_iterations(lower[-1])
    for axes in (upper, *lower):
        drawing.plain(axes)
    drawing.title(upper, title, _of_seeds(entries))
    drawing.key(figure, dict(zip(map(_label, entries), lines, strict=True)))
    figure.align_ylabels()
    _save(figure, path)


def plot_range_test(result: RangeTest, title: str, path: Path) -> None:
    """Draw accuracy and training loss against the rate, with the suggested cycle.

    The axis of the rate is logarithmic if the rates are spaced by factors. Losses above twice
    those at the start are cut off. Without recorded training losses, only the accuracy is
    drawn; without tests, only the loss.

    Args:
        result: the range test. Its bounds, the rate where it turns and the one where it
            diverges are numbered, with a key below.
        title: the title of the plot; a line about the seeds is added.
        path: the picture to write.
    """
    heights = [2, 1] if result.losses and result.metric.of_test else [2]
    figure = drawing.figure(8, 1.2 + 1.4 * sum(heights))
    grid = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
    panels = list(grid.flat)
    name = result.metric.name
    rates = np.array([row["lr"] for row in result.rows])
    values = np.array([row[name] for row in result.rows])
    scale = result.metric.scale(values.max())
    upper, *lower = panels
    upper.plot(rates, scale * values, color=HUES[0], marker=".", markersize=5)
    has_band = f"{name}_low" in result.rows[0]
    if has_band:
        low, high = (
            scale * np.array([row[f"{name}_{end}"] for row in result.rows])
            for end in ("low", "high")
        )
        upper.fill_between(rates, low, high, color=HUES[0], alpha=0.2, linewidth=0)
    for axes in lower:
        losses = [row["loss"] for row in result.losses]
        axes.plot([row["lr"] for row in result.losses], losses, color=GREY)
        drawing.until_it_diverges(axes, losses)
    if not result.metric.is_accuracy:
        drawing.until_it_diverges(upper, list(values))
    for axes, label in zip(panels, (result.metric.label, "training loss"), strict=False):
        axes.set(ylabel=literal(label, 24, 1))
        drawing.plain(axes)
    drawing.over_rates(upper, list(rates))
    panels[-1].set(xlabel="learning rate")
    levels = _mark_rates(result, panels)
    count = len(result.seeds)
    mean = f"mean of {count} seeds" if count > 1 else "mean of the seeds" if has_band else ""
    band = ", band: lowest to highest" if has_band else ""
    drawing.title(upper, title, mean + band, pad=8 + 14 * levels)
    figure.align_ylabels()
    _save(figure, path)


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
    for (field, bound), colour in zip(found.bounds.items(), HUES[1:], strict=False):
        if bound.rate is not None:
            yield bound.rate, f"{field} {bound.rate:.2g}", colour, "--"
    if found.turn is not None:
        best = "highest" if result.metric.is_accuracy else "lowest"
        name = result.metric.label.removesuffix(" (%)")
        what = "lowest training loss" if found.by_loss else f"{best} {name}"
        yield found.turn, f"{what}, at {found.turn:.3g}", "black", ":"
    if result.diverged_at is not None:
        yield result.diverged_at, f"diverged, at {result.diverged_at:.3g}", "#b2182b", "-"


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


def _as_curve(points: Mapping[float, float]) -> drawing.Curve:
    return np.array(list(points), np.float64), np.array(list(points.values()), np.float64)


def _columns(rows: Sequence[Row]) -> tuple[NDArray[np.float64], ...]:
    return tuple(
        np.array([row[key] for row in rows]) for key in ("iteration", "mean", "low", "high")
    )


def plot_log(history: History, title: str, path: Path) -> None:
    """Draw the losses of a run, its outputs from 0 to 1, such as accuracies, and its rate.

    Those outputs are drawn in percent. The momentum is drawn at the bottom if it changes.

    Args:
        history: the rows of one run. Other outputs are not drawn, and a panel has at
            most eight curves.
        title: the title of the plot.
        path: the picture to write.
    """
    losses, shares = _curves(history)
    outputs = {name.split(" ", 1)[1] for name in shares}  # without the phase
    kind = outputs.pop() if len(outputs) == 1 else "outputs"
    percent = {
        name: {at: 100 * value for at, value in points.items()} for name, points in shares.items()
    }
    panels = [
        (label, curves) for label, curves in (("loss", losses), (f"{kind} (%)", percent)) if curves
    ]
    momenta = history.momenta()
    below = [history.rates()] + ([momenta] if len(set(momenta.values())) > 1 else [])
    heights = [2] * len(panels) + [1] * len(below)
    figure = drawing.figure(8, 1 + 1.25 * sum(heights))
    grid = list(
        figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False).flat
    )
    for axes, (label, curves) in zip(grid, panels, strict=False):
        names = list(curves)[: len(HUES)]
        looks = [
            {"color": colour, "label": name, "marker": drawing.marker(len(curves[name]))}
            for name, colour in zip(names, HUES, strict=False)
        ]
        drawing.draw(axes, [_as_curve(curves[name]) for name in names], looks)
        hidden = len(curves) - len(names)
        drawing.side_key(axes, f"{hidden:,} more not shown" if hidden > 0 else None)
        values = [value for points in curves.values() for value in points.values()]
        axes.set(ylabel=literal(label, 24, 1), yscale=drawing.scale(values))
    rates, *others = grid[len(panels) :]
    for axes, points in zip((rates, *others), below, strict=True):
        axes.plot(*drawing.stepped(points), color=GREY, linewidth=1.6)
        mark = {"marker": drawing.marker(len(points)), "markersize": 4}
        axes.plot(*_as_curve(points), color=GREY, linewidth=0, **mark)
    drawing.rates_from_zero(rates)
    for axes in others:
        axes.set(ylabel="momentum")
    drawing.over_iterations(grid[-1])
    for axes in grid:
        drawing.plain(axes)
    drawing.title(grid[0], title)
    figure.align_ylabels()
    _save(figure, path)


def plot_schedule(
    rows: Sequence[Mapping[str, Any]], logged: Mapping[int, float], title: str, path: Path
) -> None:
    """Draw the learning rate over the iterations, with a colour for each stage.

    The momentum is drawn below if it cycles.

    Args:
        rows: iteration, lr, momentum, stage and cycle, as schedule.schedule returns them.
        logged: the rates of a log by iteration, drawn as dots; may be empty.
        title: the title of the plot.
        path: the picture to write.
    """
    moving = "momentum" in rows[0]
    heights = [2, 1] if moving else [2]
    figure = drawing.figure(8, 1 + 1.2 * sum(heights))
    axes, *lower = figure.subplots(
        len(heights), sharex=True, height_ratios=heights, squeeze=False
    ).flatten()
    _plot_stages(axes, rows, "lr")
    if logged:
        axes.plot(list(logged), list(logged.values()), "k.", markersize=3, label="logged")
    if logged or rows[-1]["stage"] > 1:
        drawing.side_key(axes)
    has_cycles = any(row["cycle"] is not None for row in rows)
    if not has_cycles and drawing.scale(row["lr"] for row in rows) == "log":
        axes.set(ylabel="learning rate", yscale="log")
    else:
        drawing.rates_from_zero(axes)
    for each in lower:
        _plot_stages(each, rows, "momentum")
        each.set(ylabel="momentum")
    for each in (axes, *lower):
        drawing.plain(each)
    drawing.over_iterations([axes, *lower][-1])
    drawing.title(axes, title)
    figure.align_ylabels()
    _save(figure, path)


def _plot_stages(axes: "Axes", rows: Sequence[Mapping[str, Any]], name: str) -> None:
    stages = itertools.groupby(rows, key=lambda row: row["stage"])
    for (stage, shown), colour in zip(stages, itertools.cycle(HUES), strict=False):
        points = {row["iteration"]: row[name] for row in shown}
        label = f"stage {stage}" if rows[-1]["stage"] > 1 else "scheduled"
        mark = "." if len(points) == 1 else ""
        axes.plot(list(points), list(points.values()), color=colour, label=label, marker=mark)


def _curves(history: History) -> tuple[dict[str, Points], dict[str, Points]]:
    """The losses of a history, and its other outputs that are from 0 to 1."""
    losses: dict[str, Points] = {}
    others: dict[str, Points] = {}
    for phase in Phase:
        for row in history.rows(phase):
            for name, value in row.items():
                if name in _NO_CURVES:
                    continue
                curves = losses if output_kinds.is_loss(name, history.losses) else others
                known = curves is losses or output_kinds.has_scores(row, name, history.losses)
                curve = curves.setdefault(f"{phase} {name}", {})
                curve[row["iteration"]] = value if known else math.nan
    shares = {
        name: curve
        for name, curve in others.items()
        if not any(value < 0 or value > 1 for value in curve.values())
    }
    return losses, shares


def _save(drawn: "Figure", path: Path) -> None:
    """Write a figure completely or not at all, in the format that the suffix of `path` names."""
    try:
        with files.replacing(path) as partial:
            drawn.savefig(partial, format=path.suffix[1:], dpi=150)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
