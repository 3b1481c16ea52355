"""Checks of a run before Caffe is given it, since every failed CHECK of Caffe ends the process.

They need the solver's SolverParameter and the files that it and its nets name,
and not `import caffe`. What they do not know (layer types, shapes of blobs) is
left to Caffe, and so are nets of the deprecated `layers`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
from google.protobuf.message import DecodeError

from caffe_clr import epochs, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.prototxt import Net, looked_for

_WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")
_REGULARIZATIONS = ("L2", "L1")

Shape = tuple[int, int, int]


def check_run(parameter: Any, name: str, *, gpu: int | None = None) -> list[str]:
    """Refuse a solver that Caffe would abort on, or that would train nothing.

    The rules are those of solver.cpp, sgd_solvers.hpp, net.cpp, data_transformer.cpp
    and the data layers in Caffe's source. Relative paths are relative to the
    working directory, as for `caffe train`.

    Args:
        parameter: the SolverParameter as Caffe will get it.
        name: what to call it: its file.
        gpu: the number of the GPU to run on; None for the CPU.

    Returns:
        Warnings, a line each, on what Caffe runs but a user can hardly want.

    Raises:
        ClrError: says which file, layer and field is wrong, and the remedy.
    """
    prototxt.check_solver(parameter, name)
    _check_type(parameter, name)
    train_net = prototxt.train_net(parameter, name)
    test_nets = prototxt.test_nets(parameter, name)
    if test_nets and parameter.test_interval < 1:
        raise ClrError(
            f"{name}: test_interval is {parameter.test_interval}, and there are test nets;"
            " set it to the iterations between two tests"
        )
    for net in (train_net, *test_nets):
        _check_data_layers(net)
    _check_weights(parameter, name)
    _check_numbers(parameter, name)
    warnings = []
    if parameter.test_interval and not test_nets:
        warnings.append(
            f"{name}: test_interval is {parameter.test_interval}, but nothing is tested without"
            " test_iter; add it"
        )
    if gpu is None and parameter.HasField("solver_mode") and parameter.solver_mode:
        warnings.append(f"{name}: solver_mode is GPU, but this run is on the CPU")
    warnings += _warn_of_outputs(test_nets)
    if not any(net.parameter.layers for net in test_nets):
        warnings += _warn_of_coverage(parameter, name)
    return warnings


def _check_numbers(parameter: Any, name: str) -> None:
    for field in ("max_iter", "iter_size", "average_loss"):
        value = getattr(parameter, field)
        if value < 1:
            raise ClrError(f"{name}: {field} is {value}; set it to 1 or more")


def _check_type(parameter: Any, name: str) -> None:
    if parameter.HasField("type") and parameter.HasField("solver_type"):
        raise ClrError(f"{name}: both type and solver_type are set; keep type")
    solver_type = prototxt.solver_type(parameter)
    _check_known("type", solver_type, prototxt.SOLVER_TYPES, name)
    if parameter.momentum and solver_type in _WITHOUT_MOMENTUM:
        raise ClrError(
            f"{name}: momentum is {parameter.momentum:g}, and {solver_type} has none; remove it"
        )
    if solver_type == "RMSProp" and not 0 <= parameter.rms_decay < 1:
        raise ClrError(
            f"{name}: rms_decay is {parameter.rms_decay:g}; set it to 0 or more, and below 1"
        )
    if parameter.weight_decay:
        regularization = parameter.regularization_type
        _check_known("regularization_type", regularization, _REGULARIZATIONS, name)


def _check_known(field: str, value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        hint = prototxt.did_you_mean(value, known)
        raise ClrError(f'{name}: {field} "{value}" is unknown; use one of {", ".join(known)}{hint}')


def _check_weights(parameter: Any, name: str) -> None:
    for models in parameter.weights:
        for model in models.split(","):
            _check_file(model.strip(), f"{name}: weights")


def _check_data_layers(net: Net) -> None:
    for layer in net.parameter.layer:
        if check := _DATA_LAYERS.get(layer.type):
            check(layer, f'{net.name}: layer "{layer.name}"')


def _check_database(layer: Any, where: str) -> None:
    """A layer Data."""
    data = layer.data_param
    _check_source(data, where, "no data at")
    _check_batch_size(data, where)
    _check_backend(data, where)
    shape = None
    if data.backend == data.LMDB:
        datum = _first_datum(data.source, where)
        if not datum.encoded:
            shape = (datum.channels, datum.height, datum.width)
    _check_transformation(layer.transform_param, where, shape)


def _check_backend(data: Any, where: str) -> None:
    source, backend = Path(data.source), data.DB.Name(data.backend)
    if not epochs.is_database(source, backend):
        if other := epochs.other_backend(source, backend):
            default = "" if data.HasField("backend") else ", the default"
            raise ClrError(
                f"{where}: the backend is {backend}{default}, but {source} is of"
                f" backend {other}; write backend: {other}"
            )
        missing = epochs.DATABASES[backend]
        raise ClrError(f"{where}: {source} is not of backend {backend}: it has no {missing}")


def _first_datum(source: str, where: str) -> Any:
    try:
        with (
            lmdb.open(source, readonly=True, lock=False) as database,
            database.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            if not cursor.first():
                raise ClrError(f"{where}: {source} is empty; write the data set anew")
            datum = prototxt.caffe_pb2().Datum.FromString(bytes(cursor.value()))
    except lmdb.Error as error:
        raise ClrError(f"{where}: the LMDB cannot be opened: {error}") from None
    except DecodeError:
        datum = prototxt.caffe_pb2().Datum()
    if not datum.encoded and datum.channels < 1:
        raise ClrError(f"{where}: the first value of {source} is no Datum; write the data set anew")
    return datum


def _check_image_list(layer: Any, where: str) -> None:
    """A layer ImageData."""
    data = layer.image_data_param
    _check_source(data, where, "no list of images at")
    _check_batch_size(data, where)
    images = _text(data.source, where)
    if not images:
        raise ClrError(f"{where}: {data.source} is empty; list an image and its label a line")
    first = images.split("\n", 1)[0].rsplit(" ", 1)[0]
    _check_file(data.root_folder + first, f"{where}: {data.source}:1")
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
        _check_file(file, f"{where}: {data.source}")
        try:
            with h5py.File(file, "r") as datasets:
                missing = [top for top in layer.top if top not in datasets]
        except OSError:
            raise ClrError(f"{where}: {file} is no HDF5 file") from None
        if missing:
            raise ClrError(f'{where}: {file} has no dataset for its top "{missing[0]}"')


_DATA_LAYERS: dict[str, Callable[[Any, str], None]] = {
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
            f"{where}: mean_file {file} is {_by(mean)}, but an image is {_by(shape)} before it is"
            " cropped; make the mean with compute_image_mean from this data"
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
    _check_file(file, f"{where}: mean_file")
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
            f"{where}: mean_file {file} is no BlobProto; make it with compute_image_mean"
        )
    return tuple([*shape, 1, 1, 1, 1][1:4])


def _check_batch_size(data: Any, where: str) -> None:
    if data.batch_size < 1:
        raise ClrError(f"{where}: batch_size is {data.batch_size}; set it to 1 or more")


def _check_source(data: Any, where: str, nothing_at: str) -> None:
    if not data.source:
        raise ClrError(f"{where}: no source; name its data with source")
    if not Path(data.source).exists():
        raise ClrError(f"{where}: {nothing_at} {data.source}{looked_for(data.source)}")


def _check_file(file: str, where: str) -> None:
    if not Path(file).is_file():
        raise ClrError(f"{where}: there is no file {file}{looked_for(file)}")


def _text(file: str, where: str) -> str:
    try:
        return Path(file).read_text(errors="surrogateescape")
    except OSError as error:
        raise ClrError(f"{where}: {file} cannot be read: {error.strerror}") from None


def _warn_of_outputs(test_nets: list[Net]) -> list[str]:
    """A warning for each test net whose every top is some layer's bottom (Net::Init)."""
    return [
        f"{net.name}: the TEST phase has no output, so that a test shows nothing; give the loss"
        " or an Accuracy layer a top"
        for net in test_nets
        if net.parameter.layer and not _outputs(net.parameter)
    ]


def _outputs(net: Any) -> set[str]:
    outputs: set[str] = set()
    for layer in net.layer:
        outputs = (outputs - set(layer.bottom)) | set(layer.top)
    return outputs


def _warn_of_coverage(parameter: Any, name: str) -> list[str]:
    """A warning for each test that is not of every image once."""
    warnings = []
    pairs = zip(parameter.test_iter, epochs.test_images(parameter), strict=True)
    for test_iter, (images, batch_size) in pairs:
        if not images or not batch_size or test_iter * batch_size == images:
            continue
        tested = max(0, test_iter) * batch_size
        what = "not all of" if tested < images else "more than"
        if images % batch_size:
            batches = images // batch_size
            remedy = (
                f"no test_iter fits: {batches} leaves out {images % batch_size},"
                f" {batches + 1} repeats {batch_size - images % batch_size}"
            )
        else:
            remedy = f"set test_iter: {images // batch_size}"
        warnings.append(
            f"{name}: test_iter {test_iter} with batch_size {batch_size} tests {tested:,} images,"
            f" {what} the {images:,} there are; {remedy}"
        )
    return warnings


def _by(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
