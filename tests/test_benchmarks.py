"""How the benchmarks use Caffe. What they measure is not tested."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from benchmarks import figures, nets, within_epoch
from benchmarks.workers import Worker, started
from caffe_clr import policies, prototxt
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.series import FEATURE
from caffe_clr.runs import training
from caffe_clr.runs.history import read_table


@pytest.fixture
def digits(tree: Tree, tmp_path: Path) -> Path:
    net = nets.digits(tree, tmp_path)
    return nets.write_solver(
        *(tmp_path / "solver.prototxt", net.triangular2, tmp_path / "digits.prototxt"),
        test_iter=[9],
        base_lr=0.05,
    )


def test_the_accuracy_is_the_mean_over_the_batches(tree: Tree, digits: Path) -> None:
    worker = Worker(["caffe", str(digits)], threads=1, tree=tree)
    with started({"this": worker}):
        milliseconds = worker.step(30)
        over_nine = worker.test(9)
        single = [worker.test(1) for _ in range(9)]
    assert len(milliseconds) == 30
    assert min(milliseconds) > 0
    assert len(set(single)) > 1
    assert over_nine == pytest.approx(np.mean(single))


@pytest.mark.usefixtures("digits_root")
def test_within_an_epoch_is_trained_as_the_run_was(tmp_path: Path) -> None:
    solver = Path("models/digits/triangular2_solver.prototxt")
    parameter = prototxt.read_solver(solver)
    parameter.max_iter, parameter.snapshot = 90, 60
    shortened = tmp_path / "triangular2_solver.prototxt"
    shortened.write_text(text_format.MessageToString(parameter))
    run = tmp_path / "run"
    history = training.train([shortened], run)
    recorded = {row["iteration"]: (row["lr"], row["accuracy"]) for row in history.test}
    snapshot = run / "snapshots" / "triangular2_iter_60.solverstate"
    within_epoch.show(solver, snapshot, tmp_path / "within.csv")
    rows, _ = read_table(tmp_path / "within.csv")
    assert len(rows) == 26
    assert recorded[60] == (rows[0]["lr"], rows[0]["accuracy"])
    assert recorded[90] == (rows[-1]["lr"], rows[-1]["accuracy"])


def benchmarks(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=root, capture_output=True, text=True
    )


def test_a_table_has_a_row_for_each_policy(root: Path) -> None:
    done = benchmarks(root, "reference", "--repeats", "1")
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(re.findall(r"^ (\w+) +([\d,]+)  ", done.stdout, re.M))
    assert list(found) == [p.name for p in policies.POLICIES.values() if p.patch == FEATURE]
    assert all(int(speed.replace(",", "")) > 0 for speed in found.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "unknown net resnet; choose from cifar10_full, digits,"),
        (["digits", "--threads", "1,two"], "--threads 1,two: give numbers separated by commas"),
    ],
)
def test_a_benchmark_that_cannot_be_run_is_a_usage_error(
    arguments: list[str], message: str, root: Path
) -> None:
    done = benchmarks(root, "iteration", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")


def test_the_commands_are_listed(root: Path) -> None:
    done = benchmarks(root, "--help")
    assert done.returncode == 0
    commands = (
        "iteration",
        "rate",
        "reference",
        "build",
        "accuracy",
        "within-epoch",
        "advice",
        "advice-tables",
    )
    for command in commands:
        assert f" {command} " in done.stdout


@pytest.mark.usefixtures("tree")
def test_the_figures_are_drawn_from_what_is_recorded(root: Path, tmp_path: Path) -> None:
    figures.draw(root, tmp_path)
    shipped = [root / "caffe_patch" / "policies.png", *root.glob("models/*/results/*.png")]
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")} == {
        path.relative_to(root) for path in shipped
    }
