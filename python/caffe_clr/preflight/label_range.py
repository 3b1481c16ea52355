"""Checks that a net has an output for each label of its data.

Caffe does not check this: with a label beyond the outputs, it reads, and in backward passes
writes, outside of the blob. It turns NaN into such a label, and truncates fractions.
`label_readers` describes which part of a data set is read.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from caffe_clr.errors import ClrError, counted
from caffe_clr.preflight import label_readers
from caffe_clr.preflight.label_readers import Channels, Values
from caffe_clr.prototxt import Net

# with the field that has the axis of their outputs; without one, all axes but the first
_OF_CLASSES = {
    "Accuracy": "accuracy_param",
    "HingeLoss": "",
    "InfogainLoss": "infogain_loss_param",
    "MultinomialLogisticLoss": "",
    "SoftmaxWithLoss": "softmax_param",
}
_IGNORING = {
    "Accuracy": "accuracy_param",
    "InfogainLoss": "loss_param",
    "SoftmaxWithLoss": "loss_param",
}
_OF_NUMBERS = ("EuclideanLoss", "L1Loss", "SmoothL1Loss")  # in forks, the latter two
_SAME_VALUES = ("Flatten", "Reshape", "Split")
_USUALLY_IGNORED = (-1, 255)
_MOST_COUNTED = 1 << 16

Shapes = Mapping[str, tuple[int, ...]]


class _Source(NamedTuple):
    """Where labels are from: the top of a data layer, and which channels of it."""

    layer: Any
    top: str
    channels: Channels = None
    is_reshaped: bool = False


@dataclass
class _Found:
    """What is known of the labels of a blob: each with the file or folder that it is in."""

    wholes: dict[int, str] = field(default_factory=dict)
    fractions: dict[float, str] = field(default_factory=dict)
    lost: dict[float, str] = field(default_factory=dict)

    def add(self, where: str, values: Values) -> None:
        """Add labels that a data set has."""
        if values.dtype.kind == "f":
            is_finite = np.isfinite(values)
            if not is_finite.all():
                self.lost.setdefault(float(values[~is_finite][0]), where)
                values = values[is_finite]
            cut = values[values != np.trunc(values)]
            if cut.size:
                self.fractions.setdefault(float(cut[0]), where)
        for label in self._new(values):
            self.wholes.setdefault(label, where)

    def _new(self, values: Values) -> Iterable[int]:
        """The whole numbers that values are cut to, among them all that are not yet known."""
        if values.dtype != np.uint8:
            yield from _distinct(values)
            return
        known = bytes(label for label in self.wholes if 0 <= label <= 255)
        content = values.tobytes().translate(None, known)
        while content:
            yield content[0]
            content = content.translate(None, content[:1])


def check(net: Net, shapes: Shapes) -> list[str]:
    """Refuse a net whose data has labels for which it has no output.

    Args:
        net: the net in the prototxt.
        shapes: the shapes of its blobs, by name.

    Returns:
        Warnings on labels with a fraction, which Caffe truncates.

    Raises:
        ClrError: names the layer that compares labels and outputs, the data and a label.
    """
    warnings = []
    found: dict[str, _Found] = {}
    for layer, sources in _comparing(net.parameter.layer, shapes):
        labels = layer.bottom[1]
        if labels not in found:
            found[labels] = _read(sources)
        where = f'{net.name}: layer "{layer.name}"'
        if layer.type in _OF_CLASSES:
            _check_classes(layer, shapes[layer.bottom[0]], found[labels], where)
        if fractions := found[labels].fractions:
            label, data = next(iter(fractions.items()))
            remedy = "class labels must be whole numbers"
            if layer.type in _OF_NUMBERS:
                remedy = "for such labels, use HDF5Data"
            warnings.append(
                f"{where}: {data} has the label {label:g}, which Caffe truncates"
                f" to {int(label)}; {remedy}"
            )
    return warnings


def _comparing(layers: Iterable[Any], shapes: Shapes) -> Iterable[tuple[Any, list[_Source]]]:
    """The layers that take their second bottom for labels, with where these are from."""
    known: dict[str, list[_Source]] = {}
    for layer in layers:
        labels = layer.bottom[1] if len(layer.bottom) > 1 else ""
        if (
            labels in known
            and layer.bottom[0] in shapes
            and (
                layer.type in _OF_CLASSES
                or (layer.type in _OF_NUMBERS and all(map(_is_cut, known[labels])))
            )
        ):
            yield layer, known[labels]
        passed_on = _passed_on(layer, known, shapes)
        for top in layer.top:
            known.pop(top, None)
        known |= passed_on


def _is_cut(source: _Source) -> bool:
    """Whether a source cuts a fraction off each label, and the losses do not."""
    return bool(source.layer.type == "ImageData" and source.top == source.layer.top[1])


def _passed_on(
    layer: Any, known: Mapping[str, list[_Source]], shapes: Shapes
) -> dict[str, list[_Source]]:
    """Where the labels in the tops of a layer are from, for those that have labels only."""
    if layer.type in label_readers.READERS:
        return {top: [_Source(layer, top)] for top in layer.top}
    if not all(bottom in known for bottom in layer.bottom):
        return {}
    if layer.type in _SAME_VALUES:
        reshaped = layer.type != "Split"
        sources = [
            source._replace(is_reshaped=source.is_reshaped or reshaped)
            for source in known[layer.bottom[0]]
        ]
        return {top: sources for top in layer.top}
    if layer.type == "Concat":
        joined = [
            source._replace(is_reshaped=True) for bottom in layer.bottom for source in known[bottom]
        ]
        return {layer.top[0]: joined}
    if layer.type == "Slice":
        return _sliced(layer, known[layer.bottom[0]], shapes)
    return {}


def _sliced(layer: Any, sources: list[_Source], shapes: Shapes) -> dict[str, list[_Source]]:
    """The channels that go into each top; nothing where other axes are sliced."""
    slicing = layer.slice_param
    axis = slicing.slice_dim if slicing.HasField("slice_dim") else slicing.axis
    (source,) = sources if len(sources) == 1 else (None,)
    if source is None or source.is_reshaped or axis != 1 or not all(t in shapes for t in layer.top):
        return {}
    begin = source.channels.start if source.channels else 0
    found = {}
    for top in layer.top:
        end = begin + shapes[top][1]
        found[top] = [source._replace(channels=slice(begin, end))]
        begin = end
    return found


def _read(sources: Iterable[_Source]) -> _Found:
    found = _Found()
    for source in sources:
        for where, values in label_readers.read(source.layer, source.top, source.channels):
            found.add(where, values)
    return found


def _distinct(values: Values) -> list[int]:
    """The whole numbers that values are cut to."""
    if not values.size:
        return []
    wholes = values.astype(np.int64).ravel()
    lowest = int(wholes.min())
    if int(wholes.max()) - lowest < _MOST_COUNTED:
        return [lowest + int(label) for label in np.flatnonzero(np.bincount(wholes - lowest))]
    return [int(label) for label in np.unique(wholes)]


def _check_classes(layer: Any, scores: tuple[int, ...], found: _Found, where: str) -> None:
    if found.lost:
        label, data = next(iter(found.lost.items()))
        shown = "NaN" if math.isnan(label) else f"{label:g}"
        raise ClrError(f"{where}: {data} has the label {shown}; fix the labels")
    outputs = _outputs(layer, scores)
    ignored = _ignored(layer)
    wrong = {label for label in found.wholes if not 0 <= label < outputs} - ignored
    if not wrong:
        return
    label = max(wrong)
    remedy = "set num_output, or fix the labels"
    if layer.type in _IGNORING and wrong <= set(_USUALLY_IGNORED):
        parameter = _IGNORING[layer.type]
        remedy = f"set ignore_label: {label} in its {parameter}, or fix the labels"
    raise ClrError(
        f'{where}: {found.wholes[label]} has the label {label}, but "{layer.bottom[0]}" has'
        f" {counted(outputs, 'output')}, for labels from 0 to {outputs - 1}; {remedy}"
    )


def _outputs(layer: Any, scores: tuple[int, ...]) -> int:
    parameter = _OF_CLASSES[layer.type]
    if not parameter:
        return math.prod(scores[1:])
    return scores[int(getattr(layer, parameter).axis)]


def _ignored(layer: Any) -> set[int]:
    parameter = getattr(layer, _IGNORING.get(layer.type, ""), None)
    return {parameter.ignore_label} if parameter and parameter.HasField("ignore_label") else set()
