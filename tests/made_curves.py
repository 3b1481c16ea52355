"""Makes synthetic range-test curves whose right bounds are known.

A curve has a kind and a seed. The seed draws everything else: classes, images,
tests, rates, heights, shapes and noise. The right bounds are:

    base_lr   the rate at which the curve without noise has risen by a twentieth
    max_lr    the rate of the knee, after which the curve rises little, holds or
              falls, or the rate at which the training diverges if that is lower;
              None if the knee is beyond the range

The training loss follows the same rise, with its rates scaled by 0.7 to 1.4. A
quarter of the curves have no training loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Share = Callable[[Values], Values]

_BEGUN = 0.05


@dataclass(frozen=True)
class Known:
    """A curve with the bounds that are right for it.

    Attributes:
        values: the accuracy, or the loss if `is_loss`, at each of the rates.
        losses: the training loss at each of loss_rates; empty if not recorded.
        chance: the accuracy of a guess; None for losses.
        base_lr, max_lr: None if the curve supports none.
    """

    rates: Values
    values: Values
    is_loss: bool
    loss_rates: Values
    losses: Values
    chance: float | None
    diverged_at: float | None
    base_lr: float | None
    max_lr: float | None


@dataclass(frozen=True)
class _Plan:
    """The properties that a kind gives a curve.

    Attributes:
        onset: the range that the rate where it begins to rise is drawn from, as a share of
            the knee.
        knee: the same for the knee, as a share of the highest rate.
        falls: how the curve goes on after its knee: "" (holds), "declines", "at once",
            "collapses".
        ragged: the standard deviation of the height from test to test, once risen.
        bumps: how often it rises for one to three tests before the onset.
        dips: how often it falls for two to four tests after.
        pauses: whether it rises in two steps.
        wanders: the standard deviation of slow changes of the height, once risen.
        spikes: the share of losses that are far too high.
        starts_risen: whether the lowest rate is above the right base_lr.
        dynamic: whether it rises by logistic growth.
    """

    onset: tuple[float, float] = (0.06, 0.5)
    knee: tuple[float, float] = (0.08, 0.6)
    tests: tuple[int, int] = (20, 100)
    images: tuple[int, int] = (300, 10_000)
    classes: tuple[int, ...] = (2, 10, 20, 100)
    top: tuple[float, float] = (0.3, 0.95)
    falls: str = ""
    diverges: bool = False
    is_loss: bool = False
    is_geometric: bool = False
    learns: bool = True
    ragged: float = 0.02
    bumps: int = 0
    dips: int = 0
    pauses: bool = False
    wanders: float = 0.0
    spikes: float = 0.0
    starts_risen: bool = False
    dynamic: bool = False


TUNED = {
    "plateau": _Plan(),
    "declines": _Plan(falls="declines", knee=(0.08, 0.5)),
    "peak": _Plan(falls="at once"),
    "diverges": _Plan(diverges=True),
    "late": _Plan(onset=(0.45, 0.7), knee=(1.1, 1.3)),
    "rising": _Plan(knee=(1.1, 1.6)),
    "bump": _Plan(onset=(0.3, 0.6), knee=(0.3, 0.75), bumps=1),
    "in two steps": _Plan(pauses=True, knee=(0.2, 0.7)),
    "ragged": _Plan(ragged=0.12),
    "few tests": _Plan(tests=(10, 16), onset=(0.2, 0.5), knee=(0.3, 0.7)),
    "100 images": _Plan(images=(100, 101)),
    "many classes": _Plan(classes=(100, 1000), top=(0.03, 0.3), images=(3000, 10_000)),
    "losses only": _Plan(is_loss=True),
    "geometric": _Plan(is_geometric=True),
    "risen": _Plan(onset=(0.1, 0.5), starts_risen=True),
    "flat": _Plan(learns=False),
}
# held out while the rules were made
HELD_OUT = {
    "two bumps": _Plan(onset=(0.4, 0.7), knee=(0.4, 0.75), bumps=2, falls="collapses"),
    "dips": _Plan(dips=2, ragged=0.05),
    "wanders": _Plan(wanders=0.06, falls="declines", knee=(0.1, 0.5)),
    "spikes": _Plan(spikes=0.08, ragged=0.05),
    "loss declines": _Plan(is_loss=True, falls="declines", knee=(0.1, 0.5), bumps=1),
    "dynamics": _Plan(dynamic=True, falls="declines"),
    "flat loss": _Plan(learns=False, is_loss=True, spikes=0.05),
}
KINDS = TUNED | HELD_OUT


def make(kind: str, seed: int) -> Known:
    """Make the curve of a kind and a seed."""
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    plan = KINDS[kind]
    tests = int(rng.integers(*plan.tests))
    highest = 10 ** rng.uniform(-2.5, 0.5)
    lowest = highest * (10 ** rng.uniform(-3, -2) if plan.is_geometric or rng.random() < 0.5 else 0)
    rise = _rise(plan, rng, highest)
    if plan.starts_risen:
        lowest = rise.begins(highest) * rng.uniform(1, 1.5)
    spaced = np.geomspace if plan.is_geometric else np.linspace
    rates, loss_rates = spaced(lowest, highest, tests), spaced(lowest, highest, 2 * tests)
    share = rise.share(rates)
    share *= _disturbances(plan, rng, share)
    _add_bumps(plan, rng, share, int(np.searchsorted(rates, 0.5 * rise.begins(highest))))
    share[0] = 0  # Caffe tests before the first iteration
    chance = 1 / float(rng.choice(plan.classes))
    losses = _losses(plan, rng, rise, loss_rates, chance)
    if plan.is_loss:
        values = _losses(plan, rng, rise, rates, chance, share)
    else:
        values = _accuracies(plan, rng, share, chance)
    end = highest * rng.uniform(0.3, 1.0) if plan.diverges else math.inf
    if rng.random() < 0.25:
        losses = losses[:0]
    learns = plan.learns
    known = Known(
        *(rates, values, plan.is_loss, loss_rates[: losses.size], losses),
        *(None if plan.is_loss else chance, end if plan.diverges else None),
        base_lr=rise.begins(highest) if learns else None,
        max_lr=min(rise.knee, end) if learns and rise.knee < highest else None,
    )
    return _cut(known, end)


@dataclass(frozen=True)
class _Rise:
    """The share of what is learned, by rate, with the knee after which it rises little."""

    knee: float
    share: Callable[[Values], Values]

    def begins(self, highest: float) -> float:
        rates = np.linspace(0, highest, 20_001)
        return float(rates[np.argmax(self.share(rates) >= _BEGUN)])


def _rise(plan: _Plan, rng: np.random.Generator, highest: float) -> _Rise:
    knee = highest * _log_uniform(rng, *plan.knee)
    onset = knee * _log_uniform(rng, *plan.onset)
    if not plan.learns:
        return _Rise(knee, np.zeros_like)
    if plan.dynamic:
        knee, shape = _grown(rng, highest)
    else:
        shape = _drawn(plan, rng, onset, knee)
    after = _after(plan, rng, knee, highest)
    return _Rise(knee, lambda rates: np.where(rates > knee, after(rates), shape(rates)))


def _drawn(plan: _Plan, rng: np.random.Generator, onset: float, knee: float) -> Share:
    """From 0 at the onset to 1 at the knee: straight, slowing, sigmoid or in two steps."""
    bend, pause, length = rng.uniform(1, 2.5), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.5)
    steps = [0, 0.5 - length / 2, 0.5 + length / 2, 1]
    shapes: list[Share] = [
        lambda risen: risen,
        lambda risen: (1 - np.exp(-bend * risen)) / (1 - np.exp(-bend)),
        lambda risen: risen**2 * (3 - 2 * risen),
    ]
    shape = shapes[rng.integers(len(shapes))]
    if plan.pauses:
        return lambda rates: np.interp(
            (rates - onset) / (knee - onset), steps, [0, pause, pause, 1]
        )
    return lambda rates: shape(np.clip((rates - onset) / (knee - onset), 0, 1))


def _grown(rng: np.random.Generator, highest: float) -> tuple[float, Share]:
    """A knee and a logistic growth whose speed is the rate, as training leaves a plateau."""
    rates = np.linspace(0, highest, 2001)
    learned, speed = [0.002], 10 ** rng.uniform(1.3, 2.3)
    for rate in rates[1:]:
        growth = speed * rate / highest * learned[-1] * (1 - learned[-1])
        learned.append(learned[-1] + growth / rates.size)
    begun = np.array(learned) - learned[0]
    slow = begun >= 0.95
    knee = float(rates[np.argmax(slow)]) if slow.any() else 2 * highest
    return knee, lambda at: np.interp(at, rates, begun)


def _after(plan: _Plan, rng: np.random.Generator, knee: float, highest: float) -> Share:
    """How it goes on after the knee."""
    end, slope, begins = rng.uniform(0, 0.6), rng.uniform(0, 0.1), knee * rng.uniform(1.2, 1.8)
    if plan.falls == "at once":
        return lambda rates: 1 - (1 - end) * (rates - knee) / max(highest - knee, knee)
    if plan.falls == "declines":
        width = max(highest - begins, 0.1 * highest)
        return lambda rates: 1 - (1 - end) * np.clip((rates - begins) / width, 0, 1)
    if plan.falls == "collapses":
        return lambda rates: np.where(rates > begins, 0.0, 1.0)
    return lambda rates: 1 + slope * (rates - knee) / max(highest - knee, knee)


def _disturbances(plan: _Plan, rng: np.random.Generator, share: Values) -> Values:
    """What the height is multiplied by, test by test."""
    factors = 1 + rng.normal(0, plan.ragged, share.size) * rng.uniform(0.5, 1.5)
    if plan.wanders:
        factors += plan.wanders * np.convolve(rng.normal(0, 1, share.size + 4), np.ones(5), "valid")
    for _ in range(plan.dips):
        first, length = int(rng.integers(share.size)), int(rng.integers(2, 5))
        factors[first : first + length] *= rng.uniform(0, 0.6)
    return factors


def _add_bumps(plan: _Plan, rng: np.random.Generator, share: Values, before: int) -> None:
    for _ in range(plan.bumps):
        first, length = int(rng.integers(1, max(2, before))), int(rng.integers(1, 4))
        share[first : first + length] = rng.uniform(0.2, 0.5)


def _accuracies(plan: _Plan, rng: np.random.Generator, share: Values, chance: float) -> Values:
    """As a test set measures them: at chance, a net that guesses the same class every time."""
    images = int(_log_uniform(rng, *plan.images))
    guesses = chance * (1 + rng.normal(0, 0.1, (share.size + 4) // 5))
    guess = np.clip(np.repeat(guesses, 5)[: share.size], 0, 1)
    top = chance + (1 - chance) * rng.uniform(*plan.top)
    accuracy = guess + (top - guess) * np.clip(share, 0, None)
    return np.asarray(rng.binomial(images, np.clip(accuracy, 0, 1)) / images)


def _losses(
    plan: _Plan,
    rng: np.random.Generator,
    rise: _Rise,
    rates: Values,
    chance: float,
    share: Values | None = None,
) -> Values:
    if share is None:
        share = rise.share(rates * rng.uniform(0.7, 1.4))
    first = -math.log(chance) * rng.uniform(1, 1.3)
    falls = first * rng.uniform(0.2, 0.8)
    noise = rng.normal(0, first * 10 ** rng.uniform(-3, -1.5), share.size)
    losses = first - falls * share + noise * (0.3 + np.abs(share))
    spikes = rng.random(share.size) < plan.spikes
    losses[spikes] += first * rng.exponential(2, int(spikes.sum()))
    return losses


def _cut(known: Known, end: float) -> Known:
    """As far as it comes until the training diverges."""
    tested, trained = known.rates < end, known.loss_rates < end
    return replace(
        known,
        rates=known.rates[tested],
        values=known.values[tested],
        loss_rates=known.loss_rates[trained],
        losses=known.losses[trained],
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(*np.log([low, high]))))
