"""Suggested bounds: on curves of real range tests, and on ones whose bounds are known."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from caffe_clr.method import suggestions
from caffe_clr.method.suggestions import Rule, Suggestions, suggest

# Smith's log of one range test of ResNet-56 on CIFAR-10, rate 0 to 3 in 5,000 iterations
# (arXiv 1708.07120, Figure 2b): the accuracy every 100 iterations, up to iteration 4,500
SUPER_RATES, SUPER_CONVERGENCE = np.loadtxt(
    Path(__file__).parent / "recorded" / "super_convergence_range_test.csv",
    delimiter=",",
    skiprows=1,
    usecols=(1, 2),
    unpack=True,
)

# examples/cifar10/cifar10_full of Caffe, trained with this project for 4,000 iterations from
# 0.0001 to 0.02 on a CPU, seed 1, on CIFAR-10 whose images had been through JPEG once: accuracy
# every 80 iterations, training loss every 20; rates rounded to four digits, as all is
RECORDED = Path(__file__).parent / "recorded" / "cifar10_range_test.csv"
PAPER_BOUNDS = (0.001, 0.006)  # section 4.1 of the paper, on this data set and net

RATES = np.linspace(0.001, 0.05, 50)
RISES, SLOWS, FALLS = 0.005, 0.02, 0.035


def curve(rates: NDArray[np.float64], *, falls: float | None = None) -> NDArray[np.float64]:
    """An accuracy of 0.1 up to RISES, straight up to 0.8 at SLOWS, and 0.2 from `falls` on."""
    height = np.interp(rates, [RISES, SLOWS], [0.1, 0.8])
    return height if falls is None else np.where(rates >= falls, 0.2, height)


def noise(seed: int, size: int, deviation: float = 0.01) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, deviation, size)


def rule(found: Suggestions, name: str) -> Rule:
    (one,) = [rule for rule in found.rules if rule.name == name]
    return one


def bounds(found: Suggestions) -> tuple[float, float]:
    assert found.base_lr.rate is not None, found.base_lr.reason
    assert found.max_lr.rate is not None, found.max_lr.reason
    return found.base_lr.rate, found.max_lr.rate


def assert_nothing(found: Suggestions, reason: str) -> None:
    for bound in (found.base_lr, found.max_lr):
        assert (bound.rate, bound.confidence) == (None, "low")
        assert reason in bound.reason


def test_super_convergence_is_not_cut_off_at_its_first_dip() -> None:
    found = suggest(SUPER_RATES, SUPER_CONVERGENCE)
    base_lr, max_lr = bounds(found)
    assert base_lr <= 0.1
    assert max_lr > 0.4
    assert found.max_lr.rule == "slows"
    assert (rule(found, "holds").rate or 0) > 2.5
    assert "holds up to 2.7; a larger max_lr is worth a try" in found.max_lr.reason
    assert found.max_lr.confidence == "medium"


@pytest.mark.parametrize("tests", range(30, SUPER_RATES.size + 1))
def test_super_convergence_cut_short(tests: int) -> None:
    assert bounds(suggest(SUPER_RATES[:tests], SUPER_CONVERGENCE[:tests]))[1] >= 0.3


@pytest.mark.parametrize("seed", range(50))
def test_super_convergence_with_a_tenth_of_its_tests_left_out(seed: int) -> None:
    others = 1 + np.random.default_rng(seed).permutation(SUPER_RATES.size - 1)
    kept = np.sort([0, *others[SUPER_RATES.size // 10 :]])  # a range test begins with a test
    assert bounds(suggest(SUPER_RATES[kept], SUPER_CONVERGENCE[kept]))[1] >= 0.3


def test_bounds_of_cifar10_are_those_of_the_paper() -> None:
    with RECORDED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tests = [row for row in rows if row["accuracy"]]
    trained = [row for row in rows if row["train_loss"]]
    found = suggest(
        [float(row["lr"]) for row in tests],
        [float(row["accuracy"]) for row in tests],
        loss_rates=[float(row["lr"]) for row in trained],
        losses=[float(row["train_loss"]) for row in trained],
    )
    for suggested, papers in zip(bounds(found), PAPER_BOUNDS, strict=True):
        assert papers / 1.5 <= suggested <= papers * 1.5
    assert rule(found, "loss").rate is not None


@pytest.mark.parametrize("seed", range(20))
def test_known_bounds_are_found(seed: int) -> None:
    found = suggest(RATES, curve(RATES) + noise(seed, RATES.size))
    base_lr, max_lr = bounds(found)
    assert base_lr == pytest.approx(RISES, abs=0.003)
    assert max_lr == pytest.approx(SLOWS, abs=0.003)
    assert (found.base_lr.rule, found.max_lr.rule) == ("rises", "slows")
    assert (found.base_lr.confidence, found.max_lr.confidence) == ("medium", "medium")
    assert rule(found, "falls").rate is None
    assert rule(found, "max/3").rate == max_lr / 3
    assert rule(found, "max/4").rate == max_lr / 4


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_curve_has_no_bounds(seed: int) -> None:
    found = suggest(RATES, 0.1 + noise(seed, RATES.size))
    remedy = "test higher or lower rates, or train for more epochs"
    assert_nothing(found, f"does not rise clearly above its start: {remedy}")
    assert_nothing(suggest(RATES, np.full(RATES.size, 0.1)), "does not rise clearly")


@pytest.mark.parametrize("seed", range(20))
def test_noise_as_large_as_the_gain_has_no_bounds(seed: int) -> None:
    found = suggest(RATES, 0.1 + (curve(RATES) - 0.1) / 7 + noise(seed, RATES.size, 0.1))
    assert_nothing(found, "does not rise clearly")


def test_an_accuracy_that_only_falls_has_no_bounds() -> None:
    found = suggest(RATES, np.linspace(0.9, 0.1, RATES.size) + noise(0, RATES.size))
    assert_nothing(found, "does not rise clearly")


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_that_still_rises_has_no_max_lr(seed: int) -> None:
    found = suggest(RATES / 3, curve(RATES / 3) + noise(seed, RATES.size))
    assert found.base_lr.rate == pytest.approx(RISES, abs=0.003)
    assert found.max_lr.rate is None
    assert found.max_lr.reason == (
        "the accuracy still rises at the highest rate: test up to a higher rate"
    )
    assert rule(found, "max/3").rate is None


@pytest.mark.parametrize("seed", range(20))
def test_max_lr_is_below_a_collapse(seed: int) -> None:
    plateau = suggest(RATES, curve(RATES, falls=FALLS) + noise(seed, RATES.size))
    assert bounds(plateau)[1] == pytest.approx(SLOWS, abs=0.003)
    assert rule(plateau, "falls").rate == pytest.approx(FALLS, abs=0.003)
    at_peak = suggest(RATES, curve(RATES, falls=0.018) + noise(seed, RATES.size))
    assert bounds(at_peak)[1] < 0.018
    assert "falls for good" in rule(at_peak, "falls").reason


def test_max_lr_is_below_the_rate_of_divergence() -> None:
    rising = RATES[RATES < 0.018]
    diverged_at = 0.0185
    found = suggest(rising, curve(rising), diverged_at=diverged_at)
    assert found.max_lr.rule == "falls"
    assert bounds(found)[1] <= rising[-1]
    assert found.max_lr.reason.endswith(", and the training diverges at 0.0185")
    assert found.max_lr.reason.startswith("the accuracy holds up to 0.01")


def test_an_accuracy_risen_at_the_first_test_makes_base_lr_unsure() -> None:
    found = suggest(RATES * 4, curve(RATES * 4))
    assert (found.base_lr.rate, found.base_lr.confidence) == (RATES[1] * 4, "low")
    assert found.base_lr.reason.endswith("the second rate tested; base_lr may be lower")
    found = suggest(RATES * 10, curve(RATES * 10))
    base_lr, max_lr = bounds(found)
    assert (base_lr, found.base_lr.rule, found.base_lr.confidence) == (max_lr / 4, "max/4", "low")


def test_few_tests_have_no_bounds() -> None:
    few = np.linspace(0.001, 0.05, suggestions.FEWEST_TESTS)
    assert bounds(suggest(few, curve(few)))
    remedy = "test over more iterations, or more often"
    assert_nothing(
        suggest(few[1:], curve(few[1:])), f"7 tests are too few (8 are needed): {remedy}"
    )
    below = "end the range below 0.06, where the training diverges"
    found = suggest(few[1:], curve(few[1:]), diverged_at=0.06)
    assert_nothing(found, f"7 tests are too few (8 are needed): {below}")
    lost = np.where(few == few[3], np.nan, curve(few))
    assert_nothing(suggest(few, lost), "7 tests are too few")
    assert_nothing(suggest([], []), "0 tests are too few")


def test_of_few_tests_the_training_loss_is_judged() -> None:
    found = suggest(RATES[:5], curve(RATES[:5]), loss_rates=RATES, losses=2.3 - curve(RATES))
    base_lr, max_lr = bounds(found)
    assert base_lr == pytest.approx(RISES, abs=0.003)
    assert max_lr == pytest.approx(SLOWS, abs=0.003)
    assert (found.base_lr.rule, found.base_lr.confidence) == ("learns", "medium")
    assert found.base_lr.reason.startswith("the training loss starts to decrease at")


@pytest.mark.parametrize("bump", [(0.3,), (0.34, 0.38), (0.4, 0.5, 0.3)])
@pytest.mark.parametrize("with_loss", [True, False])
def test_a_bump_before_the_rise_sets_no_base_lr(bump: Sequence[float], with_loss: bool) -> None:
    accuracies = np.interp(RATES, [0.035, 0.045], [0.1, 0.8]) + noise(0, RATES.size)
    losses = 2.3 - np.interp(RATES, [0.035, 0.045], [0, 1.5])
    options: dict[str, Any] = {"loss_rates": RATES, "losses": losses} if with_loss else {}
    expected = suggest(RATES, accuracies, **options).base_lr
    accuracies[3 : 3 + len(bump)] = bump
    found = suggest(RATES, accuracies, **options).base_lr
    assert expected.rate == found.rate == pytest.approx(0.036, abs=0.001)
    assert found.confidence == ("high" if with_loss else "medium")


def test_the_loss_makes_bounds_sure_or_unsure() -> None:
    accuracies = curve(RATES, falls=FALLS) + noise(0, RATES.size)
    same = suggest(RATES, accuracies, loss_rates=RATES, losses=2.3 - curve(RATES))
    assert (same.base_lr.confidence, same.max_lr.confidence) == ("high", "high")
    later = 2.3 - np.interp(RATES, [0.03, 0.05], [0, 1.5])
    another = suggest(RATES, accuracies, loss_rates=RATES, losses=later)
    assert (another.base_lr.confidence, another.max_lr.confidence) == ("low", "low")


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_without_the_noise_of_small_tests_sets_the_bounds(seed: int) -> None:
    accuracies = curve(RATES) + noise(seed, RATES.size, 0.2)
    found = suggest(RATES, accuracies, loss_rates=RATES, losses=2.3 - curve(RATES))
    base_lr, max_lr = bounds(found)
    assert base_lr == pytest.approx(RISES, abs=0.002)
    assert found.base_lr.rule == "learns"
    assert max_lr == pytest.approx(SLOWS, abs=0.003)


@pytest.mark.parametrize("seed", range(20))
def test_a_small_rise_that_the_loss_does_not_show_is_none(seed: int) -> None:
    accuracies = 0.1 + (curve(RATES) - 0.1) / 17 + noise(seed, RATES.size)
    flat = 2.3 + noise(seed + 100, RATES.size)
    found = suggest(RATES, accuracies, loss_rates=RATES, losses=flat)
    assert found.base_lr.rate is None
    assert "clearly" in found.base_lr.reason or "loss shows nothing" in found.base_lr.reason


def test_a_net_that_guesses_another_class_has_not_learned() -> None:
    guesses = np.repeat([0.098, 0.1135, 0.1028, 0.1135, 0.1135], 10)
    found = suggest(RATES, guesses, chance=0.1)
    assert_nothing(found, "the best accuracy, 0.114, is not clearly above chance, 0.1: test higher")
    assert bounds(suggest(RATES, curve(RATES), chance=0.1)) == bounds(suggest(RATES, curve(RATES)))


def test_a_few_images_above_chance_are_no_rise() -> None:
    found = suggest(RATES, np.interp(RATES, [RATES[10], RATES[40]], [0.118, 0.131]), chance=0.1)
    assert_nothing(found, "the best accuracy, 0.131, is not clearly above chance, 0.1: test higher")


def test_what_is_ragged_at_chance_is_not_ragged() -> None:
    accuracies = np.interp(RATES, [0.03, 0.05], [0.1, 0.8])
    accuracies[:25] = 0.1 + 0.09 * (np.arange(25) % 2)
    found = suggest(RATES, accuracies)
    assert rule(found, "ragged").rate is None
    assert found.max_lr.rate is None


def test_tests_without_a_number_are_left_out() -> None:
    accuracies = curve(RATES) + noise(0, RATES.size)
    kept = np.arange(RATES.size) % 7 != 3
    accuracies[~kept] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan]
    assert suggest(RATES, accuracies) == suggest(RATES[kept], accuracies[kept])


def test_the_lowest_training_loss_is_told() -> None:
    losses = (RATES - SLOWS) ** 2
    losses[3], losses[40:] = -1, np.nan  # one batch that was lucky; the training diverged
    found = suggest(RATES, curve(RATES), loss_rates=RATES, losses=losses)
    assert rule(found, "loss").rate == pytest.approx(SLOWS, abs=0.0025)
    assert "loss" not in [rule.name for rule in suggest(RATES, curve(RATES)).rules]


def test_a_loss_is_an_accuracy_upside_down() -> None:
    accuracies = curve(RATES, falls=FALLS) + noise(0, RATES.size)
    upside_down = suggest(RATES, -accuracies, is_loss=True)
    for one, other in zip(upside_down.rules, suggest(RATES, accuracies).rules, strict=True):
        assert (one.field, one.name, one.rate) == (other.field, other.name, other.rate)
    assert upside_down.base_lr.reason == "the loss starts to decrease at 0.007"
    assert upside_down.max_lr.reason == "the decrease slows at 0.019"
    assert rule(upside_down, "falls").reason == "the loss rises for good after 0.034"
    losses = 2.3 - 2 * accuracies
    losses[-5:] = 87.3365
    expected = bounds(suggest(RATES, accuracies))
    assert bounds(suggest(RATES, losses, is_loss=True)) == expected


@pytest.mark.parametrize("tests", [12, 50])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_bad_test_moves_no_bound(tests: int, value: float) -> None:
    rates = np.linspace(0.001, 0.05, tests)
    accuracies = curve(rates) + noise(0, tests)
    expected = bounds(suggest(rates, accuracies))
    for index in range(1, tests):
        outlier = accuracies.copy()
        outlier[index] = value
        found = suggest(rates, outlier)
        # next to a bound it may be taken for the neighbour
        assert bounds(found) == pytest.approx(expected, abs=1.1 * (rates[1] - rates[0])), index
        assert rule(found, "falls").rate is None, index


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_bad_test_ends_no_rise(value: float) -> None:
    rates = RATES / 3
    for index in range(1, rates.size):
        outlier = curve(rates) + noise(0, rates.size)
        outlier[index] = value
        assert suggest(rates, outlier).max_lr.rate is None, index


def test_a_dip_before_the_rise_is_not_ragged() -> None:
    rates = np.linspace(0, 0.018, 50)
    accuracies = curve(rates)
    accuracies[0] = 0.2
    found = suggest(rates, accuracies)
    assert rule(found, "ragged").rate is None
    assert found.max_lr.rate is None


@st.composite
def curves(draw: st.DrawFn) -> tuple[Sequence[float], Sequence[float]]:
    rates = draw(st.lists(st.just(0.0) | st.floats(1e-30, 1e30), max_size=60, unique=True))
    accuracies = st.lists(st.floats(0, 1), min_size=len(rates), max_size=len(rates))
    return sorted(rates), draw(accuracies)


@given(
    tested=curves(),
    exponent=st.integers(-20, 20),
    diverged_at=st.none() | st.floats(0, 1e30),
    is_loss=st.booleans(),
)
def test_every_curve_has_sound_bounds_or_none(
    tested: Any, exponent: int, diverged_at: float | None, is_loss: bool
) -> None:
    rates, accuracies = tested
    factor = 2.0**exponent  # exact, so that no comparison is decided by rounding
    options: dict[str, Any] = {"is_loss": is_loss, "losses": accuracies}
    found = suggest(rates, accuracies, loss_rates=rates, diverged_at=diverged_at, **options)
    scaled = [rate * factor for rate in rates]
    scaled_end = None if diverged_at is None else diverged_at * factor
    other = suggest(scaled, accuracies, loss_rates=scaled, diverged_at=scaled_end, **options)
    for name in ("base_lr", "max_lr"):
        bound, scaled_bound = getattr(found, name), getattr(other, name)
        assert bound.reason
        assert bound.confidence in ("high", "medium", "low")
        assert not (bound.confidence == "high" and "worth a try" in bound.reason)
        if bound.rate is None:
            assert scaled_bound.rate is None
        else:
            assert scaled_bound.rate == bound.rate * factor
            assert bound.rate in rates or bound.rule == "max/4"
    base_lr, max_lr = found.base_lr, found.max_lr
    if base_lr.rate is not None and max_lr.rate is not None:
        assert 0 < base_lr.rate < max_lr.rate
    if base_lr.rule == "max/4":
        assert base_lr.rate == rule(found, "max/4").rate
