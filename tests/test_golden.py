"""Rates that the papers themselves state, at iterations of their experiments, as Caffe gives them.

For 1cycle and the momentum, what the author's published logs have.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caffe_clr import parity

# Table 2: CIFAR-10 in three stages, each a triangular policy of its own.
STAGES = [
    {"base_lr": 0.001, "max_lr": 0.005, "stepsize": 2000, "start_lr_policy": 0},
    {"base_lr": 0.0001, "max_lr": 0.0005, "stepsize": 1000, "start_lr_policy": 16_000},
    {"base_lr": 0.00001, "max_lr": 0.00005, "stepsize": 500, "start_lr_policy": 22_000},
]

GOLDEN = {
    # CIFAR-10 (section 4.1.1 and Table 2)
    "stage 1, triangular2": (
        {"lr_policy": "triangular2", **STAGES[0]},
        {0: 0.001, 2000: 0.005, 4000: 0.001, 6000: 0.003, 10_000: 0.002, 14_000: 0.0015}
        | {16_000: 0.001},
    ),
    "stage 2, triangular": (
        {"lr_policy": "triangular", **STAGES[1]},
        {0: 0.0001, 16_000: 0.0001, 17_000: 0.0005, 18_000: 0.0001, 21_000: 0.0005, 22_000: 0.0001},
    ),
    "stage 3, triangular": (
        {"lr_policy": "triangular", **STAGES[2]},
        {22_000: 0.00001, 22_500: 0.00005, 23_000: 0.00001, 24_500: 0.00005, 25_000: 0.00001},
    ),
    "decay, the control experiment": (
        {"lr_policy": "decay", "base_lr": 0.001, "max_lr": 0.007, "stepsize": 4000},
        {0: 0.007, 1000: 0.0055, 2000: 0.004, 4000: 0.001, 4001: 0.001, 25_000: 0.001},
    ),
    # ImageNet: AlexNet (section 4.2.1) and GoogLeNet (section 4.2.2)
    "AlexNet, triangular2": (
        {"lr_policy": "triangular2", "base_lr": 0.01, "max_lr": 0.015, "stepsize": 30_000},
        {0: 0.01, 30_000: 0.015, 60_000: 0.01, 90_000: 0.0125, 120_000: 0.01, 150_000: 0.01125},
    ),
    "AlexNet, exp_range": (
        {"lr_policy": "exp_range", "base_lr": 0.006, "max_lr": 0.014, "stepsize": 30_000}
        | {"gamma": 0.999995},
        {0: 0.006, 30_000: 0.0120475, 60_000: 0.0044431, 300_000: 0.00133605},
    ),
    "GoogLeNet, triangular2": (
        {"lr_policy": "triangular2", "base_lr": 0.01, "max_lr": 0.026, "stepsize": 30_000},
        {0: 0.01, 30_000: 0.026, 90_000: 0.018, 150_000: 0.014, 420_000: 0.01},
    ),
    "GoogLeNet, exp_range": (
        {"lr_policy": "exp_range", "base_lr": 0.01, "max_lr": 0.026, "stepsize": 30_000}
        | {"gamma": 0.99998},
        {0: 0.01, 30_000: 0.0142574, 60_000: 0.003007, 240_000: 0.0000817588},
    ),
    # Range tests (section 3.3). For Figures 3 and 7 the paper's text names the bounds
    # that were read off, not the ends of the axes: the upper end here is chosen.
    "range test of Figure 3, 8 epochs of CIFAR-10": (
        {"lr_policy": "triangular", "base_lr": 0, "max_lr": 0.02, "stepsize": 4000},
        {0: 0, 200: 0.001, 1200: 0.006, 2000: 0.01, 4000: 0.02},
    ),
    "range test of Figure 7": (
        {"lr_policy": "triangular", "base_lr": 0, "max_lr": 0.03, "stepsize": 30_000},
        {0: 0, 6000: 0.006, 15_000: 0.015, 30_000: 0.03},
    ),
    "range test of Figure 11, 4 epochs of ImageNet": (
        {"lr_policy": "triangular", "base_lr": 0.001, "max_lr": 0.065, "stepsize": 40_036},
        {0: 0.001, 10_009: 0.017, 20_018: 0.033, 30_027: 0.049, 40_036: 0.065},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, solver: Callable[..., Any]) -> None:
    fields, rates = GOLDEN[name]
    found = parity.compare(solver(**fields), list(rates)).solver
    # as many digits as Caffe's log has
    assert [f"{rate:.6g}" for rate in found] == [f"{rate:.6g}" for rate in rates.values()]


def test_golden_1cycle_and_momentum(solver: Callable[..., Any]) -> None:
    fields = {"lr_policy": "1cycle", "base_lr": 0.1, "max_lr": 1, "stepsize": 2246}
    parameter = solver(**fields, momentum=0.95, cyclical_momentum=[0.85, 2246])
    logged = {
        200: ("0.180142", "0.941095"),
        1800: ("0.821282", "0.869858"),
        2800: ("0.753339", "0.874666"),
        3800: ("0.308103", "0.91919"),
        4800: ("0.0001", "0.943143"),
    }
    rates = parity.compare(parameter, list(logged)).solver
    momenta = parity.compare_momentum(parameter, list(logged)).solver
    printed = [
        (f"{rate:.6g}", f"{momentum:.6g}") for rate, momentum in zip(rates, momenta, strict=True)
    ]
    assert printed == list(logged.values())


def test_golden_1cycle_where_the_authors_code_rounded_the_position(
    solver: Callable[..., Any],
) -> None:
    """His log has 0.00119905: a position that is rounded to float is off in the fifth digit."""
    fields = {"lr_policy": "1cycle", "base_lr": 0.08, "max_lr": 0.8, "stepsize": 4003}
    assert f"{parity.compare(solver(**fields), [8000]).solver[0]:.6g}" == "0.0011991"
    position = np.float32(8000) / np.float32(4003)
    assert f"{0.8 * (2 - float(position)):.6g}" == "0.00119905"


def test_golden_exp_range_on_cifar10(solver: Callable[..., Any]) -> None:
    """Both bounds have declined to 8 % where the paper stops, at 42,000 (section 4.1.1)."""
    fields = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000, "gamma": 0.99994}
    found = parity.compare(solver(lr_policy="exp_range", **fields), [0, 2000, 40_000, 42_000])
    expected = [0.001, 0.00532127, 0.0000906, 0.000482]
    assert found.solver == pytest.approx(expected, rel=5e-3)
