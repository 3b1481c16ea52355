"""Writes what the rows of the paper's tables are trained on: models, nets and data sets."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffe_clr import locations
from caffe_clr.errors import ClrError, UsageError, command
from caffe_clr.experiments import cifar, datasets, nets
from caffe_clr.experiments.datasets import Split
from caffe_clr.experiments.paper import Table

CIFAR = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}
_PADDED = "_padded"
_PIXELS = 4  # by which images are padded
# where Caffe's nets read ImageNet, by the names in the folder that is given
_IMAGENET = {
    "ilsvrc12_train_lmdb": "examples/imagenet/ilsvrc12_train_lmdb",
    "ilsvrc12_val_lmdb": "examples/imagenet/ilsvrc12_val_lmdb",
    "imagenet_mean.binaryproto": "data/ilsvrc12/imagenet_mean.binaryproto",
}
_IMAGENET_FOLDER = f"a folder with {', '.join(_IMAGENET)}, which Caffe's examples/imagenet makes"
_IMAGENET_SIDE, _IMAGENET_CLASSES = 256, 1000
_RANDOM = 256  # images

Sources = Mapping[str, Path | None]  # of cifar10, cifar100 and imagenet


def prepare(
    table: Table,
    seed: int,
    sources: Sources,
    out: Path,
    on_data: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the models and the data of a seed, unless they are there.

    Args:
        sources: the archive or folder of each data set, where it is given.
        on_data: called with the folder of a data set before it is written.

    Raises:
        UsageError: a source is needed and missing.
        ClrError: see cifar.read; or Caffe's source is missing.
    """
    folder = table.root(seed, out)
    if table.data == "imagenet":
        _link_imagenet(table, _given("imagenet", _IMAGENET_FOLDER, sources), folder)
    elif table.data != "digits" and not datasets.existing(folder / "data" / table.data):
        data = folder / "data" / table.data
        name = table.data.removesuffix(_PADDED)
        source = _given(name, f"the archive of {CIFAR[name].archive}, or its folder", sources)
        on_data(data)
        order = None if seed == 1 else seed
        _write(cifar.read(source, CIFAR[name], order, pad=_pad(table)), data)
    _write_models(table, folder)


def prepare_random(table: Table, out: Path) -> None:
    """Write the models and random images in place of the data of seed 1, to measure times."""
    folder = table.root(1, out)
    if table.data == "imagenet":
        for name, place in _IMAGENET.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            split = _random(_IMAGENET_SIDE, _IMAGENET_CLASSES)
            if name.endswith("lmdb"):
                datasets.write_lmdb(folder / place, split.images, split.labels)
            else:
                datasets.write_mean(folder / place, split.images)
    elif table.data != "digits":
        data_set = CIFAR[table.data.removesuffix(_PADDED)]
        split = _random(cifar.SIDE, data_set.classes)
        splits = datasets.padded({"train": split, "test": split}, _pad(table))
        _write(splits, folder / "data" / table.data)
    _write_models(table, folder)


def _random(side: int, classes: int) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (_RANDOM, 3, side, side), np.uint8)
    return Split(images, np.arange(_RANDOM) % classes)


def _pad(table: Table) -> int:
    return _PIXELS if table.data.endswith(_PADDED) else 0


def _write(splits: dict[str, Split], data: Path) -> None:
    data.parent.mkdir(parents=True, exist_ok=True)
    datasets.write(splits, data)


def _link_imagenet(table: Table, source: Path, folder: Path) -> None:
    """Link what the net reads."""
    net = _net_of_caffe(table).read_text()
    for name, place in _IMAGENET.items():
        if place in net:
            if not (source / name).exists():
                raise ClrError(f"{source / name} is missing; Caffe's examples/imagenet makes it")
            link = folder / place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to((source / name).resolve())


def _given(name: str, what: str, sources: Sources) -> Path:
    source = sources[name]
    if source is None:
        raise UsageError(f"--{name} is missing: name {what}")
    return source


def _write_models(table: Table, folder: Path) -> None:
    models = folder / "models"
    shutil.copytree(locations.shipped("models"), models, ignore=_not_needed, dirs_exist_ok=True)
    if table.data == "digits":
        datasets.write_digits(models / "digits")
    if table.data == "imagenet":
        file = _net_of_caffe(table)
        (models / file.parent.name).mkdir(exist_ok=True)
        shutil.copy(file, models / file.parent.name)
    if table.net:
        nets.write(net(table), models / table.folder.name / f"{table.net}.prototxt")


def _net_of_caffe(table: Table) -> Path:
    """The file of a net that ships with Caffe.

    Raises:
        ClrError: Caffe's source is missing.
    """
    folder = locations.build() / "source/models" / f"bvlc_{table.folder.name}"
    file = folder / "train_val.prototxt"
    if not file.is_file():
        raise ClrError(f"{file} is missing: build Caffe first with {command('build')}")
    return file


def net(table: Table) -> Any:
    """The net of a row of Table 4."""
    classes = CIFAR[table.data.removesuffix(_PADDED)].classes
    data = Path("data", table.data)
    match table.folder.name:
        case "stochastic_depth":
            return nets.stochastic_depth(table.depth, 0.5, classes, data)
        case "densenet":
            return nets.densenet(table.depth, 12, classes, data)
    return nets.resnet(table.depth, classes, data)


def _not_needed(folder: str, names: list[str]) -> list[str]:
    """All but the folders in models, and the prototxt files in those."""
    if Path(folder) == locations.shipped("models"):
        return [name for name in names if Path(folder, name).is_file()]
    return [name for name in names if not name.endswith(".prototxt")]
