"""The LR range test with real Caffe: its sweep, what it suggests, and what it leaves behind."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import comparison, curves
from caffe_clr.method.range_test import range_test
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.sweeps import Options
from caffe_clr.runs import run_folder, training
from caffe_clr.runs.history import read_table

pytestmark = pytest.mark.usefixtures("digits_root")
DIGITS = Path("models/digits/fixed_solver.prototxt")
EPOCH = 30  # iterations
RANGE: dict[str, Any] = {"min_lr": 0.001, "max_lr": 0.3}
# above 0.2 it depends on the last bits, and so on the threads, whether the loss rises too far
SWEEP: dict[str, Any] = {**RANGE, "stop_early": False}
# what the folder of a range test holds, without those of its seeds
FILES = {"range_test.csv", "range_test.json", "range_test_solver.prototxt"}
SMALL = """
layer {
  name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 8 dim: 4 } shape { dim: 8 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 }
  }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
layer {
  name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy"
  include { phase: TEST }
}
"""
Cli = Callable[..., subprocess.CompletedProcess[str]]
SNAPSHOTS = ("*.caffemodel*", "*.solverstate*")


@pytest.fixture
def write_solver(tmp_path: Path) -> Callable[..., Path]:
    """Writes the solver of the digits with fields changed, or cleared by None."""

    def write(**fields: Any) -> Path:
        parameter = prototxt.read_solver(DIGITS)
        for name, value in fields.items():
            parameter.ClearField(name)
            if value is not None:
                parameter.MergeFrom(type(parameter)(**{name: value}))
        file = tmp_path / "solver.prototxt"
        file.write_text(text_format.MessageToString(parameter))
        return file

    return write


def rates(iterations: list[int], last: int, min_lr: float, max_lr: float) -> list[float]:
    """Those of half a cycle of triangular."""
    found = policies.triangular(iterations, base_lr=min_lr, max_lr=max_lr, stepsize=last)
    return [float(rate) for rate in found]


def snapshots(folder: Path) -> list[Path]:
    return [path for pattern in SNAPSHOTS for path in folder.rglob(pattern)]


def suggested(found: RangeTest) -> tuple[float, float]:
    """base_lr and max_lr, to two digits."""
    bounds = (found.suggestions.base_lr, found.suggestions.max_lr)
    base_lr, max_lr = (float(f"{bound.rate:.2g}") for bound in bounds)
    return base_lr, max_lr


def test_two_seeds_over_eight_epochs(
    write_solver: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    file = write_solver(snapshot_prefix=str(tmp_path / "elsewhere" / "mine"), snapshot=10)
    out = tmp_path / "out"
    progress: list[tuple[int, int]] = []
    found = range_test(
        file,
        out,
        Options(**SWEEP, epochs=8, seeds=2, jobs=2),
        on_progress=lambda done, total: progress.append((done, total)),
    )

    tests, displays = list(range(0, 241, 4)), list(range(0, 240, 2))
    assert [row["iteration"] for row in found.rows] == tests
    assert [row["lr"] for row in found.rows] == rates(tests, 240, **RANGE)
    assert found.rows[-1]["lr"] == float(np.float32(0.3))
    assert [row["iteration"] for row in found.losses] == displays
    assert [row["lr"] for row in found.losses] == rates(displays, 240, **RANGE)
    for row in found.rows:
        low, high = row["accuracy_low"], row["accuracy_high"]
        assert 0 <= low <= high <= 1
        assert row["accuracy"] == (low + high) / 2
    assert any(row["accuracy_low"] < row["accuracy_high"] for row in found.rows)
    assert list(found.seeds) == [1701, 1702]
    assert found.diverged_at is None
    assert progress[-1] == (480, 480) or progress[-1][0] < 480 == progress[-1][1]
    assert progress == sorted(progress)

    assert {path.name for path in out.iterdir()} == {
        *FILES,
        *("seed_1701", "seed_1702", "1cycle_solver.prototxt"),
    }
    assert read_table(out / "range_test.csv") == (found.rows, 0)
    written = json.loads((out / "range_test.json").read_text())
    assert (written["iterations"], written["seeds"]) == (240, [1701, 1702])
    assert (written["trained"], written["epochs"], written["chance"]) == (480, 8, 0.1)
    assert [written["min_lr"], written["max_lr"]] == [row["lr"] for row in found.rows[::60]]
    assert written["suggestions"]["max_lr"]["rate"] == found.suggestions.max_lr.rate
    assert not snapshots(out)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not list((tmp_path / "temporary").iterdir())

    assert (found.iterations, found.steps) == (480, ())
    assert found.solvers == [out / "1cycle_solver.prototxt"]
    solver = prototxt.read_solver(found.solvers[0])
    max_lr = suggested(found)[1]
    assert RANGE["min_lr"] < max_lr < RANGE["max_lr"]
    assert (solver.lr_policy, solver.stepsize, solver.max_iter) == ("1cycle", 540, 1200)
    assert (solver.base_lr, solver.max_lr) == (np.float32(f"{max_lr / 10:.2g}"), np.float32(max_lr))
    kept = prototxt.read_solver(file)
    assert Path(solver.snapshot_prefix).name == "1cycle"
    for field in ("lr_policy", "base_lr", "max_lr", "stepsize", "max_iter", "snapshot_prefix"):
        kept.ClearField(field)
        solver.ClearField(field)
    assert solver == kept


def test_a_range_test_that_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = range_test(DIGITS, out, Options(**SWEEP, epochs=8))
    assert "accuracy_low" not in first.rows[0]
    record = out / "seed_1701" / "train.csv"
    before = record.stat()
    shutil.rmtree(out / "seed_1701" / "snapshots")
    (out / "range_test.csv").unlink()
    with first.solvers[0].open("a") as solver:
        solver.write("weight_decay: 0.1 # my own\n")
    mine = first.solvers[0].read_text()
    said: list[str] = []
    again = Options(**SWEEP, epochs=8, resume=True)
    assert range_test(DIGITS, out, again, on_warning=said.append) == first
    assert first.solvers[0].read_text() == mine
    assert said[-1].startswith(f"{first.solvers[0]} is kept, but differs")
    assert (record.stat().st_mtime_ns, record.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert read_table(out / "range_test.csv") == (first.rows, 0)


def test_a_policy_with_several_cycles_and_a_cyclical_momentum_are_kept(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    own: dict[str, Any] = {
        "lr_policy": "triangular",
        "max_lr": 0.02,
        "stepsize": 7,
        "start_lr_policy": 3,
    }
    own |= {"momentum": 0.95, "cyclical_momentum": [0.85, 7], "max_iter": 150}
    file = write_solver(**own)
    found = range_test(file, tmp_path / "out", Options(**SWEEP, epochs=8, seed=0))
    tests = list(range(0, 241, 4))
    assert list(found.seeds) == [0]
    assert [row["lr"] for row in found.rows] == rates(tests, 240, **RANGE)
    momenta = policies.momentum(tests, momentum=0.95, cyclical_momentum=[0.85, 240])
    recorded, _ = read_table(tmp_path / "out" / "seed_0" / "test.csv")
    assert [row["momentum"] for row in recorded] == momenta.astype(float).tolist()
    assert found.solvers == [
        tmp_path / "out" / f"triangular_{stage}_solver.prototxt" for stage in (1, 2)
    ]
    cyclical = prototxt.read_solver(found.solvers[0])
    assert (cyclical.base_lr, cyclical.max_lr) == tuple(map(np.float32, suggested(found)))
    history = training.train(found.solvers, tmp_path / "run")
    assert history.test[-1]["iteration"] == 150


def test_a_solver_that_cannot_be_trained_is_refused_before_anything_is_written(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ClrError, match='type "SDG" is unknown'):
        range_test(write_solver(type="SDG"), tmp_path / "out", Options(**SWEEP, epochs=8))
    assert not (tmp_path / "out").exists()


def test_a_diverging_sweep_ends_early_and_keeps_its_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep: dict[str, Any] = {"min_lr": 0.001, "max_lr": 50, "iterations": 400}
    found = range_test(DIGITS, out, Options(**sweep))
    end = run_folder.read_status(out / "seed_1701")["iteration"]
    assert run_folder.read_status(out / "seed_1701")["status"] == "diverged"
    assert end < 200
    assert [found.diverged_at] == rates([end], 400, 0.001, 50)
    tests = list(range(0, end + 1, 8))
    assert [row["iteration"] for row in found.rows] == tests
    assert read_table(out / "range_test.csv") == (found.rows, 0)
    assert json.loads((out / "range_test.json").read_text())["diverged_at"] == found.diverged_at
    assert not snapshots(out)
    again = range_test(DIGITS, out, Options(**sweep, resume=True))
    assert (again.rows, again.diverged_at) == (found.rows, found.diverged_at)

    assert found.stopped.startswith(f"Stopped early: diverged at iteration {end}, rate ")
    assert ";" not in found.stopped
    assert "end the range below" in found.suggestions.max_lr.reason
    # at these rates the net learns nothing
    assert found.solvers == []
    assert {path.name for path in out.iterdir()} == {*FILES, "seed_1701"}


def test_a_sweep_that_does_not_stop_early_goes_on_until_the_loss_is_no_number(
    tmp_path: Path,
) -> None:
    sweep: dict[str, Any] = {"min_lr": 0.001, "max_lr": 25, "iterations": 400}
    early = range_test(DIGITS, tmp_path / "early", Options(**sweep))
    assert early.diverged_at is not None
    whole = range_test(DIGITS, tmp_path / "whole", Options(**sweep, stop_early=False))
    assert whole.diverged_at is None
    assert [row["iteration"] for row in whole.rows] == list(range(0, 401, 8))
    assert whole.rows[: len(early.rows)] == early.rows
    # max pooling would write out of bounds if it went on with nan
    higher = range_test(
        DIGITS, tmp_path / "higher", Options(**sweep | {"max_lr": 1e6}, stop_early=False)
    )
    assert higher.diverged_at is not None
    assert all(np.isfinite(row["loss"]) for row in higher.losses[:-1])


REGRESSION = """
layer {
  name: "data" type: "HDF5Data" top: "data" top: "wanted"
  hdf5_data_param { source: "LIST" batch_size: 20 }
}
layer {
  name: "found" type: "InnerProduct" bottom: "data" top: "found"
  inner_product_param { num_output: 1 weight_filler { type: "gaussian" std: 0.01 } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "found" bottom: "wanted" top: "loss" }
"""
# its loss begins at -0.5 and falls to -1
NEGATIVE = """
layer {
  name: "data" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 8 dim: 4 } data_filler { type: "gaussian" } }
}
layer {
  name: "found" type: "InnerProduct" bottom: "data" top: "found"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } }
}
layer { name: "share" type: "Sigmoid" bottom: "found" top: "share" }
layer {
  name: "loss" type: "Reduction" bottom: "share" top: "loss" loss_weight: 1
  reduction_param { operation: MEAN coeff: -1 }
}
"""


def test_an_easy_first_batch_is_no_measure_of_divergence(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    draw = np.random.default_rng(1)
    data = draw.normal(size=(400, 20)).astype(np.float32)
    wanted = data @ draw.normal(0, 0.3, 20).astype(np.float32)
    easy = np.argsort(np.abs(wanted))[:20]
    order = [*easy, *draw.permutation(np.setdiff1d(np.arange(400), easy))]
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"], file["wanted"] = data[order], wanted[order]
    (tmp_path / "list.txt").write_text(f"{tmp_path}/data.h5\n")
    net = tmp_path / "net.prototxt"
    net.write_text(REGRESSION.replace("LIST", str(tmp_path / "list.txt")))
    solver = write_solver(net=str(net), test_iter=[20])
    sweep: dict[str, Any] = {"min_lr": 0.0001, "max_lr": 0.02, "iterations": 200}
    found = range_test(solver, tmp_path / "out", Options(**sweep))
    assert found.losses[0]["loss"] < 0.1 * found.losses[1]["loss"]
    assert (found.diverged_at, found.rows[-1]["iteration"]) == (None, 200)
    diverging = Options(**sweep | {"max_lr": 2})
    found = range_test(solver, tmp_path / "diverging", diverging)
    assert found.diverged_at is not None
    assert "times the largest of the first 20 iterations (with --keep-going," in found.stopped


def test_a_negative_loss_is_no_divergence(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(NEGATIVE)
    solver = write_solver(net=str(net))
    found = range_test(solver, tmp_path / "out", Options(**SWEEP, iterations=200))
    assert (found.diverged_at, found.rows[-1]["iteration"]) == (None, 200)
    assert found.losses[-1]["loss"] < found.losses[0]["loss"] < 0


def test_seeds_are_compared_as_far_as_all_of_them_came(tmp_path: Path) -> None:
    found = range_test(DIGITS, tmp_path, Options(min_lr=0.001, max_lr=20, iterations=400, seeds=3))
    ends = [run_folder.read_status(tmp_path / f"seed_{seed}")["iteration"] for seed in found.seeds]
    assert len(set(ends)) > 1
    assert found.rows[-1]["iteration"] == min(ends) // 8 * 8
    assert [found.diverged_at] == rates([min(ends)], 400, 0.001, 20)


def test_a_solver_without_a_test_net_is_judged_by_its_training_loss(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(test_iter=None, test_interval=None)
    found = range_test(file, tmp_path / "out", Options(**SWEEP, epochs=8))
    assert (found.metric.name, found.metric.of_test) == ("loss", False)
    assert [row["iteration"] for row in found.rows] == list(range(0, 240, 2))
    assert found.rows == found.losses
    base_lr, max_lr = suggested(found)
    assert RANGE["min_lr"] < base_lr < max_lr < RANGE["max_lr"]
    assert (tmp_path / "out" / "1cycle_solver.prototxt").is_file()


@pytest.mark.parametrize(
    ("fields", "reason", "remedy"),
    [
        (
            "max_iter: 60 test_iter: 1111 test_interval: 999999999",
            "test_interval 999999999 is beyond max_iter 60",
            "set test_interval to that or less",
        ),
        (
            "max_iter: 60 test_iter: 0 test_interval: 10",
            "it has no test_iter above 0",
            "set test_iter, and test_interval",
        ),
    ],
)
def test_tests_that_are_switched_off_stay_off_and_are_told_of(
    fields: str, reason: str, remedy: str, run_cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(SMALL)
    (tmp_path / "solver.prototxt").write_text(f'net: "net.prototxt" solver_mode: GPU {fields}')
    sweep = ("--min-lr", "0.001", "--max-lr", "1", "--iterations", "20", "--out", "out")
    done = run_cli("range-test", "solver.prototxt", *sweep)
    assert "warning: solver.prototxt: solver_mode is GPU, but this run is on the CPU" in done.stdout
    assert (
        f"warning: solver.prototxt: nothing is tested, because {reason}; only the training loss can"
        f" be judged. To test, {remedy}\n"
    ) in done.stdout
    assert run_folder.read_history(tmp_path / "out" / "seed_1").test == []
    found = json.loads((tmp_path / "out" / "range_test.json").read_text())
    assert found["metric"] == "loss"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_lr": 0.3, "max_lr": 0.3}, r"--min-lr 0\.3 --max-lr 0\.3: .* first below the second"),
        ({"min_lr": 0.4, "max_lr": 0.3}, r"--min-lr 0\.4 --max-lr 0\.3: .* first below the second"),
        ({"min_lr": -0.1, "max_lr": 0.3}, r"--min-lr -0\.1 .*rates of 0 or more"),
        ({"min_lr": float("nan"), "max_lr": 0.3}, "--min-lr nan"),
        ({"min_lr": 0, "max_lr": float("inf")}, "--max-lr inf: give finite rates"),
        ({**SWEEP, "iterations": 7}, "7 iterations are too few for a curve; give at least 8"),
        ({**SWEEP, "epochs": 0.1}, "3 iterations are too few"),
        ({**SWEEP, "epochs": -1}, "--epochs -1: give a number above 0"),
        ({**SWEEP, "epochs": None}, "length of the test is missing; give --epochs or --iterations"),
    ],
)
def test_what_makes_no_range_test_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        range_test(DIGITS, tmp_path / "out", Options(**{"epochs": 8, **options}))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def uncounted(write_solver: Callable[..., Path], tmp_path: Path) -> Path:
    """A solver whose net is fed by a layer that has a batch size and no count: DummyData."""
    layers = """
    layer {
      name: "data" type: "DummyData" top: "data" top: "label"
      dummy_data_param {
        shape { dim: 10 dim: 4 } shape { dim: 10 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 }
      }
    }
    layer {
      name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
      inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
    }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
    """
    (tmp_path / "net.prototxt").write_text(layers)
    net = str(tmp_path / "net.prototxt")
    return write_solver(net=net, test_iter=None, test_interval=None, max_iter=600)


def test_images_that_cannot_be_counted_are_given(uncounted: Path, tmp_path: Path) -> None:
    sweep: dict[str, Any] = {"min_lr": 0.0001, "max_lr": 1}
    with pytest.raises(ClrError, match=r"DummyData cannot be counted; give --images"):
        range_test(uncounted, tmp_path / "out", Options(**sweep, epochs=8))
    assert not (tmp_path / "out").exists()
    range_test(uncounted, tmp_path / "given", Options(**sweep, epochs=8, images=250))
    assert run_folder.read_status(tmp_path / "given" / "seed_1701")["iteration"] == 8 * 25
    written = json.loads((tmp_path / "given" / "range_test.json").read_text())
    assert (written["iterations"], written["epochs"], written["chance"]) == (200, 8, None)


def test_a_folder_with_a_range_test_is_to_be_resumed(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file, out = write_solver(max_iter=100), tmp_path / "out"
    for options in (Options(0.001, 0.3, iterations=20), Options(iterations=30)):
        range_test(file, out, options)
        with pytest.raises(UsageError, match=r"already has a range test; continue it with --res"):
            range_test(file, out, options)
        shutil.rmtree(out)


@pytest.mark.parametrize("options", [Options(0.001, 0.3, iterations=20), Options(iterations=30)])
def test_a_comparison_is_no_range_test(
    options: Options, write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file, out = write_solver(max_iter=2), tmp_path / "out"
    comparison.compare([file], out, comparison.Options(seeds=1))
    folder = out if options.min_lr is None else out / "solver"
    (folder / "range_test.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"range_test.csv already exists and would be overwritte"):
        range_test(write_solver(max_iter=100), folder, options)
    assert (folder / "range_test.csv").read_text() == "mine"


def test_another_range_is_refused_before_anything_is_trained(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file, out = write_solver(), tmp_path / "out"
    range_test(file, out, Options(0.001, 0.3, iterations=20))
    with pytest.raises(UsageError, match="started with another max_lr"):
        range_test(file, out, Options(0.001, 0.6, iterations=20, seeds=2, resume=True))
    assert [folder.name for folder in out.glob("seed_*")] == ["seed_1701"]


def test_without_rates_two_sweeps_find_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    progress: list[tuple[int, int]] = []
    warnings: list[str] = []
    found = range_test(
        DIGITS,
        out,
        Options(),
        on_progress=lambda done, total: progress.append((done, total)),
        on_warning=warnings.append,
    )
    max_iter = prototxt.read_solver(DIGITS).max_iter
    assert found.iterations <= 0.15 * max_iter
    assert progress[-1][1] <= 0.15 * max_iter
    assert progress == sorted(progress)
    assert warnings == []

    assert {path.name for path in out.iterdir()} == {
        *("range_test.csv", "range_test.json", "1cycle_solver.prototxt", "sweep_1", "sweep_2"),
    }
    coarse, fine = found.steps
    assert (coarse.name, fine.name) == ("sweep_1", "sweep_2")
    assert coarse.outcome.startswith("trains up to ")
    assert fine.outcome.endswith(", where the training loss is lowest")
    own = prototxt.read_solver(DIGITS).base_lr
    assert coarse.min_lr == pytest.approx(own / 100)
    assert coarse.min_lr < fine.min_lr < fine.max_lr < coarse.max_lr
    assert fine.max_lr == pytest.approx(400 * fine.min_lr)
    assert found.iterations == coarse.iterations + fine.iterations
    assert not snapshots(out)

    assert (found.metric.name, found.metric.of_test) == ("loss", False)
    assert found.rows == found.losses
    assert read_table(out / "range_test.csv") == (found.rows, 0)
    swept = [row["lr"] for row in found.losses]
    assert swept[0] == pytest.approx(fine.min_lr)
    factors = np.array(swept[1:]) / swept[:-1]
    assert factors == pytest.approx(np.full(factors.size, factors[0]), rel=1e-4)
    max_lr = found.suggestions.max_lr.rate
    assert max_lr is not None
    assert 0.03 < max_lr < 0.5  # models/digits has 0.1
    assert prototxt.read_solver(found.solvers[0]).max_lr == np.float32(f"{max_lr:.2g}")

    written = json.loads((out / "range_test.json").read_text())
    assert (written["iterations"], written["trained"]) == (144, found.iterations)
    assert written["min_lr"] == pytest.approx(fine.min_lr)
    assert written["max_lr"] == pytest.approx(fine.max_lr, rel=1e-3)
    assert [step["name"] for step in written["steps"]] == ["sweep_1", "sweep_2"]
    assert curves.read(out).suggestions == found.suggestions
    assert curves.read(out / "sweep_2" / "seed_1701").suggestions == found.suggestions


def test_sweeps_that_are_finished_are_not_trained_again(tmp_path: Path) -> None:
    first = range_test(DIGITS, tmp_path / "out", Options(iterations=60, seeds=2, jobs=2))
    records = sorted(tmp_path.rglob("train.csv"))
    assert len(records) == 4
    assert "loss_low" in first.rows[0]
    before = [record.stat().st_mtime_ns for record in records]
    options = Options(iterations=60, seeds=2, jobs=2, resume=True)
    assert range_test(DIGITS, tmp_path / "out", options) == first
    assert [record.stat().st_mtime_ns for record in records] == before


def test_the_length_of_sweeps_may_be_given(tmp_path: Path) -> None:
    found = range_test(DIGITS, tmp_path / "out", Options(epochs=10, max_iter=100, stop_early=False))
    assert [step.iterations for step in found.steps] == [300 // 8, 300]


@pytest.mark.parametrize("rate", [{"min_lr": 0.1}, {"max_lr": 0.1}])
def test_a_single_rate_is_no_range(rate: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="give both --min-lr and --max-lr, or neither to have the range found"
    ):
        range_test(DIGITS, tmp_path / "out", Options(**rate, epochs=8))
    assert not (tmp_path / "out").exists()
