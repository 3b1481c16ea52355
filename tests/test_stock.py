"""Nothing else changed: patched Caffe against the same Caffe built without the feature."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import parity, policies, prototxt
from caffe_clr.harness.compilation import Tree

STOCK_POLICIES = [policy.name for policy in policies.POLICIES.values() if not policy.patch]


def run(tree: Tree, *arguments: str | Path, stdin: str = "") -> str:
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("run_caffe.py"), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(tree.python),
            "GLOG_minloglevel": "2",
            "OMP_NUM_THREADS": "1",  # more add gradients up in another order
        },
        input=stdin,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def test_stock_policies_keep_their_bits(tree: Tree, stock: Tree) -> None:
    cases = []
    for parameter in parity.default_cases():
        if parameter.lr_policy in STOCK_POLICIES:
            at = parity.iterations_that_matter(parameter)[:400].tolist()
            at += np.random.default_rng(0).integers(0, 2**31 - 1, 100).tolist()
            reached = [sum(value <= i for value in parameter.stepvalue) for i in at]
            solver = text_format.MessageToString(parameter)
            cases.append({"solver": solver, "at": list(zip(at, reached, strict=True))})
    assert len(cases) == 7 * 6
    given = json.dumps(cases)
    before, after = (
        json.loads(run(stock, "rates", stdin=given)),
        json.loads(run(tree, "rates", stdin=given)),
    )
    assert sum(map(len, before)) > 5000
    assert after == before


@pytest.mark.parametrize("field", ["max_lr", "cyclical_momentum"])
def test_stock_caffe_has_no_such_field(field: str, stock: Tree, tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(f"lr_policy: 'fixed' {field}: 1")
    done = subprocess.run(
        [stock.caffe, "train", f"--solver={tmp_path}/solver.prototxt"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f'has no field named "{field}"' in done.stderr


@pytest.mark.parametrize(
    ("solver_type", "snapshot_format"),
    [*((each, "BINARYPROTO") for each in prototxt.SOLVER_TYPES), ("SGD", "HDF5"), ("Adam", "HDF5")],
)
def test_snapshots_go_both_ways(
    solver_type: str, snapshot_format: str, tree: Tree, stock: Tree, net: Path, tmp_path: Path
) -> None:
    solver = tmp_path / "solver.prototxt"
    momentum = 0 if solver_type in ("AdaGrad", "RMSProp") else 0.9
    solver.write_text(
        f"net: '{net}' lr_policy: 'step' gamma: 0.5 stepsize: 7 base_lr: 0.01 momentum: {momentum}"
        f" type: '{solver_type}' random_seed: 3 snapshot_format: {snapshot_format}"
        f" snapshot_prefix: '{tmp_path}/run'"
    )
    state = f"{tmp_path}/run_iter_9.solverstate{'.h5' if snapshot_format == 'HDF5' else ''}"
    whole = run(stock, "train", solver, "", "20")
    for first, second in ((stock, tree), (tree, stock)):
        run(first, "train", solver, "", "9")
        assert run(second, "train", solver, state, "20") == whole
        Path(state).unlink()
