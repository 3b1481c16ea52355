"""Writes the nets to train, and their solver files, into a temporary folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from caffe_clr import locations, prototxt
from caffe_clr.experiments import datasets, nets
from caffe_clr.harness.compilation import Tree

_IMAGES = 1000
_NEVER = 2**31 - 1
_EXAMPLE = Path("examples/cifar10")
FIXED: dict[str, Any] = {"lr_policy": "fixed", "base_lr": 0.001}
TRIANGULAR2: dict[str, Any] = {
    **{"lr_policy": "triangular2", "base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
}


@dataclass(frozen=True)
class Net:
    """A net, and the solver files that train it with and without the policies.

    Attributes:
        block: how many iterations are done at a time.
    """

    name: str
    block: int
    triangular2: Path
    fixed: Path


def make(names: Sequence[str], tree: Tree, folder: Path) -> list[Net]:
    """The named nets of `NETS`; their files are in `folder`."""
    return [NETS[name](tree, folder) for name in names]


def cifar10_full(tree: Tree, folder: Path) -> Net:
    """Upstream's cifar10_full on random images, batches of 100."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (_IMAGES, 3, 32, 32), np.uint8)
    datasets.write_lmdb(folder / "train_lmdb", images, generator.integers(0, 10, _IMAGES))
    datasets.write_mean(folder / "mean.binaryproto", images)
    return Net(
        *("cifar10_full", 5),
        write_cifar10(folder / "cifar10_triangular2.prototxt", tree, folder, **TRIANGULAR2),
        write_cifar10(folder / "cifar10_fixed.prototxt", tree, folder, **FIXED),
    )


def digits(tree: Tree, folder: Path) -> Net:
    """The net of models/digits, batches of 50."""
    model = locations.shipped("models") / "digits"
    net = write_net(folder / "digits.prototxt", model / "train_test.prototxt", folder / "digits")
    (folder / "digits").mkdir()
    datasets.write_digits(folder / "digits")
    return Net(
        *("digits", 100),
        *(
            write_solver(folder / name, model / name, net)
            for name in ("triangular2_solver.prototxt", "fixed_solver.prototxt")
        ),
    )


def cifar10_sigmoid_bn(tree: Tree, folder: Path) -> Net:
    """The net of models/cifar10_sigmoid_bn, batches of 100."""
    given = locations.shipped("models") / "cifar10_sigmoid_bn" / "train_test.prototxt"
    return _in_memory(folder, "cifar10_sigmoid_bn", prototxt.read_net(given), (100, 3, 32, 32), 5)


def resnet_20(tree: Tree, folder: Path) -> Net:
    """A ResNet of 20 layers, batches of 128."""
    net = nets.resnet(20, 10, folder)
    return _in_memory(folder, "resnet_20", net, (128, 3, 32, 32), 1)


def resnet_110(tree: Tree, folder: Path) -> Net:
    """A ResNet of 110 layers, batches of 128."""
    net = nets.resnet(110, 10, folder)
    return _in_memory(folder, "resnet_110", net, (128, 3, 32, 32), 1)


def densenet_40(tree: Tree, folder: Path) -> Net:
    """A DenseNet of 40 layers and growth rate 12, batches of 64."""
    net = nets.densenet(40, 12, 10, folder)
    return _in_memory(folder, "densenet_40", net, (64, 3, 32, 32), 1)


def alexnet(tree: Tree, folder: Path) -> Net:
    """Upstream's AlexNet, batches of 32."""
    return _alexnet(tree, folder, "alexnet", 32)


def alexnet_1(tree: Tree, folder: Path) -> Net:
    """Upstream's AlexNet, one image at a time."""
    return _alexnet(tree, folder, "alexnet_1", 1)


def large(tree: Tree, folder: Path) -> Net:
    """The first two stages of VGG, batches of 4: 3x3 convolutions of 224x224 and 112x112."""
    layers = []
    bottom = "data"
    for name, channels in (("1_1", 64), ("1_2", 64), ("2_1", 128), ("2_2", 128)):
        layers.append(
            f"layer {{ name: 'conv{name}' type: 'Convolution' bottom: '{bottom}' top: 'conv{name}'"
            f" convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1"
            " weight_filler { type: 'msra' } } }"
            f" layer {{ name: 'relu{name}' type: 'ReLU' bottom: 'conv{name}' top: 'conv{name}' }}"
        )
        bottom = f"conv{name}"
        if name.endswith("2"):
            layers.append(
                f"layer {{ name: 'pool{name}' type: 'Pooling' bottom: '{bottom}' top: 'pool{name}'"
                " pooling_param { pool: MAX kernel_size: 2 stride: 2 } }"
            )
            bottom = f"pool{name}"
    layers.append(
        f"layer {{ name: 'scores' type: 'InnerProduct' bottom: '{bottom}' top: 'scores'"
        " inner_product_param { num_output: 10 weight_filler { type: 'xavier' } } }"
        " layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'scores' bottom: 'label'"
        " top: 'loss' }"
    )
    net = text_format.Parse("".join(layers), prototxt.caffe_pb2().NetParameter())
    return _in_memory(folder, "large", net, (4, 3, 224, 224), 1)


NETS = {
    each.__name__: each
    for each in (
        *(cifar10_full, digits, cifar10_sigmoid_bn, resnet_20, densenet_40, alexnet),
        *(alexnet_1, large),
    )
}

OF_RANKS = ("cifar10_full", "resnet_20", "alexnet")


def in_memory(tree: Tree, folder: Path) -> list[Net]:
    """The nets of the check on a GPU, which trains on batches that are there already."""
    cifar10 = prototxt.read_net(tree.source / _EXAMPLE / "cifar10_full_train_test.prototxt")
    return [
        _in_memory(folder, "cifar10_full", cifar10, (100, 3, 32, 32), 5),
        *(make(tree, folder) for make in (resnet_20, resnet_110, densenet_40, alexnet)),
    ]


def _alexnet(tree: Tree, folder: Path, name: str, batch: int) -> Net:
    net = prototxt.read_net(tree.source / "models/bvlc_alexnet/train_val.prototxt")
    return _in_memory(folder, name, net, (batch, 3, 227, 227), 1)


def _in_memory(folder: Path, name: str, net: Any, shape: tuple[int, ...], block: int) -> Net:
    """A net whose batch is in memory, as the worker fills it."""
    messages = prototxt.caffe_pb2()
    inputs = messages.LayerParameter(
        **{"name": "data", "type": "Input", "top": ["data", "label"]},
        input_param={"shape": [{"dim": shape}, {"dim": shape[:1]}]},
    )
    layers = [inputs]
    for layer in net.layer:
        tested = messages.TEST in (rule.phase for rule in layer.include)
        if layer.type not in ("Data", "Accuracy") and not tested:
            layers.append(layer)
    file = folder / f"{name}.prototxt"
    file.write_text(text_format.MessageToString(messages.NetParameter(layer=layers)))
    solvers = []
    for policy in (TRIANGULAR2, FIXED):
        fields = {**policy, "momentum": 0.9, "weight_decay": 0.0005, "max_iter": _NEVER}
        solver = messages.SolverParameter(
            **{"net": str(file), "solver_mode": "CPU", "random_seed": 1},
            **{"snapshot_after_train": False, **fields},
        )
        solvers.append(folder / f"{name}_{policy['lr_policy']}.prototxt")
        solvers[-1].write_text(text_format.MessageToString(solver))
    return Net(name, block, *solvers)


def write_cifar10(file: Path, tree: Tree, data: Path, **fields: Any) -> Path:
    """Write upstream's solver of cifar10_full, and its net beside it.

    Args:
        tree: where the example is taken from.
        data: a folder with train_lmdb, test_lmdb and mean.binaryproto.
        fields: of SolverParameter, to replace the solver's own.
    """
    example = tree.source / _EXAMPLE
    net = write_net(
        file.with_name("cifar10_full.prototxt"),
        example / "cifar10_full_train_test.prototxt",
        data,
    )
    return write_solver(file, example / "cifar10_full_solver.prototxt", net, **fields)


def write_net(file: Path, given: Path, data: Path) -> Path:
    """Write the net in `given` with its LMDBs, and its mean if it has one, from `data`."""
    net = prototxt.read_net(given)
    for layer in net.layer:
        if layer.type == "Data":
            is_test = prototxt.caffe_pb2().TEST in (rule.phase for rule in layer.include)
            layer.data_param.source = str(data / ("test_lmdb" if is_test else "train_lmdb"))
            if layer.transform_param.mean_file:
                layer.transform_param.mean_file = str(data / "mean.binaryproto")
    file.write_text(text_format.MessageToString(net))
    return file


def write_solver(file: Path, given: Path, net: Path, **fields: Any) -> Path:
    """Write the solver in `given` for another net; on the CPU, and tested when it is asked to."""
    solver = prototxt.read_solver(given)
    for field in ("test_iter", "display", "snapshot"):
        solver.ClearField(field)
    own = {
        **{"net": str(net), "solver_mode": "CPU", "random_seed": 1, "snapshot_after_train": False},
        **{"test_interval": _NEVER, "test_initialization": False},
    }
    solver.MergeFrom(prototxt.caffe_pb2().SolverParameter(**{**own, **fields}))
    file.write_text(text_format.MessageToString(solver))
    return file
