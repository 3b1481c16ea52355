"""Plots of what a run recorded, as PNG."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from caffe_clr.training import History

# distinguishable with any colour vision, and in print
_COLOURS = ("#666666", "#0072b2", "#d55e00", "#009e73")
_LOWEST_ACCURACY = 80  # percent; below it all runs look alike


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
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
