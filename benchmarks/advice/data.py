"""The data sets of the tasks: parts of CIFAR-10 and CIFAR-100, small enough for two cores.

Images have half the width and height, 16x16: the mean of four pixels each.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_clr.experiments import cifar, datasets
from caffe_clr.experiments.datasets import Split

_TRAIN, _TEST = 4000, 1000
_SMALL = 500
_SIX = 6
_WRONG = 0.3  # of the labels
_CLASSES = 10

Splits = Mapping[str, Split]


def write(cifar10: Path, cifar100: Path, out: Path) -> None:
    """Write the data sets into folders of `out`, each as train_lmdb, test_lmdb and a mean.

    Args:
        cifar10, cifar100: the official archives, or their folders.
        out: the folder; what it has already is kept.

    Raises:
        ClrError: a source cannot be read.
    """
    sources = {"cifar10": (cifar10, cifar.CIFAR10), "cifar100": (cifar100, cifar.CIFAR100)}
    made: dict[str, tuple[str, Callable[[Splits], Splits]]] = {
        "cifar10": ("cifar10", lambda splits: splits),
        "noisy": ("cifar10", _noisy),
        "small": ("cifar10", lambda splits: {**splits, "train": _first(splits["train"], _SMALL)}),
        "six": ("cifar10", lambda splits: splits),
        "cifar100": ("cifar100", lambda splits: splits),
    }
    out.mkdir(parents=True, exist_ok=True)
    datasets.write_digits(out / "digits")
    for name, (source, change) in made.items():
        if not (out / name).is_dir():
            splits = cifar.read(*sources[source])
            if name == "six":
                splits = {phase: _of_six(split) for phase, split in splits.items()}
            few = {"train": _first(splits["train"], _TRAIN), "test": _few(splits["test"])}
            smaller = {
                phase: Split(_halved(split.images), split.labels) for phase, split in few.items()
            }
            datasets.write(change(smaller), out / name)


def _first(split: Split, number: int) -> Split:
    return Split(split.images[:number], split.labels[:number])


def _few(split: Split) -> Split:
    """Some of the test images, whatever the order of their classes."""
    chosen = np.random.RandomState(0).permutation(len(split.labels))[:_TEST]
    return Split(split.images[chosen], split.labels[chosen])


def _of_six(split: Split) -> Split:
    """The images of the first six classes."""
    return Split(split.images[split.labels < _SIX], split.labels[split.labels < _SIX])


def _halved(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images, N x channels x height x width, of half the height and width."""
    count, channels, height, width = images.shape
    blocks = images.reshape(count, channels, height // 2, 2, width // 2, 2)
    halved: NDArray[np.uint8] = blocks.mean(axis=(3, 5)).round().astype(np.uint8)
    return halved


def _noisy(splits: Splits) -> Splits:
    """The images, with some of the labels to train on drawn anew from the other classes."""
    random = np.random.RandomState(0)
    labels = splits["train"].labels.copy()
    wrong = random.permutation(len(labels))[: round(_WRONG * len(labels))]
    labels[wrong] = (labels[wrong] + random.randint(1, _CLASSES, len(wrong))) % _CLASSES
    return {**splits, "train": Split(splits["train"].images, labels)}
