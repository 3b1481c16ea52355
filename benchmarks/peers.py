"""The rules by which other tools pick a learning rate from a sweep, in our own code.

A rule takes the training losses of a sweep, not smoothed, and the rates at which they were
measured: arrays of shape (n,), with one point for each iteration that was planned, at rising
rates above 0. It smooths the losses, stops the sweep and cuts off its ends as the tool does
with its default options. It returns the rate that the tool suggests, and None where the tool
suggests none or fails. The tools compute in single precision, the rules in double precision.

By default, the tools raise the rate exponentially. They smooth and cut by points, whatever the
rates. pytorch-lr-finder, valley and slide of fastai, and Lightning before 2.5.3 also take slopes
and places by points: for them, the steepest slope is that over log(rate) only if the points are
equally spaced in log(rate). They get the points of a sweep spaced linearly just the same, as
the tools would; fastai alone has no such sweep. The others depend on no spacing: minimum of
fastai has no slopes, steep of fastai takes them over log(rate), and Lightning since 2.5.3 over
the rate itself.
"""

from collections.abc import Callable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Rule = Callable[[Values, Values], float | None]

_SHARE = 0.02  # of the newest loss in the averages of fastai and Lightning


def pytorch_lr_finder(rates: Values, losses: Values) -> float | None:
    """pytorch-lr-finder 0.2.2 (2024): where the average loss falls most from point to point.

    The average starts with the first loss and takes in 5% of each later one. The sweep stops
    above 5 times the lowest average. The first 10 and the last 5 points are skipped; at least 2
    must remain. After a NaN, all averages are NaN, and the tool suggests the last point before
    them. Its documentation: "a first guess for an LR". For cyclical rates, its README has the
    bounds read off the plot, as Smith does.
    """
    averages = _before_divergence(_averages(losses, 0.05), 5)
    if averages.size < 17:
        return None
    return float(rates[10 + np.argmin(np.gradient(averages[10:-5]))])


def fastai_valley(rates: Values, losses: Values) -> float | None:
    """fastai 2.8.12, `valley`, its default: about halfway down the longest fall of the loss.

    The fall is the longest series of points, adjacent or not, each lower than the one before.
    If it has n points, the rate is that of point n/3 + n/6, both rounded down, among the last n
    up to its end; if the loss never falls, that of the first point. Like all suggestions of
    fastai, it is used as the lr_max of fit_one_cycle; `lr_find` itself only reports it.
    """
    rates, averages = _seen_by_fastai(rates, losses)
    if not averages.size:
        return None
    lengths = np.ones(averages.size, dtype=int)  # of the longest fall that ends at a point
    for end in range(1, averages.size):
        higher = averages[:end] > averages[end]
        lengths[end] += lengths[:end].max(where=higher, initial=0)
    end = int(lengths.argmax())
    length = int(lengths[end]) if end else 0
    return float(rates[end - length + length // 3 + length // 6])


def fastai_slide(rates: Values, losses: Values) -> float | None:
    """fastai 2.8.12, `slide`: where the slope begins to change on the way to the sweep's end.

    Two points 15 apart go down together from the end while their slopes, from point to point,
    differ by more than 0.005. The lower one of the last pair that differs is taken, or of the
    first pair if that does not. Used as the lr_max of fit_one_cycle.
    """
    rates, averages = _seen_by_fastai(rates, losses)
    if averages.size < 16:
        return None
    slopes = np.gradient(averages)
    differ = np.abs(slopes[15:] - slopes[:-15]) > 0.005
    passed = int(np.argmin(np.append(differ[::-1], False)))
    return float(rates[-16 - max(0, passed - 1)])


def fastai_minimum(rates: Values, losses: Values) -> float | None:
    """fastai 2.8.12, `minimum`: a tenth of the rate of the lowest average loss.

    Used as the lr_max of fit_one_cycle.
    """
    rates, averages = _seen_by_fastai(rates, losses)
    return float(rates[np.argmin(averages)]) / 10 if averages.size else None


def fastai_steep(rates: Values, losses: Values) -> float | None:
    """fastai 2.8.12, `steep`: the point after which the average falls most over log(rate).

    Used as the lr_max of fit_one_cycle.
    """
    rates, averages = _seen_by_fastai(rates, losses)
    if averages.size < 2:
        return None
    return float(rates[np.argmin(np.diff(averages) / np.diff(np.log(rates)))])


def lightning(rates: Values, losses: Values) -> float | None:
    """PyTorch Lightning 2.6, `lr_find`: where the average loss falls most over the rate itself.

    In an exponential sweep, this favours low rates, whose points are closer together. The
    average takes in 2% of each loss. The sweep stops above 4 times the lowest average, the
    first 10 points and the last are skipped, and at least 2 must remain. The suggestion is
    set as the model's rate, an "initial learning rate" in its documentation.
    """
    rates, averages = _seen_by_lightning(rates, losses)
    if averages.size < 2:
        return None
    return float(rates[np.argmin(np.gradient(averages, rates))])


def lightning_before(rates: Values, losses: Values) -> float | None:
    """PyTorch Lightning up to 2.5.2 (2025): where the average falls most from point to point.

    All else is as in `lightning`.
    """
    rates, averages = _seen_by_lightning(rates, losses)
    return float(rates[np.argmin(np.gradient(averages))]) if averages.size > 1 else None


RULES: dict[str, Rule] = {
    "pytorch-lr-finder": pytorch_lr_finder,
    "fastai valley": fastai_valley,
    "fastai slide": fastai_slide,
    "fastai minimum": fastai_minimum,
    "fastai steep": fastai_steep,
    "Lightning": lightning,
    "Lightning before 2.5.3": lightning_before,
}


def _averages(losses: Values, share: float) -> Values:
    """The exponential moving averages that start with the first loss."""
    steps = accumulate(losses.tolist(), lambda average, loss: average + share * (loss - average))
    return np.array(list(steps), dtype=np.float64)


def _corrected(losses: Values, first: int) -> Values:
    """The averages that start at 0, divided by the weight of as many losses as they count.

    Args:
        first: how many the tool counts at the first loss.
    """
    averages = _averages(np.append(0.0, losses), _SHARE)[1:]
    return averages / (1 - (1 - _SHARE) ** np.arange(first, first + losses.size))


def _before_divergence(averages: Values, times: float) -> Values:
    """The averages up to the first one above so many times the lowest, which is recorded too."""
    diverged = np.flatnonzero(averages > times * np.minimum.accumulate(averages))
    return averages[: diverged[0] + 1] if diverged.size else averages


def _seen_by_fastai(rates: Values, losses: Values) -> tuple[Values, Values]:
    """The points that the rules of fastai are given.

    The average takes in 2% of each loss. The sweep stops above 4 times the lowest average.
    The first tenth of the points planned, the last 5 recorded, and all from a NaN on are cut.
    """
    skipped = losses.size // 10
    averages = _before_divergence(_corrected(losses, first=1), 4)[skipped:-5]
    averages = averages[: np.argmax(np.append(np.isnan(averages), True))]
    return rates[skipped : skipped + averages.size], averages


def _seen_by_lightning(rates: Values, losses: Values) -> tuple[Values, Values]:
    """The points whose slopes Lightning compares.

    It counts one loss too many, so that its average starts at half the first loss.
    """
    averages = _before_divergence(_corrected(losses, first=2), 4)[10:-1]
    averages = averages[np.isfinite(averages)]  # none is finite after one that is not
    return rates[10 : 10 + averages.size], averages
