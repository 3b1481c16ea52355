"""Data sets, as the LMDBs of Datum that Caffe's Data layer reads."""

import shutil
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from caffe_clr import prototxt

_DIGITS_TRAINED_ON = 1500
_MAP_BYTES = 1 << 30  # an upper limit; the file grows as it is written


def write_digits(folder: Path) -> tuple[Path, Path]:
    """Write the handwritten digits that come with scikit-learn, where they are not yet.

    They are 1,797 grey images of 8x8, values 0 to 16, of 43 writers (UCI's
    optical recognition test set). A random 1,500 are trained on, the other 297
    held out; the split is the same on every machine.

    Returns:
        The train and the test LMDB in `folder`.
    """
    train, test = folder / "train_lmdb", folder / "test_lmdb"
    if not (train.is_dir() and test.is_dir()):
        digits = load_digits()
        images, labels = digits.images.astype(np.uint8)[:, np.newaxis], digits.target
        order = np.random.RandomState(0).permutation(len(images))
        for path, chosen in zip((train, test), np.split(order, [_DIGITS_TRAINED_ON]), strict=True):
            write_lmdb(path, images[chosen], labels[chosen])
    return train, test


def write_lmdb(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write an LMDB of Datum, replacing one that is there.

    Args:
        path: the folder that the LMDB is.
        images: N x channels x height x width.
        labels: N.
    """
    datum_type = prototxt.caffe_pb2().Datum
    _, channels, height, width = images.shape
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with (
        lmdb.open(str(partial), map_size=_MAP_BYTES) as database,
        database.begin(write=True) as transaction,
    ):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            datum = datum_type(
                channels=channels, height=height, width=width, data=image.tobytes(), label=label
            )
            transaction.put(f"{index:08}".encode(), datum.SerializeToString())
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
