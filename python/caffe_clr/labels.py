"""Whether a net has an output for each label of its data.

Caffe does not ask: a label beyond the outputs reads, and in backward passes
writes, beside the blob. The labels are those of LMDBs, HDF5 files and image
lists; of an LMDB of more than 4 GB, those of the first and the last 10,000
images. Reading them takes 3 us an image, and of a large image its first and
last page alone.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from caffe_clr import data_layers
from caffe_clr.errors import ClrError
from caffe_clr.prototxt import Net

_OF_CLASSES = {
    "Accuracy": "accuracy_param",
    "HingeLoss": "",
    "InfogainLoss": "infogain_loss_param",
    "MultinomialLogisticLoss": "",
    "SoftmaxWithLoss": "softmax_param",
}
_IGNORING = {"Accuracy": "accuracy_param", "SoftmaxWithLoss": "loss_param"}
_SMALL_BYTES = 4 << 30
_OF_LARGE = 10_000
_DATA, _LABEL = 4, 5  # fields of Datum
_VARINT, _LENGTH = 0, 2  # wire types


def check(net: Net, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a net with fewer outputs than its data has labels.

    Args:
        net: what the prototxt says.
        shapes: of its blobs, by name.

    Raises:
        ClrError: names the layer that compares the two, the data and a label.
    """
    sources = {
        top: layer
        for layer in net.parameter.layer
        for top in (layer.top if layer.type == "HDF5Data" else layer.top[1:2])
        if layer.type in _READERS
    }
    found: dict[str, set[int]] = {}
    for layer in net.parameter.layer:
        if layer.type not in _OF_CLASSES or len(layer.bottom) < 2:
            continue
        scores, labels = layer.bottom[:2]
        if labels not in sources or scores not in shapes:
            continue
        source = sources[labels]
        if labels not in found:
            found[labels] = set(_READERS[source.type](source, labels))
        outputs = shapes[scores][_axis(layer)]
        wrong = {label for label in found[labels] - _ignored(layer) if not 0 <= label < outputs}
        if wrong:
            data = getattr(source, data_layers.PARAMETERS[source.type]).source
            raise ClrError(
                f'{net.name}: layer "{layer.name}": {data} has the label {max(wrong)}, and'
                f' "{scores}" {outputs} outputs, for labels from 0 to {outputs - 1}; set'
                " num_output, or fix the labels"
            )


def _axis(layer: Any) -> int:
    field = _OF_CLASSES[layer.type]
    return getattr(layer, field).axis if field else 1


def _ignored(layer: Any) -> set[int]:
    parameter = getattr(layer, _IGNORING.get(layer.type, ""), None)
    return {parameter.ignore_label} if parameter and parameter.HasField("ignore_label") else set()


def _of_database(layer: Any, top: str) -> Iterator[int]:
    source, data = layer.data_param.source, layer.data_param
    if data.backend != data.LMDB:
        return
    try:
        with (
            lmdb.open(source, readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as transaction,
            transaction.cursor() as cursor,
        ):
            values: Iterable[Any] = cursor.iternext(keys=False)
            if os.path.getsize(Path(source, "data.mdb")) > _SMALL_BYTES:
                yield from _labels(islice(values, _OF_LARGE))
                cursor.last()
                values = islice(cursor.iterprev(keys=False), _OF_LARGE)
            yield from _labels(values)
    except (lmdb.Error, OSError):
        return  # which Caffe will say


def _labels(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        label = _label(value)
        if label is not None:
            yield label


def _label(datum: Any) -> int | None:
    """The label in a serialized Datum, whose image is not read."""
    position = 0
    try:
        while position < len(datum):
            tag, position = _varint(datum, position)
            if tag & 7 == _VARINT:
                value, position = _varint(datum, position)
                if tag >> 3 == _LABEL:
                    return value - (1 << 64) if value >> 63 else value
            elif tag == _DATA << 3 | _LENGTH:
                length, position = _varint(datum, position)
                position += length
            else:
                return None
    except IndexError:
        return None
    return 0


def _varint(datum: Any, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = datum[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _of_list(layer: Any, top: str) -> Iterator[int]:
    text = Path(layer.image_data_param.source).read_text(errors="surrogateescape")
    for line in text.splitlines():
        label = line.rpartition(" ")[2]
        if label.lstrip("-").isdecimal():
            yield int(label)


def _of_hdf5(layer: Any, top: str) -> Iterator[int]:
    import h5py

    for file in Path(layer.hdf5_data_param.source).read_text(errors="surrogateescape").split():
        with h5py.File(file) as datasets:
            yield from map(int, np.unique(datasets[top][()]))


_READERS = {"Data": _of_database, "HDF5Data": _of_hdf5, "ImageData": _of_list}
