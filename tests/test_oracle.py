"""Caffe's rates against oracles besides the NumPy reference.

Exact rational arithmetic says what the nearest float is. The paper's own code,
restated, says that the policies are the paper's.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_clr import parity, policies

LAST = 2**31 - 1

rates = st.floats(0, 100, width=32)
iterations = st.integers(0, LAST) | st.integers(0, 100_000)


def exact_rate(policy: str, iteration: int, fields: dict[str, Any]) -> Fraction:
    """The definition of a policy, in rational numbers."""
    base, top = Fraction(fields["base_lr"]), Fraction(fields["max_lr"])
    stepsize: int = fields["stepsize"]
    t: int = max(iteration - fields["start_lr_policy"], 0)
    if policy == "1cycle" and t > stepsize:
        return max(top * (2 * stepsize - t) / stepsize, base / 1000)
    if policy == "decay":
        return top - (top - base) * min(t, stepsize) / stepsize
    cycle, position = divmod(t, 2 * stepsize)
    rise = (top - base) * min(position, 2 * stepsize - position) / stepsize
    if policy == "triangular2":
        return base + rise / (1 << cycle)
    if policy == "exp_range":
        return (base + rise) * Fraction(fields["gamma"]) ** t
    return base + rise


def nearest_float(value: Fraction) -> np.float32:
    """The float nearest to a number; of two as near, the one with an even last bit."""
    guess = np.float32(float(value))
    near = [
        np.nextafter(guess, np.float32(-np.inf)),
        guess,
        np.nextafter(guess, np.float32(np.inf)),
    ]
    even = {candidate: int(candidate.view(np.uint32)) % 2 for candidate in near}
    return min(
        near, key=lambda candidate: (abs(Fraction(float(candidate)) - value), even[candidate])
    )


@st.composite
def cycles(draw: st.DrawFn, longest: int = LAST) -> dict[str, Any]:
    base_lr, max_lr = sorted((draw(rates), draw(rates)))
    stepsize = draw(st.integers(1, longest) | st.integers(1, min(longest, 10_000)))
    start = draw(st.just(0) | st.integers(0, LAST))
    return dict(base_lr=base_lr, max_lr=max_lr, stepsize=stepsize, start_lr_policy=start)


def caffe_rates(
    solver: Callable[..., Any], policy: str, fields: dict[str, Any], at: list[int]
) -> Any:
    return parity.compare(solver(lr_policy=policy, **fields), sorted(at)).solver


oracle = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@oracle
@given(fields=cycles(), at=st.lists(iterations, min_size=1, max_size=20))
@pytest.mark.parametrize("policy", ["triangular", "triangular2", "decay", "1cycle"])
def test_the_rate_is_the_float_nearest_to_the_exact_value(
    policy: str, fields: dict[str, Any], at: list[int], solver: Callable[..., Any]
) -> None:
    expected = [nearest_float(exact_rate(policy, iteration, fields)) for iteration in sorted(at)]
    assert caffe_rates(solver, policy, fields, at).tolist() == [float(rate) for rate in expected]


def exact_momentum(iteration: int, fields: dict[str, Any]) -> Fraction:
    """The definition of the momentum, in rational numbers."""
    begin, first, half = map(Fraction, (fields["momentum"], *fields["cyclical_momentum"]))
    t: int = max(iteration - fields["start_lr_policy"], 0)
    cycle, position = divmod(t, 2 * half)
    height = min(position, 2 * half - position) / half
    return begin + (first - begin) * height / (1 << int(cycle))


momenta = st.floats(0, 1, width=32, exclude_max=True)
halves = st.floats(1, 2.0**31, width=32) | st.integers(1, 10_000).map(float)


@oracle
@given(
    momentum=momenta,
    first=momenta,
    half=halves,
    start=st.just(0) | st.integers(0, LAST),
    at=st.lists(st.integers(0, 10_000), min_size=1, max_size=10),
    late=st.lists(st.integers(0, LAST), max_size=10),
)
def test_the_momentum_is_the_float_nearest_to_the_exact_value(
    momentum: float,
    first: float,
    half: float,
    start: int,
    at: list[int],
    late: list[int],
    solver: Callable[..., Any],
) -> None:
    fields = {"momentum": momentum, "cyclical_momentum": [first, half], "start_lr_policy": start}
    # 2^cycle is to stay within what can be written down
    iterations = sorted(at + [i for i in late if i - start < 2000 * half])
    expected = [float(nearest_float(exact_momentum(i, fields))) for i in iterations]
    assert parity.compare_momentum(solver(**fields), iterations).solver.tolist() == expected


@oracle
@given(
    fields=cycles(longest=5000),
    gamma=st.floats(0.5, 1, width=32, exclude_min=True),
    at=st.lists(st.integers(0, 3000), min_size=1, max_size=20),
)
def test_exp_range_is_within_a_unit_in_the_last_place(
    fields: dict[str, Any], gamma: float, at: list[int], solver: Callable[..., Any]
) -> None:
    fields = {**fields, "gamma": gamma}
    fields["start_lr_policy"] %= 1000
    found = caffe_rates(solver, "exp_range", fields, at)
    for iteration, rate in zip(sorted(at), found, strict=True):
        exact = exact_rate("exp_range", iteration, fields)
        unit = Fraction(float(np.spacing(nearest_float(exact))))
        assert abs(Fraction(float(rate)) - exact) <= unit


def appendix_a(policy: str, iteration: int, fields: dict[str, Any]) -> float:
    """Appendix A's fragments: x is the distance from the peak, in stepsizes, in float."""
    base, top = np.float32(fields["base_lr"]), np.float32(fields["max_lr"])
    stepsize: int = fields["stepsize"]
    itr: int = iteration - fields["start_lr_policy"]
    if itr <= 0:
        return float(base)
    cycle = itr // (2 * stepsize)
    x = np.float32(itr - (2 * cycle + 1) * stepsize) / np.float32(stepsize)
    height = max(0.0, 1.0 - abs(float(x)))
    if policy == "triangular2":
        height = min(1.0, height / 2.0**cycle)
    return float(base) + float(top - base) * height


def torch_lines(iteration: int, fields: dict[str, Any]) -> float:
    """Section 3.1's lines for Torch: cycles counted from 1."""
    stepsize: int = fields["stepsize"]
    cycle = math.floor(1 + iteration / (2 * stepsize))
    x = abs(iteration / stepsize - 2 * cycle + 1)
    base, top = float(fields["base_lr"]), float(fields["max_lr"])
    return base + (top - base) * max(0, 1 - x)


@pytest.mark.parametrize(
    "fields",
    [
        {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000, "start_lr_policy": 0},
        {"base_lr": 0.001, "max_lr": 0.005, "stepsize": 1000, "start_lr_policy": 16_000},
        {"base_lr": 0.01, "max_lr": 0.026, "stepsize": 20_000, "start_lr_policy": 0},
        {"base_lr": 0.1, "max_lr": 0.3, "stepsize": 777, "start_lr_policy": 5},
    ],
)
def test_oracle_the_papers_own_code_agrees(
    fields: dict[str, Any], solver: Callable[..., Any]
) -> None:
    at = list(range(0, 100_000, 37))
    amplitude = fields["max_lr"] - fields["base_lr"]
    for policy in ("triangular", "triangular2"):
        found = caffe_rates(solver, policy, fields, at)
        close = 2e-7 * amplitude + np.spacing(found)
        theirs = np.array([appendix_a(policy, iteration, fields) for iteration in at])
        assert (np.abs(found - theirs) <= close).all()
        if policy == "triangular" and not fields["start_lr_policy"]:
            theirs = np.array([torch_lines(iteration, fields) for iteration in at])
            assert (np.abs(found - theirs) <= close).all()


def test_oracle_the_reference_is_exact_too() -> None:
    """The same for the reference alone, in double, at the paper's settings."""
    fields = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000, "start_lr_policy": 0}
    exact = {**fields, "base_lr": float(np.float32(0.001)), "max_lr": float(np.float32(0.006))}
    for policy in ("triangular", "triangular2", "decay", "1cycle"):
        at = list(range(0, 30_000, 7))
        expected = [float(nearest_float(exact_rate(policy, i, exact))) for i in at]
        assert policies.POLICIES[policy].rates(at, **fields).tolist() == expected
