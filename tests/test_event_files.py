"""--tensorboard: the event files, read as TensorBoard reads them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caffe_clr.errors import Interrupted, UsageError
from caffe_clr.runs import event_files, run_folder, training
from caffe_clr.runs.history import History, Phase
from caffe_clr.runs.options import TrainingOptions

pytestmark = pytest.mark.usefixtures("digits_root")
TESTED = {"test_iter": [1], "test_interval": 10, "display": 5}
Cli = Callable[..., subprocess.CompletedProcess[str]]


def events(folder: Path) -> EventAccumulator:
    (_,) = folder.glob("events.out.tfevents.*")
    return EventAccumulator(str(folder)).Reload()


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    found = events(folder)
    assert found.Tags()["scalars"]
    return {
        tag: {event.step: event.value for event in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def recorded(history: History) -> dict[str, dict[int, float]]:
    """What a run's CSV says, under the names of its event file."""
    tags: dict[str, dict[int, float]] = {}
    for phase in Phase:
        for row in history.rows(phase):
            for name in row.keys() - {"iteration", "epoch", "seconds"}:
                tag = name if name in ("lr", "momentum") else f"{name}/{phase}"
                tags.setdefault(tag, {})[int(row["iteration"])] = row[name]
    return tags


def assert_same(folder: Path, history: History) -> None:
    told, expected = scalars(folder), recorded(history)
    assert told.keys() == expected.keys()
    for tag, values in expected.items():
        assert told[tag] == pytest.approx(values, rel=1e-6), tag


def test_every_row_is_told(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    solver = write_solver(max_iter=40, cyclical_momentum=[0.8, 10], **TESTED)
    history = training.train(solver, tmp_path / "run", TrainingOptions(tensorboard=True))
    assert recorded(history).keys() == {"lr", "momentum", "loss/train", "loss/test"}
    assert_same(tmp_path / "run", history)
    (text,) = events(tmp_path / "run").Tensors("solver/stage 1/text_summary")
    assert b"    max_iter: 40\n" in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("begun_with", [True, False])
def test_a_resumed_run_tells_all_of_it_once(
    begun_with: bool, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    solver, out = write_solver(max_iter=60, **TESTED), tmp_path / "run"
    asked = iter([None] * 45 + [2])
    with pytest.raises(Interrupted):
        training.train(
            solver, out, TrainingOptions(tensorboard=begun_with), stop=lambda: next(asked)
        )
    history = training.train(solver, out, TrainingOptions(tensorboard=True, resume=True))
    assert_same(out, history)
    assert max(scalars(out)["lr"]) == 60


def test_times_are_those_of_the_run(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    history = training.train(
        write_solver(**TESTED), tmp_path / "run", TrainingOptions(tensorboard=True)
    )
    losses = events(tmp_path / "run").Scalars("loss/train")
    passed = [event.wall_time - losses[0].wall_time for event in losses]
    seconds = [row["seconds"] - history.train[0]["seconds"] for row in history.train]
    assert passed == pytest.approx(seconds, abs=1e-5)


def test_a_range_test_is_told_by_rate_too(
    write_solver: Callable[..., Path], run_cli: Cli, tmp_path: Path
) -> None:
    options = ["--min-lr", "0.001", "--max-lr", "0.1", "--iterations", "40", "--out", "range"]
    solver = write_solver(test_iter=[1], test_interval=10)
    done = run_cli("range-test", solver, *options, "--tensorboard")
    assert done.returncode == 0 or "error: no bounds: " in done.stderr, done.stderr
    (folder,) = (tmp_path / "range").glob("seed_*")
    rows = run_folder.read_history(folder).test
    by_rate = scalars(folder)["lr_in_millionths/loss_test"]
    assert by_rate == pytest.approx({round(row["lr"] * 1e6): row["loss"] for row in rows})
    assert len(by_rate) > 5


def test_the_sweeps_of_a_search_for_the_range_are_told_by_rate_too(
    write_solver: Callable[..., Path], run_cli: Cli, tmp_path: Path
) -> None:
    options = ["--iterations", "40", "--out", "found"]
    done = run_cli("range-test", write_solver(), *options, "--tensorboard")
    assert done.returncode == 0 or "error: no bounds: " in done.stderr, done.stderr
    for folder in [tmp_path / "found" / f"sweep_{number}" / "seed_5" for number in (1, 2)]:
        rows = run_folder.read_history(folder).train
        by_rate = scalars(folder)["lr_in_millionths/loss_train"]
        assert set(by_rate) == {round(row["lr"] * 1e6) for row in rows}
        assert len(by_rate) > 10


def test_each_run_of_a_comparison_has_its_file(
    write_solver: Callable[..., Path], run_cli: Cli, tmp_path: Path
) -> None:
    solvers = [write_solver(name, **TESTED, lr_policy=name) for name in ("fixed", "triangular")]
    done = run_cli("compare", *solvers, "--seeds", "1", "--out", "both", "--tensorboard")
    assert done.returncode == 0, done.stderr
    for name in ("fixed", "triangular"):
        folder = tmp_path / "both" / name / "seed_1"
        assert_same(folder, run_folder.read_history(folder))


def test_the_package_that_writes_them_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"pip install tensorboard tensorboardX"):
        event_files.check()
