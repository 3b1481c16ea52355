"""Epochs in iterations, and the stepsize that makes so many of them.

The paper (L. N. Smith, arXiv 1506.01186, section 3.2) advises a stepsize of 2 to
10 epochs, an epoch being the training images by the batch size. How many images
there are is read from the data of the train net. Paths in prototxt files are
relative to the working directory, as for `caffe train`.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import lmdb

from caffe_clr import prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.prototxt import Net, looked_for

ADVISED = (2, 10)  # epochs a stepsize, the paper's section 3.2
CYCLES = (3, 4, 6)  # 3 train a net most of the way, 4 or more further: the same section

_MAX_ITER = 2**31 - 1  # an int32 in caffe.proto
DATABASES = {"LEVELDB": "CURRENT", "LMDB": "data.mdb"}  # a file that each has in its folder
_PARAMETERS = {
    "Data": "data_param",
    "DummyData": "dummy_data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "Input": "input_param",
    "MemoryData": "memory_data_param",
    "WindowData": "window_data_param",
}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Args:
        images: how many there are.
        batch_size: that of the train net's data layer.
        iter_size: batches that an iteration accumulates gradients over.
        gpus: solvers that train at once, each on batches of its own.
    """

    images: int
    batch_size: int
    iter_size: int = 1
    gpus: int = 1

    @property
    def iterations(self) -> int:
        """images / (batch_size * iter_size * gpus), the nearest integer, at least 1.

        An exact half is rounded up.
        """
        consumed = self.batch_size * self.iter_size * self.gpus
        return max(1, (2 * self.images + consumed) // (2 * consumed))


def stepsize(
    solver_file: Path, epochs: float = 4, *, images: int | None = None, gpus: int = 1
) -> dict[str, Any]:
    """The stepsize of so many epochs, and where whole cycles end.

    The solver needs no stepsize yet: only its nets, iter_size and
    start_lr_policy are read.

    Args:
        solver_file: a solver prototxt.
        epochs: in half a cycle, a fraction if need be. The paper advises 2 to 10.
        images: replaces the count of those in the train net's data.
        gpus: as many as `caffe train` will be given.

    Returns:
        images, batch_size, iter_size, gpus and start_lr_policy; epochs as given;
        in iterations, epoch, stepsize (the nearest to epochs * epoch, a half
        rounded up, at least 1) and cycle; and max_iter, a dict from a number of
        cycles to the iteration at which the last of them ends.

    Raises:
        UsageError: epochs, images or gpus is not above 0, or there are more
            iterations than Caffe counts.
        ClrError: the prototxt or the data cannot be read, or do not tell.
    """
    if not 0 < epochs < math.inf:
        raise UsageError(f"--epochs {epochs:g}: give a number above 0")
    parameter = prototxt.read_solver(solver_file, check_policy=False)
    one = epoch(parameter, images=images, gpus=gpus, name=str(solver_file))
    half = max(1, math.floor(Fraction(str(epochs)) * one.iterations + Fraction(1, 2)))
    start = parameter.start_lr_policy
    max_iter = {cycles: start + cycles * 2 * half for cycles in CYCLES}
    if max_iter[CYCLES[-1]] > _MAX_ITER:
        raise UsageError(
            f"--epochs {epochs:g}: with {one.iterations:,} iterations an epoch, {CYCLES[-1]} cycles"
            f" exceed {_MAX_ITER:,}, the highest max_iter; give fewer"
        )
    return {
        **asdict(one),
        "start_lr_policy": start,
        "epochs": epochs,
        "epoch": one.iterations,
        "stepsize": half,
        "cycle": 2 * half,
        "max_iter": max_iter,
    }


def epoch(
    parameter: Any, *, images: int | None = None, gpus: int = 1, name: str = "solver"
) -> Epoch:
    """The epoch of a solver, from its SolverParameter message.

    Of several data layers in the train net it is that of the first whose
    examples can be counted and that has a second top, for labels; where there is
    none, of the first that can be counted; else of the first.

    Args:
        parameter: a SolverParameter of the patched caffe.proto.
        images: replaces the count of those in the train net's data.
        gpus: solvers that train at once.
        name: what to call the solver in a message.

    Raises:
        UsageError: images or gpus is not above 0.
        ClrError: the solver has no train net, its data cannot be counted, or the
            batch size is not in the prototxt; says where and what to do.
    """
    for option, value in (("--images", images), ("--gpus", gpus)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value}: give 1 or more")
    if parameter.iter_size < 1:
        raise ClrError(f"{name}: iter_size is {parameter.iter_size}; set it to 1 or more")
    net = prototxt.train_net(parameter, name)
    if net.parameter.layers:
        raise ClrError(
            f"{net.name}: `layers` is the deprecated format of nets; convert it to `layer`"
            " with Caffe's upgrade_net_proto_text"
        )
    layer = _data_layer(net)
    if layer is None:
        raise ClrError(f"{net.name}: no data layer in phase TRAIN; add one, or mend its include")
    batch_size = _batch_size(layer)
    if batch_size is None:
        remedy = "compute the stepsize as epochs * images / batch size"
        if layer.type in _PARAMETERS:
            remedy = f"set it in its {_PARAMETERS[layer.type]}"
        raise ClrError(
            f'{net.name}: layer "{layer.name}": no batch size in the prototxt of this layer of type'
            f" {layer.type}; {remedy}"
        )
    if images is None:
        images = count_images(layer, net.name)
    return Epoch(images, batch_size, parameter.iter_size, gpus)


def test_images(parameter: Any) -> list[tuple[int | None, int | None]]:
    """The examples in the data of each test net of a solver, and the size of its batches.

    The nets are in Caffe's order, one for each test_iter; of several data layers
    it is the one that `epoch` would take. None stands for what the prototxt does
    not tell.

    Args:
        parameter: a SolverParameter of the patched caffe.proto.

    Raises:
        ClrError: a net or its data cannot be read, or the fields for test nets
            differ in number.
    """
    found: list[tuple[int | None, int | None]] = []
    for net in prototxt.test_nets(parameter, "solver"):
        layer = _data_layer(net)
        if layer is None:
            found.append((None, None))
        else:
            images = count_images(layer, net.name) if layer.type in _COUNTERS else None
            found.append((images, _batch_size(layer)))
    return found


def count_images(layer: Any, net: str = "net") -> int:
    """How many examples a data layer reads before it begins again.

    That are the keys of the database of a Data layer, the rows of the files of
    an HDF5Data layer, the lines of the list of an ImageData layer. A database is
    neither changed nor locked, and may be in use. All of a LevelDB is read.

    Args:
        layer: a LayerParameter.
        net: what to call its net in a message.

    Raises:
        ClrError: the layer is of another type, or its source is missing, empty,
            damaged or of another kind; names net, layer, source and remedy.
    """
    where = f'{net}: layer "{layer.name}"'
    counter = _COUNTERS.get(layer.type)
    if counter is None:
        raise ClrError(
            f"{where}: how many images a layer of type {layer.type} reads is unknown: give --images"
        )
    source = getattr(layer, _PARAMETERS[layer.type]).source
    if not source:
        raise ClrError(f"{where}: no source; set it in its {_PARAMETERS[layer.type]}")
    try:
        if not Path(source).exists():
            raise ValueError(f"no data at {source}{looked_for(source)}; make it, or mend source")
        images = counter(layer, Path(source))
    except OSError as error:
        raise ClrError(f"{where}: {source} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ClrError(f"{where}: {error}") from None
    if images == 0:
        raise ClrError(f"{where}: {source} is empty; make it again")
    return images


def _data_layer(net: Net) -> Any:
    """The data layer that `epoch` documents, None where there is none."""
    sources = [
        layer for layer in net.parameter.layer if not layer.bottom and layer.type != "Parameter"
    ]
    return min(
        sources,
        key=lambda layer: (layer.type not in _COUNTERS, len(layer.top) < 2),
        default=None,
    )


def _batch_size(layer: Any) -> int | None:
    """The size of a data layer's batches, None where the prototxt does not tell."""
    if layer.type not in _PARAMETERS:
        return None
    parameter = getattr(layer, _PARAMETERS[layer.type])
    if hasattr(parameter, "batch_size"):
        sizes = [parameter.batch_size]
    elif layer.type == "DummyData" and parameter.num:
        sizes = parameter.num
    else:
        sizes = [size for shape in parameter.shape for size in shape.dim]
    return sizes[0] if sizes and sizes[0] > 0 else None


def _count_database(layer: Any, folder: Path) -> int:
    backend = layer.data_param.DB.Name(layer.data_param.backend)
    if not is_database(folder, backend):
        if other := other_backend(folder, backend):
            default = "" if layer.data_param.HasField("backend") else ", the default"
            raise ValueError(
                f"{folder} is of backend {other}, but its data_param of {backend}{default};"
                f" set backend: {other}"
            )
        raise ValueError(f"{folder} is no database of backend {backend}; name the folder of one")
    return _count_lmdb(folder) if backend == "LMDB" else _count_leveldb(folder)


def is_database(folder: Path, backend: str) -> bool:
    """Whether a folder is a database of a backend, LMDB or LEVELDB."""
    return (folder / DATABASES[backend]).is_file()


def other_backend(folder: Path, backend: str) -> str | None:
    """The other backend, if a folder is a database of that."""
    return next((b for b in DATABASES if b != backend and is_database(folder, b)), None)


def _count_lmdb(folder: Path) -> int:
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as database:
            return int(database.stat()["entries"])
    except lmdb.Error as error:
        raise ValueError(f"LMDB cannot be read: {error}; make it again") from None


def _count_leveldb(folder: Path) -> int:
    import plyvel

    with tempfile.TemporaryDirectory() as view:
        _link_leveldb(folder, Path(view))
        try:
            with (
                closing(plyvel.DB(view, paranoid_checks=True, max_open_files=100)) as database,
                # the other iterator ends without a word where the last block is damaged
                closing(database.raw_iterator(verify_checksums=True, fill_cache=False)) as key,
            ):
                images = 0
                key.seek_to_first()
                while key.valid():
                    images += 1
                    key.next()
                return images
        except plyvel.Error as error:
            reason = os.fsdecode(error.args[0]).replace(view, str(folder))
            raise ValueError(f"LevelDB {folder} cannot be read: {reason}; make it again") from None


def _link_leveldb(folder: Path, view: Path) -> None:
    """Make a LevelDB in `view` of the files of another.

    LevelDB writes into each database that it opens. Here it finds links to the
    files that it reads only: logs, and tables under the suffix .sst, which it
    reads but has not written since 1.14.
    """
    for file in folder.resolve().iterdir():
        if file.suffix in (".ldb", ".sst"):
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
        raise ValueError(f"{listed} is no file{looked_for(file)}; make it, or mend the list")
    try:
        with h5py.File(file, "r") as datasets:
            dataset = datasets.get(name)
            if isinstance(dataset, h5py.Dataset) and dataset.shape:
                return int(dataset.shape[0])
    except OSError as error:
        raise ValueError(f"{listed} cannot be read as HDF5: {error}; make it again") from None
    raise ValueError(f'{listed} has no rows in a dataset "{name}"; name the top as the dataset')


def _count_lines(layer: Any, source: Path) -> int:
    with source.open("rb") as lines:
        return sum(1 for _ in lines)


_COUNTERS: dict[str, Callable[[Any, Path], int]] = {
    "Data": _count_database,
    "HDF5Data": _count_hdf5,
    "ImageData": _count_lines,
}
