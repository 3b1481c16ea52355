"""A run resumed from any of its snapshots is the run itself, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import DivergedError, Interrupted
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import comparison
from caffe_clr.runs import solvers, training
from caffe_clr.runs.options import TrainingOptions

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


def recorded(folder: Path) -> dict[str, list[str]]:
    """The lines of both tables without what the clock says."""
    tables = {name: (folder / name).read_text().splitlines() for name in ("train.csv", "test.csv")}
    return {name: [line.rpartition(",")[0] for line in lines] for name, lines in tables.items()}


def final_weights(folder: Path) -> bytes:
    (file,) = (folder / "snapshots").glob("*_iter_80.caffemodel")
    return file.read_bytes()


@pytest.fixture
def moving(write_solver: Callable[..., Path], moving_net: Path) -> Callable[..., Path]:
    """Writes a solver file whose data moves on, of a net that is tested."""

    def write(name: str = "moving", **fields: Any) -> Path:
        tests = {"test_iter": [2], "test_interval": 12, "test_initialization": True}
        chosen = {"net": str(moving_net), "display": 7, "iter_size": 2, **tests, **fields}
        return write_solver(name, **chosen)

    return write


def interrupt(files: list[Path], folder: Path, at: int, **options: Any) -> None:
    iterations = [0]
    with pytest.raises(Interrupted):
        training.train(
            files,
            folder,
            TrainingOptions(**options),
            on_iteration=lambda progress: iterations.append(progress.iteration),
            stop=lambda: signal.SIGTERM if iterations[-1] >= at else None,
        )


@pytest.mark.parametrize("at", [[0], [1], [11], [12], [13, 40], [24, 25, 26], [59, 60], [80]])
def test_an_interrupted_run_ends_in_the_bits_of_a_whole_one(
    at: list[int], moving: Callable[..., Path], tmp_path: Path
) -> None:
    files = [moving("first", max_iter=50), moving("second", base_lr=0.002)]
    training.train(files, tmp_path / "whole")
    for iteration in at:
        interrupt(files, tmp_path / "run", iteration, resume=True)
    said: list[str] = []
    training.train(files, tmp_path / "run", TrainingOptions(resume=True), on_warning=said.append)
    assert said == []
    assert final_weights(tmp_path / "run") == final_weights(tmp_path / "whole")
    assert recorded(tmp_path / "run") == recorded(tmp_path / "whole")


def test_random_crops_go_on_too(
    moving: Callable[..., Path], moving_net: Path, tmp_path: Path
) -> None:
    cropped = tmp_path / "cropped.prototxt"
    text = moving_net.read_text()
    cropped.write_text(text.replace("scale:", "mirror: true crop_size: 2 scale:"))
    file = moving(net=str(cropped))
    training.train(file, tmp_path / "whole")
    interrupt([file], tmp_path / "run", 33)
    training.train(file, tmp_path / "run", TrainingOptions(resume=True))
    assert final_weights(tmp_path / "run") == final_weights(tmp_path / "whole")


def test_what_does_not_go_on_is_said_once(
    moving: Callable[..., Path], moving_net: Path, tmp_path: Path
) -> None:
    dropping = tmp_path / "dropping.prototxt"
    layer = 'layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" }\n'
    head, tail = moving_net.read_text().split('layer {\n  name: "scores"')
    dropping.write_text(f'{head}{layer}layer {{\n  name: "scores"{tail}')
    file = moving(net=str(dropping))
    interrupt([file], tmp_path / "run", 33)
    said: list[str] = []
    training.train(file, tmp_path / "run", TrainingOptions(resume=True), on_warning=said.append)
    (line,) = said
    assert "Dropout" in line


def test_a_resumed_range_test_is_stopped_by_the_first_loss_of_the_run(
    moving: Callable[..., Path], tmp_path: Path
) -> None:
    file = moving(display=1, lr_policy="triangular", base_lr=0, max_lr=400, stepsize=80)
    ends = []
    for name, at in (("whole", []), ("run", [2, 5])):
        for iteration in at:
            interrupt([file], tmp_path / name, iteration, resume=True, stop_early=True)
        with pytest.raises(DivergedError) as raised:
            training.train(file, tmp_path / name, TrainingOptions(resume=True, stop_early=True))
        ends.append(raised.value.iteration)
    assert ends[0] == ends[1] < 70


@pytest.mark.parametrize("killed", ["parent", "child", "both"])
def test_a_killed_comparison_ends_in_the_bits_of_a_whole_one(
    killed: str, moving: Callable[..., Path], tmp_path: Path
) -> None:
    fields = {"snapshot": 9, "iter_size": 40}
    files = [moving("one", **fields), moving("other", max_lr=0.01, **fields)]
    comparison.compare(files, tmp_path / "whole", comparison.Options(seeds=2, jobs=2))
    command = [sys.executable, "-m", "caffe_clr", "compare", *map(str, files), "--seeds", "2"]
    command += ["--jobs", "2", "--out", str(tmp_path / "run")]
    pause = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        time.sleep(pause.uniform(1.0, 2.5))
        found = [int(child) for child in children(process.pid)]
        for pid in (found if killed != "parent" else []) + (
            [process.pid] if killed != "child" else []
        ):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("one/seed_1", "one/seed_2", "other/seed_1", "other/seed_2"):
        assert final_weights(tmp_path / "run" / name) == final_weights(tmp_path / "whole" / name)
        assert recorded(tmp_path / "run" / name) == recorded(tmp_path / "whole" / name)


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]
