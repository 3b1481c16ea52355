"""Bounds for a cyclical learning rate, read off an LR range test (paper, section 3.3).

The paper takes two rates from the plot of accuracy against rate: base_lr where
the accuracy starts to increase, max_lr where it slows, becomes ragged or starts
to fall. Each is a rule here, on a curve smoothed by a running median, so that
one bad test decides nothing; heights are measured from the first accuracy to
where the best tenth of the smoothed curve begins: its gain.

    rises    the first rate at which the accuracy, by the median of three tests, is a tenth of
             the gain above its start
    slows    the first rate at which the smoothed curve has 95 % of the gain, unless that is in
             the last fifth of the range
    ragged   the first rate after which two of five tests fall a tenth of the gain below the
             best of the smoothed curve before them, once that has risen
    holds    the last rate at which the smoothed curve has 95 % of the gain
    falls    the same, if the smoothed curve ends a fifth of the gain lower, or the run diverged
    loss     the rate of the lowest smoothed training loss

max_lr is the lower of slows and falls. A ragged curve that holds its height, as
those of super-convergence do (Smith and Topin, arXiv 1708.07120), is no reason
to stay below; ragged decides where the others say nothing, and else makes the
suggestion less sure. The paper's rule of thumb for base_lr, a third or a
quarter of max_lr, is given beside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Curve = NDArray[np.float64]

FEWEST_TESTS = 8
_PLATEAU = 0.9  # the quantile of the smoothed curve that its height is taken from
_RISEN = 0.1
_SLOWED = 0.95
_END = 0.2  # of the range of rates; a straight rise reaches _SLOWED there
_DIP = 0.1
_DIPS, _TESTS_BEHIND = 2, 5
_FALLEN = 0.2
_HOLDS_ON = 2  # times max_lr: the optimum is within a factor of two of the largest (section 3.3)
_CLEAR = 5  # a gain of so many standard deviations of the noise is one


@dataclass(frozen=True)
class Rule:
    """What one rule says of base_lr or max_lr: a rate, or None with the reason why not."""

    field: str
    name: str
    rate: float | None
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """A bound, the rule it is by, how sure that is (high, medium or low), and why."""

    rate: float | None
    rule: str
    confidence: str
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """Both bounds, and what every rule says."""

    base_lr: Suggestion
    max_lr: Suggestion
    rules: Sequence[Rule]

    @property
    def bounds(self) -> dict[str, Suggestion]:
        """Both by the solver's field."""
        return {"base_lr": self.base_lr, "max_lr": self.max_lr}


def suggest(
    rates: ArrayLike,
    accuracies: ArrayLike,
    *,
    loss_rates: ArrayLike = (),
    losses: ArrayLike = (),
    diverged_at: float | None = None,
    is_loss: bool = False,
) -> Suggestions:
    """Suggest base_lr and max_lr from the curve of a range test.

    Args:
        rates: the learning rates of the tests, rising, shape (tests,).
        accuracies: the accuracy at each, same shape, a mean over seeds where
            there are several; values that are not finite are left out.
        loss_rates: the rates at which the training loss was recorded, rising.
        losses: the training loss at each of them.
        diverged_at: the rate at which the training diverged, if it did.
        is_loss: `accuracies` are losses, of which lower is better.

    Returns:
        The suggestions. A bound that the curve does not support has the rate
        None and says why.
    """
    at = np.asarray(rates, np.float64)
    height = np.asarray(accuracies, np.float64) * (-1 if is_loss else 1)
    kept = np.isfinite(height)
    at, height = at[kept], height[kept]
    if at.size < FEWEST_TESTS:
        return _none(
            f"{at.size} tests are too few, it takes {FEWEST_TESTS}:"
            " test over more iterations, or more often"
        )
    curve = _Curve(at, height)
    if curve.gain < _CLEAR * curve.noise or curve.gain <= 0:
        return _none(
            "the accuracy does not rise clearly above where it starts: test higher or lower"
            " rates, or over more epochs"
        )
    limits = (curve.slows(), curve.ragged(), curve.holds(), curve.falls(diverged_at))
    loss = _lowest_loss(np.asarray(loss_rates, np.float64), np.asarray(losses, np.float64))
    max_lr = _max_lr(*limits, loss, curve)
    base_lr = _base_lr(curve.rises(), max_lr, curve)
    return Suggestions(base_lr, max_lr, [curve.rises(), *_thumb(max_lr), *limits, loss])


class _Curve:
    """Accuracy against rate, as measured (`height`) and smoothed (`smooth`)."""

    def __init__(self, rates: Curve, height: Curve) -> None:
        self.rates = rates
        self.height = height
        self.smooth = _smoothed(height)
        self.start = float(height[0])
        self.gain = float(np.quantile(self.smooth, _PLATEAU)) - self.start
        # the scatter about the line through both neighbours; 1.4826: a median as a deviation
        residuals = height[1:-1] - (height[:-2] + height[2:]) / 2
        self.noise = 1.4826 * float(np.median(np.abs(residuals))) / np.sqrt(1.5)

    def level(self, share: float) -> float:
        return self.start + share * self.gain

    def rises(self) -> Rule:
        risen = self.height >= self.level(_RISEN)
        lasting = (_running_median(self.height, 3) >= self.level(_RISEN)) & (self.rates > 0)
        first = int(np.argmax(lasting if lasting.any() else risen))
        return Rule(
            *("base_lr", "rises", float(self.rates[first])),
            f"the accuracy starts to increase at {self.rates[first]:.3g}",
        )

    def slows(self) -> Rule:
        first = int(np.argmax(self.smooth >= self.level(_SLOWED)))
        if self.rates[first] >= self.rates[-1] - _END * (self.rates[-1] - self.rates[0]):
            return Rule("max_lr", "slows", None, "the accuracy still rises at the highest rate")
        rate = float(self.rates[first])
        return Rule("max_lr", "slows", rate, f"the increase slows at {rate:.3g}")

    def ragged(self) -> Rule:
        best = np.maximum.accumulate(self.smooth)
        dips = (best >= self.level(_RISEN)) & (best - self.height > _DIP * self.gain)
        for index in range(self.rates.size - 1):
            behind = dips[index + 1 : index + 1 + _TESTS_BEHIND]
            if behind[0] and behind.sum() >= _DIPS:
                rate = float(self.rates[index])
                return Rule("max_lr", "ragged", rate, f"the accuracy becomes ragged at {rate:.3g}")
        return Rule("max_lr", "ragged", None, "the accuracy does not become ragged")

    def holds(self) -> Rule:
        last = int(np.flatnonzero(self.smooth >= self.level(_SLOWED))[-1])
        rate = float(self.rates[last])
        return Rule("max_lr", "holds", rate, f"the accuracy holds up to {rate:.3g}")

    def falls(self, diverged_at: float | None) -> Rule:
        rate = self.holds().rate
        if diverged_at is not None:
            reason = f"the training diverges at {diverged_at:.3g}, after {rate:.3g}"
            return Rule("max_lr", "falls", rate, reason)
        if self.smooth[-1] < self.level(1 - _FALLEN):
            return Rule("max_lr", "falls", rate, f"the accuracy falls for good after {rate:.3g}")
        return Rule("max_lr", "falls", None, "the accuracy does not fall for good")


def _max_lr(
    slows: Rule, ragged: Rule, holds: Rule, falls: Rule, loss: Rule, curve: _Curve
) -> Suggestion:
    found = [rule for rule in (slows, falls) if rule.rate is not None] or [ragged]
    chosen = min(found, key=lambda rule: rule.rate or math.inf)
    if chosen.rate is None:
        reason = f"{slows.reason}: test up to a higher one"
        return Suggestion(None, "", "low", reason)
    others = [rule.rate for rule in (slows, ragged, falls, loss) if rule.rate]
    apart = max(others) / min(others) if len(others) > 1 else math.inf
    if curve.gain < 2 * _CLEAR * curve.noise or apart > 3:
        confidence = "low"
    else:
        confidence = "high" if apart <= 1.5 else "medium"
    reason = chosen.reason
    if holds.rate and holds.rate > _HOLDS_ON * chosen.rate:
        reason += f"; {holds.reason}, so that a larger max_lr is worth a try"
    return Suggestion(chosen.rate, chosen.name, confidence, reason)


def _base_lr(rises: Rule, max_lr: Suggestion, curve: _Curve) -> Suggestion:
    assert rises.rate is not None
    if max_lr.rate is not None and rises.rate >= max_lr.rate:
        reason = "the accuracy starts to increase no lower than that: a quarter of max_lr"
        return Suggestion(max_lr.rate / 4, "max/4", "low", reason)
    if rises.rate <= curve.rates[1]:
        reason = f"{rises.reason}, the first rate tested: it may be lower"
        return Suggestion(rises.rate, rises.name, "low", reason)
    confidence = "high" if curve.gain >= 2 * _CLEAR * curve.noise else "medium"
    return Suggestion(rises.rate, rises.name, confidence, rises.reason)


def _thumb(max_lr: Suggestion) -> list[Rule]:
    return [
        Rule(
            *("base_lr", f"max/{part}", max_lr.rate / part if max_lr.rate else None),
            f"the paper's rule of thumb: 1/{part} of max_lr",
        )
        for part in (3, 4)
    ]


def _lowest_loss(rates: Curve, losses: Curve) -> Rule:
    kept = np.isfinite(losses)
    rates, losses = rates[kept], losses[kept]
    if rates.size < FEWEST_TESTS:
        return Rule("max_lr", "loss", None, "the training loss was not recorded")
    smooth = _smoothed(losses)
    rate = float(rates[int(np.argmin(smooth))])
    return Rule("max_lr", "loss", rate, f"the training loss is lowest at {rate:.3g}")


def _none(reason: str) -> Suggestions:
    nothing = Suggestion(None, "", "low", reason)
    return Suggestions(nothing, nothing, ())


def _smoothed(values: Curve) -> Curve:
    """By a running median over about a tenth of the values."""
    return _running_median(values, 2 * (values.size // 20) + 3)


def _running_median(values: Curve, window: int) -> Curve:
    """The median of the window about each value, of a smaller one near the ends.

    Only the first value stands alone; the last has the two before it beside.
    """
    half = [min(window // 2, i) for i in range(values.size)]
    first = [min(i - h, values.size - 3) for i, h in enumerate(half)]
    return np.array(
        [np.median(values[f : i + h + 1]) for i, (f, h) in enumerate(zip(first, half, strict=True))]
    )
