"""What the benchmarks ask of Caffe; what they measure is not tested."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import nets
from benchmarks.workers import Worker, started
from caffe_clr.harness.compilation import Tree


@pytest.fixture
def digits(tree: Tree, tmp_path: Path) -> Path:
    net = nets.digits(tmp_path)
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


def test_the_commands_are_listed(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("iteration", "rate", "reference", "build", "accuracy"):
        assert f" {command} " in done.stdout
