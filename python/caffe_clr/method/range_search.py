"""Finds bounds without a range, by two geometric sweeps over the rate.

In each, every iteration multiplies the rate by the same factor, so that it spends as long in
every decade. The first is short and coarse: from a hundredth of the solver's base_lr until the
training loss is above its start for good, or the run diverges. The second is long, and covers
the rates below that. suggestions.swept judges it. Both judge the training loss only, so
nothing is tested.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from caffe_clr import policies
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import suggestions, sweeps
from caffe_clr.method.results import RangeTest, Step
from caffe_clr.method.sweeps import Options, Sweep
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import metrics

COARSE, FINE = 0.015, 0.12  # of the training that the bounds are for
_FEWEST, _MOST = 30, 4000  # iterations of a sweep; the paper's test takes 4,000, too
_SHORTER = 8  # the coarse sweep, where the length of the fine one is given
_BASE_LR = 0.01  # where the solver has none
_COARSE_RANGE = (1e-2, 1e4)  # times base_lr
_FINE_RANGE = (1 / 200, 2)  # times the rate above which the coarse sweep trains no more
_CHANGED = (
    "The base_lr and gamma of a sweep follow from the solver's base_lr, from --seeds, and from"
    " max_iter or --max-iter, --iterations or --epochs"
)
_START = 10  # losses at the start of a sweep


def search(
    solver: SolverFile,
    max_iter: int,
    length: int | None,
    out: Path,
    options: Options,
    on_progress: Callable[[int, int], None],
    on_warning: Callable[[str], None],
) -> RangeTest:
    """Find bounds.

    Args:
        solver: the solver.
        max_iter: the length of the training that the bounds are for.
        length: of the second sweep. Default: 12 % of max_iter, at most 4,000; the first
            takes 1.5 %.
        out: the folder to write into: sweep_1 and sweep_2.
        options, on_progress, on_warning: see range_test.range_test.

    Raises:
        ClrError: see range_test.range_test.
    """
    fine = length or min(_MOST, round(FINE * max_iter))
    coarse = length // _SHORTER if length else min(_MOST, round(COARSE * max_iter))
    lengths = [max(_FEWEST, each) for each in (coarse, fine)]
    seeds = sweeps.seeds_of(solver, options)
    steps: list[Step] = []

    def sweep(number: int, low: float, high: float) -> Sweep:
        iterations = lengths[number - 1]
        folder = out / f"sweep_{number}"
        prepared = sweeps.prepared(
            solver.parameter,
            policies.SWEEP,
            iterations,
            tests=0,
            base_lr=low,
            gamma=(high / low) ** (1 / iterations),
        )
        try:
            warnings = sweeps.check(prepared, solver.name, folder, seeds, options)
        except UsageError as error:
            raise UsageError(f"{error}. {_CHANGED}") from None
        for warning in warnings:
            if number == 1:
                on_warning(warning)
        before = sum(step.iterations for step in steps)
        return sweeps.run(
            *(prepared, folder, seeds, options),
            lambda done: on_progress(before + done, sum(lengths) * len(seeds)),
            on_warning,
        )

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
    steps.append(Step("sweep_1", low, high, first.iterations, f"trains up to {limit:.2g}"))
    at_an_end = not own / 10 < limit < high / 10
    low, high = (limit * factor for factor in _FINE_RANGE)
    second = sweep(2, low, high)
    columns = ([row[name] for row in second.losses] for name in ("iteration", "lr", "loss"))
    found = suggestions.swept(*columns, diverged_at=second.diverged_at)
    if found.max_lr.rate is None and at_an_end:
        on_warning(
            f"{solver.name}: the first sweep began at a hundredth of base_lr, {own:g}; if no rate"
            " near that trains the net, set base_lr to one that does"
        )
    outcome = found.max_lr.reason.partition("in the middle of ")
    steps.append(Step("sweep_2", low, high, second.iterations, outcome[2] or outcome[0]))
    return RangeTest(
        *(metrics.TRAINING_LOSS, seeds, second.losses, second.losses, second.diverged_at),
        *(found, second.stopped),
        iterations=sum(step.iterations for step in steps),
        steps=steps,
    )


def _limit(sweep: Sweep, low: float) -> float:
    """The last rate at which the loss is not above its start."""
    losses = np.array([row["loss"] for row in sweep.losses])
    kept = np.isfinite(losses)
    losses, rates = losses[kept], np.array([row["lr"] for row in sweep.losses])[kept]
    if losses.size < suggestions.FEWEST_TESTS:
        return low
    below = np.flatnonzero(suggestions.smoothed(losses) <= losses[:_START].mean())
    return float(rates[below[-1]]) if below.size else low
