"""Suggests bounds for a cyclical learning rate from an LR range test (paper, section 3.3).

The paper reads two rates off the plot of accuracy against rate: base_lr, where the
accuracy starts to increase, and max_lr, where the increase slows, becomes ragged or turns
into a fall. Each of these is a rule here. The rules use a curve smoothed by a running
median, so that a single bad test decides nothing. They measure heights as shares of the
gain: the distance from the median of the tests before the rise to the best of the smoothed
curve. A gain that does not stand out from the noise does not count.

    rises    the rate that best separates the tests below a fourteenth of the gain from the
             tests above it, up to the top; a bump that falls back decides nothing
    slows    the first rate at which the smoothed curve has nine tenths of the gain, unless it
             is in the last fifth of the range
    ragged   the first rate, after half the gain, behind which two of five tests fall below the
             best of the smoothed curve so far, by more than a tenth of the gain and the noise
    holds    the last rate at which the smoothed curve has nine tenths of the gain
    falls    the same rate, if the smoothed curve ends a fifth of the gain lower, or the run
             diverged

The same rules judge the training loss, upside down, for confirmation:

    learns   like rises
    loss     the rate of the lowest smoothed loss

base_lr comes from rises or learns, whichever curve stands out more from its noise. max_lr is
the lower of slows and falls of the accuracy, or of the loss if the accuracy hardly stands
out from its noise. A ragged curve that keeps its height, as in super-convergence (Smith and
Topin, arXiv 1708.07120), is no reason for a lower bound, so ragged decides only if slows and
falls find nothing. The rules also list the paper's rule of thumb for base_lr, a third or a
quarter of max_lr.

The confidence in a bound is high if its curve stands out from the noise and the other curve
agrees, and low if the other curve disagrees. `python -m benchmarks suggestions` measures how
often each rule and each confidence is right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_clr.runs.history import Row
from caffe_clr.runs.metrics import Metric

Values = NDArray[np.float64]

FEWEST_TESTS = 8
_RISEN = 0.07  # low, since a rise may be slow at first; the parting evens out the noise
_SLOWED = 0.9
_END = 0.2  # of the range of rates; a straight rise reaches _SLOWED there
_LEARNED = 0.5
_DIP = 0.1
_DIPS, _TESTS_BEHIND = 2, 5
_FALLEN = 0.2
_CLEAR = 5  # a gain of so many standard deviations of the noise is one; noise alone gains 2 to 4
_SURE = 10  # where the noise of one test is a tenth of the gain, as _RISEN and _SLOWED are
_AGREE = 2  # rates within this factor say the same
_ROUNDS = 2  # start and rise depend on each other
_GUESS = 0.2  # of the standard deviation of a guess: an uneven share of classes gives less
_MORE = "test over more iterations, or more often"
_OTHER = "test higher or lower rates, or train for more epochs"


@dataclass(frozen=True)
class Rule:
    """The result of one rule for base_lr or max_lr: a rate or None, and the reason."""

    field: str
    name: str
    rate: float | None
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """A suggested bound, its rule, the confidence (high, medium or low), and the reason."""

    rate: float | None
    rule: str
    confidence: str
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """Both suggested bounds, and the results of all rules."""

    base_lr: Suggestion
    max_lr: Suggestion
    rules: Sequence[Rule]

    @property
    def bounds(self) -> dict[str, Suggestion]:
        """Both suggestions, by the name of the solver's field."""
        return {"base_lr": self.base_lr, "max_lr": self.max_lr}


def suggest(
    rates: ArrayLike,
    accuracies: ArrayLike,
    *,
    loss_rates: ArrayLike = (),
    losses: ArrayLike = (),
    diverged_at: float | None = None,
    is_loss: bool = False,
    chance: float | None = None,
) -> Suggestions:
    """Suggest base_lr and max_lr from the curve of a range test.

    Args:
        rates: the learning rates of the tests, rising, shape (tests,).
        accuracies: the accuracy of each test, of the same shape; the mean if there are
            several seeds. Values that are not finite are ignored. With fewer than 8
            values, only the training loss is judged.
        loss_rates: the rates at which the training loss was recorded, rising.
        losses: the training loss at each of them.
        diverged_at: the rate at which the training diverged, if it did.
        is_loss: `accuracies` are losses, so lower is better.
        chance: the accuracy of guessing, 1 / classes, if it is known.

    Returns:
        The suggestions. A bound that the curve does not support has the rate None, and
        its reason says why.
    """
    test = _curve(rates, accuracies, _TEST_LOSS if is_loss else _ACCURACY)
    loss = _curve(loss_rates, losses, _TRAINING_LOSS)
    curve, witness = test or loss, loss if test else None
    if curve is None:
        given = accuracies if np.size(accuracies) or not np.size(losses) else losses
        found = f"{_finite(given)} {'displays' if given is losses else 'tests'}"
        return _none(f"{found} are too few ({FEWEST_TESTS} are needed)", diverged_at, _MORE)
    if witness and curve.clearness < min(_SURE, witness.clearness):
        curve, witness = witness, curve
    if reason := _not_learned(curve, witness, chance):
        return _none(reason, diverged_at, _OTHER)
    if witness and witness.clearness < _CLEAR:
        witness = None
    limits = (curve.slows(), curve.ragged(), curve.holds(), curve.falls(diverged_at))
    max_lr = _max_lr(*limits, curve, witness)
    base_lr = _base_lr(curve, witness, max_lr)
    rises = [each.rises() for each in (test, loss) if each]
    lowest = [loss.best()] if loss else []
    return Suggestions(base_lr, max_lr, [*rises, *_thumb(max_lr), *limits, *lowest])


def of_rows(
    metric: Metric,
    rows: Sequence[Row],
    losses: Sequence[Row],
    *,
    diverged_at: float | None,
    chance: float | None = None,
    rules: Callable[..., Suggestions] = suggest,
) -> Suggestions:
    """Suggest base_lr and max_lr from the rows of a range test, each with its lr.

    Args:
        metric: the output to judge by. If it is the training loss, no second curve
            confirms it.
        rows: the rows of the tests, with the metric.
        losses: the rows of the training, with `loss`.
        diverged_at, chance: see `suggest`.
        rules: called instead of `suggest`.
    """
    tests = rows if metric.of_test else ()
    return rules(
        [row["lr"] for row in tests],
        [row[metric.name] for row in tests],
        loss_rates=[row["lr"] for row in losses],
        losses=[row["loss"] for row in losses],
        diverged_at=diverged_at,
        is_loss=not metric.is_accuracy,
        chance=chance,
    )


@dataclass(frozen=True)
class _Words:
    """What a curve is called, and what it does where it gets better and worse."""

    name: str
    above: str = "below"
    increase: str = "decrease"
    rise: str = "fall"
    fall: str = "rise"


_ACCURACY = _Words("accuracy", "above", "increase", "rise", "fall")
_TEST_LOSS = _Words("loss")
_TRAINING_LOSS = _Words("training loss")


class _Curve:
    """Height against rate, as measured (`height`) and smoothed (`smooth`); a loss is upside down.

    Attributes:
        begins: the index of the first test that has risen.
        start: the median of the tests before.
        gain: how far the best of the smoothed curve is above that.
        noise: the standard deviation of a test, by its neighbours, or by those before the
            rise where that is larger: a net that guesses may guess the same for a while.
    """

    def __init__(self, rates: Values, values: Values, words: _Words) -> None:
        self.rates = rates
        self.words = words
        self.height = values if words is _ACCURACY else -values
        self.smooth = _smoothed(self.height)
        self.start = float(self.height[0])
        for _ in range(_ROUNDS):
            self.gain = float(self.smooth.max()) - self.start
            self.begins = self._begins()
            self.start = float(np.median(self.height[: self.begins]))
        self.gain = float(self.smooth.max()) - self.start
        self.noise = self._noise()

    @property
    def clearness(self) -> float:
        """The gain in standard deviations of the noise."""
        if self.gain <= 0:
            return 0.0
        return self.gain / self.noise if self.noise else math.inf

    def level(self, share: float) -> float:
        return self.start + share * self.gain

    def _begins(self) -> int:
        """Where to part the tests up to the top, so that the fewest are on the wrong side."""
        top = max(1, int(np.argmax(self.smooth >= self.level(_SLOWED))))
        risen = _running_median(self.height, 3)[: top + 1] >= self.level(_RISEN)
        too_high = np.cumsum(risen)[:-1]  # before the first test, before the second, and so on
        too_low = np.cumsum(~risen[::-1])[::-1][1:]
        return 1 + int(np.argmin(too_high + too_low))

    def _noise(self) -> float:
        # about the line through both neighbours, whose mean has half the variance of a test
        scatter = self.height[1:-1] - (self.height[:-2] + self.height[2:]) / 2
        before = self.height[: self.begins] - self.start
        return max(_deviation(scatter) / math.sqrt(1.5), _deviation(before))

    def rises(self) -> Rule:
        rate = float(self.rates[self.begins])
        reason = f"the {self.words.name} starts to {self.words.increase} at {rate:.3g}"
        return Rule("base_lr", "learns" if self.words is _TRAINING_LOSS else "rises", rate, reason)

    def slows(self) -> Rule:
        first = int(np.argmax(self.smooth >= self.level(_SLOWED)))
        if self.rates[first] >= self.rates[-1] - _END * (self.rates[-1] - self.rates[0]):
            reason = f"the {self.words.name} still {self.words.rise}s at the highest rate"
            return Rule("max_lr", "slows", None, reason)
        rate = float(self.rates[first])
        return Rule("max_lr", "slows", rate, f"the {self.words.increase} slows at {rate:.3g}")

    def ragged(self) -> Rule:
        best = np.maximum.accumulate(self.smooth)
        dips = best - self.height > max(_DIP * self.gain, _CLEAR * self.noise)
        learned = int(np.argmax(self.smooth >= self.level(_LEARNED)))
        for index in range(learned, self.rates.size - 1):
            behind = dips[index + 1 : index + 1 + _TESTS_BEHIND]
            if behind[0] and behind.sum() >= _DIPS:
                rate = float(self.rates[index])
                reason = f"the {self.words.name} becomes ragged at {rate:.3g}"
                return Rule("max_lr", "ragged", rate, reason)
        return Rule("max_lr", "ragged", None, f"the {self.words.name} does not become ragged")

    def holds(self) -> Rule:
        last = int(np.flatnonzero(self.smooth >= self.level(_SLOWED))[-1])
        rate = float(self.rates[last])
        return Rule("max_lr", "holds", rate, f"the {self.words.name} holds up to {rate:.3g}")

    def falls(self, diverged_at: float | None) -> Rule:
        rate = self.holds().rate
        name, fall = self.words.name, self.words.fall
        if diverged_at is not None:
            reason = f"{self.holds().reason}, and the training diverges at {diverged_at:.3g}"
            return Rule("max_lr", "falls", rate, reason)
        if self.smooth[-1] < self.level(1 - _FALLEN):
            return Rule("max_lr", "falls", rate, f"the {name} {fall}s for good after {rate:.3g}")
        return Rule("max_lr", "falls", None, f"the {name} does not {fall} for good")

    def best(self) -> Rule:
        rate = float(self.rates[int(np.argmax(self.smooth))])
        return Rule("max_lr", "loss", rate, f"the training loss is lowest at {rate:.3g}")


def _max_lr(
    slows: Rule, ragged: Rule, holds: Rule, falls: Rule, curve: _Curve, witness: _Curve | None
) -> Suggestion:
    found = [rule for rule in (slows, falls) if rule.rate is not None] or [ragged]
    chosen = min(found, key=lambda rule: rule.rate or math.inf)
    if chosen.rate is None:
        return Suggestion(None, "", "low", f"{slows.reason}: test up to a higher rate")
    reason = chosen.reason
    lasts = holds.rate is not None and holds.rate > _AGREE * chosen.rate
    if lasts:
        reason += f", but {holds.reason}; a larger max_lr is worth a try"
    seen = (witness.slows().rate or float(witness.rates[-1])) if witness else None
    confidence = _confidence(chosen.rate, seen, curve)
    if confidence == "high" and (lasts or chosen is ragged):
        confidence = "medium"
    return Suggestion(chosen.rate, chosen.name, confidence, reason)


def _base_lr(curve: _Curve, witness: _Curve | None, max_lr: Suggestion) -> Suggestion:
    chosen, other = curve, witness
    if witness and witness.clearness > curve.clearness:
        chosen, other = witness, curve
    rises, rate = chosen.rises(), float(chosen.rates[chosen.begins])
    if max_lr.rate is not None and rate >= max_lr.rate:
        reason = f"{rises.reason}, which is not below max_lr; this is a quarter of max_lr"
        return Suggestion(max_lr.rate / 4, "max/4", "low", reason)
    if chosen.begins <= 1:
        reason = f"{rises.reason}, the second rate tested; base_lr may be lower"
        return Suggestion(rate, rises.name, "low", reason)
    seen = other.rises().rate if other else None
    return Suggestion(rate, rises.name, _confidence(rate, seen, chosen), rises.reason)


def _confidence(rate: float, seen: float | None, curve: _Curve) -> str:
    """How sure a rate is, given what the other curve says, if there is one."""
    agrees = seen is not None and max(rate, seen) <= _AGREE * min(rate, seen)
    if curve.clearness < _SURE:
        return "medium" if agrees else "low"
    if seen is None:
        return "medium"
    return "high" if agrees else "low"


def _thumb(max_lr: Suggestion) -> list[Rule]:
    return [
        Rule(
            *("base_lr", f"max/{part}", max_lr.rate / part if max_lr.rate else None),
            f"the paper's rule of thumb: 1/{part} of max_lr",
        )
        for part in (3, 4)
    ]


def _not_learned(curve: _Curve, witness: _Curve | None, chance: float | None) -> str | None:
    """Why a curve has no bounds, if it has none."""
    words = curve.words
    if curve.clearness < _CLEAR:
        return f"the {words.name} does not {words.rise} clearly {words.above} its start"
    if witness and witness.clearness < _CLEAR and curve.clearness < _SURE:
        return f"the {words.name} hardly {words.rise}s, and the {witness.words.name} shows nothing"
    best = float(curve.smooth.max())
    if words is not _ACCURACY or chance is None:
        return None
    if best >= chance + _GUESS * math.sqrt(chance * (1 - chance)):
        return None
    return f"the best accuracy, {best:.3g}, is not clearly above chance, {chance:.3g}"


def _none(reason: str, diverged_at: float | None, remedy: str) -> Suggestions:
    if diverged_at is not None:
        remedy = f"end the range below {diverged_at:.3g}, where the training diverges"
    nothing = Suggestion(None, "", "low", f"{reason}: {remedy}")
    return Suggestions(nothing, nothing, ())


def _curve(rates: ArrayLike, values: ArrayLike, words: _Words) -> _Curve | None:
    """The curve of the values that are finite, if they are enough."""
    at, value = np.asarray(rates, np.float64), np.asarray(values, np.float64)
    kept = np.isfinite(value)
    return _Curve(at[kept], value[kept], words) if kept.sum() >= FEWEST_TESTS else None


def _finite(values: ArrayLike) -> int:
    return int(np.isfinite(np.asarray(values, np.float64)).sum())


def _deviation(differences: Values) -> float:
    """Their standard deviation, by the median of their amounts: outliers do not count."""
    return 1.4826 * float(np.median(np.abs(differences)))


def _smoothed(values: Values) -> Values:
    """By a running median over about a tenth of the values."""
    return _running_median(values, 2 * (values.size // 20) + 3)


def _running_median(values: Values, window: int) -> Values:
    """The median of the window about each value, of a smaller one near the ends.

    Only the first value stands alone; the last has the two before it beside.
    """
    half = [min(window // 2, i) for i in range(values.size)]
    first = [min(i - h, values.size - 3) for i, h in enumerate(half)]
    return np.array(
        [np.median(values[f : i + h + 1]) for i, (f, h) in enumerate(zip(first, half, strict=True))]
    )
