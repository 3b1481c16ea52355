"""The tools with the first patch alone, as of Caffe 1.0, whose pycaffe has no solver.lr."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffe_clr import policies
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.series import FEATURE

Cli = Callable[..., subprocess.CompletedProcess[str]]

CYCLE = "base_lr: 0.01 max_lr: 0.07 stepsize: 5"


@pytest.fixture
def old_cli(first_patch: Tree, run_cli: Cli) -> Cli:
    """The command, with that Caffe."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run_cli(*arguments, PYTHONPATH=str(first_patch.python))

    return run


@pytest.fixture
def solver(net: Path, tmp_path: Path) -> Path:
    file = tmp_path / "solver.prototxt"
    file.write_text(
        f"net: '{net}' lr_policy: 'triangular2' {CYCLE} momentum: 0.9 max_iter: 40 display: 1"
        " test_iter: 1 test_interval: 10 random_seed: 1 snapshot_prefix: 'run'"
    )
    return file


def test_the_closing_check_of_a_build_passes(first_patch: Tree) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "caffe_clr.parity"],
        env={**os.environ, "PYTHONPATH": str(first_patch.python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_rates_equal_the_reference(old_cli: Cli) -> None:
    done = old_cli("parity", "--points", "6000")
    assert done.returncode == 0, done.stderr
    compared = re.findall(r"^│ (\w+) +│ (\w+) +│ +[\d,]+ │ +(\d+) ", done.stdout, re.MULTILINE)
    found = {policy for policy, _, _ in compared}
    assert found == {p.name for p in policies.POLICIES.values() if p.patch in (None, FEATURE)}
    exact = {"triangular", "triangular2", "exp_range", "decay", "fixed"}
    assert {n for policy, _, n in compared if policy in exact} == {"0"}


def test_a_training_records_the_rates_of_the_reference(
    solver: Path, old_cli: Cli, tmp_path: Path
) -> None:
    done = old_cli("train", solver, "--out", "run")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run/train.csv").open() as file:
        rates = [np.float32(row["lr"]) for row in csv.DictReader(file)]
    expected = policies.triangular2(range(40), base_lr=0.01, max_lr=0.07, stepsize=5)
    assert rates == expected.tolist()


def test_a_run_is_resumed_with_the_same_weights(solver: Path, old_cli: Cli, tmp_path: Path) -> None:
    assert old_cli("train", solver, "--out", "whole").returncode == 0
    text = solver.read_text()
    solver.write_text(f"{text} snapshot: 25")
    assert old_cli("train", solver, "--out", "cut").returncode == 0
    for file in (tmp_path / "cut/snapshots").glob("*_iter_40.*"):
        file.unlink()
    status = tmp_path / "cut/run.json"  # as of a run that was killed
    status.write_text(status.read_text().replace('"finished"', '"running"'))
    done = old_cli("train", solver, "--out", "cut", "--resume")
    assert done.returncode == 0, done.stderr
    models = [tmp_path / f"{run}/snapshots/run_iter_40.caffemodel" for run in ("whole", "cut")]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("schedule",),
        ("stepsize", "--epochs", "4"),
        ("range-test", "--min-lr", "0", "--max-lr", "3", "--iterations", "40", "--out", "range"),
        ("compare", "--seeds", "1", "--out", "compared"),
    ],
)
def test_the_tools_need_the_first_patch_alone(
    arguments: tuple[str, ...], solver: Path, old_cli: Cli
) -> None:
    command, *options = arguments
    done = old_cli(command, solver, *options)
    assert done.returncode == 0 or "no bound" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("lr_policy: '1cycle'", 'lr_policy "1cycle": this Caffe lacks the patch one-cycle'),
        (
            "cyclical_momentum: [0.8, 5]",
            'has no field "cyclical_momentum": this Caffe lacks the patch cyclical-momentum',
        ),
    ],
)
def test_what_the_other_patches_add_is_refused(
    fields: str, message: str, solver: Path, old_cli: Cli
) -> None:
    text = solver.read_text()
    if "lr_policy" in fields:
        text = text.replace("lr_policy: 'triangular2'", "")
    solver.write_text(f"{text} {fields}")
    done = old_cli("train", solver, "--out", "run")
    assert done.returncode == 1
    assert message in done.stderr
