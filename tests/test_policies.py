"""The NumPy reference against values computed by hand from the definitions."""

import doctest
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caffe_clr import policies

# the paper, section 4.1.1
CIFAR10: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
DYADIC: dict[str, Any] = {"base_lr": 0.25, "max_lr": 1.25, "stepsize": 4}  # every rate is exact


def test_triangular_at_every_iteration_of_three_cycles() -> None:
    cycle = [0.25, 0.5, 0.75, 1, 1.25, 1, 0.75, 0.5]
    assert policies.triangular(np.arange(24), **DYADIC).tolist() == cycle * 3


def test_triangular2_halves_the_height_after_each_cycle() -> None:
    expected = [
        *(0.25, 0.5, 0.75, 1, 1.25, 1, 0.75, 0.5),
        *(0.25, 0.375, 0.5, 0.625, 0.75, 0.625, 0.5, 0.375),
        *(0.25, 0.3125, 0.375, 0.4375, 0.5, 0.4375, 0.375, 0.3125, 0.25),
    ]
    assert policies.triangular2(np.arange(25), **DYADIC).tolist() == expected


@pytest.mark.parametrize(
    ("iteration", "triangular", "triangular2"),
    [
        (0, 0.001, 0.001),
        (500, 0.00225, 0.00225),
        (1000, 0.0035, 0.0035),
        (2000, 0.006, 0.006),
        (3000, 0.0035, 0.0035),
        (4000, 0.001, 0.001),
        (6000, 0.006, 0.0035),
        (10000, 0.006, 0.00225),
        (14000, 0.006, 0.001625),
        (24000, 0.001, 0.001),
    ],
)
def test_the_papers_cifar10_settings(iteration: int, triangular: float, triangular2: float) -> None:
    spacing = float(np.spacing(np.float32(0.006)))
    for policy, expected in (
        (policies.triangular, triangular),
        (policies.triangular2, triangular2),
    ):
        assert policy(iteration, **CIFAR10) == pytest.approx(expected, rel=0, abs=spacing)


def test_bounds_are_reached_exactly() -> None:
    rates = policies.triangular(np.arange(0, 48_001, 2000), **CIFAR10)
    assert set(rates[::2]) == {np.float32(0.001)}
    assert set(rates[1::2]) == {np.float32(0.006)}


@pytest.mark.parametrize("policy", [policies.triangular, policies.triangular2])
def test_rate_is_base_lr_up_to_start_lr_policy(policy: Callable[..., policies.Rates]) -> None:
    rates = policy([0, 9, 10, 11, 14, 18], **DYADIC, start_lr_policy=10)
    assert rates.tolist() == [0.25, 0.25, 0.25, 0.5, 1.25, 0.25]


def test_iterations_beyond_what_a_float_can_count() -> None:
    late = 2**24 + np.arange(-1, 6)
    assert policies.triangular(late, **DYADIC).tolist() == [0.5, 0.25, 0.5, 0.75, 1, 1.25, 1]
    assert policies.triangular(2**31 - 1, **DYADIC) == 0.5


def test_twice_the_stepsize_beyond_an_int() -> None:
    long: dict[str, Any] = {"base_lr": 0.25, "max_lr": 1.25, "stepsize": 2**30}
    assert policies.triangular([0, 2**29, 2**30, 3 * 2**29], **long).tolist() == [
        *(0.25, 0.75, 1.25, 0.75)
    ]


def test_triangular2_after_cycles_beyond_the_range_of_double() -> None:
    rates = policies.triangular2(2 * 4 * 1100 + np.arange(8), **DYADIC)
    assert set(rates) == {np.float32(0.25)}


def test_exp_range_lets_both_bounds_decline() -> None:
    cycle = np.array([0.25, 0.5, 0.75, 1, 1.25, 1, 0.75, 0.5] * 3)
    expected = cycle * 0.5 ** np.arange(24)
    assert policies.exp_range(np.arange(24), **DYADIC, gamma=0.5).tolist() == expected.tolist()


def test_exp_ranges_exponent_counts_from_start_lr_policy() -> None:
    rates = policies.exp_range([0, 10, 14, 18, 22], **DYADIC, gamma=0.5, start_lr_policy=10)
    assert rates.tolist() == [0.25, 0.25, 1.25 / 2**4, 0.25 / 2**8, 1.25 / 2**12]


def test_exp_range_with_gamma_1_is_triangular() -> None:
    iterations = np.arange(0, 50_000, 7)
    expected = policies.triangular(iterations, **CIFAR10)
    assert np.array_equal(policies.exp_range(iterations, **CIFAR10, gamma=1), expected)


def test_decay_falls_once_and_stays() -> None:
    rates = policies.decay(np.arange(9), **DYADIC)
    assert rates.tolist() == [1.25, 1, 0.75, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25]
    rates = policies.decay([0, 10, 11, 14, 2**31 - 1], **DYADIC, start_lr_policy=10)
    assert rates.tolist() == [1.25, 1.25, 1, 0.25, 0.25]


def test_decay_ends_at_a_base_lr_far_below_max_lr() -> None:
    rates = policies.decay([0, 7], base_lr=1e-12, max_lr=1.0, stepsize=7)
    assert rates.tolist() == [1.0, np.float32(1e-12)]


def test_one_cycle_rises_falls_far_and_stays() -> None:
    expected = [0.25, 0.5, 0.75, 1, 1.25, 0.9375, 0.625, 0.3125, *[np.float32(0.00025)] * 4]
    assert policies.one_cycle(np.arange(12), **DYADIC).tolist() == expected
    rates = policies.one_cycle([0, 10, 11, 15, 2**31 - 1], **DYADIC, start_lr_policy=10)
    assert rates.tolist() == [0.25, 0.25, 0.5, 0.9375, np.float32(0.00025)]


def test_one_cycle_stops_falling_where_it_would_go_below_its_end() -> None:
    long: dict[str, Any] = {"base_lr": 0.25, "max_lr": 1.25, "stepsize": 10_000}
    rates = policies.one_cycle([19_997, 19_998, 19_999, 20_000], **long, dtype=np.float64)
    assert rates == pytest.approx([0.000375, 0.00025, 0.00025, 0.00025], rel=1e-15)


def test_momentum_at_every_iteration_of_three_cycles() -> None:
    expected = [
        *(0.75, 0.5, 0.25, 0.5),
        *(0.75, 0.625, 0.5, 0.625),
        *(0.75, 0.6875, 0.625, 0.6875, 0.75),
    ]
    cycle: dict[str, Any] = {"momentum": 0.75, "cyclical_momentum": [0.25, 2]}
    assert policies.momentum(np.arange(13), **cycle).tolist() == expected
    late = policies.momentum(np.arange(23), **cycle, start_lr_policy=10)
    assert late.tolist() == [0.75] * 10 + expected


def test_momentum_whose_peak_is_between_two_iterations() -> None:
    momenta = policies.momentum(np.arange(7), momentum=0.75, cyclical_momentum=[0, 1.5])
    assert momenta.tolist() == [0.75, 0.25, 0.25, 0.75, 0.5, 0.5, 0.75]


def test_momentum_reaches_a_value_far_below_the_one_it_begins_at() -> None:
    momenta = policies.momentum([4, 2**31 - 1], momentum=0.9, cyclical_momentum=[1e-30, 4])
    assert momenta.tolist() == [np.float32(1e-30), np.float32(0.9)]


def test_momentum_without_a_cycle() -> None:
    assert policies.momentum([[0, 7]], momentum=0.9).tolist() == [[np.float32(0.9)] * 2]


@pytest.mark.parametrize(
    ("momentum", "cyclical", "start", "message"),
    [
        (0.9, [0.85], 0, "has 1 values; give it two"),
        (0.9, [0.85, 10, 10], 0, "has 3 values; give it two"),
        (1, [0.85, 10], 0, "begins at momentum 1; set that to 0 or more, and below 1"),
        (0.99999999, [0.85, 10], 0, "begins at momentum 1; set that"),  # 1 as a float
        (0.9, [-0.1, 10], 0, "is -0.1 in mid-cycle; set it to 0 or more, and below 1"),
        (0.9, [np.nan, 10], 0, "is nan in mid-cycle"),
        (0.9, [0.85, 0.5], 0, "has half a cycle of 0.5 iterations; set it to 1 or more"),
        (0.9, [0.85, np.inf], 0, "has half a cycle of inf iterations"),
        (0.9, [0.85, 10], -1, "begins at start_lr_policy -1, an iteration"),
    ],
)
def test_a_bad_momentum_is_refused(
    momentum: float, cyclical: list[float], start: int, message: str
) -> None:
    fields: dict[str, Any] = {"cyclical_momentum": cyclical, "start_lr_policy": start}
    with pytest.raises(ValueError, match=f"cyclical_momentum {message}"):
        policies.momentum(0, momentum=momentum, **fields)


@pytest.mark.parametrize("gamma", [0, -0.5, 1.0001, np.nan])
def test_exp_range_needs_a_gamma_between_0_and_1(gamma: float) -> None:
    message = f'lr_policy "exp_range": gamma is {gamma:g}; the rate is multiplied by it in'
    with pytest.raises(ValueError, match=message):
        policies.exp_range(0, **CIFAR10, gamma=gamma)


def test_exp_overflows_to_infinity_as_in_c() -> None:
    assert policies.exp(2000, base_lr=1, gamma=2, dtype=np.float64) == np.inf


def test_stock_policies() -> None:
    def rounded(rates: policies.Rates) -> list[float]:
        return [float(f"{rate:.6g}") for rate in rates]

    iterations = [0, 9, 10, 25, 100]
    lenet: dict[str, Any] = {"base_lr": 0.01, "gamma": 0.0001, "power": 0.75}
    assert rounded(policies.fixed(iterations, base_lr=0.01)) == [0.01] * 5
    assert rounded(policies.step(iterations, base_lr=1, gamma=0.5, stepsize=10)) == [
        *(1, 1, 0.5, 0.25, 0.000976562)
    ]
    assert rounded(policies.exp(iterations, base_lr=1, gamma=0.5)) == [
        *(1, 0.00195312, 0.000976562, 2.98023e-08, 7.88861e-31)
    ]
    assert rounded(policies.inv([0, 10000], **lenet)) == [0.01, 0.00594604]
    assert rounded(policies.multistep(iterations, base_lr=1, gamma=0.1, stepvalue=[10, 25])) == [
        1,
        1,
        0.1,
        0.01,
        0.01,
    ]
    assert rounded(policies.poly(iterations, base_lr=1, power=2, max_iter=100)) == [
        *(1, 0.8281, 0.81, 0.5625, 0)
    ]
    assert rounded(policies.sigmoid([0, 10, 20], base_lr=1, gamma=0.5, stepsize=10)) == [
        *(0.00669285, 0.5, 0.993307)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_result_has_the_shape_and_dtype_asked_for(dtype: type) -> None:
    iterations = np.arange(6).reshape(2, 3)
    rates = policies.triangular(iterations, **CIFAR10, dtype=dtype)
    assert rates.shape == (2, 3)
    assert rates.dtype == dtype
    assert policies.triangular(7, **CIFAR10).shape == ()


def test_parameters_are_floats_as_in_a_prototxt() -> None:
    assert policies.fixed(0, base_lr=0.1, dtype=np.float64) == np.float64(np.float32(0.1))
    # gamma 0.99994 itself, raised to this power, differs by half a percent
    rate = policies.exp(70_000, base_lr=1, gamma=0.99994, dtype=np.float64)
    assert rate == np.float64(np.float32(0.99994)) ** 70_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_lr": None}, "max_lr is not set; set it to"),
        ({"max_lr": 0.0005}, "max_lr 0.0005 is below base_lr 0.001; swap them"),
        ({"max_lr": np.inf}, "max_lr is inf; it must be finite"),
        ({"max_lr": 1e39}, "max_lr is 1e.39; it must be finite"),
        ({"base_lr": np.nan}, "base_lr is nan; it must be finite"),
        ({"base_lr": -0.001}, "base_lr is -0.001; set it to 0 or more"),
        ({"stepsize": 0}, "stepsize is 0; it is half a cycle"),
        ({"stepsize": -1}, "stepsize is -1; it is half a cycle"),
        ({"start_lr_policy": -1}, "start_lr_policy is -1; it is an iteration"),
    ],
)
@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_bad_parameters_are_refused(policy: str, fields: dict[str, Any], message: str) -> None:
    rates, parity = policies.POLICIES[policy].rates, policies.POLICIES[policy].parity
    with pytest.raises(ValueError, match=f'lr_policy "{policy}": {message}'):
        rates(0, **{**parity, **CIFAR10, **fields})


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        (policies.step, {"gamma": -0.1, "stepsize": 1}, "gamma is -0.1; set it to 0 or more"),
        (policies.step, {"gamma": 0.1, "stepsize": 0}, "stepsize is 0; set it to 1 or more"),
        (policies.exp, {"gamma": np.nan}, "gamma is nan; set it to 0 or more"),
        (policies.inv, {"gamma": -1, "power": 1}, "gamma is -1; set it to 0 or more"),
        (policies.multistep, {"gamma": -1, "stepvalue": []}, "gamma is -1; set it to 0"),
        (policies.sigmoid, {"gamma": 1, "stepsize": 0}, "stepsize is 0; set it to 1 or more"),
    ],
)
def test_what_stock_caffe_aborts_on_is_refused(
    policy: Callable[..., policies.Rates], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f'lr_policy "{policy.__name__}": {message}'):
        policy(0, base_lr=0.1, **fields)


@pytest.mark.parametrize("name", policies.BOUNDED)
def test_a_record_says_what_the_formula_does(name: str) -> None:
    policy = policies.POLICIES[name]
    fields = {**DYADIC, **({"gamma": 0.5} if "gamma" in policy.fields else {})}
    assert policy.rates(9, **fields, start_lr_policy=9) == fields[policy.start]
    peaks = policy.rates(np.arange(1, 8, 2) * fields["stepsize"], **fields)
    heights = peaks - fields["base_lr"]
    if policy.cycles == math.inf and policy.next_height is not None:
        assert heights.tolist() == [heights[0] * policy.next_height**cycle for cycle in range(4)]
    else:
        assert (heights[1:] <= 0).all()


def test_a_record_has_the_fields_that_its_formula_needs() -> None:
    for policy in policies.POLICIES.values():
        assert set(policy.parity) <= set(policy.fields)
        policy.rates([0, 2**31 - 1], **policy.parity)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(policies).failed == 0
