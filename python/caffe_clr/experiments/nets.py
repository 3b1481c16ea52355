"""The nets of the paper's section 4.1.2 (Table 4), made with Caffe's NetSpec.

They classify CIFAR-10 and CIFAR-100, with the augmentation of their own papers: 4 pixels of
padding, which the training images must already have in the database, random crops of
32x32, and mirroring.
"""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from google.protobuf import text_format

from caffe_clr.errors import UsageError
from caffe_clr.experiments import datasets
from caffe_clr.prototxt import caffe_pb2
from caffe_clr.runs.solvers import import_caffe
from caffe_clr.system.files import replacing

_SIDE = 32
_MEAN = [125.3, 123.0, 113.9]  # red, green and blue of CIFAR-10; CIFAR-100's differ by at most 4
_SCALE = 1 / 64  # near the standard deviations, 62 to 67
_TEST_BATCH = 100
_RESIDUAL_BATCH = 128
_DENSE_BATCH = 64
_STAGES = 3
_FIRST_CHANNELS = 16
# Torch's momentum of 0.1; Caffe's own 0.999 is of some thousand batches, in which rates move far.
_MOVING_AVERAGE = 0.9
_NOT_LEARNED = {"lr_mult": 0, "decay_mult": 0}


def resnet(depth: int, classes: int, data: Path) -> Any:
    """The ResNet of He et al., "Deep Residual Learning", 2015 (arXiv 1512.03385, section 4.2).

    A convolution, then three stages of n blocks with 16, 32 and 64 channels of
    32x32, 16x16 and 8x8, and an inner product. A block adds two convolutions to
    its input; where it halves the size, the input is subsampled, and zeros double
    its channels (option A).

    Args:
        depth: number of layers with weights, 6n + 2.
        classes: number of classes.
        data: the folder of train_lmdb and test_lmdb.

    Returns:
        A NetParameter with loss, and in TEST accuracy.

    Raises:
        UsageError: there is no such depth, or fewer than two classes.
    """
    return _residual_net(f"resnet_{depth}", depth, 1, classes, data)


def stochastic_depth(depth: int, survival: float, classes: int, data: Path) -> Any:
    """The ResNet of Huang et al., "Deep Networks with Stochastic Depth", 2016 (arXiv 1603.09382).

    Block l of L survives a training batch with probability
    p = 1 - l / L * (1 - survival) (their equation 4) and is its shortcut alone
    otherwise; in TEST its convolutions are multiplied by p.

    Args:
        depth: see `resnet`.
        survival: the probability that the last block survives, above 0 and at most 1.
        classes: number of classes.
        data: the folder of train_lmdb and test_lmdb.

    Returns:
        A NetParameter with loss, and in TEST accuracy.

    Raises:
        UsageError: there is no such depth or probability, or fewer than two classes.
    """
    if not 0 < survival <= 1:
        raise UsageError(f"survival is {survival:g}; give a probability above 0 and at most 1")
    return _residual_net(f"stochastic_depth_{depth}", depth, survival, classes, data)


def densenet(depth: int, growth_rate: int, classes: int, data: Path) -> Any:
    """The DenseNet of Huang et al., 2016 (arXiv 1608.06993, section 3), neither B nor C.

    A convolution, then three blocks of n layers, each of which appends
    `growth_rate` channels to its input, and between them transitions that halve
    the size.

    Args:
        depth: number of layers with weights, 3n + 4.
        growth_rate: number of channels that each layer adds.
        classes: number of classes.
        data: the folder of train_lmdb and test_lmdb.

    Returns:
        A NetParameter with loss, and in TEST accuracy.

    Raises:
        UsageError: there is no such depth or growth rate, or fewer than two classes.
    """
    if growth_rate < 1:
        raise UsageError(f"growth rate is {growth_rate}; give 1 channel or more")
    layers = _repeats(depth, _STAGES, 4)
    net = _begin(data, _DENSE_BATCH, classes)
    channels = _FIRST_CHANNELS
    top = _convolution(net, "conv1", net.data, channels)
    for block in range(1, _STAGES + 1):
        for layer in range(1, layers + 1):
            name = f"block{block}_{layer}"
            top = _add(net, "Concat", name, top, _dense_layer(net, name, top, growth_rate))
        channels += layers * growth_rate
        if block < _STAGES:
            name = f"transition{block}"
            top = _dense_layer(net, name, top, channels, kernel_size=1)
            top = _average(net, name, top, kernel_size=2, stride=2)
    top = _relu(net, "last", _normalized(net, "last", top))
    return _end(net, f"densenet_{depth}_{growth_rate}", top, classes)


def count_parameters(net: Any) -> int:
    """The number of learned parameters in a net of this module, without BatchNorm's statistics."""
    caffe, messages = import_caffe(), caffe_pb2()
    shapes = [{"dim": [1, len(_MEAN), _SIDE, _SIDE]}, {"dim": [1]}]
    image = messages.LayerParameter(
        name="data", type="Input", top=["data", "label"], input_param={"shape": shapes}
    )
    layers = [image, *(layer for layer in net.layer if layer.type != "Data")]
    with NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(messages.NetParameter(layer=layers)))
        file.flush()
        live = caffe.Net(file.name, caffe.TRAIN)
    return count_learned(live)


def count_learned(live: Any) -> int:
    """The number of learned parameters in a pycaffe net, without BatchNorm's statistics."""
    learned = [layer for layer in live.layers if layer.type != "BatchNorm"]
    return sum(blob.count for layer in learned for blob in layer.blobs)


def write(net: Any, path: Path) -> None:
    """Write a NetParameter as a prototxt, replacing one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text_format.MessageToString(net))


def _residual_net(name: str, depth: int, survival: float, classes: int, data: Path) -> Any:
    blocks = _repeats(depth, 2 * _STAGES, 2)
    net = _begin(data, _RESIDUAL_BATCH, classes)
    top = _convolution(net, "conv1", net.data, _FIRST_CHANNELS)
    top = _relu(net, "conv1", _normalized(net, "conv1", top, in_place=True))
    for index in range(_STAGES * blocks):
        stage, block = divmod(index, blocks)
        top = _residual_block(
            net,
            name=f"block{stage + 1}_{block + 1}",
            bottom=top,
            channels=_FIRST_CHANNELS * 2**stage,
            halves=stage > 0 and block == 0,
            survival=1 - (index + 1) / (_STAGES * blocks) * (1 - survival),
        )
    return _end(net, name, top, classes)


def _residual_block(
    net: Any, name: str, bottom: Any, channels: int, *, halves: bool, survival: float
) -> Any:
    first, second = f"{name}_conv1", f"{name}_conv2"
    residual = _convolution(net, first, bottom, channels, stride=2 if halves else 1)
    residual = _relu(net, first, _normalized(net, first, residual, in_place=True))
    residual = _convolution(net, second, residual, channels)
    residual = _normalized(net, second, residual, in_place=True)
    if survival < 1:
        residual = _surviving(net, name, residual, survival)
    shortcut = _halved(net, name, bottom) if halves else bottom
    return _relu(net, name, _add(net, "Eltwise", name, residual, shortcut))


def _halved(net: Any, name: str, bottom: Any) -> Any:
    """Every second pixel of every second row, and as many channels of zeros."""
    round_mode = import_caffe().params.Pooling.FLOOR  # CEIL takes a row from outside the image
    window = {"kernel_size": 1, "stride": 2, "round_mode": round_mode}
    subsampled = _average(net, f"{name}_subsampled", bottom, **window)
    zeros = _add(net, "Power", f"{name}_zeros", subsampled, scale=0)
    return _add(net, "Concat", f"{name}_shortcut", subsampled, zeros)


def _surviving(net: Any, name: str, bottom: Any, survival: float) -> Any:
    """The bottom times 1 or 0, drawn for the batch; in TEST times the probability.

    Dropout divides what it keeps by its probability, which is all that it keeps here.
    """
    filler = {"type": "constant", "value": survival}
    factor = _add(net, "DummyData", f"{name}_survival", shape={}, data_filler=filler)
    factor = _add(net, "Dropout", f"{name}_survives", factor, dropout_ratio=1 - survival)
    return _add(net, "Scale", f"{name}_residual", bottom, factor)


def _dense_layer(net: Any, name: str, bottom: Any, channels: int, kernel_size: int = 3) -> Any:
    """Normalization, ReLU and convolution of a bottom that others read, too."""
    top = _relu(net, name, _normalized(net, name, bottom))
    return _convolution(net, f"{name}_conv", top, channels, kernel_size=kernel_size)


def _convolution(
    net: Any, name: str, bottom: Any, channels: int, kernel_size: int = 3, stride: int = 1
) -> Any:
    return _add(
        net,
        "Convolution",
        name,
        bottom,
        num_output=channels,
        kernel_size=kernel_size,
        pad=kernel_size // 2,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "msra"},
    )


def _normalized(net: Any, name: str, bottom: Any, *, in_place: bool = False) -> Any:
    """BatchNorm, in place where nothing else reads the bottom, and Scale in place.

    What either keeps for the backward pass is less than a top of its own.
    """
    top = _add(
        net,
        "BatchNorm",
        f"{name}_bn",
        bottom,
        in_place=in_place,
        moving_average_fraction=_MOVING_AVERAGE,
        param=[_NOT_LEARNED] * 3,
    )
    return _add(net, "Scale", f"{name}_scale", top, bias_term=True, in_place=True)


def _relu(net: Any, name: str, bottom: Any) -> Any:
    return _add(net, "ReLU", f"{name}_relu", bottom, in_place=True)


def _average(net: Any, name: str, bottom: Any, **window: Any) -> Any:
    return _add(net, "Pooling", name, bottom, pool=import_caffe().params.Pooling.AVE, **window)


def _add(net: Any, kind: str, name: str, *bottoms: Any, **fields: Any) -> Any:
    """Add a layer to a NetSpec; fields that it does not know are those of its own parameter."""
    net[name] = getattr(import_caffe().layers, kind)(*bottoms, **fields)
    return net[name]


def _begin(data: Path, batch_size: int, classes: int) -> Any:
    """A NetSpec of the Data layers alone, that of TRAIN first."""
    if classes < 2:
        raise UsageError(f"classes is {classes}; give 2 or more")
    net = import_caffe().NetSpec()
    train, test = datasets.lmdbs(data)
    crops = {"crop_size": _SIDE, "mirror": True}
    net.data, net.label = _data(train, "TRAIN", batch_size, crops)
    net.test_data, net.test_label = _data(test, "TEST", _TEST_BATCH, {})
    return net


def _data(lmdb: Path, phase: str, batch_size: int, augmentation: dict[str, Any]) -> Any:
    caffe = import_caffe()
    return caffe.layers.Data(
        ntop=2,
        include={"phase": getattr(caffe, phase)},
        transform_param={"scale": _SCALE, "mean_value": _MEAN, **augmentation},
        source=str(lmdb),
        batch_size=batch_size,
        backend=caffe.params.Data.LMDB,
    )


def _end(net: Any, name: str, bottom: Any, classes: int) -> Any:
    """The NetParameter of a NetSpec, after the classifier on what is pooled over the image."""
    pooled = _average(net, "pooled", bottom, global_pooling=True)
    filler = {"type": "xavier"}
    scores = _add(net, "InnerProduct", "scores", pooled, num_output=classes, weight_filler=filler)
    _add(net, "SoftmaxWithLoss", "loss", scores, net.label)
    test = {"phase": import_caffe().TEST}
    _add(net, "Accuracy", "accuracy", scores, net.label, include=test)
    parameter = net.to_proto()
    parameter.name = name
    train_data, test_data = parameter.layer[:2]
    # a NetSpec has no two tops of one name
    test_data.name, test_data.top[:] = train_data.name, train_data.top
    return parameter


def _repeats(depth: int, step: int, rest: int) -> int:
    """The n of a depth of step * n + rest."""
    repeats, left = divmod(depth - rest, step)
    if left or repeats < 1:
        nearest = step * max(1, round((depth - rest) / step)) + rest
        raise UsageError(
            f"depth is {depth}; it must be {step}n + {rest} with n of 1 or more: the nearest is"
            f" {nearest}"
        )
    return repeats
