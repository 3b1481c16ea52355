"""Suggested bounds: on curves of real range tests, and on ones that turn where it is known."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made_curves
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from caffe_clr.method import curves, suggestions
from caffe_clr.method.suggestions import Suggestions, suggest, swept
from caffe_clr.runs.history import Row, write_csv

Values = NDArray[np.float64]

# Smith's log of one range test of ResNet-56 on CIFAR-10, rate 0 to 3 in 5,000 iterations
# (arXiv 1708.07120, Figure 2b): the accuracy every 100 iterations, up to iteration 4,500
SUPER_CONVERGENCE = Path(__file__).parent / "recorded" / "super_convergence_range_test.csv"

# examples/cifar10/cifar10_full of Caffe, trained with this project for 4,000 iterations from
# 0.0001 to 0.02 on a CPU, seed 1, on CIFAR-10 whose images had been through JPEG once: accuracy
# every 80 iterations, training loss every 20; rates rounded to four digits, as all is
CIFAR10 = Path(__file__).parent / "recorded" / "cifar10_range_test.csv"
PAPER_MAX_LR = 0.006  # section 4.1 of the paper, on this data set and net

RATES = np.linspace(0.001, 0.05, 50)
TURN = 0.02
SWEPT = np.geomspace(1e-4, 1, 100)
MORE = "test over more iterations (--iterations), or more often"
OTHER = "test higher or lower rates (--min-lr, --max-lr), or train for more epochs (--epochs)"
HIGHER = "give a range that ends higher (--min-lr, --max-lr)"
LONGER = "sweep over more iterations (--iterations), or give a range (--min-lr, --max-lr)"


def curve(rates: Values = RATES, turn: float = TURN) -> Values:
    """An accuracy that is learned early, is best at the turn and then falls back."""
    points = [0.001, 0.4 * turn, turn, 1.6 * turn, 2.5 * turn]
    return np.interp(rates, points, [0.1, 0.7, 0.8, 0.7, 0.2])


def loss(rates: Values = RATES, turn: float = TURN) -> Values:
    return 2.3 - 2 * curve(rates, turn)


def valley(low: float, high: float, rates: Values = SWEPT) -> Values:
    """The loss of a sweep: it falls up to the rate `low`, and rises from `high` on."""
    fallen = np.interp(np.log(rates), np.log([low / 30, low]), [2.3, 0.5])
    return fallen + np.maximum(0, np.log(rates / high))


def noise(seed: int, size: int = RATES.size, deviation: float = 0.01) -> Values:
    return np.random.default_rng(seed).normal(0, deviation, size)


def bounds(found: Suggestions) -> tuple[float, float]:
    assert found.base_lr.rate is not None, found.base_lr.reason
    assert found.max_lr.rate is not None, found.max_lr.reason
    return found.base_lr.rate, found.max_lr.rate


def assert_nothing(found: Suggestions, reason: str) -> None:
    for bound in found.bounds.values():
        assert (bound.rate, bound.reason) == (None, reason)


def test_max_lr_of_cifar10_is_that_of_the_paper() -> None:
    found = curves.read(CIFAR10).suggestions
    assert PAPER_MAX_LR / 1.5 <= bounds(found)[1] <= PAPER_MAX_LR * 1.5
    assert found.max_lr.reason == (
        "0.5 of 0.00856, where the training loss is lowest; it rises after that"
    )


def test_super_convergence_is_to_be_tested_at_higher_rates() -> None:
    """Smith trained this net with rates of up to 3."""
    found = curves.read(SUPER_CONVERGENCE).suggestions
    assert_nothing(
        found,
        "the accuracy does not fall clearly within the range: test up to a higher rate, about 8.1"
        " (--max-lr)",
    )


@pytest.mark.parametrize("seed", range(20))
def test_max_lr_is_half_of_the_rate_where_the_loss_turns(seed: int) -> None:
    found = suggest([], [], loss_rates=RATES, losses=loss() + noise(seed))
    base_lr, max_lr = bounds(found)
    assert found.turn is not None
    assert found.turn == pytest.approx(TURN, abs=0.004)
    assert (max_lr, base_lr) == (found.turn / 2, found.turn / 12)
    assert found.max_lr.reason == (
        f"0.5 of {found.turn:.3g}, where the training loss is lowest; it rises after that"
    )
    assert found.base_lr.reason == "1/6 of max_lr, as in the paper's bounds for CIFAR-10"


@pytest.mark.parametrize(("epochs", "share"), [(8, 0.5), (8 * 2**8, 1), (8 / 2**8, 0.25)])
def test_a_longer_test_turns_earlier(epochs: float, share: float) -> None:
    found = suggest([], [], loss_rates=RATES, losses=loss(), epochs=epochs)
    assert found.turn is not None
    assert bounds(found)[1] == share * found.turn
    assert found.max_lr.reason.startswith(f"{share:.2g} of {found.turn:.3g}, where")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_single_bad_test_decides_nothing(value: float) -> None:
    for number in range(1, RATES.size - 1):
        spoilt = curve()
        spoilt[number] = value
        assert suggest(RATES, spoilt).turn == pytest.approx(TURN, abs=0.004), number


def test_the_training_loss_is_judged_before_the_accuracy() -> None:
    found = suggest(RATES, curve(), loss_rates=RATES, losses=loss(turn=0.03))
    assert found.turn == pytest.approx(0.03, abs=0.003)
    assert "the training loss is lowest" in found.max_lr.reason


@pytest.mark.parametrize("losses", [loss()[:7], 2.3 + noise(1), 2.3 + RATES])
def test_the_accuracy_is_judged_where_losses_are_few_or_tell_nothing(losses: Values) -> None:
    found = suggest(RATES, curve(), loss_rates=RATES[: losses.size], losses=losses)
    assert found == suggest(RATES, curve())
    assert found.max_lr.reason == (
        f"0.5 of {found.turn:.3g}, where the accuracy is best; it falls after that"
    )


def test_of_few_tests_the_training_loss_is_judged() -> None:
    found = suggest(RATES[:5], curve()[:5], loss_rates=RATES, losses=2.3 + noise(1))
    assert_nothing(found, f"the training loss does not fall clearly below its start: {OTHER}")


def test_a_loss_of_the_tests_is_an_accuracy_upside_down() -> None:
    found = suggest(RATES, loss(), is_loss=True)
    assert bounds(found) == bounds(suggest(RATES, curve()))
    assert found.max_lr.reason == (
        f"0.5 of {found.turn:.3g}, where the loss is lowest; it rises after that"
    )
    flat = suggest(RATES, np.full(RATES.size, 2.3), is_loss=True)
    assert_nothing(flat, f"the loss does not fall clearly below its start: {OTHER}")


@pytest.mark.parametrize("turn", [0.045, 0.06])
def test_a_range_that_ends_before_the_turn_is_too_narrow(turn: float) -> None:
    found = suggest(RATES, curve(turn=turn))
    assert_nothing(
        found,
        "the accuracy does not fall clearly within the range: test up to a higher rate, about 0.15"
        " (--max-lr)",
    )
    assert found.turn == pytest.approx(min(turn, 0.05), abs=0.003)


def test_a_curve_that_holds_does_not_turn() -> None:
    holds = np.interp(RATES, [0.001, 0.008, TURN], [0.1, 0.7, 0.8])
    found = suggest(RATES, holds - 0.05 * (RATES > 0.04))  # a twelfth of what it rose
    assert "the accuracy does not fall clearly within the range" in found.max_lr.reason


def test_a_range_that_goes_far_beyond_the_turn_is_too_wide() -> None:
    found = suggest([], [], loss_rates=RATES * 5, losses=loss(RATES * 5))
    assert found.turn is not None
    assert found.turn < 0.05
    assert_nothing(
        found,
        f"the training loss is lowest at {found.turn:.3g}, in the first fifth of the range:"
        f" test up to about {2.5 * found.turn:.2g} (--max-lr)",
    )


def test_a_net_that_had_hardly_begun_to_learn_is_tested_again() -> None:
    """It turns because the rates rose faster than it learned."""
    late = np.interp(RATES, [0.014, TURN, 0.05], [0.1, 0.8, 0.2])
    found = suggest(RATES, late)
    assert_nothing(
        found,
        "the accuracy is best at 0.02, but the net had hardly begun to learn below that: test over"
        " more epochs, or up to about 0.025 (--max-lr)",
    )
    assert found.turn == pytest.approx(TURN)


def test_a_divergence_is_a_turn() -> None:
    rising = RATES[RATES < 0.0195]
    found = suggest(rising, curve(rising), diverged_at=0.02)
    assert bounds(found)[1] == pytest.approx(TURN / 2, rel=0.15)
    assert found.max_lr.reason == (
        "0.5 of 0.018, where the accuracy is best; the training diverges at 0.02"
    )


def test_how_wide_a_range_is_counts_up_to_the_divergence() -> None:
    early = RATES < 0.012
    best_at = np.interp(RATES, [0.001, 0.002, 0.005, 0.012], [0.1, 0.7, 0.8, 0.3])[early]
    assert bounds(suggest(RATES[early], best_at, diverged_at=0.012))
    wide = suggest(RATES[early], best_at, diverged_at=0.03)
    assert "in the first fifth of the range" in wide.max_lr.reason


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("gain", [0, 0.01])
def test_a_curve_within_its_noise_has_no_bounds(seed: int, gain: float) -> None:
    assert suggest(RATES, 0.1 + gain * curve() + noise(seed)).max_lr.rate is None


def test_a_curve_that_only_gets_worse_has_no_bounds() -> None:
    found = suggest(RATES, np.linspace(0.9, 0.1, RATES.size))
    assert_nothing(found, f"the accuracy does not rise clearly above its start: {OTHER}")
    found = suggest(RATES, np.full(RATES.size, 0.1), diverged_at=0.06)
    assert_nothing(
        found,
        "the accuracy does not rise clearly above its start: end the range below 0.06 (--max-lr),"
        " where the training diverges",
    )


def test_few_values_have_no_bounds() -> None:
    few = np.linspace(0.001, 0.05, suggestions.FEWEST_TESTS)
    assert suggest(few, curve(few)).turn is not None
    reason = "7 tests are too few (8 are needed): "
    assert_nothing(suggest(few[1:], curve(few)[1:]), reason + MORE)
    below = "end the range below 0.06 (--max-lr), where the training diverges"
    assert_nothing(suggest(few[1:], curve(few)[1:], diverged_at=0.06), reason + below)
    lost = np.where(few == few[3], np.nan, curve(few))
    assert_nothing(suggest(few, lost), reason + MORE)
    assert_nothing(suggest(few[:1], curve(few)[:1]), f"1 test is too few (8 are needed): {MORE}")
    assert_nothing(suggest([], []), f"0 tests are too few (8 are needed): {MORE}")
    few_losses = suggest([], [], loss_rates=few[:5], losses=loss(few)[:5])
    assert_nothing(few_losses, f"5 displays are too few (8 are needed): {MORE}")


def test_values_that_are_no_numbers_are_left_out() -> None:
    accuracies = curve() + noise(0)
    kept = np.arange(RATES.size) % 7 != 3
    accuracies[~kept] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan]
    assert suggest(RATES, accuracies) == suggest(RATES[kept], accuracies[kept])
    assert bounds(suggest(RATES, accuracies))


def test_a_net_that_guesses_another_class_has_not_learned() -> None:
    guesses = np.repeat([0.098, 0.1135, 0.1028, 0.1135, 0.1135], 10)
    assert_nothing(
        suggest(RATES, guesses, chance=0.1),
        f"the best accuracy, 0.114, is not clearly above chance, 0.1: {OTHER}",
    )
    fallen = suggest(RATES, guesses, chance=0.1, loss_rates=RATES, losses=loss())
    assert "is not clearly above chance, 0.1" in fallen.max_lr.reason
    assert suggest(RATES, curve(), chance=0.1) == suggest(RATES, curve())


def sweep(rates: ArrayLike, losses: ArrayLike, length: float = 1, **options: Any) -> Suggestions:
    """What is suggested for a sweep of `length` times 750 iterations per decade."""
    rates = np.asarray(rates)
    iterations = 750 * length * np.log10(rates / rates[:1])
    return swept(iterations, rates, losses, **options)


def test_a_net_that_only_comes_to_guess_has_learned_nothing() -> None:
    losses = np.full(SWEPT.size, 2.3)
    losses[:4], losses[-6:] = 3.3, 4.3
    assert sweep(SWEPT, losses).max_lr.rate is not None
    found = sweep(SWEPT, losses, guess=np.log(10))
    assert found.max_lr.rate is None
    assert "is not clearly below that of guessing, 2.3" in found.max_lr.reason
    assert sweep(SWEPT, losses, guess=np.log(20)).max_lr.rate is not None


@pytest.mark.parametrize("seed", range(20))
def test_a_sweep_is_best_in_the_middle_of_its_valley(seed: int) -> None:
    losses = valley(0.01, 0.09) + noise(seed, SWEPT.size, 0.02)
    found = sweep(SWEPT, losses)
    base_lr, max_lr = bounds(found)
    assert max_lr == pytest.approx(0.03, rel=0.3)
    assert base_lr == max_lr / 6
    assert re.match(r"1 of 0\.0\d+, in the middle of 0\.0", found.max_lr.reason)
    assert found.max_lr.reason.endswith(", where the training loss is lowest")


def test_a_short_sweep_turns_late() -> None:
    losses = valley(0.01, 0.09)
    short, long = (bounds(sweep(SWEPT, losses, length))[1] for length in (1 / 16, 16))
    assert long == pytest.approx(4 * short)


def test_a_sweep_that_diverges_needs_no_rise() -> None:
    kept = SWEPT < 0.09
    losses = valley(0.01, 0.09)
    assert bounds(sweep(SWEPT[kept], losses[kept], diverged_at=0.09))[1] == pytest.approx(
        bounds(sweep(SWEPT, losses))[1], rel=0.15
    )


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (valley(0.01, 0.09)[:50], "the training loss does not rise again up to 0.0095: " + HIGHER),
        (2.3 + 0 * SWEPT, "the training loss does not fall clearly below its start: " + LONGER),
        (2.3 + SWEPT, "the training loss does not fall clearly below its start: " + LONGER),
        (valley(0.01, 0.09)[:7], "7 displays are too few (8 are needed): " + LONGER),
    ],
)
def test_a_sweep_that_tells_nothing_has_no_bounds(losses: Values, reason: str) -> None:
    assert_nothing(sweep(SWEPT[: losses.size], losses), reason)


def test_a_sweep_too_fast_for_the_net_has_no_bounds() -> None:
    late = np.interp(np.log(SWEPT), np.log([0.02, 0.025, 0.03, 0.3]), [2.3, 0.6, 0.5, 3])
    found = sweep(SWEPT, late)
    assert found.max_lr.rate is None
    assert found.max_lr.reason.endswith(
        f"but the net had hardly begun to learn below that: {LONGER}"
    )


def test_a_table_of_a_sweep_is_judged_as_one(tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    losses = valley(0.01, 0.09)

    def read(rates: Values, losses: Values, *, iterations: bool = True) -> Suggestions:
        at = np.arange(rates.size) * 30
        rows: list[Row] = [
            {**({"iteration": int(i)} if iterations else {}), "lr": rate, "loss": loss}
            for i, rate, loss in zip(at, rates, losses, strict=True)
        ]
        write_csv(rows, file)
        return curves.read(file).suggestions

    swept_by_30 = swept(np.arange(SWEPT.size) * 30, SWEPT, losses)
    assert read(SWEPT, losses) == swept_by_30
    linear = suggest([], [], loss_rates=SWEPT, losses=losses)
    assert read(SWEPT, losses, iterations=False) == linear != swept_by_30
    assert read(RATES, loss()) == suggest([], [], loss_rates=RATES, losses=loss())


def test_losses_of_a_sweep_that_are_no_numbers_are_left_out() -> None:
    losses = valley(0.01, 0.09)
    losses[[3, 40, 98]] = np.nan, np.inf, np.nan
    kept = np.isfinite(losses)
    assert sweep(SWEPT, losses) == sweep(SWEPT[kept], losses[kept])


def test_made_up_curves_are_known_and_repeat() -> None:
    for kind in made_curves.KINDS:
        one, again, another = (made_curves.make(kind, seed) for seed in (0, 0, 1))
        assert np.array_equal(one.values, again.values)
        assert not np.array_equal(one.values, another.values)
        assert np.all(np.diff(one.rates) > 0)
        assert one.values.size == one.rates.size
        assert (one.base_lr is None) == (kind in ("flat", "flat loss"))
        if one.base_lr is not None and one.max_lr is not None:
            assert 0 < one.base_lr < one.max_lr


NEVER_FALL = ["plateau", "late", "rising", "bump", "in two steps", "few tests"]
FALL = ["declines", "peak", "two bumps", "wanders"]


def of_made(kind: str, seed: int) -> tuple[made_curves.Known, Suggestions]:
    known = made_curves.make(kind, seed)
    return known, suggest(
        *(known.rates, known.values),
        loss_rates=known.loss_rates,
        losses=known.losses,
        diverged_at=known.diverged_at,
        is_loss=known.is_loss,
        chance=known.chance,
    )


@pytest.mark.parametrize("kind", NEVER_FALL)
def test_made_curves_that_never_fall_are_to_end_higher(kind: str) -> None:
    for seed in range(20):
        known, found = of_made(kind, seed)
        assert found.max_lr.rate is None, seed
        remedy = f": test up to a higher rate, about {3 * known.rates[-1]:.2g} (--max-lr)"
        assert found.max_lr.reason.endswith(remedy), seed


@pytest.mark.parametrize("kind", FALL)
def test_max_lr_of_made_curves_is_at_their_knee_or_somewhat_below(kind: str) -> None:
    right = 0
    for seed in range(30):
        known, found = of_made(kind, seed)
        if found.max_lr.rate is None:
            assert known.max_lr is None or "(--max-lr)" in found.max_lr.reason, seed
        else:
            assert known.max_lr is not None, seed
            assert known.max_lr / 2.5 <= found.max_lr.rate <= known.max_lr * 1.4, seed
            right += 1
    assert right


def test_max_lr_of_made_curves_is_below_their_divergence() -> None:
    for seed in range(30):
        known, found = of_made("diverges", seed)
        assert known.diverged_at is not None
        if found.max_lr.rate is not None:
            assert found.max_lr.rate < known.diverged_at / 1.9, seed


@pytest.mark.parametrize("kind", ["flat", "flat loss"])
def test_made_curves_that_learn_nothing_have_no_bounds(kind: str) -> None:
    for seed in range(20):
        assert of_made(kind, seed)[1].max_lr.rate is None, seed


def assert_sound(found: Suggestions, scaled: Suggestions, factor: float) -> None:
    """Both bounds or none, in order, and the same ones where all rates are multiplied."""
    assert all(bound.reason for bound in found.bounds.values())
    if found.max_lr.rate is None:
        assert found.base_lr.rate is None
        assert scaled.max_lr.rate is None
    else:
        base_lr, max_lr = bounds(found)
        assert 0 < base_lr < max_lr
        assert bounds(scaled) == (base_lr * factor, max_lr * factor)
    assert scaled.turn == (None if found.turn is None else found.turn * factor)


SCALES = st.integers(-20, 20).map(lambda n: 2.0**n)  # exact, so that no rounding decides


@st.composite
def made(draw: st.DrawFn, *, from_zero: bool) -> tuple[Sequence[float], Sequence[float]]:
    """Rates that rise, and a value for each."""
    positive = st.floats(1e-30, 1e30)
    each = st.just(0.0) | positive if from_zero else positive
    rates = draw(st.lists(each, max_size=60, unique=True))
    values = st.lists(st.floats(0, 1), min_size=len(rates), max_size=len(rates))
    return sorted(rates), draw(values)


@given(
    tested=made(from_zero=True),
    factor=SCALES,
    diverged_at=st.none() | st.floats(0, 1e30),
    epochs=st.none() | st.floats(0.01, 1000),
    kind=st.sampled_from(["accuracy", "loss", "training loss"]),
)
def test_every_curve_has_sound_bounds_or_none(
    tested: tuple[Sequence[float], Sequence[float]],
    factor: float,
    diverged_at: float | None,
    epochs: float | None,
    kind: str,
) -> None:
    def judged(factor: float) -> Suggestions:
        rates, values = [rate * factor for rate in tested[0]], tested[1]
        options: dict[str, Any] = {
            "diverged_at": None if diverged_at is None else diverged_at * factor,
            "epochs": epochs,
        }
        if kind == "training loss":
            return suggest([], [], loss_rates=rates, losses=values, **options)
        return suggest(rates, values, is_loss=kind == "loss", **options)

    found = judged(1)
    assert_sound(found, judged(factor), factor)
    assert found.turn is None or found.turn in tested[0]
    if found.max_lr.rate is not None and found.turn is not None:
        assert found.max_lr.rate < found.turn


@given(tested=made(from_zero=False), factor=SCALES, diverges=st.booleans())
def test_every_sweep_has_sound_bounds_or_none(
    tested: tuple[Sequence[float], Sequence[float]], factor: float, diverges: bool
) -> None:
    def judged(factor: float) -> Suggestions:
        rates = [rate * factor for rate in tested[0]]
        return sweep(rates, tested[1], diverged_at=2e30 * factor if diverges else None)

    found = judged(1)
    assert_sound(found, judged(factor), factor)
    if found.max_lr.rate is not None:
        assert tested[0][0] <= found.max_lr.rate <= tested[0][-1]
