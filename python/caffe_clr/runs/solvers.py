"""Makes, tests, checks and restores pycaffe solvers in this process.

A failed CHECK in Caffe aborts the process; the checks here raise instead.
"""

import importlib.util
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, command
from caffe_clr.preflight import solver_checks
from caffe_clr.prototxt import Net, SolverFile
from caffe_clr.runs.history import column

_LOG_LEVEL = "GLOG_minloglevel"
_HDF5 = ".h5"
_NEVER = 2**31 - 1  # as a test_interval


def import_caffe() -> Any:
    """Import pycaffe, which logs only errors unless GLOG_minloglevel says otherwise.

    Raises:
        ClrError: this environment has no Caffe, or it cannot be loaded.
    """
    caffe_pb2 = prototxt.caffe_pb2()
    quiet = _LOG_LEVEL not in os.environ
    if quiet:
        os.environ[_LOG_LEVEL] = "2"
    try:
        import caffe
    except ImportError as error:
        raise ClrError(f"import caffe: {error}; run {command('build')}") from None
    finally:
        if quiet:  # glog has read it; programs started from here have logs of their own
            del os.environ[_LOG_LEVEL]
    caffe.proto.caffe_pb2 = caffe_pb2  # not bound by an import that finds it loaded
    return caffe


def check_layers(nets: Iterable[Net]) -> None:
    """Refuse a net with a layer type, or a Python module, that does not exist here.

    Raises:
        ClrError: names the net and the layer, and says what is missing.
    """
    known = list(import_caffe().layer_type_list())
    for net in nets:
        for layer in net.parameter.layer:
            where = f'{net.name}: layer "{layer.name}"'
            if layer.type not in known:
                hint = prototxt.did_you_mean(layer.type, known)
                raise ClrError(
                    f'{where}: this Caffe has no layer type "{layer.type}"; it may belong to'
                    f" another version of Caffe{hint}"
                )
            module = layer.python_param.module
            if layer.type == "Python" and not _has_module(module):
                raise ClrError(
                    f'{where}: there is no Python module "{module}"; add its folder to PYTHONPATH'
                )


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def check_gpu(gpu: int) -> None:
    """Refuse a GPU if this Caffe cannot use one.

    Raises:
        ClrError: this Caffe is built for the CPU only.
    """
    import_caffe()
    if not _has_cuda():
        raise ClrError(f"GPU {gpu}: this Caffe is built for the CPU only; train without --gpu")


def load_solver(parameter: Any, gpu: int | None = None) -> Any:
    """Make a pycaffe solver from a SolverParameter.

    Args:
        parameter: a SolverParameter that checks.check_run has passed.
        gpu: number of the GPU to run on; None for the CPU.

    Raises:
        ClrError: Caffe would abort on the policy or the momentum, or is built for the CPU
            only.
    """
    caffe = import_caffe()
    solver_checks.check_policy(SolverFile(parameter))
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        check_gpu(gpu)
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    with _unnamed_file(text_format.MessageToString(parameter).encode()) as file:
        return caffe.get_solver(file)


def rate(live: Any, parameter: Any) -> float:
    """The rate of a pycaffe solver at its iteration.

    If pycaffe has no `lr`, as up to Caffe 1.0, the reference computes it.
    """
    return float(live.lr if hasattr(live, "lr") else policies.learning_rate(parameter, live.iter))


def momentum(live: Any, parameter: Any) -> float:
    """The momentum of a pycaffe solver at its iteration, likewise."""
    told = hasattr(live, "momentum")
    return float(live.momentum if told else policies.momenta(parameter, live.iter))


def only_training(parameter: Any) -> Any:
    """A copy of a SolverParameter that neither tests nor snapshots."""
    live = type(parameter)()
    live.CopyFrom(parameter)
    live.test_interval = _NEVER
    live.test_initialization = False
    live.snapshot = 0
    live.snapshot_after_train = False
    return live


def without_tests(parameter: Any) -> Any:
    """A copy of a SolverParameter that has no test nets."""
    live = type(parameter)()
    live.CopyFrom(parameter)
    for field in ("test_net", "test_net_param", "test_iter", "test_state"):
        live.ClearField(field)
    return live


def loss(net: Any) -> float:
    """The weighted loss of a net's last forward pass."""
    total = 0.0
    for name, weight in net.blob_loss_weights.items():
        if weight:
            total += weight * float(net.blobs[name].data.sum())
    return total


def softmax_losses(net: Any) -> list[str]:
    """The names of the blobs with the losses of SoftmaxWithLoss layers."""
    kinds = zip(net._layer_names, net.layers, strict=True)
    return [net.top_names[name][0] for name, layer in kinds if layer.type == "SoftmaxWithLoss"]


def outputs(net: Any, number: int = 0) -> dict[str, float]:
    """The mean of each output of a net's last forward pass, by its column.

    The accuracy of scores that are nan is nan here; Caffe's own does not show it.
    """
    found = {name: float(net.blobs[name].data.mean()) for name in net.outputs}
    for name, layer in zip(net._layer_names, net.layers, strict=True):
        if layer.type == "Accuracy":
            scores = net.blobs[net.bottom_names[name][0]].data
            if np.isnan(scores).any():
                found.update(dict.fromkeys(set(net.top_names[name]) & found.keys(), math.nan))
    return {column(name, number): value for name, value in found.items()}


def test(solver: Any, iterations: list[int]) -> Iterator[dict[str, float]]:
    """Run the test nets of a solver, and yield the means so far after each batch.

    Args:
        iterations: test_iter, the number of batches for each test net.

    Yields:
        The mean of every output, by its column (see history.column).
    """
    sums: dict[str, float] = {}
    means: dict[str, float] = {}
    for number, (net, batches) in enumerate(zip(solver.test_nets, iterations, strict=True)):
        net.share_with(solver.net)
        for batch in range(batches):
            net.forward()
            for name, value in outputs(net, number).items():
                sums[name] = sums.get(name, 0.0) + value
                means[name] = sums[name] / (batch + 1)
            yield dict(means)


def restore(solver: Any, state: Path, model: Path) -> None:
    """Restore a solver from a snapshot; HDF5 snapshots must not have been moved.

    Raises:
        ClrError: the snapshot is damaged, or belongs to another solver or net.
    """
    check_snapshot(solver, state, model)
    if state.suffix == _HDF5:
        _check_not_moved(state)
        solver.restore(str(state))
        return
    message = prototxt.caffe_pb2().SolverState()
    message.ParseFromString(state.read_bytes())
    message.learned_net = str(model)
    with _unnamed_file(message.SerializeToString()) as file:
        solver.restore(file)


def _check_not_moved(state: Path) -> None:
    import h5py

    with _reading(state), h5py.File(state) as file:
        model = Path(file["learned_net"][()].decode())
    if not model.is_file():
        raise ClrError(f"{state}: its weights are no longer at {model}; move the folder back")


def snapshot_files(prefix: str, iteration: int, hdf5: bool) -> tuple[Path, Path]:
    """The .solverstate and the .caffemodel that Caffe writes (Solver::SnapshotFilename)."""
    suffix = _HDF5 if hdf5 else ""
    stem = f"{prefix}_iter_{iteration}"
    return Path(f"{stem}.solverstate{suffix}"), Path(f"{stem}.caffemodel{suffix}")


def check_snapshot(solver: Any, state: Path, model: Path) -> None:
    """Refuse a snapshot that is incomplete, or belongs to another solver or net.

    Raises:
        ClrError: names the file, and says what is wrong with it.
    """
    owned = _owned_parameters(solver.net)
    shapes = list(owned.values())
    # SGD, Nesterov, AdaGrad and RMSProp keep one blob a parameter; AdaDelta and Adam two
    if _history(state) not in (shapes, shapes * 2):
        raise ClrError(f"{state}: not a complete solver state of this net and solver type")
    stored = _parameters(model)
    for (layer, index), shape in owned.items():
        if stored.get((layer, index)) != shape:
            raise ClrError(f'{model}: lacks the parameters of layer "{layer}", {shape}')


def _owned_parameters(net: Any) -> dict[tuple[str, int], tuple[int, ...]]:
    """The shape of each parameter by layer and index, of shared ones the first only."""
    owned, seen = {}, set()
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            address = blob.data.ctypes.data
            if address not in seen:
                owned[layer, index] = blob.data.shape
            seen.add(address)
    return owned


def _history(state: Path) -> list[tuple[int, ...]]:
    """The shapes of the blobs in a solver state."""
    if state.suffix == _HDF5:
        import h5py

        with _reading(state), h5py.File(state) as file:
            return [file["history"][str(i)].shape for i in range(len(file["history"]))]
    message = prototxt.caffe_pb2().SolverState()
    with _reading(state):
        message.ParseFromString(state.read_bytes())
    return [_shape(blob) for blob in message.history]


def _parameters(model: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    """The shape of each parameter in a caffemodel, by layer and index."""
    if model.suffix == _HDF5:
        import h5py

        with _reading(model), h5py.File(model) as file:
            return {
                (name, int(index)): blob.shape
                for name, layer in file["data"].items()
                for index, blob in layer.items()
            }
    message = prototxt.caffe_pb2().NetParameter()
    with _reading(model):
        message.ParseFromString(model.read_bytes())
    return {
        (layer.name, index): _shape(blob)
        for layer in message.layer
        for index, blob in enumerate(layer.blobs)
    }


def _shape(blob: Any) -> tuple[int, ...]:
    """The shape of a BlobProto; of one that is cut off, the number of its values."""
    shape = tuple(blob.shape.dim)
    return shape if np.prod(shape, dtype=np.int64) == len(blob.data) else (len(blob.data),)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, DecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or not a snapshot"
        raise ClrError(f"{path}: cannot be read: {reason}") from None


@contextmanager
def _unnamed_file(content: bytes) -> Iterator[str]:
    """A file that leaves nothing behind, however the process ends."""
    with os.fdopen(os.memfd_create("caffe-clr"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _has_cuda() -> bool:
    """Whether the Caffe that this process has loaded came with the libraries of CUDA."""
    return "libcublas" in Path("/proc/self/maps").read_text()
