"""Where in its data a training is, and how a resumed one gets there.

Caffe's data layers begin at the first example. What a run had read is read
again, without what the other layers make of it: the batches of a layer come one
after the other, and after the last example comes the first.
"""

import math
from typing import Any

from caffe_clr.errors import ClrError
from caffe_clr.preflight import data_layers
from caffe_clr.prototxt import Net

_READING = (*("Data", "HDF5Data", "ImageData", "WindowData"), "Python")
_MOST_VALUES = 2 * 10**10  # that are read again; a matter of a minute


def read_on(net: Net, live: Any, batches: int, *, is_training: bool) -> list[str]:
    """Have each data layer of a net go on after so many batches.

    Args:
        net: what the prototxt says.
        live: the pycaffe net of it, whose data layers stand at their beginning.
        is_training: whether it crops at random.

    Returns:
        A line for each layer that does not go on with the very batch that
        would have come next.
    """
    parameters = {layer.name: layer for layer in net.parameter.layer}
    problems = []
    for index, (name, layer) in enumerate(zip(live._layer_names, live.layers, strict=True)):
        if layer.type not in _READING or len(live._bottom_ids(index)):
            continue
        values = sum(live.blobs[top].count for top in live.top_names[name])
        parameter, most = parameters.get(name), _MOST_VALUES // values
        skipped, problem = _to_skip(parameter, batches, most, is_training)
        for _ in range(skipped):
            live._forward(index, index)
        if problem:
            problems.append(f'{net.name}: layer "{name}": {problem}')
    return problems


def redrawn(live: Any) -> list[str]:
    """A line if layers of a net draw random numbers, whose generator no snapshot has."""
    if any(layer.type == "Dropout" for layer in live.layers):
        return ["Dropout draws other units than in an uninterrupted run; Caffe does not save which"]
    return []


def _to_skip(layer: Any, batches: int, most: int, is_training: bool) -> tuple[int, str]:
    """How many batches to skip to be where `batches` were read, and what is not so then.

    Args:
        layer: a LayerParameter, None where it is not known.
        most: how many batches can be read in good time.
    """
    images, batch_size = _size(layer)
    if not images or not batch_size:
        return (batches, "") if batches <= most else (0, "begins with the first example again")
    if _is_random(layer, is_training):
        if batches <= most:
            return batches, ""
        problem = "its random transformations are not those of an uninterrupted run"
    else:
        skipped = batches % (images // math.gcd(images, batch_size))
        if skipped <= most:
            return skipped, ""
        problem = "goes on up to a batch before the example at which it stopped"
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
