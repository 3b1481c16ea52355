"""Inspects and checks the data that data layers read.

The rules are those of data_transformer.cpp and the data layers in Caffe's
source. Paths in prototxt files are relative to the working directory, as for
`caffe train`.
"""

import hashlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb
from google.protobuf.message import DecodeError

from caffe_clr import locations, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.prototxt import Net, check_file, looked_for
from caffe_clr.system import installed_caffe
from caffe_clr.system.files import replacing

_TABLES = (".ldb", ".sst")  # of a LevelDB; never changed, but merged and replaced
_DATABASES = {"LEVELDB": "CURRENT", "LMDB": "data.mdb"}  # a file that each has in its folder
PARAMETERS = {
    "Data": "data_param",
    "DummyData": "dummy_data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "Input": "input_param",
    "MemoryData": "memory_data_param",
    "WindowData": "window_data_param",
}

Shape = tuple[int, int, int]

_WITH_OPENCV = ("ImageData", "WindowData")


def of_net(net: Net) -> Any:
    """The data layer that defines a net's epoch; None if the net has no data layer.

    If there are several, it is the first that can be counted and has a second top, for
    labels; else the first that can be counted; else the first.
    """
    sources = [
        layer for layer in net.parameter.layer if not layer.bottom and layer.type != "Parameter"
    ]
    return min(
        sources,
        key=lambda layer: (not can_count(layer), len(layer.top) < 2),
        default=None,
    )


def batch_size(layer: Any) -> int | None:
    """The batch size of a data layer; None if the prototxt does not tell."""
    if layer.type not in PARAMETERS:
        return None
    parameter = getattr(layer, PARAMETERS[layer.type])
    if hasattr(parameter, "batch_size"):
        sizes = [parameter.batch_size]
    elif layer.type == "DummyData" and parameter.num:
        sizes = parameter.num
    else:
        sizes = [size for shape in parameter.shape for size in shape.dim]
    return sizes[0] if sizes and sizes[0] > 0 else None


def can_count(layer: Any) -> bool:
    """Whether `count_images` supports the type of a layer."""
    return layer.type in _COUNTERS


def count_images(layer: Any, net: str = "net") -> int:
    """Count the examples that a data layer reads before it starts again.

    It counts the keys in the database of a Data layer, the rows in the files of an
    HDF5Data layer, or the lines in the list of an ImageData layer. A database is neither
    changed nor locked, and may be in use. A LevelDB has to be read completely; the count is
    cached until the files of the database change.

    Args:
        layer: a LayerParameter.
        net: the name of its net, for messages.

    Raises:
        ClrError: the layer has another type, or its source is missing, empty, damaged or
            of another kind; names net, layer and source, and says what to do.
    """
    where = f'{net}: layer "{layer.name}"'
    counter = _COUNTERS.get(layer.type)
    if counter is None:
        raise ClrError(
            f"{where}: the images of a layer of type {layer.type} cannot be counted; give --images"
        )
    source = getattr(layer, PARAMETERS[layer.type]).source
    if not source:
        raise ClrError(f"{where}: no source; set it in its {PARAMETERS[layer.type]}")
    try:
        if not Path(source).exists():
            raise ValueError(f"no data at {source}{looked_for(source)}; make it, or fix source")
        images = counter(layer, Path(source))
    except OSError as error:
        raise ClrError(f"{where}: {source} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ClrError(f"{where}: {error}") from None
    if images == 0:
        raise ClrError(f"{where}: {source} is empty; create it again")
    return images


def check(net: Net) -> None:
    """Refuse a net with a data layer that Caffe would abort on.

    Raises:
        ClrError: says which file, layer and field is wrong, and how to fix it.
    """
    for layer in net.parameter.layer:
        where = f'{net.name}: layer "{layer.name}"'
        if check_layer := _CHECKS.get(layer.type):
            check_layer(layer, where)
        if layer.type in _WITH_OPENCV:
            _check_opencv(f"{where}: type {layer.type} needs")


def digest(nets: Iterable[Net]) -> str:
    """A hash of the data of nets that pass `check`, to notice that the data has changed.

    It covers only a small part: the first value of a database, the number of values of an
    LMDB, the first row and the number of rows of each HDF5 file, lists of images, and the
    mean that is subtracted.
    """
    found = hashlib.sha256()
    for layer in (layer for net in nets for layer in net.parameter.layer):
        if read := _DIGESTED.get(layer.type):
            with suppress(OSError):  # of what `check` does not know
                found.update(read(layer))
            if layer.transform_param.mean_file:
                with suppress(OSError):
                    found.update(Path(layer.transform_param.mean_file).read_bytes())
    return found.hexdigest()


def _of_database(layer: Any) -> bytes:
    data = layer.data_param
    count = _count_lmdb(Path(data.source)) if _backend(data) == "LMDB" else 0
    return (_first_value(data) or b"") + str(count).encode()


def _of_list(layer: Any) -> bytes:
    return Path(getattr(layer, PARAMETERS[layer.type]).source).read_bytes()


def _of_hdf5_list(layer: Any) -> bytes:
    import h5py

    found = _of_list(layer)
    for file in found.decode(errors="replace").split():
        with h5py.File(file, "r") as datasets:
            for top in layer.top:
                found += str(datasets[top].shape).encode() + bytes(datasets[top][:1])
    return found


_DIGESTED: dict[str, Callable[[Any], bytes]] = {
    "Data": _of_database,
    "HDF5Data": _of_hdf5_list,
    "ImageData": _of_list,
    "WindowData": _of_list,
}


def _check_opencv(what: str) -> None:
    if not installed_caffe.has_opencv():
        raise ClrError(
            f"{what} OpenCV, but this Caffe is built without it; install its development files"
            " (Debian package libopencv-dev), and run `caffe-clr build --opencv`"
        )


def _backend_problem(data: Any) -> str | None:
    """What is wrong with the backend of a DataParameter, if its source is of another."""
    source, backend = Path(data.source), _backend(data)
    if (source / _DATABASES[backend]).is_file():
        return None
    for other, file in _DATABASES.items():
        if (source / file).is_file():
            default = "" if data.HasField("backend") else ", the default"
            return (
                f"the backend is {backend}{default}, but {source} is {other};"
                f" write backend: {other}"
            )
    return f"{source} is not a valid {backend}: it has no {_DATABASES[backend]}"


def _backend(data: Any) -> str:
    return str(data.DB.Name(data.backend))


def _count_database(layer: Any, folder: Path) -> int:
    if problem := _backend_problem(layer.data_param):
        raise ValueError(problem)
    return _count_lmdb(folder) if _backend(layer.data_param) == "LMDB" else _count_leveldb(folder)


def _count_lmdb(folder: Path) -> int:
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as database:
            return int(_whole(database, folder).stat()["entries"])
    except lmdb.Error as error:
        raise ValueError(f"LMDB {folder} cannot be read: {error}; create it again") from None


def _whole(database: lmdb.Environment, folder: Path) -> lmdb.Environment:
    """Refuse an LMDB that ends before its last page: to read there ends the process."""
    there = (folder / "data.mdb").stat().st_size
    needed = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
    if there < needed:
        raise lmdb.Error(f"{folder} is truncated: it has {there:,} of {needed:,} bytes")
    return database


def _count_leveldb(folder: Path) -> int:
    kept = _kept_count(folder)
    with suppress(OSError, ValueError):
        return int(kept.read_text())
    with open_leveldb(folder) as key:
        images = 0
        key.seek_to_first()
        while key.valid():
            images += 1
            key.next()
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            partial.write_text(f"{images}\n")
    return images


def _kept_count(folder: Path) -> Path:
    """Where the count of a LevelDB is kept, under a name that its content decides.

    Caffe, as it opens a database, rewrites its manifest and an empty log, and
    leaves the tables as they are.
    """
    files = [
        (file.name, status.st_size, status.st_mtime_ns)
        for file in sorted(folder.resolve().iterdir())
        if file.suffix in (*_TABLES, ".log") and (status := file.stat()).st_size
    ]
    key = hashlib.sha256(repr((str(folder.resolve()), files)).encode()).hexdigest()
    return locations.cache() / "counts" / key


@contextmanager
def open_leveldb(folder: Path) -> Iterator[Any]:
    """An iterator over the keys and values of a LevelDB.

    Raises:
        ValueError: the database cannot be read, or plyvel cannot be imported.
    """
    try:
        import plyvel
    except ImportError as error:
        raise ValueError(
            f"LevelDB {folder} cannot be read without plyvel ({error}). Install g++, python3-dev"
            f" and libleveldb-dev, then run {sys.executable} -m pip install plyvel-ci"
        ) from None

    with tempfile.TemporaryDirectory() as view:
        _link_leveldb(folder, Path(view))
        try:
            with (
                closing(plyvel.DB(view, paranoid_checks=True, max_open_files=100)) as database,
                # the other iterator ends without a word where the last block is damaged
                closing(database.raw_iterator(verify_checksums=True, fill_cache=False)) as key,
            ):
                yield key
        except plyvel.Error as error:
            reason = os.fsdecode(error.args[0]).replace(view, str(folder))
            raise ValueError(
                f"LevelDB {folder} cannot be read: {reason}; create it again"
            ) from None


def _link_leveldb(folder: Path, view: Path) -> None:
    """Make a LevelDB in `view` of the files of another.

    LevelDB writes into each database that it opens. Here it finds links to the
    files that it reads only: logs, and tables under the suffix .sst, which it
    reads but has not written since 1.14.
    """
    for file in folder.resolve().iterdir():
        if file.suffix in _TABLES:
            (view / f"{file.stem}.sst").symlink_to(file)
        elif file.suffix == ".log":
            (view / file.name).symlink_to(file)
        elif file.name == "CURRENT" or file.name.startswith("MANIFEST-"):
            shutil.copyfile(file, view / file.name)


def _count_hdf5(layer: Any, source: Path) -> int:
    import h5py

    if h5py.is_hdf5(source):
        raise ValueError(f"{source} is an HDF5 file; name a text file that lists such files")
    if not layer.top:
        raise ValueError("no top; name the tops as the datasets in its files")
    files = [os.fsdecode(file) for file in source.read_bytes().split()]
    return sum(_count_rows(file, layer.top[0], source) for file in files)


def _count_rows(file: str, name: str, source: Path) -> int:
    import h5py

    listed = f"{file!r}, which {source} lists,"
    if not Path(file).is_file():
        raise ValueError(f"{listed} does not exist{looked_for(file)}; make it, or fix the list")
    try:
        with h5py.File(file, "r") as datasets:
            dataset = datasets.get(name)
            if isinstance(dataset, h5py.Dataset) and dataset.shape:
                return int(dataset.shape[0])
    except OSError as error:
        raise ValueError(f"{listed} cannot be read as HDF5: {error}; create it again") from None
    raise ValueError(f'{listed} has no rows in a dataset "{name}"; name the top as the dataset')


def _count_lines(layer: Any, source: Path) -> int:
    if source.is_fifo():
        raise ValueError(f"{source} is a pipe, but must be read twice; name a file")
    with source.open("rb") as lines:
        return sum(1 for _ in lines)


_COUNTERS: dict[str, Callable[[Any, Path], int]] = {
    "Data": _count_database,
    "HDF5Data": _count_hdf5,
    "ImageData": _count_lines,
}


def _check_database(layer: Any, where: str) -> None:
    """A layer Data."""
    data = layer.data_param
    _check_source(data, where, "no data at")
    _check_batch_size(data, where)
    if problem := _backend_problem(data):
        raise ClrError(f"{where}: {problem}")
    shape = None
    datum = _first_datum(data, where)
    if datum.encoded:
        _check_opencv(f"{where}: {data.source} has compressed images, which need")
    else:
        shape = (datum.channels, datum.height, datum.width)
    _check_transformation(layer.transform_param, where, shape)


def _first_datum(data: Any, where: str) -> Any:
    try:
        value = _first_value(data)
    except ValueError as error:
        raise ClrError(f"{where}: {error}") from None
    if value is None:
        raise ClrError(f"{where}: {data.source} is empty; write the data set again")
    datum = prototxt.caffe_pb2().Datum()
    with suppress(DecodeError):
        datum.ParseFromString(value)
    if not datum.encoded and datum.channels < 1:
        raise ClrError(
            f"{where}: the first value of {data.source} is not a Datum; write the data set again"
        )
    return datum


def _first_value(data: Any) -> bytes | None:
    first = _first_of_lmdb if _backend(data) == "LMDB" else _first_of_leveldb
    return first(Path(data.source))


def _first_of_lmdb(folder: Path) -> bytes | None:
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False) as database,
            _whole(database, folder).begin() as transaction,
            transaction.cursor() as cursor,
        ):
            return bytes(cursor.value()) if cursor.first() else None
    except lmdb.Error as error:
        raise ValueError(f"the LMDB {folder} cannot be opened: {error}; create it again") from None


def _first_of_leveldb(folder: Path) -> bytes | None:
    with open_leveldb(folder) as key:
        key.seek_to_first()
        return bytes(key.value()) if key.valid() else None


def _check_image_list(layer: Any, where: str) -> None:
    """A layer ImageData."""
    data = layer.image_data_param
    _check_source(data, where, "no list of images at")
    _check_batch_size(data, where)
    images = _text(data.source, where)
    if not images:
        raise ClrError(f"{where}: {data.source} is empty; list one image and its label per line")
    first = images.split("\n", 1)[0].rsplit(" ", 1)[0]
    check_file(data.root_folder + first, f"{where}: {data.source}:1")
    shape = None
    if data.new_height and data.new_width:
        shape = (3 if data.is_color else 1, data.new_height, data.new_width)
    _check_transformation(layer.transform_param, where, shape)


def _check_hdf5_list(layer: Any, where: str) -> None:
    """A layer HDF5Data."""
    import h5py

    data = layer.hdf5_data_param
    if layer.HasField("transform_param"):
        raise ClrError(f"{where}: HDF5Data does not transform; remove transform_param")
    _check_source(data, where, "no list of HDF5 files at")
    _check_batch_size(data, where)
    if h5py.is_hdf5(data.source):
        raise ClrError(f"{where}: {data.source} is an HDF5 file; name a text file that lists it")
    files = _text(data.source, where).split()
    if not files:
        raise ClrError(f"{where}: {data.source} is empty; list the HDF5 files in it")
    for file in files:
        check_file(file, f"{where}: {data.source}")
        try:
            with h5py.File(file, "r") as datasets:
                missing = [top for top in layer.top if top not in datasets]
        except OSError:
            raise ClrError(f"{where}: {file} is not an HDF5 file") from None
        if missing:
            raise ClrError(f'{where}: {file} has no dataset for its top "{missing[0]}"')


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "Data": _check_database,
    "ImageData": _check_image_list,
    "HDF5Data": _check_hdf5_list,
}


def _check_transformation(transformation: Any, where: str, shape: Shape | None) -> None:
    """Check a TransformationParameter against the shape of an image, where that is known."""
    file, values = transformation.mean_file, len(transformation.mean_value)
    mean = None
    if transformation.HasField("mean_file"):
        if values:
            raise ClrError(f"{where}: both mean_file and mean_value are set; keep one")
        mean = _mean_shape(file, where)
    if shape is None:
        return
    if mean not in (None, shape):
        raise ClrError(
            f"{where}: mean_file {file} is {_by(mean)}, but an image is {_by(shape)} before the"
            " crop; make the mean with compute_image_mean from this data"
        )
    if values not in (0, 1, shape[0]):
        raise ClrError(
            f"{where}: {values} mean_value for images of {shape[0]} channels; give one, or one for"
            " each channel"
        )
    if transformation.crop_size > min(shape[1:]):
        raise ClrError(
            f"{where}: crop_size is {transformation.crop_size}, but an image is {_by(shape)};"
            f" set it to {min(shape[1:])} or less"
        )


def _mean_shape(file: str, where: str) -> tuple[int, ...]:
    """The channels, height and width of a mean_file (Blob::FromProto in Caffe's blob.cpp)."""
    check_file(file, f"{where}: mean_file")
    blob = prototxt.caffe_pb2().BlobProto()
    try:
        blob.ParseFromString(Path(file).read_bytes())
    except DecodeError:
        blob.Clear()
    deprecated = ("num", "channels", "height", "width")
    shape = list(blob.shape.dim)
    if any(blob.HasField(field) for field in deprecated):
        shape = [getattr(blob, field) for field in deprecated]
    if len(shape) > 4 or math.prod(shape) != (len(blob.double_data) or len(blob.data)):
        raise ClrError(
            f"{where}: mean_file {file} is not a BlobProto; make it with compute_image_mean"
        )
    return tuple([*shape, 1, 1, 1, 1][1:4])


def _check_batch_size(data: Any, where: str) -> None:
    if data.batch_size < 1:
        raise ClrError(f"{where}: batch_size is {data.batch_size}; set it to 1 or more")


def _check_source(data: Any, where: str, nothing_at: str) -> None:
    if not data.source:
        raise ClrError(f"{where}: no source; name its data with source")
    if not Path(data.source).exists():
        raise ClrError(
            f"{where}: {nothing_at} {data.source}{looked_for(data.source)}; make it, or fix source"
        )


def _text(file: str, where: str) -> str:
    if Path(file).is_fifo():
        raise ClrError(f"{where}: {file} is a pipe, but must be read twice; name a file")
    try:
        return Path(file).read_text(errors="surrogateescape")
    except OSError as error:
        raise ClrError(f"{where}: {file} cannot be read: {error.strerror}") from None


def _by(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
