"""Solver files: what Caffe and Python make of good and of bad ones."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import planning, solvers

REFUSED = [
    ("max_lr: 0.006", "", "max_lr is not set"),
    ("max_lr: 0.006", "max_lr: 0.0005", "max_lr.* is below base_lr"),
    ("max_lr: 0.006", "max_lr: inf", "max_lr.* must be finite"),
    ("max_lr: 0.006", "max_lr: nan", "max_lr.* must be finite"),
    ("base_lr: 0.001", "base_lr: -inf", "base_lr.* must be finite"),
    ("base_lr: 0.001", "base_lr: -0.001", "base_lr is .*; set it to 0 or more"),
    ("stepsize: 20", "", "stepsize.* is half a cycle"),
    ("stepsize: 20", "stepsize: -20", "stepsize.* is half a cycle"),
    ("stepsize: 20", "stepsize: 20 start_lr_policy: -1", "start_lr_policy.* is an iteration"),
]

SOLVER = """
lr_policy: "POLICY" base_lr: 0.001 max_lr: 0.006 stepsize: 20 gamma: 0.9 max_iter: 40 display: 1
solver_mode: CPU snapshot_after_train: false
net_param {
  layer {
    name: "data" type: "DummyData" top: "data"
    dummy_data_param { shape { dim: 1 dim: 1 } }
  }
}
"""


def write(path: Path, policy: str, old: str = "", new: str = "") -> Path:
    path.write_text(SOLVER.replace("POLICY", policy).replace(old, new))
    return path


def caffe_train(tree: Tree, solver: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree.caffe, "train", f"--solver={solver}"], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED)
@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_a_bad_cycle_is_refused_by_caffe_train(
    policy: str, old: str, new: str, reason: str, tree: Tree, tmp_path: Path
) -> None:
    done = caffe_train(tree, write(tmp_path / "solver.prototxt", policy, old, new), tmp_path)
    assert done.returncode != 0
    assert re.search(f'Check failed: .*lr_policy "{policy}": {reason}', done.stderr)
    assert "Iteration 0" not in done.stderr


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED)
@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_a_bad_cycle_raises_in_python(
    policy: str, old: str, new: str, reason: str, tree: Tree, tmp_path: Path
) -> None:
    solver = write(tmp_path / "solver.prototxt", policy, old, new)
    with pytest.raises(ClrError, match=f'{solver}: lr_policy "{policy}": {reason}'):
        planning.plan([solver])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("cyclical_momentum: 0.8", "cyclical_momentum has 1 values; give it two"),
        ("cyclical_momentum: [0.8, 0.5]", "cyclical_momentum.* half a cycle .*0.5 iterations"),
        ("cyclical_momentum: [1.8, 20]", "cyclical_momentum.* is 1.8.*; set it to 0 or more"),
        ("cyclical_momentum: [0.8, 20] momentum: 1", "cyclical_momentum.* 1; set .*below 1"),
        *(
            (f"cyclical_momentum: [0.8, 20] type: '{each}'", f"{each} has no momentum that could")
            for each in ("AdaGrad", "RMSProp", "AdaDelta")
        ),
    ],
)
def test_a_bad_momentum_is_refused_by_caffe_train_and_in_python(
    fields: str, reason: str, tree: Tree, tmp_path: Path
) -> None:
    solver = write(tmp_path / "solver.prototxt", "fixed", "gamma", f"{fields} gamma")
    done = caffe_train(tree, solver, tmp_path)
    assert done.returncode != 0
    assert re.search(f"Check failed: .*{reason}", done.stderr)
    assert "Iteration 0" not in done.stderr
    with pytest.raises(ClrError, match=f"{solver}: {reason}"):
        planning.plan([solver])


def test_a_bad_message_raises_before_caffe_is_given_it(solver: Callable[..., Any]) -> None:
    with pytest.raises(ClrError, match='solver: lr_policy "triangular": max_lr is not set'):
        solvers.load_solver(solver(max_lr=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_lr: 0.1 lr_policy: 'fixd'", 'lr_policy "fixd" is unknown; use one of fixed, step'),
        ("base_lr: fast", r"solver.prototxt:1:10: .*fast"),
        ("lr_policy: 'fixed'\nmaxlr: 1", r"solver.prototxt:2:1: .*maxlr"),
        (
            "lr_policy: 'fixed' max_iter: 1 net: 'missing.prototxt'",
            "missing.prototxt: cannot be read: No such",
        ),
    ],
)
def test_a_bad_solver_file_raises_in_python(
    text: str, message: str, tree: Tree, tmp_path: Path
) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(text)
    with pytest.raises(ClrError, match=message):
        planning.plan([solver])


def test_missing_data_raises_in_python(tree: Tree, tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    data = 'data_param { source: "none" backend: LMDB }'
    net.write_text(f'layer {{ name: "digits" type: "Data" top: "data" {data} }}')
    (tmp_path / "solver.prototxt").write_text(f"lr_policy: 'fixed' max_iter: 1 net: '{net}'")
    with pytest.raises(ClrError, match=f'{net}: layer "digits": no data at none'):
        planning.plan([tmp_path / "solver.prototxt"])


def test_a_missing_or_binary_solver_file_raises_in_python(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ClrError, match=r"none\.prototxt: cannot be read: No such file"):
        planning.plan([tmp_path / "none.prototxt"])
    binary = tmp_path / "binary.prototxt"
    binary.write_bytes(b"\xff\x00")
    with pytest.raises(ClrError, match=r"binary\.prototxt:1:2: U\+0000 "):
        planning.plan([binary])


@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_caffe_train_logs_the_rates(policy: str, tree: Tree, tmp_path: Path) -> None:
    solver = write(tmp_path / "solver.prototxt", policy)
    done = caffe_train(tree, solver, tmp_path)
    assert done.returncode == 0, done.stderr
    logged = re.findall(r"Iteration (\d+), lr = (\S+)", done.stderr)
    assert [int(iteration) for iteration, _ in logged] == list(range(40))
    expected = policies.learning_rate(prototxt.read_solver(solver), np.arange(40))
    assert [rate for _, rate in logged] == [f"{rate:.6g}" for rate in expected]


@pytest.mark.usefixtures("digits_root")
def test_caffe_train_trains_the_demos_solver(tree: Tree, root: Path) -> None:
    solver = root / "models" / "digits" / "triangular2_solver.prototxt"
    snapshot = root / "models" / "digits" / "triangular2_iter_1200.caffemodel"
    snapshot.unlink(missing_ok=True)
    done = caffe_train(tree, solver, root)
    assert done.returncode == 0, done.stderr
    rates = dict(re.findall(r"Iteration (\d+), lr = (\S+)", done.stderr))
    assert [rates[iteration] for iteration in ("0", "60", "120", "240", "360", "600")] == [
        *("0.001", "0.0505", "0.1", "0.001", "0.0505", "0.02575")
    ]
    accuracy = re.findall(r"accuracy = (\S+)", done.stderr)[-1]
    assert float(accuracy) >= 0.95
    assert snapshot.is_file()
