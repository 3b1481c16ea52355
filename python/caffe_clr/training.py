"""Drives pycaffe solvers: trains, tests and records."""

import csv
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.errors import ClrError

_LOG_LEVEL = "GLOG_minloglevel"
_NEVER = 2**31 - 1  # as a test_interval: Caffe itself does not test


@dataclass
class History:
    """What a run recorded: two lists of rows, each a dict with its iteration and its rate.

    `train` has a row for each `display` of the solver, with the mean loss since
    the row before; `test` one for each `test_interval`, with the mean of every
    output of the test net. The rate, `lr`, is that of the same iteration.
    """

    train: list[dict[str, float]] = field(default_factory=list)
    test: list[dict[str, float]] = field(default_factory=list)


def import_caffe() -> Any:
    """pycaffe, with its log reduced to errors unless GLOG_minloglevel says otherwise.

    Raises:
        ClrError: there is no Caffe in this environment, or it cannot be loaded.
    """
    caffe_pb2 = prototxt.caffe_pb2()
    quiet = _LOG_LEVEL not in os.environ
    if quiet:
        os.environ[_LOG_LEVEL] = "2"
    try:
        import caffe
    except ImportError as error:
        raise ClrError(f"import caffe: {error}; run `caffe-clr build`") from None
    finally:
        if quiet:  # glog has read it; programs started from here have logs of their own
            del os.environ[_LOG_LEVEL]
    caffe.proto.caffe_pb2 = caffe_pb2  # not bound by an import that finds it loaded
    return caffe


def load_solver(parameter: Any) -> Any:
    """A pycaffe solver of a SolverParameter, for the CPU.

    Raises:
        ClrError: the policy is one that Caffe would abort on, or the net's file
            or a data layer's source is missing.
    """
    caffe = import_caffe()
    prototxt.check_solver(parameter)
    for net in filter(None, [parameter.net, parameter.train_net, *parameter.test_net]):
        for layer in prototxt.read_net(Path(net)).layer:
            source = layer.data_param.source
            if source and not Path(source).exists():
                raise ClrError(f'{net}: layer "{layer.name}": no data at {source}')
    caffe.set_mode_cpu()
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(parameter))
        file.flush()
        return caffe.get_solver(file.name)


def train(
    solver_file: Path,
    *,
    seed: int | None = None,
    on_iteration: Callable[[int, History], None] = lambda iteration, history: None,
) -> History:
    """Train a solver to its max_iter, testing it as its prototxt says.

    Paths in the prototxt are relative to the working directory, as for `caffe
    train`. Nothing is snapshot.

    Args:
        solver_file: a solver prototxt.
        seed: replaces random_seed.
        on_iteration: called after each iteration with the number of those done
            and what has been recorded so far.

    Raises:
        ClrError: the prototxt cannot be used.
    """
    parameter = prototxt.read_solver(solver_file)
    test_interval, display = parameter.test_interval, parameter.display
    if seed is not None:
        parameter.random_seed = seed
    parameter.test_interval = _NEVER
    parameter.test_initialization = False
    parameter.snapshot = 0
    parameter.snapshot_after_train = False
    solver = load_solver(parameter)

    history = History()
    losses: list[float] = []
    while True:
        iteration, last = solver.iter, solver.iter >= parameter.max_iter
        row = {"iteration": iteration, "lr": solver.lr}
        if solver.test_nets and (last or (test_interval and iteration % test_interval == 0)):
            history.test.append(row | test(solver, parameter.test_iter[0]))
        if last:
            return history
        solver.step(1)
        losses.append(_loss(solver.net))
        if display and iteration % display == 0:
            history.train.append(row | {"loss": float(np.mean(losses))})
            losses.clear()
        on_iteration(solver.iter, history)


def test(solver: Any, iterations: int) -> dict[str, float]:
    """The mean of each output of a solver's first test net over some batches."""
    net = solver.test_nets[0]
    net.share_with(solver.net)
    batches = [
        {name: float(blob.mean()) for name, blob in net.forward().items()}
        for _ in range(iterations)
    ]
    return {name: float(np.mean([batch[name] for batch in batches])) for name in batches[0]}


def write_csv(rows: list[dict[str, float]], path: Path) -> None:
    """Write the rows of a History, a column for each of their keys."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys() if rows else ())
        writer.writeheader()
        writer.writerows(rows)


def _loss(net: Any) -> float:
    loss = 0.0
    for name, weight in net.blob_loss_weights.items():
        if weight:
            loss += weight * float(net.blobs[name].data.sum())
    return loss
