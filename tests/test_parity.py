"""The rates of live pycaffe solvers against the NumPy reference, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caffe_clr import parity, policies

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
@pytest.mark.parametrize("policy", policies.CYCLICAL)
def test_cyclical_rates_equal_the_reference_in_every_bit(
    policy: str, fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    parameter = solver(lr_policy=policy, **fields)
    steps = 3 * 2 * parameter.stepsize + parameter.start_lr_policy + 100
    found = parity.compare(parameter, steps)
    assert found.differing.tolist() == []
    if parameter.max_lr > parameter.base_lr:
        assert found.solver.max() == np.float32(parameter.max_lr)


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_policy": "fixed"},
        {"lr_policy": "step", "gamma": 0.9, "stepsize": 10},
        {"lr_policy": "exp", "gamma": 0.999},
        {"lr_policy": "multistep", "gamma": 0.3, "stepvalue": [10, 100, 500]},
    ],
)
def test_stock_rates_in_double_equal_the_reference_in_every_bit(
    fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    assert parity.compare(solver(max_lr=None, **fields), 1000).differing.tolist() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_policy": "inv", "gamma": 0.0001, "power": 0.75},
        {"lr_policy": "poly", "power": 0.5, "max_iter": 1000},
        {"lr_policy": "sigmoid", "gamma": 0.01, "stepsize": 500},
    ],
)
def test_stock_rates_in_float_differ_by_two_units_in_the_last_place_at_most(
    fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    found = parity.compare(solver(max_lr=None, **fields), 1000)
    units = np.abs(found.solver - found.reference) / np.spacing(found.reference)
    assert units.max() <= 2


def test_a_difference_is_found(solver: Callable[..., Any]) -> None:
    found = parity.compare(solver(), 10)
    found.reference[7] = np.nextafter(found.reference[7], np.float32(1))
    assert found.differing.tolist() == [7]
