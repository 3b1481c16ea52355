"""Which of a net's outputs tells how good it is: its accuracy, under whatever name."""

import math
import statistics
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe_clr.history import History, Row, column
from caffe_clr.prototxt import Net, SolverFile

# what SoftmaxWithLoss gives where a probability is 0 or NaN: 87.3365
_SOFTMAX_LOST = -math.log(float(np.finfo(np.float32).tiny))
_DIGITS = 1e-3  # as logs print it and batches average it


@dataclass(frozen=True)
class Metric:
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
        """The rows that have it; nan is none, nor is an accuracy of no scores."""
        rows = history.test if self.of_test else history.train
        return [
            row
            for row in rows
            if not math.isnan(row.get(self.name, math.nan))
            and (not self.is_accuracy or has_scores(row, self.name, history.losses))
        ]

    def shown(self, value: float) -> str:
        return f"{value:.2%}" if self.is_accuracy else f"{value:.4g}"

    @property
    def best(self) -> Callable[..., float]:
        return max if self.is_accuracy else min


_TRAINING_LOSS = Metric("loss", of_test=False, is_accuracy=False)


def metric_of(solver: SolverFile) -> Metric:
    """What to compare the runs of a solver by.

    That is the first top of the last Accuracy layer of the first net that it tests,
    of those with a top_k of 1 if there are any: GoogLeNet's auxiliary classifiers
    come before its own, and top 5 is for reading beside top 1. Of a net that has
    none, it is the first loss, by its type or its loss_weight; where nothing is
    tested, the training loss.
    """
    for number, net in solver.tested_nets.items():
        return _metric_of_test(net, number)
    return _TRAINING_LOSS


def _metric_of_test(net: Net, number: int) -> Metric:
    accuracy = _accuracy_of(net)
    if accuracy is not None:
        return Metric(column(accuracy.top[0], number), of_test=True, is_accuracy=True)
    for layer in net.parameter.layer:
        if layer.top and (layer.type.endswith("Loss") or any(layer.loss_weight)):
            return Metric(column(layer.top[0], number), of_test=True, is_accuracy=False)
    return _TRAINING_LOSS


def _accuracy_of(net: Net) -> Any | None:
    """The layer whose accuracy a net is judged by, if it has one."""
    layers = [layer for layer in net.parameter.layer if layer.type == "Accuracy" and layer.top]
    of_first_guess = [layer for layer in layers if layer.accuracy_param.top_k == 1]
    return next(reversed(of_first_guess or layers), None)


def chance(solver: SolverFile) -> float | None:
    """The accuracy of a guess: top_k / classes, where the layer that scores these is found.

    None of a solver that is not judged by an accuracy.
    """
    net = next(iter(solver.tested_nets.values()), None)
    accuracy = _accuracy_of(net) if net else None
    if net is None or accuracy is None:
        return None
    wanted = accuracy.bottom[:1]
    for layer in reversed(net.parameter.layer):
        if not set(wanted) & set(layer.top):
            continue
        classes = layer.inner_product_param.num_output or layer.convolution_param.num_output
        if classes:
            return float(min(1, accuracy.accuracy_param.top_k / classes))
        wanted = layer.bottom[:1]
    return None


def over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    """The values under `name` where all seeds have one: iteration, lr, mean, low, high.

    The momentum stands behind lr where it is recorded.
    """
    rows = []
    others = [{row["iteration"]: row[name] for row in rows} for rows in seeds[1:]]
    for first in seeds[0]:
        iteration = first["iteration"]
        if not all(iteration in values for values in others):
            continue
        values = [first[name], *(values[iteration] for values in others)]
        row: Row = {key: first[key] for key in ("iteration", "lr", "momentum") if key in first}
        band = {"low": min(values), "high": max(values)}
        rows.append({**row, "mean": statistics.fmean(values), **band})
    return rows


def is_lost(loss: float) -> bool:
    """Whether a loss is of scores that are not finite: nan, inf, or SoftmaxWithLoss's 87.3365."""
    return not math.isfinite(loss) or abs(loss - _SOFTMAX_LOST) < _DIGITS


def has_scores(row: Row, accuracy: str, weighted: Container[str] = ()) -> bool:
    """Whether an accuracy is one of scores: not where all losses of its test net are lost.

    For Caffe's Accuracy layer nan is right: a ResNet before its first iteration has 1.

    Args:
        weighted: outputs that are known to be losses.
    """
    losses = [
        value
        for name, value in row.items()
        if is_loss(name, weighted) and name.partition("#")[2] == accuracy.partition("#")[2]
    ]
    return not losses or not all(map(is_lost, losses))


def is_loss(output: str, weighted: Container[str] = ()) -> bool:
    """Whether an output is one to be lowered: by its weight or its name (of loss3/top-1: top-1)."""
    if output in weighted:
        return True
    name = output.rpartition("/")[2].lower()
    return "loss" in name or "error" in name
