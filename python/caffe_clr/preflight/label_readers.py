"""Reads the labels of a data set, or those at the beginning and the end of a large one.

The values are those that Caffe's data layers put into a blob; a loss then truncates them to
integers. Data sets of up to 1 GB are read completely, and 512 MB at either end of larger
ones. Of label maps and HDF5 files, 64 MB at either end are read. This takes seconds.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caffe_clr import prototxt
from caffe_clr.preflight import data_layers

Values = NDArray[Any]
Found = Iterator[tuple[str, Values]]  # the file or folder that they are in, and values
Channels = slice | None  # of axis 1 of the blob; None for all
_Ends = tuple[Callable[[], Iterator[Any]], Callable[[], Iterator[Any]]]

_BYTES = 64 << 20  # at either end, of what is read as numbers
_BYTES_OF_IMAGES = 512 << 20  # at either end, of images that are read for their label
_IMAGES = 50  # that are decoded, at either end
_NUMBER = re.compile(r"[ \t\v\f\r]*([+-]?\d+(?:\.\d+)?)")


def read(layer: Any, top: str, channels: Channels = None) -> Found:
    """Yield the values that a data layer puts into a top, with the file they are from.

    It yields nothing if the values cannot be told.

    Args:
        layer: a LayerParameter, of a type in READERS.
        top: the name of the top.
        channels: the channels to read; None for all.
    """
    return READERS[layer.type](layer, list(layer.top).index(top), channels)


def _of_database(layer: Any, top: int, channels: Channels) -> Found:
    data, transformation = layer.data_param, layer.transform_param
    if transformation.HasField("mean_file"):
        return
    folder = Path(data.source)
    opened = _lmdb if data.backend == data.LMDB else _leveldb

    def cost(value: Any) -> float:
        return len(value) / _BYTES

    def cost_of_label(value: Any) -> float:
        return len(value) / _BYTES_OF_IMAGES

    try:
        with opened(folder) as (forward, backward):
            if top == 0:
                for value in _sampled(forward, backward, cost):
                    found = _map(value, transformation, channels)
                    if found is not None:
                        yield data.source, found
                return
            values = _sampled(forward, backward, cost_of_label)
            known = (label for label in map(_label, values) if label is not None)
            yield data.source, np.fromiter(known, np.int64)
    except (lmdb.Error, OSError, ValueError):
        return  # which Caffe will say


@contextmanager
def _lmdb(folder: Path) -> Iterator[_Ends]:
    """What iterates over the values of an LMDB, from the first on and from the last back."""
    with (
        lmdb.open(str(folder), readonly=True, lock=False, readahead=False) as database,
        database.begin(buffers=True) as transaction,
        transaction.cursor() as cursor,
    ):

        def forward() -> Iterator[Any]:
            cursor.first()
            return iter(cursor.iternext(keys=False))

        def backward() -> Iterator[Any]:
            cursor.last()
            return iter(cursor.iterprev(keys=False))

        yield forward, backward


@contextmanager
def _leveldb(folder: Path) -> Iterator[_Ends]:
    """The same of a LevelDB."""
    with data_layers.open_leveldb(folder) as key:

        def forward() -> Iterator[Any]:
            key.seek_to_first()
            while key.valid():
                yield key.value()
                key.next()

        def backward() -> Iterator[Any]:
            key.seek_to_last()
            while key.valid():
                yield key.value()
                key.prev()

        yield forward, backward


def _sampled(
    forward: Callable[[], Iterable[Any]],
    backward: Callable[[], Iterable[Any]],
    cost: Callable[[Any], float],
) -> Iterator[Any]:
    """Values from the first on until they have cost 1, then, if there are more, from the last."""
    for values in (forward, backward):
        spent = 0.0
        for value in values():
            yield value
            spent += cost(value)
            if spent >= 1:
                break
        else:
            return


def _map(value: Any, transformation: Any, channels: Channels) -> Values | None:
    """The values of an image in a Datum, None where they are not known."""
    datum = prototxt.caffe_pb2().Datum()
    try:
        datum.ParseFromString(bytes(value))
        if datum.encoded:
            pixels = _grey(datum.data)
        elif datum.data:
            pixels = np.frombuffer(datum.data, np.uint8)
        else:
            pixels = np.array(datum.float_data, np.float32)
        if pixels is None:
            return None
        image = pixels.reshape(datum.channels or 1, -1)
    except (DecodeError, OSError, SyntaxError, ValueError):  # the middle two are Pillow's
        return None  # which Caffe will say
    image = _transformed(image, transformation)
    return image if channels is None else image[channels]


def _transformed(image: Values, transformation: Any) -> Values:
    """An image, channels first, as the DataTransformer gives it, but for crops."""
    means = np.array(transformation.mean_value, np.float32)
    if means.size:
        image = image - means.reshape(-1, *[1] * (image.ndim - 1))
    if transformation.scale != 1:
        image = image * np.float32(transformation.scale)
    return image


def _grey(content: bytes) -> Values | None:
    """The pixels of a PNG of one channel, None of others: OpenCV makes colours of palettes."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image) if (image.mode, image.format) == ("L", "PNG") else None


def _label(value: Any) -> int | None:
    """The label in a serialized Datum, None where it cannot be read."""
    try:
        return int(prototxt.caffe_pb2().Datum.FromString(bytes(value)).label)
    except DecodeError:
        return None


def _of_list(layer: Any, top: int, channels: Channels) -> Found:
    data = layer.image_data_param
    lines = Path(data.source).read_text(errors="surrogateescape").rstrip("\n").split("\n")
    if top == 1:
        # as atoi does, though with the fraction that it cuts off
        texts = {line.rpartition(" ")[2] for line in lines}
        numbers = map(_NUMBER.match, texts)
        yield data.source, np.array([float(number[1]) if number else 0 for number in numbers])
    elif not (data.is_color or data.new_height or layer.transform_param.HasField("mean_file")):
        files = [line.rpartition(" ")[0] for line in lines[:_IMAGES] + lines[-_IMAGES:]]
        for path in dict.fromkeys(data.root_folder + file for file in files):
            try:
                pixels = _grey(Path(path).read_bytes())
            except OSError:
                continue  # which Caffe will say
            if pixels is not None:
                yield path, _transformed(pixels[np.newaxis], layer.transform_param)


def _of_hdf5(layer: Any, top: int, channels: Channels) -> Found:
    import h5py

    name = layer.top[top]
    listed = Path(layer.hdf5_data_param.source).read_text(errors="surrogateescape").split()
    spans = []
    for file in listed:
        with h5py.File(file) as datasets:
            rows, values = datasets[name].shape[0], max(1, datasets[name].size)
            step = max(1, _BYTES // 4 * rows // (8 * values))
            spans += [(file, begin, begin + step) for begin in range(0, rows, step)]

    def read(span: tuple[str, int, int]) -> tuple[str, Values]:
        file, begin, end = span
        with h5py.File(file) as datasets:
            rows = datasets[name][begin:end]
            return file, rows if channels is None else rows[:, channels]

    yield from _sampled(
        lambda: map(read, spans),
        lambda: map(read, reversed(spans)),
        lambda found: found[1].nbytes / _BYTES,
    )


READERS: dict[str, Callable[[Any, int, Channels], Found]] = {
    "Data": _of_database,
    "HDF5Data": _of_hdf5,
    "ImageData": _of_list,
}
