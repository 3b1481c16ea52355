"""What the benchmarks ask of Caffe; what they measure is not tested."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from benchmarks import nets, within_epoch
from benchmarks.workers import Worker, started
from caffe_clr import prototxt, runs, training
from caffe_clr.harness.compilation import Tree


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
    rows = runs.read_csv(tmp_path / "within.csv")
    assert len(rows) == 26
    assert recorded[60] == (rows[0]["lr"], rows[0]["accuracy"])
    assert recorded[90] == (rows[-1]["lr"], rows[-1]["accuracy"])


def test_the_commands_are_listed(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0
    commands = (
        "iteration",
        "rate",
        "reference",
        "build",
        "accuracy",
        "within-epoch",
        "suggestions",
    )
    for command in commands:
        assert f" {command} " in done.stdout
