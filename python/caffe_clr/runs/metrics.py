"""Chooses the output that a net is judged by: its accuracy, whatever its name, or a loss."""

import math
import re
import statistics
from collections.abc import Callable, Container, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import output_kinds
from caffe_clr.runs.history import History, Row, column

_GUESSES = re.compile(r"(?:top|rank|hit|@|acc|accuracy|prec|precision)[-_ @]*(\d+|k(?![a-z]))")
_PART = re.compile(r"recall|(?<!average.)(?<!mean.)precision|per.?class|class.?\d")
_SCORES = "score[0]"  # of early 2014, when outputs had no names: the accuracy, then the loss


@dataclass(frozen=True)
class Metric:
    """An output of the test net, or the training loss; for a loss, lower is better."""

    name: str
    of_test: bool
    is_accuracy: bool

    @property
    def label(self) -> str:
        if not self.of_test:
            return "training loss"
        output = self.name.removesuffix(f"#{self.net}")
        return "test accuracy (%)" if self.is_accuracy else f"test {output}"

    @property
    def net(self) -> int:
        """The number of the test net that it is of."""
        return _net_number(self.name)

    def rows(self, history: History) -> list[Row]:
        """The rows that have the metric, without nan and accuracies of lost scores."""
        rows = history.test if self.of_test else history.train
        return [
            row
            for row in rows
            if not math.isnan(row.get(self.name, math.nan))
            and (not self.is_accuracy or output_kinds.has_scores(row, self.name, history.losses))
        ]

    def shown(self, value: float) -> str:
        return f"{value:.2%}" if self.scale(value) == 100 else f"{value:.4g}"

    def scale(self, highest: float) -> int:
        """The factor to show values with: accuracies are shown in percent.

        Args:
            highest: the highest of the values; some layers report percent already.
        """
        return 100 if self.is_accuracy and highest <= 1 else 1

    @property
    def best(self) -> Callable[..., float]:
        return max if self.is_accuracy else min


TRAINING_LOSS = Metric("loss", of_test=False, is_accuracy=False)


def recorded_metric(about: Mapping[str, Any]) -> Metric | None:
    """The metric in a run.json; None if an earlier version wrote it."""
    try:
        return Metric(**about["metric"])
    except (KeyError, TypeError):
        return None


def metric_of(solver: SolverFile) -> Metric:
    """The output that the runs of a solver are judged by.

    It belongs to the test net that `judged_net` chooses (see `metric_of_net`). If the
    solver tests nothing, it is the training loss.
    """
    judged = _judged_net_of(solver)
    return (judged and metric_of_net(*judged)) or TRAINING_LOSS


def _judged_net_of(solver: SolverFile) -> tuple[Any, int] | None:
    """The test net that a solver is judged by, and its number; None where nothing is tested."""
    tested = {number: net.parameter for number, net in solver.tested_nets.items()}
    if not tested:
        return None
    number = judged_net(tested, solver.train_net.parameter if len(tested) > 1 else None)
    return tested[number], number


def judged_net(tested: Mapping[int, Any], trained: Any | None) -> int:
    """The number of the test net that a solver is judged by.

    It is the first that reads other data than the train net, because some solvers, such
    as BVLC's autoencoder, test on the training set first. If there is no such net, it is
    the first.

    Args:
        tested: the NetParameters of the test nets, by number.
        trained: the NetParameter of the train net, if it is known.
    """
    own = _sources(trained) if trained is not None else set()
    others = (number for number, net in tested.items() if _sources(net) - own)
    return next(others, min(tested))


def metric_of_net(net: Any, number: int) -> Metric | None:
    """The output that a test net is judged by; None if it has no suitable one.

    It is the first top of an Accuracy layer, preferably one with a top_k of 1. If there
    are several, it is the one on the scores with the largest loss weight, and of equals
    the last: the auxiliary classifiers of GoogLeNet have smaller weights. A net without an
    Accuracy layer is judged by an output named like an accuracy, or else by the loss with
    the largest weight, and of equals the last.

    Args:
        net: its NetParameter.
        number: its number among the test nets.
    """
    accuracy = _accuracy_of(net)
    if accuracy is not None:
        return Metric(column(accuracy.top[0], number), of_test=True, is_accuracy=True)
    weights = _loss_weights(net)
    if name := _best_accuracy(_outputs(net), weights):
        return Metric(column(name, number), of_test=True, is_accuracy=True)
    losses = [top for top in _outputs(net) if top in weights]
    if losses:
        name = max(reversed(losses), key=lambda top: weights[top])
        return Metric(column(name, number), of_test=True, is_accuracy=False)
    return None


def metric_of_outputs(names: Sequence[str], weighted: Container[str] = ()) -> Metric | None:
    """The recorded output to judge by, if only the names of outputs are known.

    It is an accuracy, or else the last loss, because GoogLeNet's main loss comes after its
    auxiliary ones. With several test nets, the first that has either counts. None if no
    name is that of an accuracy or a loss.

    Args:
        names: the names of the columns.
        weighted: the names that are known to be losses.
    """
    for number in sorted({_net_number(name) for name in names}):
        own = [name for name in names if _net_number(name) == number]
        if accuracy := _best_accuracy(own, weighted):
            return Metric(accuracy, of_test=True, is_accuracy=True)
        losses = [name for name in own if output_kinds.is_loss(name, weighted)]
        if losses:
            return Metric(losses[-1], of_test=True, is_accuracy=False)
    return None


def _net_number(name: str) -> int:
    number = name.rpartition("#")[2]
    return int(number) if "#" in name and number.isdecimal() else 0


def _best_accuracy(names: Iterable[str], weighted: Container[str]) -> str | None:
    """The last accuracy by name, of those of one guess and all classes if there are any.

    The elements of a vector, as x[0], are of one class each.
    """
    accuracies = [
        name
        for name in names
        if name == _SCORES or ("[" not in name and output_kinds.is_accuracy(name, weighted))
    ]
    whole = [name for name in accuracies if not _is_of_part(name)]
    return next(reversed(whole or accuracies), None)


def _is_of_part(accuracy: str) -> bool:
    """Whether an accuracy is by its name of several guesses, of a class, or one of a pair."""
    guesses = _GUESSES.search(accuracy.lower())
    if guesses:
        return guesses[1] != "1"
    return bool(_PART.search(accuracy.lower()))


def _accuracy_of(net: Any) -> Any | None:
    """The layer whose accuracy a net is judged by, if it has one."""
    outputs = _outputs(net)
    layers = [
        layer
        for layer in net.layer
        if layer.type == "Accuracy" and not outputs.isdisjoint(layer.top[:1])
    ]
    of_first_guess = [layer for layer in layers if layer.accuracy_param.top_k == 1]
    weights = _loss_weights(net)
    losses = [layer for layer in net.layer if layer.top and layer.top[0] in weights]
    scores = {layer.bottom[0]: weights[layer.top[0]] for layer in losses if layer.bottom}

    def weight(layer: Any) -> float:
        return scores.get(layer.bottom[0], 0.0) if layer.bottom else 0.0

    return max(reversed(of_first_guess or layers), key=weight, default=None)


def _loss_weights(net: Any) -> dict[str, float]:
    """How much each top weighs in the loss of a net, as LossLayer::LayerSetUp has it."""
    weights: dict[str, float] = {}
    for layer in net.layer:
        default = [1.0] if layer.type.endswith("Loss") else []
        weights |= zip(layer.top, list(layer.loss_weight) or default, strict=False)
    return weights


def _outputs(net: Any) -> KeysView[str]:
    """The tops of a net that no layer takes as a bottom: what Caffe reports."""
    outputs: dict[str, None] = {}
    for layer in net.layer:
        for bottom in layer.bottom:
            outputs.pop(bottom, None)
        outputs.update(dict.fromkeys(layer.top))
    return outputs.keys()


def _sources(net: Any) -> set[str]:
    """The data sets that the layers of a net read."""
    return {
        source
        for layer in net.layer
        for _, parameter in layer.ListFields()
        if (source := getattr(parameter, "source", ""))
    }


def chance(solver: SolverFile) -> float | None:
    """The accuracy of guessing, top_k / classes.

    None if the solver is not judged by an accuracy, or its classes cannot be counted.
    """
    net, _ = _judged_net_of(solver) or (None, 0)
    accuracy = _accuracy_of(net) if net else None
    if net is None or accuracy is None:
        return None
    classes = _classes(net, accuracy.bottom[0])
    return float(min(1, accuracy.accuracy_param.top_k / classes)) if classes else None


def guessing_loss(net: Any) -> float | None:
    """The training loss of guessing, ln(classes).

    None unless the only loss of the train net is a SoftmaxWithLoss, averaged and with the
    weight 1, whose classes can be counted.
    """
    weights = {name: weight for name, weight in _loss_weights(net).items() if weight}
    losses = [layer for layer in net.layer if not weights.keys().isdisjoint(layer.top)]
    if list(weights.values()) != [1] or losses[0].type != "SoftmaxWithLoss":
        return None
    averaged = losses[0].loss_param
    if averaged.HasField("normalize") or averaged.HasField("normalization"):
        return None
    classes = _classes(net, losses[0].bottom[0])
    return math.log(classes) if classes else None


def _classes(net: Any, scores: str) -> int:
    """How many scores the layer that makes a blob has for each example; 0 if it is not known."""
    wanted = [scores]
    for layer in reversed(net.layer):
        if not set(wanted) & set(layer.top):
            continue
        classes = layer.inner_product_param.num_output or layer.convolution_param.num_output
        if classes:
            return int(classes)
        wanted = layer.bottom[:1]
    return 0


def over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    """Rows with iteration, lr, mean, low and high of `name`, where all seeds have a value.

    If the momentum is recorded, it follows lr.
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
