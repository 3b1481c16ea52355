"""Plots of what a run recorded, as PNG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from caffe_clr import policies
from caffe_clr.training import History

# distinguishable with any colour vision, and in print
_COLOURS = ("#666666", "#0072b2", "#d55e00", "#009e73")
_LOWEST_ACCURACY = 80  # percent; below it all runs look alike


def plot_policies(path: Path) -> None:
    """The paper's four policies over three cycles, at its CIFAR-10 settings.

    Args:
        path: the PNG to write.
    """
    bounds = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
    shown: dict[str, dict[str, float]] = {
        "triangular": bounds,
        "triangular2": bounds,
        "exp_range": {**bounds, "gamma": 0.99994},
        "decay": {"base_lr": 0.001, "max_lr": 0.007, "stepsize": 4000},
    }
    iterations = np.arange(0, 12_001, 10)
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (policy, fields) in zip(
        figure.subplots(1, len(shown), sharex=True, sharey=True), shown.items(), strict=True
    ):
        axes.plot(iterations, policies.POLICIES[policy](iterations, **fields), color=_COLOURS[1])
        axes.set(title=policy, xlim=(0, 12_000), ylim=(0, 0.0075), xticks=[0, 4000, 8000, 12_000])
        axes.tick_params(labelsize=8)
        _plain(axes)
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    figure.savefig(path, dpi=150)


def plot_comparison(histories: Mapping[str, History], title: str, path: Path) -> None:
    """Test accuracy above, learning rate below, over the iterations; a line for each run.

    Args:
        histories: runs of one net by the name to label them with.
        title: what was trained, and on what.
        path: the PNG to write.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, rate = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for (name, history), colour in zip(histories.items(), _COLOURS, strict=False):
        iterations = [row["iteration"] for row in history.test]
        percent = [100 * row["accuracy"] for row in history.test]
        accuracy.plot(iterations, percent, color=colour, label=name, marker=".", markersize=4)
        rates = {row["iteration"]: row["lr"] for row in history.train + history.test}
        rate.plot(sorted(rates), [rates[i] for i in sorted(rates)], color=colour)
    accuracy.set(ylabel="test accuracy (%)", ylim=(_LOWEST_ACCURACY, 100.5), title=title)
    accuracy.legend(loc="lower right", frameon=False)
    rate.set(ylabel="learning rate", xlabel="iteration", ylim=(0, None), xlim=(0, None))
    for axes in (accuracy, rate):
        _plain(axes)
    figure.savefig(path, dpi=150)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
