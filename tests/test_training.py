"""Training into a run folder: what is recorded, stages, interruption and resuming."""

import csv
import json
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

import h5py
import numpy as np
import pytest

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, DivergedError, Interrupted, UsageError
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import run_folder, run_writer, training
from caffe_clr.runs.history import History
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.stage import Progress

pytestmark = pytest.mark.usefixtures("digits_root")
DIGITS = Path("models/digits/triangular2_solver.prototxt")
TEST_NET = """
layer {
  name: "right" type: "Accuracy" bottom: "scores" bottom: "label" top: "right"
  include { phase: TEST }
}
layer { name: "shown" type: "Silence" bottom: "hidden" include { phase: TEST } }
"""
# the paper's Table 2 at a hundredth of its length
STAGES = [
    {"base_lr": 0.01, "max_lr": 0.05, "stepsize": 20, "max_iter": 160},
    {"base_lr": 0.001, "max_lr": 0.005, "stepsize": 10, "start_lr_policy": 160, "max_iter": 220},
    {"base_lr": 0.0001, "max_lr": 0.0005, "stepsize": 5, "start_lr_policy": 220, "max_iter": 250},
]


def weights(folder: Path, iteration: int) -> Any:
    """What the caffemodel of an iteration holds, of HDF5 the values of each parameter."""
    (file,) = (folder / "snapshots").glob(f"*_iter_{iteration}.caffemodel*")
    if file.suffix != ".h5":
        return file.read_bytes()
    found = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with h5py.File(file) as model:
        model.visititems(add)
    return found


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def stop_at(iteration: int) -> dict[str, Any]:
    """Arguments of train that end it after `iteration`."""
    at: list[int] = []
    return {
        "on_iteration": lambda progress: at.append(progress.iteration),
        "stop": lambda: signal.SIGTERM if at and at[-1] >= iteration else None,
    }


def test_records_are_of_their_own_iteration(tmp_path: Path) -> None:
    history = training.train(DIGITS, tmp_path / "run")
    parameter = prototxt.read_solver(DIGITS)
    for rows, interval in ((history.train, parameter.display), (history.test, 30)):
        iterations = [row["iteration"] for row in rows]
        assert iterations == list(range(0, 1200 + (interval == 30), interval))
        expected = policies.learning_rate(parameter, iterations)
        assert [row["lr"] for row in rows] == expected.astype(float).tolist()
        assert [row["epoch"] for row in rows] == [round(i / 30, 4) for i in iterations]
        seconds = [row["seconds"] for row in rows]
        assert seconds == sorted(seconds)
    assert history.test[-1]["accuracy"] >= 0.95
    assert history.train[-1]["loss"] < history.train[0]["loss"] / 10
    assert run_folder.read_history(tmp_path / "run") == history
    assert run_folder.read_status(tmp_path / "run")["status"] == "finished"


def test_the_momentum_is_recorded_where_it_cycles_in_the_run(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    first = write_solver("first", max_iter=20, momentum=0.5, lr_policy="fixed")
    cycling = {"momentum": 0.9, "cyclical_momentum": [0.8, 10], "start_lr_policy": 20}
    second = write_solver("second", max_iter=70, lr_policy="1cycle", **cycling)
    history = training.train([first, second], tmp_path / "run")
    parameter = prototxt.read_solver(second)
    expected = policies.momenta(parameter, np.arange(20, 70)).astype(float).tolist()
    assert [row["momentum"] for row in history.train] == [0.5] * 20 + expected
    assert list(history.momenta().values()) == [0.5] * 20 + expected
    assert run_folder.read_history(tmp_path / "run") == history
    alone = training.train(first, tmp_path / "alone")
    assert "momentum" not in alone.train[0]
    assert alone.momenta() == {}


def test_training_is_that_of_caffe_train(
    tree: Tree, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver()
    training.train(file, tmp_path / "run")
    text = file.read_text().replace("elsewhere/mine", str(tmp_path / "theirs"))
    theirs = tmp_path / "theirs.prototxt"
    theirs.write_text(text + "\nsolver_mode: CPU")
    subprocess.run([tree.caffe, "train", f"--solver={theirs}"], check=True, capture_output=True)
    assert weights(tmp_path / "run", 80) == (tmp_path / "theirs_iter_80.caffemodel").read_bytes()


def test_every_output_of_every_test_net_is_recorded(
    net: Path, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    tested = tmp_path / "tested.prototxt"
    tested.write_text(net.read_text() + TEST_NET)
    file = write_solver(net=str(tested), test_iter=[1, 2], test_interval=40)
    history = training.train(file, tmp_path / "run")
    assert [row["iteration"] for row in history.test] == [0, 40, 80]
    for row in history.test:
        assert row["right"] == row["right#1"]  # the batch is the whole set in both
        assert 0 <= row["loss"] == row["loss#1"]
    with (tmp_path / "run" / "test.csv").open() as table:
        assert {"iteration", "lr", "right", "loss#1", "seconds"} <= set(next(csv.reader(table)))


def test_a_net_without_tests_or_displays(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    history = training.train(write_solver(display=0), tmp_path / "run")
    assert history == History([], [])
    assert run_folder.read_status(tmp_path / "run")["iteration"] == 80


def test_tests_that_are_switched_off_are_not_made(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    tested = tmp_path / "tested.prototxt"
    tested.write_text(net.read_text() + TEST_NET)
    fields: dict[str, Any] = {"net": str(tested), "max_iter": 20, "test_iter": [1]}
    beyond = write_solver("beyond", **fields, test_interval=21)
    assert [row["iteration"] for row in training.train(beyond, tmp_path / "a").test] == [0]
    never = write_solver("never", **fields, test_interval=21, test_initialization=False)
    assert training.train(never, tmp_path / "b").test == []
    none = write_solver("none", **{**fields, "test_iter": [0]}, test_interval=5)
    assert training.train(none, tmp_path / "c").test == []
    second = write_solver("second", **{**fields, "test_iter": [0, 1]}, test_interval=20)
    rows = training.train(second, tmp_path / "d").test
    assert [(row["iteration"], "right#1" in row, "right" in row) for row in rows] == [
        (0, True, False),
        (20, True, False),
    ]


def test_an_output_of_a_net_does_not_take_the_place_of_a_column_of_ours(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    names = ("iteration", "epoch", "lr", "seconds")
    outputs = "".join(
        f'layer {{ name: "{name}" type: "DummyData" top: "{name}" dummy_data_param {{'
        ' shape { dim: 1 } data_filler { type: "constant" value: -7 } } }'
        for name in names
    )
    odd = tmp_path / "odd.prototxt"
    odd.write_text(net.read_text() + outputs)
    file = write_solver(net=str(odd), max_iter=4, test_iter=[1], test_interval=2)
    history = training.train(file, tmp_path / "run")
    for rows, iterations in ((history.train, [0, 1, 2, 3]), (history.test, [0, 2, 4])):
        assert [row["iteration"] for row in rows] == iterations
        assert min(row[name] for row in rows for name in names) >= 0
        assert {row[f"{name}#0"] for row in rows for name in names} == {-7}
    assert run_folder.read_history(tmp_path / "run") == history


def test_outputs_of_a_later_stages_net_are_in_the_tables(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.prototxt"
    extra = 'name: "more" type: "DummyData" top: "more" dummy_data_param { shape { dim: 1 } }'
    more.write_text(f"{net.read_text()} layer {{ {extra} }}")
    tests = {"test_iter": [1], "test_interval": 2}
    first = write_solver("first", max_iter=4, **tests)
    second = write_solver("second", net=str(more), max_iter=8, start_lr_policy=4, **tests)
    third = write_solver("third", max_iter=10, start_lr_policy=8, **tests)
    history = training.train([first, second, third], tmp_path / "run")
    for rows, last in ((history.train, 9), (history.test, 10)):
        assert rows[-1]["iteration"] == last
        assert {row["iteration"] // 4 for row in rows if "more" in row} == {1}
    assert run_folder.read_history(tmp_path / "run") == history


def test_the_epochs_of_a_given_number_of_images_are_recorded(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    history = training.train(write_solver(max_iter=4), tmp_path / "run", TrainingOptions(images=16))
    assert [row["epoch"] for row in history.train] == [0, 0.5, 1, 1.5]


def test_a_seed_decides_a_run(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    file = write_solver()

    def losses(name: str, seed: int) -> list[float]:
        history = training.train(file, tmp_path / name, TrainingOptions(seed=seed))
        return [row["loss"] for row in history.train]

    assert losses("a", 1) == losses("b", 1) != losses("c", 2)


def test_snapshots_are_the_solvers_and_each_cycles(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(snapshot=35, max_iter=85)
    training.train(file, tmp_path / "run", TrainingOptions(snapshot_cycles=True))
    found = (tmp_path / "run" / "snapshots").glob("mine_iter_*.solverstate")
    iterations = sorted(int(path.stem.removeprefix("mine_iter_")) for path in found)
    assert iterations == [20, 35, 40, 60, 70, 80, 85]
    assert not (tmp_path / "elsewhere").exists()


def test_the_one_cycle_of_1cycle_is_snapshot(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(lr_policy="1cycle", max_iter=50, start_lr_policy=3)
    training.train(file, tmp_path / "run", TrainingOptions(snapshot_cycles=True))
    found = (tmp_path / "run" / "snapshots").glob("*.solverstate")
    assert {path.name for path in found} == {f"mine_iter_{at}.solverstate" for at in (23, 50)}


@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("at", [1, 37, 79])
def test_an_interrupted_run_is_resumed_where_it_was(
    at: int, snapshot_format: str, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    fields = {"HDF5": 0, "BINARYPROTO": 1}
    file = write_solver(display=7, snapshot_format=fields[snapshot_format])
    whole = training.train(file, tmp_path / "whole")
    with pytest.raises(Interrupted, match="SIGTERM"):
        training.train(file, tmp_path / "run", **stop_at(at))
    assert run_folder.read_status(tmp_path / "run")["status"] == "interrupted"
    folder = tmp_path / "run"
    if snapshot_format == "BINARYPROTO":
        folder = folder.rename(tmp_path / "moved")
    done: list[int] = []
    resumed = training.train(
        file,
        folder,
        TrainingOptions(resume=True),
        on_iteration=lambda progress: done.append(progress.iteration),
    )
    assert done == list(range(at + 1, 81))
    assert [(row["iteration"], row["lr"]) for row in resumed.train] == [
        (row["iteration"], row["lr"]) for row in whole.train
    ]
    assert weights(folder, 80) == weights(tmp_path / "whole", 80)


def test_a_run_folder_is_not_trained_in_twice(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver()
    training.train(file, tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"run already has a run; continue it with --resume, or name"
    ):
        training.train(file, tmp_path / "run")
    again: list[int] = []
    training.train(
        file,
        tmp_path / "run",
        TrainingOptions(resume=True),
        on_iteration=lambda p: again.append(p.iteration),
    )
    assert again == []
    other = write_solver(stepsize=11, max_iter=90)
    with pytest.raises(UsageError, match="started with another stepsize;"):
        training.train(other, tmp_path / "run", TrainingOptions(resume=True))
    longer = write_solver(max_iter=100)
    training.train(
        longer,
        tmp_path / "run",
        TrainingOptions(resume=True),
        on_iteration=lambda p: again.append(p.iteration),
    )
    assert again == list(range(81, 101))


def test_a_run_of_stages_is_not_resumed_with_fewer(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    files = [write_solver("first"), write_solver("second", max_iter=120)]
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        training.train(files, folder, **stop_at(40))
    told = f"has a run with more stages; give all of them: {files[0]} {files[1]}$"
    with pytest.raises(UsageError, match=told):
        training.train(files[0], folder, TrainingOptions(resume=True))
    assert training.train(files, folder, TrainingOptions(resume=True)).train[-1]["iteration"] == 119


def test_an_interruption_in_the_last_test_is_not_lost(
    net: Path, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    tested = tmp_path / "tested.prototxt"
    tested.write_text(net.read_text() + TEST_NET)
    file = write_solver(net=str(tested), test_iter=[3], test_interval=50)
    with pytest.raises(Interrupted):
        training.train(file, tmp_path / "run", **stop_at(80))
    resumed = training.train(file, tmp_path / "run", TrainingOptions(resume=True))
    assert [row["iteration"] for row in resumed.test] == [0, 50, 80]


@pytest.mark.parametrize("damage", ["torn state", "torn model", "lost", "unlisted", "torn list"])
def test_a_torn_snapshot_is_passed_over(
    damage: str, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(snapshot=20, max_iter=80)
    whole = training.train(file, tmp_path / "whole")
    with pytest.raises(Interrupted):
        training.train(file, tmp_path / "run", **stop_at(45))
    state = tmp_path / "run" / "snapshots" / "mine_iter_45.solverstate"
    listed = tmp_path / "run" / "snapshots.csv"
    if damage == "torn state":
        state.write_bytes(state.read_bytes()[:-5])
    elif damage == "torn model":
        model = state.with_suffix(".caffemodel")
        model.write_bytes(model.read_bytes()[:100])
    elif damage == "lost":
        state.unlink()
    elif damage == "unlisted":
        listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:-1]))
    else:
        listed.write_text(listed.read_text()[:-20])
    done: list[int] = []
    resumed = training.train(
        file,
        tmp_path / "run",
        TrainingOptions(resume=True),
        on_iteration=lambda progress: done.append(progress.iteration),
    )
    assert done[0] == 41
    assert [row["iteration"] for row in resumed.train] == list(range(80))
    assert [row["loss"] for row in resumed.train] == [row["loss"] for row in whole.train]
    assert weights(tmp_path / "run", 80) == weights(tmp_path / "whole", 80)


def test_a_torn_record_is_read_without_its_last_line(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    training.train(write_solver(), tmp_path / "run")
    table = tmp_path / "run" / "train.csv"
    table.write_text(table.read_text()[:-4])
    assert run_folder.read_history(tmp_path / "run").train[-1]["iteration"] == 78


def test_stages_go_on_where_the_last_one_ended(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    tested = tmp_path / "tested.prototxt"
    tested.write_text(net.read_text() + TEST_NET)
    tests = {"net": str(tested), "test_iter": [1], "test_interval": 100}
    files = [write_solver(f"stage{i}", **stage, **tests) for i, stage in enumerate(STAGES)]
    history = training.train(files, tmp_path / "run")
    assert [row["iteration"] for row in history.train] == list(range(250))
    # a stage's beginning and the run's end are tested, whatever test_interval says
    assert [row["iteration"] for row in history.test] == [0, 100, 160, 200, 220, 250]
    start = 0
    for file in files:
        parameter = prototxt.read_solver(file)
        span = np.arange(start, parameter.max_iter)
        expected = policies.learning_rate(parameter, span).astype(float).tolist()
        assert [row["lr"] for row in history.train[start : parameter.max_iter]] == expected
        start = parameter.max_iter
    by_hand = training.train(files[0], tmp_path / "by_hand")
    assert [row["loss"] for row in history.train[:160]] == [row["loss"] for row in by_hand.train]
    assert weights(tmp_path / "run", 160) == weights(tmp_path / "by_hand", 160)


def test_a_staged_run_killed_twenty_times_ends_in_the_same_weights(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    hundredfold = [
        {
            name: value * (100 if name in ("stepsize", "max_iter", "start_lr_policy") else 1)
            for name, value in stage.items()
        }
        for stage in STAGES
    ]
    files = [
        write_solver(f"stage{i}", display=100, snapshot=300, iter_size=12, **stage)
        for i, stage in enumerate(hundredfold)
    ]
    whole = training.train(files, tmp_path / "whole")
    command = [sys.executable, "-m", "caffe_clr", "train", *map(str, files)]
    command += ["--out", str(tmp_path / "run")]
    pause = random.Random(1)
    resume: list[str] = []
    for _ in range(20):
        process = subprocess.Popen(
            [*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        began = run_folder.last_iteration(tmp_path / "run")
        while process.poll() is None and run_folder.last_iteration(tmp_path / "run") <= began:
            time.sleep(0.01)
        time.sleep(pause.uniform(0, 0.1))
        for killed in (*children(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
        process.wait()
        resume = ["--resume"]
    assert run_folder.read_status(tmp_path / "run")["status"] == "running"
    done = subprocess.run([*command, *resume], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resumed = run_folder.read_history(tmp_path / "run")
    assert weights(tmp_path / "run", 25000) == weights(tmp_path / "whole", 25000)
    assert [row["iteration"] for row in resumed.train] == [row["iteration"] for row in whole.train]


def test_a_diverging_run_is_stopped_and_kept(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(lr_policy="fixed", base_lr=3e38, snapshot=1)
    with pytest.raises(DivergedError, match=r"diverged at iteration \d+, rate 3e\+38: the loss"):
        training.train(file, tmp_path / "run")
    status = run_folder.read_status(tmp_path / "run")
    assert status["status"] == "diverged"
    history = run_folder.read_history(tmp_path / "run")
    assert history.train[-1]["iteration"] == status["iteration"] < 10
    assert np.isfinite(history.train[0]["loss"])
    with pytest.raises(DivergedError, match=f"diverged at iteration {status['iteration']}"):
        training.train(file, tmp_path / "run", TrainingOptions(resume=True))


@pytest.mark.parametrize("display", [0, 1])
@pytest.mark.parametrize("weight", [1, 20, 0.01])
def test_caffes_own_word_for_nan_is_divergence(
    weight: float, display: int, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    # the labels' scores are the lowest by far: their probabilities are 0
    hopeless = tmp_path / "hopeless.prototxt"
    constant = 'type: "DummyData" top: "{0}" dummy_data_param {{ shape {{ {1} }}'
    hopeless.write_text(
        f'layer {{ name: "scores" {constant.format("scores", "dim: 1 dim: 2")}'
        ' data_filler { type: "constant" value: 1 } } }'
        f'layer {{ name: "label" {constant.format("label", "dim: 1")} }} }}'
        'layer { name: "two" type: "InnerProduct" bottom: "scores" top: "two" inner_product_param'
        ' { num_output: 1 bias_filler { type: "constant" value: -1e6 } } }'
        'layer { name: "all" type: "Concat" bottom: "two" bottom: "scores" top: "all" }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "all" bottom: "label" top: "loss"'
        f" loss_weight: {weight} }}"
        'layer { name: "fit" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "fit" }'
    )
    file = write_solver(net=str(hopeless), lr_policy="fixed", base_lr=0, display=display)
    with pytest.raises(DivergedError, match=r"diverged at iteration 0, .* the loss is 87\.3365;"):
        training.train(file, tmp_path / "run")


def test_a_stage_with_another_solver_type_or_net_is_refused(
    net: Path, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    first = write_solver("first", **STAGES[0])
    other = write_solver("other", **STAGES[1], type="Adam")
    with pytest.raises(ClrError, match="Adam"):
        training.train([first, other], tmp_path / "run")
    wider = tmp_path / "wider.prototxt"
    wider.write_text(net.read_text().replace("num_output: 5", "num_output: 6"))
    other = write_solver("other", **STAGES[1], net=str(wider))
    with pytest.raises(ClrError, match="hidden"):
        training.train([first, other], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_solver_state_of_another_net_is_refused(
    net: Path, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        training.train(write_solver(), tmp_path / "run", **stop_at(10))
    net_of_run = prototxt.read_solver(tmp_path / "run" / "solver_1.prototxt").net
    wider = tmp_path / "wider.prototxt"
    wider.write_text(net.read_text().replace("num_output: 5", "num_output: 6"))
    copy = (tmp_path / "run" / "solver_1.prototxt").read_text()
    (tmp_path / "run" / "solver_1.prototxt").write_text(copy.replace(net_of_run, str(wider)))
    with pytest.raises(
        ClrError, match=r"mine_iter_10\.solverstate: not a complete solver state of"
    ):
        training.train(write_solver(net=str(wider)), tmp_path / "run", TrainingOptions(resume=True))


def test_another_process_in_the_folder_is_refused(
    write_solver: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_writer, "_LOCK_SECONDS", 0)
    file = write_solver()

    def train_there(progress: Progress) -> None:
        with pytest.raises(ClrError, match="another process is training in it"):
            training.train(file, tmp_path / "run", TrainingOptions(resume=True))

    training.train(file, tmp_path / "run", on_iteration=train_there)


def test_run_json_says_what_is_trained(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    file = write_solver()
    training.train(file, tmp_path / "run", TrainingOptions(seed=3))
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (status["solvers"], status["seed"], status["gpu"]) == ([str(file)], 3, None)


def test_a_folder_in_which_nothing_was_trained_is_started_again(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ClrError, match="GPU 0: this Caffe is built for the CPU only"):
        training.train(write_solver(), tmp_path / "run", TrainingOptions(gpu=0))
    training.train(write_solver(stepsize=11), tmp_path / "run")
    assert run_folder.read_status(tmp_path / "run")["status"] == "finished"
