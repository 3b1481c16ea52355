"""Reads CIFAR-10 and CIFAR-100 in the forms in which people have them.

A source is an official archive (the binary version or the one for Python), its unpacked
folder, or a folder or archive of images, with train/<class>/<image> and test/<class>/<image>.
"""

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from caffe_clr.errors import ClrError
from caffe_clr.experiments import datasets
from caffe_clr.experiments.datasets import Split
from caffe_clr.system import archives

SIDE = 32
_SHAPE = (3, SIDE, SIDE)  # red, green, blue
_PIXELS = 3 * SIDE * SIDE
_CLASSES_NAMED = 12  # in a message
_FOLDER_ORDER = 0


@dataclass(frozen=True)
class DataSet:
    """The contents of a data set.

    Attributes:
        archive: the address of the official binary version.
        images: number of images of each phase.
        batches: the files in the archives that hold each phase; in the binary version,
            their names end in .bin.
        label_bytes: number of bytes before the pixels of an image in the binary version;
            the last of them is the label.
        label_key: the key of the labels in the version for Python.
    """

    name: str
    archive: str
    classes: int
    images: dict[str, int]
    batches: dict[str, tuple[str, ...]]
    label_bytes: int
    label_key: bytes


CIFAR10 = DataSet(
    name="cifar10",
    archive="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    classes=10,
    images={"train": 50_000, "test": 10_000},
    batches={
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    },
    label_bytes=1,
    label_key=b"labels",
)
CIFAR100 = DataSet(
    name="cifar100",
    archive="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    classes=100,
    images={"train": 50_000, "test": 10_000},
    batches={"train": ("train",), "test": ("test",)},
    label_bytes=2,  # the coarse label, then the fine one
    label_key=b"fine_labels",
)


def read(
    source: Path,
    data_set: DataSet,
    order: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    pad: int = 0,
) -> dict[str, Split]:
    """Read a data set by phase.

    The official files keep their order, which is already random. A folder of images, sorted
    by class, is shuffled in the same way on every machine. Its classes are numbered in the
    order of their names, which is the official order.

    Args:
        source: the archive or folder.
        data_set: CIFAR10 or CIFAR100.
        order: a seed with which to shuffle the training images.
        on_progress: called with the number of files read and the total.
        pad: by how many pixels to pad the training images; see datasets.padded.

    Raises:
        ClrError: the source is missing, truncated or of another format, or does not have
            the images and classes of the data set.
    """
    if not source.exists():
        raise ClrError(
            f"{source}: no such file or folder; the official archive is {data_set.archive}"
        )
    with _damage_told(source):
        wanted = _choose(source, data_set, [name for name, _ in _files(source)])
        found: dict[PurePosixPath, Split] = {}
        for name, content in _files(source):
            if name in wanted:
                found[name] = wanted[name].read(content())
                on_progress(len(found), len(wanted))
    splits = {}
    for phase in data_set.images:
        parts = [found[name] for name, file in wanted.items() if file.phase == phase]
        images = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        _check(source, data_set, phase, labels)
        seed = order if phase == "train" else None
        if seed is None and all(file.is_image for file in wanted.values()):
            seed = _FOLDER_ORDER
        if seed is not None:
            rows = np.random.RandomState(seed).permutation(len(images))
            images, labels = images[rows], labels[rows]
        splits[phase] = Split(images, labels)
    return datasets.padded(splits, pad) if pad else splits


@dataclass(frozen=True)
class _File:
    """A file that is to be read, and how."""

    phase: str
    read: Callable[[bytes], Split]
    is_image: bool = False


def _choose(
    source: Path, data_set: DataSet, names: Sequence[PurePosixPath]
) -> dict[PurePosixPath, _File]:
    """The files of the source's format, in the order in which they are to be read."""
    by_name = {name.name: name for name in names}
    batches = [(phase, batch) for phase in data_set.images for batch in data_set.batches[phase]]
    for suffix, read_batch in ((".bin", _read_binary), ("", _read_python)):
        missing = [batch + suffix for _, batch in batches if batch + suffix not in by_name]
        if not missing:
            chosen = {}
            for phase, batch in batches:
                name = by_name[batch + suffix]
                chosen[name] = _File(phase, partial(read_batch, data_set, f"{source}: {name}"))
            return chosen
        if len(missing) < len(batches):
            raise ClrError(f"{source}: {missing[0]} is missing; fetch the data set again")
    return _choose_images(source, data_set, names)


def _choose_images(
    source: Path, data_set: DataSet, names: Sequence[PurePosixPath]
) -> dict[PurePosixPath, _File]:
    images: dict[str, list[PurePosixPath]] = {phase: [] for phase in data_set.images}
    for name in sorted(names):
        if len(name.parts) > 2 and name.parts[-3] in images and not name.name.startswith("."):
            images[name.parts[-3]].append(name)
    for phase, found in images.items():
        if not found:
            raise ClrError(
                f"{source}: has no {data_set.name}: neither the official files"
                f" ({data_set.batches[phase][0]}.bin, {data_set.batches[phase][0]}) nor images"
                f" in {phase}/<class>/"
            )
    classes = sorted({name.parts[-2] for found in images.values() for name in found})
    if len(classes) != data_set.classes:
        named = classes[:_CLASSES_NAMED] + ["…"] * (len(classes) > _CLASSES_NAMED)
        raise ClrError(
            f"{source}: {len(classes)} classes of images ({', '.join(named)}); {data_set.name} has"
            f" {data_set.classes}"
        )
    return {
        name: _File(
            phase,
            partial(_read_image, f"{source}: {name}", classes.index(name.parts[-2])),
            is_image=True,
        )
        for phase, found in images.items()
        for name in found
    }


def _files(source: Path) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """The name of each file of a folder or archive, and what reads it, in order."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                yield PurePosixPath(path.relative_to(source)), path.read_bytes
        return
    for file in archives.files(source):
        yield file.name, file.read


def _read_binary(data_set: DataSet, where: str, content: bytes) -> Split:
    size = data_set.label_bytes + _PIXELS
    if not content or len(content) % size:
        raise ClrError(
            f"{where}: {len(content):,} bytes are not a whole number of images of {size:,};"
            " it is truncated or belongs to another data set"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = records[:, data_set.label_bytes - 1].astype(np.int64)
    return Split(records[:, data_set.label_bytes :].reshape(-1, *_SHAPE), labels)


def _read_python(data_set: DataSet, where: str, content: bytes) -> Split:
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        batch = {key.encode() if isinstance(key, str) else key: batch[key] for key in batch}
        images = np.asarray(batch[b"data"]).reshape(-1, *_SHAPE)
        labels = np.asarray(batch[data_set.label_key])
    except Exception as error:  # a damaged pickle can raise any
        raise ClrError(
            f"{where} is not a Python batch of {data_set.name}, or is damaged:"
            f" {type(error).__name__}: {error}"
        ) from None
    if images.dtype != np.uint8 or labels.dtype.kind != "i" or labels.shape != images.shape[:1]:
        raise ClrError(
            f"{where}: {len(images):,} images of {images.dtype} and {labels.size:,} labels of"
            f" {labels.dtype}; expected equal numbers of uint8 images and integer labels"
        )
    return Split(images, labels.astype(np.int64))


def _latin1(text: str | bytes, encoding: str | bytes) -> bytes:
    if isinstance(text, str) and encoding in ("latin1", b"latin1"):
        return text.encode("latin1")
    raise pickle.UnpicklingError(f"it asks for text in {encoding!r}")


class _Unpickler(pickle.Unpickler):
    """Makes nothing but the arrays, lists and names that the batches hold."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return np.empty(0).__reduce__()[0]
            case ("_codecs", "encode"):  # bytes, as Python 3 writes them in protocol 2
                return _latin1
            case ("numpy", "ndarray"):
                return np.ndarray
            case ("numpy", "dtype"):
                return np.dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_image(where: str, label: int, content: bytes) -> Split:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.size != (SIDE, SIDE):
                raise ClrError(
                    f"{where} is {image.width}x{image.height}; all must be {SIDE}x{SIDE}"
                )
            pixels = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise ClrError(f"{where} is not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of damaged files
        raise ClrError(f"{where} is damaged: {error}") from None
    return Split(pixels.transpose(2, 0, 1)[np.newaxis], np.array([label]))


def _check(source: Path, data_set: DataSet, phase: str, labels: NDArray[np.int64]) -> None:
    wanted = data_set.images[phase]
    if len(labels) != wanted:
        raise ClrError(f"{source}: {len(labels):,} {phase} images; {data_set.name} has {wanted:,}")
    found = np.unique(labels)
    if not np.array_equal(found, np.arange(data_set.classes)):
        raise ClrError(
            f"{source}: {len(found)} different {phase} labels, from {found[0]} to {found[-1]};"
            f" {data_set.name} has 0 to {data_set.classes - 1}"
        )


@contextmanager
def _damage_told(source: Path) -> Iterator[None]:
    try:
        yield
    except archives.DAMAGED:
        raise ClrError(
            f"{source} is not a tar or zip archive, or is truncated; fetch it again, or give"
            " another SOURCE"
        ) from None
