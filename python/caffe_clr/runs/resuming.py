"""Puts the data layers of a resumed run where they were.

Caffe's data layers start at the first example. A resumed run therefore reads the batches
again that it has used, without running the other layers. A data layer reads its examples
in order, and starts over after the last one.
"""

import math
from typing import Any

from caffe_clr.errors import ClrError
from caffe_clr.preflight import data_layers
from caffe_clr.prototxt import Net

_READING = (*("Data", "HDF5Data", "ImageData", "WindowData"), "Python")
_SHARED = ("Data", "HDF5Data")  # of which each rank reads only its part
_MOST_VALUES = 2 * 10**10  # that are read again; a matter of a minute


def read_on(net: Net, live: Any, batches: int, *, is_training: bool, ranks: int = 1) -> list[str]:
    """Advance each data layer of a net by a number of batches.

    Args:
        net: the net in the prototxt.
        live: its pycaffe net, whose data layers are at the first example.
        batches: the number of batches.
        is_training: whether the net crops at random.
        ranks: the number of ranks that share the examples.

    Returns:
        A message for each layer that cannot continue with exactly the next batch.
    """
    parameters = {layer.name: layer for layer in net.parameter.layer}
    problems = []
    for index, (name, layer) in enumerate(zip(live._layer_names, live.layers, strict=True)):
        if layer.type not in _READING or len(live._bottom_ids(index)):
            continue
        values = sum(live.blobs[top].count for top in live.top_names[name])
        parameter, most = parameters.get(name), _MOST_VALUES // values
        skipped, problem = _to_skip(parameter, batches, most, is_training, ranks)
        for _ in range(skipped):
            live._forward(index, index)
        if problem:
            problems.append(f'{net.name}: layer "{name}": {problem}')
    return problems


def redrawn(live: Any) -> list[str]:
    """A message if layers of a net draw random numbers, whose state no snapshot holds."""
    if any(layer.type == "Dropout" for layer in live.layers):
        return [
            "Dropout will drop different units from an uninterrupted run, because Caffe does not"
            " save the state of its random numbers"
        ]
    return []


def _to_skip(layer: Any, batches: int, most: int, is_training: bool, ranks: int) -> tuple[int, str]:
    """How many batches to skip to be where `batches` were read, and what is not so then.

    Args:
        layer: a LayerParameter, None where it is not known.
        most: how many batches can be read in good time.
    """
    images, batch_size = _size(layer)
    if not images or not batch_size:
        return (batches, "") if batches <= most else (0, "starts again at the first example")
    if layer.type in _SHARED:
        batch_size *= ranks
    if _is_random(layer, is_training):
        if batches <= most:
            return batches, ""
        problem = "its random transformations will differ from an uninterrupted run"
    else:
        skipped = batches % (images // math.gcd(images, batch_size))
        if skipped <= most:
            return skipped, ""
        problem = "resumes up to one batch early, so some examples repeat"
    return batches * batch_size % images // batch_size, problem


def _size(layer: Any) -> tuple[int | None, int | None]:
    if layer is None or not data_layers.can_count(layer):
        return None, None
    try:
        return data_layers.count_images(layer), data_layers.batch_size(layer)
    except ClrError:
        return None, None


def _is_random(layer: Any, is_training: bool) -> bool:
    transformation = layer.transform_param
    return bool(
        transformation.mirror
        or (transformation.crop_size and is_training)
        or layer.image_data_param.shuffle
        or layer.image_data_param.rand_skip
        or layer.hdf5_data_param.shuffle
    )
