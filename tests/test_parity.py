"""The rates of live pycaffe solvers against the NumPy reference, bit for bit."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr import parity, policies, prototxt
from caffe_clr.harness.compilation import Tree

Cli = Callable[..., subprocess.CompletedProcess[str]]

# bounds and stepsizes without a short binary fraction; each run spans over three cycles
CYCLES = [
    {},
    {"stepsize": 7, "base_lr": 1e-7, "max_lr": 3.0},
    {"stepsize": 1},
    {"stepsize": 333, "start_lr_policy": 1001, "base_lr": 0.0},
    {"stepsize": 1229, "base_lr": 0.0999, "max_lr": 0.1},
    {"stepsize": 50, "base_lr": 0.006, "max_lr": 0.006},
]


@pytest.mark.parametrize("fields", CYCLES)
@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_smiths_rates_equal_the_reference_in_every_bit(
    policy: str, fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    parameter = solver(lr_policy=policy, gamma=0.99994, **fields)
    steps = 3 * 2 * parameter.stepsize + parameter.start_lr_policy + 100
    found = parity.compare(parameter, np.arange(steps))
    assert found.differing.tolist() == []
    if policy != "exp_range":
        assert found.solver.max() == np.float32(parameter.max_lr)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cyclical_momentum": [0.85, 333]},
        {"cyclical_momentum": [0.85, 1], "start_lr_policy": 1001},
        {"cyclical_momentum": [0, 77.7]},
        {"momentum": 0.8, "cyclical_momentum": [0.95, 50]},
        {"cyclical_momentum": [0.85, 333], "lr_policy": "multistep", "stepvalue": [100, 500]},
    ],
)
def test_momenta_equal_the_reference_in_every_bit(
    fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    parameter = solver(**{"momentum": 0.95, **fields})
    found = parity.compare_momentum(parameter, np.arange(3000))
    assert found.differing.tolist() == []
    assert found.solver[0] == np.float32(parameter.momentum)
    assert (len(set(found.solver.tolist())) > 1) == ("cyclical_momentum" in fields)


def test_every_policy_and_solver_type_where_it_matters(tree: Tree) -> None:
    results = list(parity.check_all([], 100_000))
    assert {(r.policy, r.solver_type) for r in results} == {
        *((p, s) for p in policies.POLICIES for s in prototxt.SOLVER_TYPES),
        *(("momentum", solver_type) for solver_type in ("SGD", "Nesterov", "Adam")),
    }
    assert [r for r in results if not r.passed] == []
    in_float = {"inv", "poly", "sigmoid"}
    assert [r for r in results if r.differing and r.policy not in in_float] == []
    assert {r.policy for r in results if r.units_allowed} == in_float


def test_the_iterations_that_matter(solver: Callable[..., Any]) -> None:
    chosen = parity.iterations_that_matter(solver(start_lr_policy=777)).tolist()
    for place in (0, 777, 777 + 2000, 777 + 4000, 777 + 4000 * 1100, 2**24):
        assert {place, place + 1} <= set(chosen), place
        assert place == 0 or place - 1 in chosen
    assert chosen[-1] == 2**31 - 1
    assert chosen == sorted(set(chosen))
    cycling = solver(start_lr_policy=777, cyclical_momentum=[0.85, 1234.5])
    end = 777 + 2469
    assert {end - 1, end, end + 1} <= set(parity.iterations_that_matter(cycling).tolist())


def test_jumping_and_stepping_read_the_same_rates(solver: Callable[..., Any]) -> None:
    for policy in ("triangular2", "multistep"):
        parameter = solver(lr_policy=policy, stepsize=60, gamma=0.5, stepvalue=[3, 100, 777, 778])
        stepped = parity.compare(parameter, np.arange(1000)).solver
        jumped = parity.compare(parameter, np.arange(0, 1000, 111)).solver
        assert stepped[::111].tolist() == jumped.tolist()


def test_a_difference_is_found_and_measured(
    solver: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = policies.learning_rate

    def off(parameter: Any, iterations: Any) -> Any:
        rates = exact(parameter, iterations)
        rates[iterations == 4000] += 3 * np.spacing(np.float32(0.001))
        return rates

    monkeypatch.setattr(policies, "learning_rate", off)
    result = parity.check(solver(), "mine", 1)
    assert (result.differing, result.units, result.passed) == (1, 3, False)
    assert result.share == pytest.approx(3 * 2**-33 / 0.005, rel=1e-6)


def test_points_asked_for_are_compared(solver: Callable[..., Any]) -> None:
    assert 50_000 <= parity.check(solver(), "mine", 50_000).points < 52_000
    assert parity.check(solver(), "mine", 50_000, last=999).points == 1000


def test_the_command_with_and_without_solver_files(tree: Tree, root: Path, run_cli: Cli) -> None:
    done = run_cli("parity", "--points", "1000", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^│ .* │ +0 │ +0 │", done.stdout, re.MULTILINE)) >= 8 * 6
    files = sorted(root.glob("models/*/*solver*.prototxt"))
    done = run_cli("parity", *files, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"│ triangular2 │ \S*triangular2_solver.prototxt +│ +1,201 │ +0 │", done.stdout
    )


def test_a_file_that_is_refused_does_not_end_the_others(
    tree: Tree, run_cli: Cli, tmp_path: Path
) -> None:
    rate = "base_lr: 0.01 lr_policy: 'fixed' max_iter: 9 "
    inline = "name: 'n' layers { name: 'd' }"
    taken = {
        "states": "net: 'none' test_iter: 1 test_state { stage: 'x' } test_state { } iter_size: 0",
        "inline": f"net_param {{ {inline} }} weights: 'none' snapshot: 2 snapshot_format: HDF5",
        "apart": f"train_net_param {{ {inline} }} test_net_param {{ {inline} }} test_net: 'none'",
        "deprecated": "solver_type: 1 train_net: 'none' train_state { level: 2 } debug_info: true",
        "endless": "max_iter: 0",
    }
    refused = {
        "foo": ("type: 'Foo'", 'type "Foo" is unknown; use one of SGD, '),
        "adagrad": (
            "type: 'AdaGrad' momentum: 0.9",
            "momentum is 0.9, but AdaGrad has no momentum",
        ),
        "both": ("type: 'SGD' solver_type: SGD", "both type and solver_type are set; keep type"),
        "average": ("average_loss: 0", "average_loss is 0; set it to 1 or more"),
        "field": ("rampup_lr: 1", 'SolverParameter has no field "rampup_lr"'),
    }
    files = []
    for name, text in {**{n: text for n, (text, _) in refused.items()}, **taken}.items():
        fields = rate if "max_iter" not in text else rate.replace("max_iter: 9", "")
        (tmp_path / f"{name}.prototxt").write_text(fields + text)
        files.append(f"{name}.prototxt")
    done = run_cli("parity", *files, "--points", "3000", COLUMNS="120")
    assert done.returncode == 1
    for name in taken:
        assert re.search(rf"│ fixed +│ {name}.prototxt +│ +[\d,]+ │ +0 │", done.stdout), done.stdout
    lines = done.stderr.removeprefix("error: ").splitlines()
    for line, (name, (_, message)) in zip(lines, refused.items(), strict=True):
        assert line.startswith(f"{name}.prototxt:")
        assert message in line


def test_the_command_fails_on_a_difference_and_on_bad_files(
    tree: Tree, run_cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "bad.prototxt").write_text("lr_policy: 'triangular' stepsize: 1")
    done = run_cli("parity", "bad.prototxt")
    assert done.returncode == 1
    assert done.stderr.startswith('error: bad.prototxt: lr_policy "triangular": max_lr is not set')
    (tmp_path / "bad.prototxt").write_text("lr_policy: 'fixed' cyclical_momentum: 0.85")
    done = run_cli("parity", "bad.prototxt")
    assert done.returncode == 1
    assert done.stderr.startswith("error: bad.prototxt: cyclical_momentum has 1 values; give it")
    assert run_cli("parity", "--points", "0").returncode == 2
    code = (
        "import dataclasses, sys; from caffe_clr import cli, policies; known = policies.POLICIES;"
        "known['fixed'] = dataclasses.replace(known['fixed'], units_allowed=-1);"
        "sys.argv = ['caffe-clr', 'parity', '--points', '1']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: 6 of 78 solvers differ from the reference\n"
