"""CIFAR as its users have it, and the LMDBs that come of it."""

import importlib.util
import io
import lzma
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from caffe_clr import prototxt
from caffe_clr.cli.data_sets import write_data
from caffe_clr.errors import ClrError
from caffe_clr.experiments import cifar, datasets
from caffe_clr.experiments.cifar import CIFAR10, CIFAR100, DataSet
from caffe_clr.experiments.datasets import Split

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL10 = replace(CIFAR10, images={"train": 50, "test": 20})
SMALL100 = replace(CIFAR100, images={"train": 200, "test": 100})
BOTH = pytest.mark.parametrize("data_set", [SMALL10, SMALL100], ids=lambda each: each.name)
VERSIONS = pytest.mark.parametrize("version", ["bin", "py"])


def made(data_set: DataSet) -> dict[str, Split]:
    """Random images of every class."""
    generator = np.random.default_rng(1)
    return {
        phase: Split(
            generator.integers(0, 256, (count, 3, 32, 32), np.uint8),
            generator.permutation(np.arange(count) % data_set.classes),
        )
        for phase, count in data_set.images.items()
    }


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2 and NumPy 1 did: the strings of bytes that the archives consist of."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value: bytes) -> None:
        content = pickle.BINSTRING + len(value).to_bytes(4, "little") + value
        self.write(content)  # type: ignore[attr-defined]

    def save_str(self, value: str) -> None:
        self.save_bytes(value.encode())

    dispatch[bytes] = save_bytes  # type: ignore[assignment]
    dispatch[str] = save_str  # type: ignore[assignment]


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def official(data_set: DataSet, splits: dict[str, Split], version: str) -> dict[str, bytes]:
    """The files of an archive by name."""
    suffix = ".bin" if version == "bin" else ""
    files = {f"{data_set.name}-{version}/readme.html": b"<html>"}
    for phase, split in splits.items():
        batches = data_set.batches[phase]
        parts = np.array_split(np.arange(len(split.labels)), len(batches))
        for batch, part in zip(batches, parts, strict=True):
            pixels, labels = split.images[part].reshape(len(part), -1), split.labels[part]
            if version == "bin":
                first = np.stack([labels // 5, labels][-data_set.label_bytes :], axis=1)
                content = np.hstack([first.astype(np.uint8), pixels]).tobytes()
            else:
                coarse = {b"coarse_labels": (labels // 5).tolist()}
                content = python2_pickle(
                    {b"data": pixels, data_set.label_key: labels.tolist(), **coarse}
                )
            files[f"{data_set.name}-{version}/{batch}{suffix}"] = content
    return files


def images(data_set: DataSet, splits: dict[str, Split]) -> dict[str, bytes]:
    """A PNG for each image."""
    files = {"cifar/train/c000/.DS_Store": b"\0"}
    for phase, split in splits.items():
        for number, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
            file = io.BytesIO()
            Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
            files[f"cifar/{phase}/c{label:03}/{number}.png"] = file.getvalue()
    return files


def unpacked(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def packed(files: dict[str, bytes], archive: Path) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.mkdir("cifar")
            for name, content in files.items():
                zipped.writestr(name, content)
        return archive
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def as_set(split: Split) -> set[tuple[int, bytes]]:
    return {
        (int(label), image.tobytes())
        for label, image in zip(split.labels, split.images, strict=True)
    }


@BOTH
@VERSIONS
def test_an_official_archive_and_its_folder(
    data_set: DataSet, version: str, tmp_path: Path
) -> None:
    splits = made(data_set)
    files = official(data_set, splits, version)
    archive = packed(files, tmp_path / "archive.tar.gz")
    folder = unpacked(files, tmp_path / "unpacked")
    (inner,) = folder.iterdir()
    for source in (archive, folder, inner):
        found = cifar.read(source, data_set)
        for phase, split in splits.items():
            assert found[phase].labels.tolist() == split.labels.tolist()
            assert np.array_equal(found[phase].images, split.images)
            assert len(found[phase].labels) == data_set.images[phase]


def test_an_order_is_of_the_training_images_and_the_same_every_time(tmp_path: Path) -> None:
    splits = made(SMALL10)
    source = unpacked(official(SMALL10, splits, "bin"), tmp_path)
    official_order, first, again, second = (
        cifar.read(source, SMALL10, order) for order in (None, 1, 1, 2)
    )
    assert np.array_equal(first["train"].images, again["train"].images)
    assert not np.array_equal(first["train"].images, second["train"].images)
    assert not np.array_equal(first["train"].images, official_order["train"].images)
    for ordered in (first, second):
        assert as_set(ordered["train"]) == as_set(splits["train"])
        assert np.array_equal(ordered["test"].images, splits["test"].images)


@BOTH
def test_images_in_a_folder_a_class(data_set: DataSet, tmp_path: Path) -> None:
    splits = made(data_set)
    files = images(data_set, splits)
    archives = (packed(files, tmp_path / f"images.{suffix}") for suffix in ("tar", "zip"))
    for source in (unpacked(files, tmp_path / "images"), *archives):
        found = cifar.read(source, data_set)
        assert {phase: as_set(split) for phase, split in found.items()} == {
            phase: as_set(split) for phase, split in splits.items()
        }


def test_a_folder_of_images_is_shuffled_in_the_same_way_every_time(tmp_path: Path) -> None:
    splits = made(SMALL10)
    source = unpacked(images(SMALL10, splits), tmp_path)
    first, second = (cifar.read(source, SMALL10)["train"].labels for _ in range(2))
    assert first.tolist() == second.tolist()
    assert len(set(first[:10].tolist())) > 4  # the files are in the order of their classes


def test_progress_goes_by_files(tmp_path: Path) -> None:
    source = packed(official(SMALL10, made(SMALL10), "bin"), tmp_path / "archive.tar")
    seen: list[tuple[int, int]] = []
    cifar.read(source, SMALL10, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_grey_and_a_palette_image_become_rgb(tmp_path: Path) -> None:
    source = unpacked(images(SMALL10, made(SMALL10)), tmp_path)
    files = sorted((source / "cifar/test").glob("*/*.png"))
    Image.new("L", (32, 32), 200).save(files[0])
    Image.new("P", (32, 32)).save(files[1])
    found = cifar.read(source, SMALL10)["test"].images
    assert any((image == 200).all() for image in found)


# each changes the files of a source into something that is refused
def drop(name: str) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        for each in list(files):
            if name in each:
                del files[each]

    return apply


def change(name: str, new: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        file = next(each for each in files if name in each)
        files[file] = new(files[file])

    return apply


def of_size(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("bin", drop("data_batch_3"), "data_batch_3.bin is missing"),
        (
            "bin",
            change("batch_2", lambda c: c[:-1]),
            "30,729 bytes are not a whole number of images of 3,073",
        ),
        ("bin", change("batch_2", lambda c: c[:-3073]), "49 train images; cifar10 has 50"),
        ("bin", change("batch_2", lambda c: b"\x0a" + c[1:]), "11 different train labels"),
        ("bin", change("batch_2", lambda c: b""), "0 bytes are not a whole number of images"),
        ("py", drop("test_batch"), "test_batch is missing"),
        ("py", change("batch_2", lambda c: c[:-9]), "damaged: "),
        ("py", change("batch_2", lambda c: b"cos\nsystem\n(S'true'\ntR."), "asks for os.system"),
        (
            "py",
            change("batch_2", lambda c: python2_pickle({b"labels": [1]})),
            "KeyError: b'data'",
        ),
        (
            "py",
            change("batch_2", lambda c: python2_pickle({b"data": np.ones(3072), b"labels": [1]})),
            "1 images of float64 and 1 labels",
        ),
        ("images", drop("c003"), "9 classes of images (c000, c001"),
        ("images", drop("/test/"), "nor images in test/<class>/"),
        ("images", change("/test/", lambda c: of_size(32, 40)), "is 32x40; all must be 32x32"),
        ("images", change("/test/", lambda c: c[:300]), "is damaged: "),
        ("images", change("/test/", lambda c: b"words"), "is not an image that Pillow can read"),
        ("images", drop("/train/c003/3.png"), "49 train images; cifar10 has 50"),
    ],
)
def test_a_source_that_is_not_whole_is_refused(
    kind: str, damage: Callable[[dict[str, bytes]], None], message: str, tmp_path: Path
) -> None:
    splits = made(SMALL10)
    splits["train"].labels[:] = np.arange(50) % 10
    files = images(SMALL10, splits) if kind == "images" else official(SMALL10, splits, kind)
    damage(files)
    with pytest.raises(ClrError) as refused:
        cifar.read(unpacked(files, tmp_path), SMALL10)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path))


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("name", ["archive.tar.gz", "archive.tar"])
def test_a_truncated_archive_is_refused(name: str, keep: float, tmp_path: Path) -> None:
    archive = packed(official(SMALL10, made(SMALL10), "bin"), tmp_path / name)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ClrError, match=r"truncated|is missing"):
        cifar.read(archive, SMALL10)


@pytest.mark.parametrize("keys", ["bytes", "str"])
def test_batches_that_python_3_wrote_are_read(keys: str, tmp_path: Path) -> None:
    splits = made(SMALL10)
    files = {
        name: pickle.dumps(
            {
                key if keys == "bytes" else key.decode(): value
                for key, value in pickle.loads(content, encoding="bytes").items()
            },
            protocol=2,
        )
        for name, content in official(SMALL10, splits, "py").items()
        if not name.endswith(".html")
    }
    read = cifar.read(unpacked(files, tmp_path), SMALL10)
    assert {phase: as_set(split) for phase, split in read.items()} == {
        phase: as_set(split) for phase, split in splits.items()
    }


@pytest.mark.parametrize("damage", ["cut", "changed", "encrypted"])
def test_a_damaged_zip_archive_is_refused(damage: str, tmp_path: Path) -> None:
    archive = packed(images(SMALL10, made(SMALL10)), tmp_path / "images.zip")
    content = bytearray(archive.read_bytes())
    match damage:
        case "cut":
            del content[len(content) // 2 :]
        case "changed":
            content[2000:2100] = bytes(100)
        case "encrypted":  # as the directory at the end says of each file
            for entry in re.finditer(b"PK\1\2", bytes(content)):
                content[entry.start() + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ClrError, match=r"images.zip is not a tar or zip archive, or is truncated"):
        cifar.read(archive, SMALL10)


def test_a_damaged_xz_archive_is_refused(tmp_path: Path) -> None:
    archive = packed(official(SMALL10, made(SMALL10), "bin"), tmp_path / "archive.tar")
    content = bytearray(lzma.compress(archive.read_bytes()))
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    archive.write_bytes(content)
    with pytest.raises(ClrError, match=r"archive.tar is not a tar or zip archive, or is"):
        cifar.read(archive, SMALL10)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ClrError, match="has no cifar10: neither the official files"):
        cifar.read(tmp_path, CIFAR10)
    with pytest.raises(ClrError, match=r"notes.txt is not a tar or zip archive, or is"):
        cifar.read(tmp_path / "notes.txt", CIFAR10)
    with pytest.raises(ClrError, match=r"gone: no such file or folder"):
        cifar.read(tmp_path / "gone", CIFAR10)
    source = unpacked(official(SMALL100, made(SMALL100), "bin"), tmp_path / "other")
    with pytest.raises(ClrError, match="has no cifar10: neither the official files"):
        cifar.read(source, CIFAR10)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's binary version at its full size, of few different images."""
    splits = {
        phase: Split(
            np.resize(split.images, (CIFAR10.images[phase], 3, 32, 32)),
            np.resize(split.labels, CIFAR10.images[phase]),
        )
        for phase, split in made(SMALL10).items()
    }
    folder = tmp_path_factory.mktemp("cifar10")
    return packed(official(CIFAR10, splits, "bin"), folder / "cifar-10-binary.tar")


def test_nothing_is_read_before_caffe_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "caffe.proto.caffe_pb2", raising=False)
    with pytest.raises(ClrError, match="no Caffe in this Python environment"):
        write_data(lambda _: pytest.fail("read"), tmp_path / "out", False, Console())


@pytest.mark.usefixtures("tree")
def test_the_command_writes_what_caffes_examples_read(
    archive: Path, run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("data", "cifar10", archive, "data/cifar10")
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 50,000 images, 10 classes of 5,000\n" in done.stdout
    assert "test: 10,000 images, 10 classes of 1,000\n" in done.stdout
    folder = tmp_path / "data" / "cifar10"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["cifar10"]
    sums = []
    for phase, count in CIFAR10.images.items():
        with (
            lmdb.open(str(folder / f"{phase}_lmdb"), readonly=True) as database,
            database.begin() as transaction,
        ):
            assert transaction.stat()["entries"] == count
            values = [value for _, value in transaction.cursor()]
        datums = [prototxt.caffe_pb2().Datum.FromString(value) for value in values]
        assert {(d.channels, d.height, d.width, d.encoded) for d in datums} == {(3, 32, 32, False)}
        assert {(d.label, d.data) for d in datums} == as_set(made(SMALL10)[phase])
        sums.append(np.sum([np.frombuffer(d.data, np.uint8) for d in datums], axis=0))
    mean_file = folder / "mean.binaryproto"
    mean = prototxt.caffe_pb2().BlobProto.FromString(mean_file.read_bytes())
    assert (mean.num, mean.channels, mean.height, mean.width) == (1, 3, 32, 32)
    assert mean.data == (sums[0] / 50_000).astype(np.float32).tolist()

    again = run_cli("data", "cifar10", archive, "data/cifar10")
    assert again.returncode == 2
    assert "data/cifar10/train_lmdb exists; overwrite it with --force" in again.stderr
    (folder / "notes.txt").write_text("mine")
    before = mean_file.read_bytes()
    mean_file.unlink()
    assert run_cli("data", "cifar10", archive, "data/cifar10", "--force").returncode == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert mean_file.read_bytes() == before


@pytest.mark.usefixtures("tree")
def test_the_command_leaves_nothing_when_it_fails(run_cli: Run, tmp_path: Path) -> None:
    unpacked(official(SMALL10, made(SMALL10), "bin"), tmp_path / "source")
    done = run_cli("data", "cifar10", "source", "out")
    assert done.returncode == 1
    assert "error: source: 50 train images; cifar10 has 50,000" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.usefixtures("tree")
def test_the_digits_are_the_demos(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = run_cli("data", "digits", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 1,500 images, 10 classes of 1" in done.stdout
    for mine, demos in zip(
        datasets.lmdbs(tmp_path / "mine"), datasets.write_digits(tmp_path), strict=True
    ):
        stored = []
        for path in (mine, demos):
            with lmdb.open(str(path), readonly=True) as database, database.begin() as transaction:
                stored.append(list(transaction.cursor()))
        assert stored[0] == stored[1]
