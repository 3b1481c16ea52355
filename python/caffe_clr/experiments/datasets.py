"""Writes data sets as the LMDBs that Caffe's Data layer reads."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import lmdb
import numpy as np
from numpy.typing import NDArray

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.system.files import replacing

_DIGITS_TRAINED_ON = 1500
_MAP_BYTES = 1 << 30  # an upper limit; the file grows as it is written
_MEAN = "mean.binaryproto"
_LMDB = {"data.mdb", "lock.mdb"}  # the files of one


@dataclass(frozen=True)
class Split:
    """The images of a phase, N x channels x height x width, and their labels, N."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def digits() -> dict[str, Split]:
    """The handwritten digits that come with scikit-learn, by phase.

    They are 1,797 grey images of 8x8 with values from 0 to 16, of 43 writers (UCI's
    optical recognition test set). A random 1,500 are for training and the other 297 for
    testing; the split is the same on every machine.
    """
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images, labels = bundled.images.astype(np.uint8)[:, np.newaxis], bundled.target
    order = np.random.RandomState(0).permutation(len(images))
    train, test = np.split(order, [_DIGITS_TRAINED_ON])
    return {
        phase: Split(images[chosen], labels[chosen])
        for phase, chosen in (("train", train), ("test", test))
    }


def write_digits(folder: Path) -> tuple[Path, Path]:
    """Write the LMDBs of the digits, unless they exist.

    Returns:
        The train and the test LMDB in `folder`.
    """
    train, test = lmdbs(folder)
    for path, split in zip((train, test), digits().values(), strict=True):
        if not path.is_dir():
            write_lmdb(path, split.images, split.labels)
    return train, test


def padded(splits: Mapping[str, Split], pixels: int) -> dict[str, Split]:
    """Surround the training images of a data set with a border of their mean colour.

    Args:
        splits: the images by phase, train and test.
        pixels: the width of the border; height and width grow by twice as much.
    """
    images, labels = splits["train"].images, splits["train"].labels
    count, channels, height, width = images.shape
    colour = images.mean(axis=(0, 2, 3)).round().astype(np.uint8)
    larger = np.empty((count, channels, height + 2 * pixels, width + 2 * pixels), np.uint8)
    larger[:] = colour[:, np.newaxis, np.newaxis]
    larger[:, :, pixels : pixels + height, pixels : pixels + width] = images
    return {**splits, "train": Split(larger, labels)}


def lmdbs(folder: Path) -> tuple[Path, Path]:
    """The paths of the train and the test LMDB of a data set, as in Caffe's examples."""
    return folder / "train_lmdb", folder / "test_lmdb"


def write(
    splits: Mapping[str, Split], out: Path, on_image: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write a data set as Caffe's examples expect it; all of it, or nothing.

    Args:
        splits: the images by phase, train and test.
        out: the folder for train_lmdb, test_lmdb and mean.binaryproto; existing ones are
            replaced.
        on_image: called after each image.

    Returns:
        The paths of the two LMDBs and the mean. There is no mean if the images of the
        phases differ in size, because Caffe requires one of the same size.

    Raises:
        ClrError: see check_replaced.
    """
    check_replaced(out)
    with _folder_beside(out.resolve()) as partial:  # "." has no name
        for path, split in zip(lmdbs(partial), splits.values(), strict=True):
            write_lmdb(path, split.images, split.labels, on_image)
        files = list(lmdbs(partial))
        if len({split.images.shape[1:] for split in splits.values()}) == 1:
            files.append(partial / _MEAN)
            write_mean(files[-1], splits["train"].images)
        out.mkdir(exist_ok=True)
        (out / _MEAN).unlink(missing_ok=True)
        made = []
        for path in files:
            made.append(out / path.name)
            if made[-1].is_dir():
                shutil.rmtree(made[-1])
            path.replace(made[-1])
    return made


def existing(folder: Path) -> list[Path]:
    """What a folder has of a data set, which `write` would replace."""
    return [path for path in (*lmdbs(folder), folder / _MEAN) if os.path.lexists(path)]


def check_replaced(folder: Path) -> None:
    """Refuse to write a data set if that would delete anything but a data set.

    Raises:
        ClrError: train_lmdb or test_lmdb in `folder` is not an LMDB, or holds other files.
    """
    for path in lmdbs(folder):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ClrError(f"{path} is not a folder; move it, or name another one")
        others = sorted({file.name for file in path.iterdir()} - _LMDB) if path.is_dir() else []
        if others:
            raise ClrError(f"{path / others[0]} does not belong to an LMDB; move it first")


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside a path, to write what is then moved to it; in the end it is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{path.name}.", suffix=".partial", dir=path.parent) as folder:
        yield Path(folder)


def write_mean(path: Path, images: NDArray[np.uint8]) -> None:
    """Write the mean of images, N x channels x height x width, as a binaryproto.

    It is what Caffe's tools/compute_image_mean.cpp writes.
    """
    _, channels, height, width = images.shape
    mean = prototxt.caffe_pb2().BlobProto(num=1, channels=channels, height=height, width=width)
    mean.data.extend(images.mean(axis=0).ravel().tolist())
    path.write_bytes(mean.SerializeToString())


def write_lmdb(
    path: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    on_image: Callable[[], None] = lambda: None,
) -> None:
    """Write a new LMDB of Datum messages.

    Args:
        path: the folder of the LMDB.
        images: N x channels x height x width.
        labels: N.
        on_image: called after each image.

    Raises:
        ClrError: it cannot be written.
    """
    datum_type = prototxt.caffe_pb2().Datum
    _, channels, height, width = images.shape
    with _failure_told(path), replacing(path) as partial:
        partial.mkdir(parents=True)
        with (
            lmdb.open(str(partial), map_size=_MAP_BYTES) as database,
            database.begin(write=True) as transaction,
        ):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                datum = datum_type(
                    channels=channels, height=height, width=width, data=image.tobytes(), label=label
                )
                transaction.put(f"{index:08}".encode(), datum.SerializeToString())
                on_image()


@contextmanager
def _failure_told(path: Path) -> Iterator[None]:
    """Say which LMDB could not be written; its error is no OSError."""
    try:
        yield
    except lmdb.Error as error:
        raise ClrError(f"{path}: cannot be written: {error}; is the disk full?") from None
