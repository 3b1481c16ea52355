"""Suggests bounds for a cyclical learning rate from an LR range test (paper, section 3.3).

In a range test, time and rate are one variable. Where the accuracy starts to rise, and where
the rise slows, tells when a net has learned, not at which rate: a longer test moves both to
lower rates. Where training stops working hardly moves. So max_lr comes from there:

    turn      in a linear test, the rate of the lowest training loss, or of the best accuracy
              where no losses are recorded, if the curve then gets worse for good, or the run
              diverges. max_lr is half of it; the paper's bound for CIFAR-10 is 0.57 to 0.7 of
              it. On most nets, a longer test turns a little earlier, so max_lr is multiplied
              by the eighth root of epochs / 8; the paper's test has 8 epochs
    middle    in a geometric sweep, the middle of the rates with the lowest training loss,
              likewise multiplied by a root of its length (see `swept`)
    base_lr   a sixth of max_lr, the ratio of the paper's bounds for CIFAR-10; its rule of
              thumb is a third or a quarter

Curves are smoothed by a running median, so that a single bad test decides nothing. A turn
counts only where the range can tell:

    too narrow   the curve does not turn, or only in the last fifth of the range
    too wide     it turns in the first fifth, or while the net was still learning fast: half
                 of what the loss fell, it fell at the upper rates before the turn. Such a
                 test tells how fast the rate rose

Both say at which rate another test should end. The constants were chosen on the development
tasks of `python -m benchmarks advice`, which measures how well bounds from different tests
agree, and what a training with them reaches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_clr.runs.history import Row
from caffe_clr.runs.metrics import Metric

Values = NDArray[np.float64]

FEWEST_TESTS = 8
RATIO = 6  # of max_lr to base_lr
_SHARE = 0.5
_EPOCHS, _ROOT = 8, 8
_DECADE, _DECADE_ROOT = 750, 4
_EARLY, _LATE = 0.2, 0.8  # of the range
_HARDLY = "the net had hardly begun to learn below that"
_BELOW_GUESS = 0.95  # times the loss of guessing: a net that has learned is below
_LEARNING = 0.55  # of the turn: where half of the gain came later, the net was still learning
_WORSE, _NEAR = 0.1, 0.1  # of the gain
_CLEAR = 6  # a gain of so many standard deviations of the noise is one; noise alone gains 2 or 3
_GUESS = 0.2  # of the standard deviation of a guess: an uneven share of classes gives less
_HIGHER = 3  # times as far, where the range was too narrow
_ROOM = 2.5  # times the turn, where it was too wide
_RANGE = "(--min-lr, --max-lr)"
_MORE = "test over more iterations (--iterations), or more often"
_OTHER = f"test higher or lower rates {_RANGE}, or train for more epochs (--epochs)"
_LONGER = f"sweep over more iterations (--iterations), or give a range {_RANGE}"


@dataclass(frozen=True)
class Bound:
    """A suggested bound and its reason, or None and the reason why there is none."""

    rate: float | None
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """Both suggested bounds.

    Attributes:
        turn: the rate at which training is best, from which on it gets worse, wherever it
            is in the range.
        by_loss: whether the training loss was judged, not the tests.
    """

    base_lr: Bound
    max_lr: Bound
    turn: float | None = None
    by_loss: bool = True

    @property
    def bounds(self) -> dict[str, Bound]:
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
    epochs: float | None = None,
) -> Suggestions:
    """Suggest base_lr and max_lr from the curve of a range test.

    Args:
        rates: the learning rates of the tests, rising, shape (tests,).
        accuracies: the accuracy of each test, of the same shape; the mean if there are
            several seeds. They are judged if there are not 8 training losses, or if these
            do not fall clearly. Values that are not finite are ignored.
        loss_rates: the rates at which the training loss was recorded, rising.
        losses: the training loss at each of them.
        diverged_at: the rate at which the training diverged, if it did.
        is_loss: `accuracies` are losses, so lower is better.
        chance: the accuracy of guessing, 1 / classes, if it is known.
        epochs: the length of the test, if it is known.

    Returns:
        The suggestions. If the curve supports no bounds, both have the rate None, and their
        reason says why.
    """
    test = _curve(rates, accuracies, _TEST_LOSS if is_loss else _ACCURACY)
    loss = _curve(loss_rates, losses, _TRAINING_LOSS)
    curve = test if loss is None or (test and loss.clearness < _CLEAR) else loss
    if curve is None:
        given = accuracies if np.size(accuracies) or not np.size(losses) else losses
        few = _few(_finite(given), "display" if given is losses else "test")
        return replace(_none(few, diverged_at, _MORE), by_loss=given is losses)
    if reason := _not_learned(curve, test, chance):
        judged = _none(reason, diverged_at, _OTHER)
    else:
        judged = _judged(curve, diverged_at, epochs)
    return replace(judged, by_loss=curve is loss)


def swept(
    iterations: ArrayLike,
    rates: ArrayLike,
    losses: ArrayLike,
    *,
    diverged_at: float | None = None,
    guess: float | None = None,
) -> Suggestions:
    """Suggest base_lr and max_lr from a geometric sweep.

    The best rate is in the middle, on a logarithmic scale, of the rates at which the
    training loss is lowest, give or take a tenth of what it fell. The shorter a sweep, the
    less has been learned at the rates below, and the later the loss turns. So max_lr is the
    best rate times the fourth root of the iterations per decade, divided by 750.

    Args:
        iterations: the iterations of the displays, shape (displays,).
        rates: their rates, each above the one before by the same factor.
        losses: the training loss at each of them.
        diverged_at: the rate at which the training diverged, if it did.
        guess: the training loss of guessing, if it is known. A net that only gets there
            from worse initial weights has learned nothing.
    """
    curve = _curve(rates, losses, _TRAINING_LOSS)
    if curve is None:
        return _none(_few(_finite(losses), "display"), None, _LONGER)
    if reason := _not_learned(curve, None, None):
        return _none(reason, None, _LONGER)
    lowest = -float(curve.smooth[curve.top])
    if guess is not None and lowest > _BELOW_GUESS * guess:
        reason = f"the training loss, at best {lowest:.3g}, is not clearly below that of guessing"
        return _none(f"{reason}, {guess:.3g}", None, f"check the scale of the data, or {_LONGER}")
    low, high = curve.best()
    if diverged_at is None and not curve.gets_worse():
        reason = f"the training loss does not rise again up to {curve.range:.2g}"
        return _none(reason, None, f"give a range that ends higher {_RANGE}")
    middle = math.sqrt(low * high)
    if curve.half() > _LEARNING * middle:
        reason = f"the training loss is lowest at {middle:.2g}, but {_HARDLY}"
        return _none(reason, None, _LONGER)
    share = (_per_decade(iterations, rates) / _DECADE) ** (1 / _DECADE_ROOT)
    where = f"in the middle of {low:.2g} to {high:.2g}, where the training loss is lowest"
    return _bounds(share * middle, f"{share:.2g} of {middle:.3g}, {where}", middle)


def _per_decade(iterations: ArrayLike, rates: ArrayLike) -> float:
    """How many iterations a geometric sweep takes for each factor of ten."""
    first, last = np.asarray(iterations)[[0, -1]]
    low, high = np.asarray(rates)[[0, -1]]
    return float((last - first) / math.log10(high / low))


def of_rows(
    metric: Metric,
    rows: Sequence[Row],
    losses: Sequence[Row],
    *,
    diverged_at: float | None,
    chance: float | None = None,
    epochs: float | None = None,
) -> Suggestions:
    """Suggest base_lr and max_lr from the rows of a range test, each with its lr.

    Args:
        metric: the output of the tests, or the training loss.
        rows: the rows of the tests, with the metric.
        losses: the rows of the training, with `loss`.
        diverged_at, chance, epochs: see `suggest`.
    """
    tests = rows if metric.of_test else ()
    return suggest(
        [row["lr"] for row in tests],
        [row[metric.name] for row in tests],
        loss_rates=[row["lr"] for row in losses],
        losses=[row["loss"] for row in losses],
        diverged_at=diverged_at,
        is_loss=not metric.is_accuracy,
        chance=chance,
        epochs=epochs,
    )


@dataclass(frozen=True)
class _Words:
    """What a curve is called, and what it does where it gets better and worse."""

    name: str
    rise: str = "fall"
    fall: str = "rise"
    best: str = "lowest"
    above: str = "below"


_ACCURACY = _Words("accuracy", "rise", "fall", "best", "above")
_TEST_LOSS = _Words("loss")
_TRAINING_LOSS = _Words("training loss")


class _Curve:
    """Height against rate, as measured and smoothed; a loss is upside down.

    Attributes:
        smooth: the smoothed height.
        top: the index of the best of it.
        gain: how far that is above the lowest before it.
        noise: the standard deviation of the noise that is left in it.
    """

    def __init__(self, rates: Values, values: Values, words: _Words) -> None:
        self.rates = rates
        self.words = words
        self.height = values if words is _ACCURACY else -values
        self.smooth = smoothed(self.height)
        self.top = int(np.argmax(self.smooth))
        self.start = float(self.smooth[: self.top + 1].min())
        self.gain = float(self.smooth[self.top]) - self.start
        # about the line through both neighbours, whose mean has half the variance of a value
        scatter = self.height[1:-1] - (self.height[:-2] + self.height[2:]) / 2
        deviation = 1.4826 * float(np.median(np.abs(scatter))) / math.sqrt(1.5)
        self.noise = 1.25 * deviation / math.sqrt(_window(values.size))  # of a median

    @property
    def clearness(self) -> float:
        """The gain in standard deviations of the noise."""
        if self.gain <= 0:
            return 0.0
        return self.gain / self.noise if self.noise else math.inf

    @property
    def turn(self) -> float:
        return float(self.rates[self.top])

    @property
    def range(self) -> float:
        return float(self.rates[-1])

    def gets_worse(self) -> bool:
        """Whether it ends clearly below its best."""
        fall = float(self.smooth[self.top] - self.smooth[-1])
        return fall > max(_WORSE * self.gain, 3 * self.noise)

    def best(self) -> tuple[float, float]:
        """The lowest and the highest rate at which it is almost at its best."""
        near = np.flatnonzero(self.smooth >= self.smooth[self.top] - _NEAR * self.gain)
        return float(self.rates[near[0]]), float(self.rates[near[-1]])

    def half(self) -> float:
        """The rate at which half of the gain is reached for good."""
        below = np.flatnonzero(self.smooth[: self.top] < self.start + self.gain / 2)
        return float(self.rates[below[-1] + 1]) if below.size else float(self.rates[0])


def _judged(curve: _Curve, diverged_at: float | None, epochs: float | None) -> Suggestions:
    """The bounds of a curve that shows learning, if its range is right."""
    words, turn, end = curve.words, curve.turn, curve.range
    if diverged_at is None and (turn > _LATE * end or not curve.gets_worse()):
        reason = f"the {words.name} does not {words.fall} clearly within the range"
        return _too(reason, turn, _HIGHER * end, "up to a higher rate, about")
    fastest = diverged_at or end
    where = f"the {words.name} is {words.best} at {turn:.3g}"
    if turn < _EARLY * fastest:
        reason = f"{where}, in the first fifth of the range"
        return _too(reason, turn, _ROOM * turn, "up to about")
    if curve.half() > _LEARNING * turn:
        reason = f"{where}, but {_HARDLY}"
        return _too(reason, turn, _ROOM * turn / 2, "over more epochs, or up to about")
    then = (
        f"the training diverges at {diverged_at:.3g}"
        if diverged_at
        else f"it {words.fall}s after that"
    )
    share = _SHARE * (epochs / _EPOCHS) ** (1 / _ROOT) if epochs else _SHARE
    why = f"{share:.2g} of {turn:.3g}, where the {words.name} is {words.best}; {then}"
    return _bounds(share * turn, why, turn)


def _bounds(max_lr: float, why: str, turn: float | None = None) -> Suggestions:
    base_lr = Bound(max_lr / RATIO, f"1/{RATIO} of max_lr, as in the paper's bounds for CIFAR-10")
    return Suggestions(base_lr, Bound(max_lr, why), turn)


def _too(reason: str, turn: float, end: float, remedy: str) -> Suggestions:
    nothing = Bound(None, f"{reason}: test {remedy} {end:.2g} (--max-lr)")
    return Suggestions(nothing, nothing, turn)


def _not_learned(curve: _Curve, test: _Curve | None, chance: float | None) -> str | None:
    """Why a curve has no bounds, if it has none."""
    words = curve.words
    if curve.clearness < _CLEAR:
        return f"the {words.name} does not {words.rise} clearly {words.above} its start"
    if test is None or test.words is not _ACCURACY or chance is None:
        return None
    best = float(test.smooth.max())
    if best >= chance + _GUESS * math.sqrt(chance * (1 - chance)):
        return None
    return f"the best accuracy, {best:.3g}, is not clearly above chance, {chance:.3g}"


def _none(reason: str, diverged_at: float | None, remedy: str) -> Suggestions:
    if diverged_at is not None:
        remedy = f"end the range below {diverged_at:.3g} (--max-lr), where the training diverges"
    nothing = Bound(None, f"{reason}: {remedy}")
    return Suggestions(nothing, nothing)


def _few(values: int, kind: str) -> str:
    are = "s are" if values != 1 else " is"
    return f"{values} {kind}{are} too few ({FEWEST_TESTS} are needed)"


def _curve(rates: ArrayLike, values: ArrayLike, words: _Words) -> _Curve | None:
    """The curve of the values that are finite, if they are enough."""
    at, value = np.asarray(rates, np.float64), np.asarray(values, np.float64)
    kept = np.isfinite(value)
    return _Curve(at[kept], value[kept], words) if kept.sum() >= FEWEST_TESTS else None


def _finite(values: ArrayLike) -> int:
    return int(np.isfinite(np.asarray(values, np.float64)).sum())


def smoothed(values: Values) -> Values:
    """By a running median over about a tenth of the values."""
    return _running_median(values, _window(values.size))


def _window(size: int) -> int:
    return 2 * (size // 20) + 3


def _running_median(values: Values, window: int) -> Values:
    """The median of the window about each value, of a smaller one near the ends.

    Only the first value stands alone; the last has the two before it beside.
    """
    half = [min(window // 2, i) for i in range(values.size)]
    first = [min(i - h, values.size - 3) for i, h in enumerate(half)]
    return np.array(
        [np.median(values[f : i + h + 1]) for i, (f, h) in enumerate(zip(first, half, strict=True))]
    )
