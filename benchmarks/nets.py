"""The nets that are trained, as the solver files of each worker, in a temporary folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from caffe_clr import datasets, locations, prototxt
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


def both(tree: Tree, folder: Path) -> list[Net]:
    """cifar10_full on random images, and the net of the digits; their files are in `folder`."""
    return [cifar10_full(tree, folder), digits(folder)]


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


def digits(folder: Path) -> Net:
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
