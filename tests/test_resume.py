"""A run resumed from any of its snapshots is the run itself, bit for bit."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import policies, prototxt, solvers
from caffe_clr.harness.compilation import Tree

LAST = 26  # two cycles of triangular with stepsize 6, and two iterations


def weights(solver: Any) -> list[bytes]:
    return [blob.data.tobytes() for blobs in solver.net.params.values() for blob in blobs]


def run_to_the_end(solver: Any, value: str = "lr", snapshots: bool = False) -> list[float]:
    """The rate, or the momentum, at each iteration that is left; a snapshot before each."""
    values = []
    while solver.iter < LAST:
        if snapshots:
            solver.snapshot()
        values.append(getattr(solver, value))
        solver.step(1)
    return values


def parameters(
    solver: Callable[..., Any], net: Path, folder: Path, solver_type: str, **fields: Any
) -> Any:
    chosen = {"lr_policy": "triangular", "base_lr": 0.01, "max_lr": 0.1, "stepsize": 6, **fields}
    if solver_type in prototxt.WITH_MOMENTUM:
        chosen["momentum"] = 0.9
    return solver(
        type=solver_type,
        net=str(net),
        weight_decay=0.001,
        random_seed=7,
        snapshot_prefix=f"{folder}/run",
        snapshot_after_train=False,
        **chosen,
    )


@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("solver_type", prototxt.SOLVER_TYPES)
def test_resume_at_every_phase_of_a_cycle(
    solver_type: str, snapshot_format: str, solver: Callable[..., Any], net: Path, tmp_path: Path
) -> None:
    parameter = parameters(solver, net, tmp_path, solver_type)
    parameter.snapshot_format = parameter.SnapshotFormat.Value(snapshot_format)
    whole = solvers.load_solver(parameter)
    rates = run_to_the_end(whole, snapshots=True)
    suffix = ".h5" if snapshot_format == "HDF5" else ""
    for iteration in range(LAST):
        resumed = solvers.load_solver(parameter)
        resumed.restore(f"{tmp_path}/run_iter_{iteration}.solverstate{suffix}")
        assert resumed.iter == iteration
        assert run_to_the_end(resumed) == rates[iteration:], iteration
        assert weights(resumed) == weights(whole), iteration
    assert rates == policies.learning_rate(parameter, np.arange(LAST)).astype(float).tolist()


@pytest.mark.parametrize("solver_type", prototxt.WITH_MOMENTUM)
def test_resume_at_every_phase_of_the_momentums_cycles(
    solver_type: str, solver: Callable[..., Any], net: Path, tmp_path: Path
) -> None:
    """Rate and momentum, both past the first of their cycles, which are of different lengths."""
    parameter = parameters(
        solver,
        net,
        tmp_path,
        solver_type,
        lr_policy="1cycle",
        stepsize=9,
        cyclical_momentum=[0.5, 4],
    )
    whole = solvers.load_solver(parameter)
    momenta = run_to_the_end(whole, "momentum", snapshots=True)
    assert momenta == policies.momenta(parameter, np.arange(LAST)).astype(float).tolist()
    parameter.ClearField("cyclical_momentum")
    fixed = solvers.load_solver(parameter)
    fixed.step(LAST)
    assert weights(fixed) != weights(whole)
    parameter.cyclical_momentum[:] = [0.5, 4]
    for iteration in range(LAST):
        resumed = solvers.load_solver(parameter)
        resumed.restore(f"{tmp_path}/run_iter_{iteration}.solverstate")
        assert resumed.momentum == momenta[iteration]
        resumed.step(LAST - iteration)
        assert weights(resumed) == weights(whole), iteration


@pytest.mark.parametrize("policy", [name for name in policies.BOUNDED if name != "triangular"])
def test_resume_with_each_policy(
    policy: str, solver: Callable[..., Any], net: Path, tmp_path: Path
) -> None:
    fields = {"gamma": 0.97} if policy == "exp_range" else {}
    parameter = parameters(solver, net, tmp_path, "SGD", lr_policy=policy, **fields)
    whole = solvers.load_solver(parameter)
    whole.step(15)
    whole.snapshot()
    rates = run_to_the_end(whole)
    resumed = solvers.load_solver(parameter)
    resumed.restore(f"{tmp_path}/run_iter_15.solverstate")
    assert run_to_the_end(resumed) == rates
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "Iteration 12, lr = 0.01\n"),
        ({"cyclical_momentum": [0.7, 6]}, "Iteration 12, lr = 0.01, momentum = 0.9\n"),
        ({"cyclical_momentum": [0.7, 8]}, "Iteration 12, lr = 0.01, momentum = 0.8\n"),
    ],
)
def test_resume_by_caffe_train(
    fields: dict[str, Any],
    line: str,
    tree: Tree,
    solver: Callable[..., Any],
    net: Path,
    tmp_path: Path,
) -> None:
    parameter = parameters(solver, net, tmp_path, "SGD", **fields)
    parameter.max_iter = LAST
    parameter.snapshot = 11
    parameter.snapshot_after_train = True
    parameter.display = 1
    parameter.solver_mode = parameter.SolverMode.Value("CPU")
    file = tmp_path / "solver.prototxt"
    file.write_text(text_format.MessageToString(parameter))
    command: list[str | Path] = [tree.caffe, "train", f"--solver={file}"]
    subprocess.run(command, check=True, capture_output=True)
    whole = (tmp_path / f"run_iter_{LAST}.caffemodel").read_bytes()
    (tmp_path / f"run_iter_{LAST}.caffemodel").unlink()
    state = f"--snapshot={tmp_path}/run_iter_11.solverstate"
    done = subprocess.run([*command, state], check=True, capture_output=True, text=True)
    assert line in done.stderr
    assert (tmp_path / f"run_iter_{LAST}.caffemodel").read_bytes() == whole
