"""Which of a net's outputs tells how good it is: its accuracy, under whatever name."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from caffe_clr import prototxt
from caffe_clr.runs import History, Row


@dataclass(frozen=True)
class Measure:
    """An output of the test net, or the training loss; for a loss, lower is better."""

    name: str
    of_test: bool
    is_accuracy: bool

    @property
    def label(self) -> str:
        if self.is_accuracy:
            return "test accuracy (%)"
        return f"test {self.name}" if self.of_test else "training loss"

    def rows(self, history: History) -> list[Row]:
        """The rows that have it."""
        rows = history.test if self.of_test else history.train
        return [row for row in rows if self.name in row]

    def shown(self, value: float) -> str:
        return f"{value:.2%}" if self.is_accuracy else f"{value:.4g}"

    @property
    def best(self) -> Callable[..., float]:
        return max if self.is_accuracy else min


def measure_of(parameter: Any, name: str) -> Measure:
    """What to compare the runs of a solver by.

    That is the first top of the last Accuracy layer of its first test net, of
    those with a top_k of 1 if there are any: GoogLeNet's auxiliary classifiers
    come before its own, and top 5 is for reading beside top 1. Of a net that has
    none, it is the first loss; without a test net, the training loss.

    Args:
        parameter: a SolverParameter.
        name: what to call it: its file.
    """
    nets = prototxt.test_nets(parameter, name)
    layers = nets[0].parameter.layer if nets else []
    accuracies = [layer for layer in layers if layer.type == "Accuracy" and layer.top]
    of_first_guess = [layer for layer in accuracies if layer.accuracy_param.top_k == 1]
    if accuracies:
        chosen = (of_first_guess or accuracies)[-1]
        return Measure(chosen.top[0], of_test=True, is_accuracy=True)
    for layer in layers:
        if layer.type.endswith("Loss") and layer.top:
            return Measure(layer.top[0], of_test=True, is_accuracy=False)
    return Measure("loss", of_test=False, is_accuracy=False)


def chance(parameter: Any, name: str) -> float | None:
    """The accuracy of a guess: 1 / classes, if the layer that scores them is found.

    Args:
        parameter: a SolverParameter whose first test net has an Accuracy layer.
        name: what to call it: its file.
    """
    layers = prototxt.test_nets(parameter, name)[0].parameter.layer
    wanted, classes = "", 0
    for layer in reversed(layers):
        if layer.type == "Accuracy" and not wanted:
            wanted = layer.bottom[0]
        elif wanted in layer.top and layer.bottom:
            classes = layer.inner_product_param.num_output or layer.convolution_param.num_output
            if classes:
                break
            wanted = layer.bottom[0]
    return 1 / classes if classes else None


def over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    """The values under `name` where all seeds have one: iteration, lr, mean, low, high."""
    rows = []
    for same in zip(*seeds, strict=False):
        values = [row[name] for row in same]
        row = {key: same[0][key] for key in ("iteration", "lr")}
        band = {"low": min(values), "high": max(values)}
        rows.append({**row, "mean": statistics.fmean(values), **band})
    return rows
