"""Finds bounds without a range, by two geometric sweeps over the rate.

In each, every iteration multiplies the rate by the same factor, so that it spends as long in
every decade. The first is short and coarse: from a hundredth of the solver's base_lr until the
training loss is above its start for good, or the run diverges. The second is long, and covers
the rates below that. suggestions.swept judges it. Both judge the training loss only, so
nothing is tested.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from caffe_clr.errors import ClrError
from caffe_clr.method import suggestions
from caffe_clr.method.suggestions import Suggestions
from caffe_clr.method.sweeps import Step, Sweep
from caffe_clr.prototxt import SolverFile

COARSE, FINE = 0.015, 0.12  # of the training that the bounds are for
_FEWEST, _MOST = 30, 4000  # iterations of a sweep; the paper's test takes 4,000, too
_SHORTER = 8  # the coarse sweep, where the length of the fine one is given
_BASE_LR = 0.01  # where the solver has none
_COARSE_RANGE = (1e-2, 1e4)  # times base_lr
_FINE_RANGE = (1 / 200, 2)  # times the rate above which the coarse sweep trains no more
_START = 10  # losses at the start of a sweep


@dataclass(frozen=True)
class Search:
    """What was found, the last sweep, and both as steps."""

    suggestions: Suggestions
    last: Sweep
    steps: Sequence[Step]


def lengths(max_iter: int, length: int | None) -> tuple[int, int]:
    """The iterations of both sweeps.

    Args:
        max_iter: the length of the training that the bounds are for.
        length: of the second sweep. Default: 12 % of max_iter, at most 4,000; the first
            takes 1.5 %.
    """
    fine = length or min(_MOST, round(FINE * max_iter))
    coarse = length // _SHORTER if length else min(_MOST, round(COARSE * max_iter))
    return max(_FEWEST, coarse), max(_FEWEST, fine)


def search(
    solver: SolverFile,
    sweep: Callable[[int, float, float], Sweep],
    on_warning: Callable[[str], None],
    guess: float | None = None,
) -> Search:
    """Find bounds.

    Args:
        solver: the solver; its base_lr is where the first sweep looks.
        sweep: trains sweep 1 or 2, from one rate to another.
        on_warning: called with a message if base_lr is far from any rate that trains.
        guess: see suggestions.swept.

    Raises:
        ClrError: base_lr is negative, or the loss is not finite from the start.
    """
    own = float(solver.parameter.base_lr or _BASE_LR)
    if own < 0:
        raise ClrError(f"{solver.name}: base_lr is {own:g}; set it above 0")
    low, high = (own * factor for factor in _COARSE_RANGE)
    first = sweep(1, low, high)
    if not any(math.isfinite(row["loss"]) for row in first.losses):
        raise ClrError(
            f"{solver.name}: the training loss is not finite from the first iteration, before the"
            " rate matters; check the data, the labels and the weights"
        )
    limit = _limit(first, low)
    steps = [Step("sweep_1", low, high, first.iterations, f"trains up to {limit:.2g}")]
    at_an_end = not own / 5 < limit < high / 10
    low, high = (limit * factor for factor in _FINE_RANGE)
    second = sweep(2, low, high)
    columns = ([row[name] for row in second.losses] for name in ("iteration", "lr", "loss"))
    found = suggestions.swept(*columns, diverged_at=second.diverged_at, guess=guess)
    if found.max_lr.rate is None and at_an_end:
        on_warning(
            f"{solver.name}: the first sweep began at a hundredth of base_lr, {own:g}; if no rate"
            " near that trains the net, set base_lr to one that does"
        )
    outcome = found.max_lr.reason.partition("in the middle of ")
    steps.append(Step("sweep_2", low, high, second.iterations, outcome[2] or outcome[0]))
    return Search(found, second, steps)


def _limit(sweep: Sweep, low: float) -> float:
    """The last rate at which the loss is not above its start."""
    losses = np.array([row["loss"] for row in sweep.losses])
    kept = np.isfinite(losses)
    losses, rates = losses[kept], np.array([row["lr"] for row in sweep.losses])[kept]
    if losses.size < suggestions.FEWEST_TESTS:
        return low
    below = np.flatnonzero(suggestions.smoothed(losses) <= losses[:_START].mean())
    return float(rates[below[-1]]) if below.size else low
