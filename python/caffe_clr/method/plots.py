"""Draws runs, comparisons, range tests and schedules, as PNG, SVG or PDF by the file's suffix."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_clr import policies
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.results import Comparison, Entry
from caffe_clr.runs import drawing
from caffe_clr.runs.drawing import GREY, HUES
from caffe_clr.runs.history import History
from caffe_clr.system import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def plot_comparison(entries: Sequence[Entry], title: str, path: Path) -> None:
    """Write the plot of a comparison; see Comparison.plot."""
    _save(Comparison(entries).plot(title), path)


def plot_range_test(result: RangeTest, title: str, path: Path) -> None:
    """Write the plot of a range test; see RangeTest.plot."""
    _save(result.plot(title), path)


def plot_log(history: History, title: str, path: Path) -> None:
    """Write the plot of a run; see History.plot."""
    _save(history.plot(title), path)


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


def _save(drawn: "Figure", path: Path) -> None:
    """Write a figure completely or not at all, in the format that the suffix of `path` names."""
    try:
        with files.replacing(path) as partial:
            drawn.savefig(partial, format=path.suffix[1:], dpi=150)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
