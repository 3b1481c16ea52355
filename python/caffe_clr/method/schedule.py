"""The learning rate and the momentum of a whole run, before any training."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.policies import Policy
from caffe_clr.preflight import solver_checks
from caffe_clr.system.paths import StrPath, paths

Iterations = NDArray[np.int64]

_MOST_ROWS = 10_000  # besides the cycles' ends and peaks


@dataclass(frozen=True)
class Stage:
    """One solver of a run, from iteration `first` up to its max_iter."""

    number: int
    solver: Any
    first: int

    @property
    def last(self) -> int:
        return int(self.solver.max_iter) - 1

    def rates(self, iterations: ArrayLike) -> policies.Rates:
        with np.errstate(all="ignore"):  # nan and inf are shown
            return policies.learning_rate(self.solver, iterations)

    def momenta(self, iterations: ArrayLike) -> policies.Rates:
        return policies.momenta(self.solver, iterations)

    @property
    def policy(self) -> Policy:
        return policies.policy_of(self.solver)

    @property
    def has_cycles(self) -> bool:
        return self.policy.cycles > 0

    def cycles(self, iteration: int) -> float:
        """The number of cycles finished before an iteration."""
        elapsed = max(0, iteration - int(self.solver.start_lr_policy))
        return min(self.policy.cycles, elapsed / (2 * int(self.solver.stepsize)))


def schedule(solver_files: StrPath | Sequence[StrPath]) -> list[dict[str, Any]]:
    """Compute the learning rate and the momentum over a run from its solvers.

    Several solvers are the stages of one run (the paper's Table 2): each continues from
    the max_iter of the one before, as with `caffe train --snapshot`. The last row is at
    max_iter - 1, the last iteration that changes the weights.

    A run of more than 10,000 iterations is thinned to about that many, evenly spaced. The
    first and last iterations of each stage and the ends and peaks of cycles are always
    included, unless a stage has more than 10,000 of them; then every n-th cycle has them.

    Returns:
        Rows with iteration, lr, momentum (if it cycles in the run), stage (from 1) and
        cycle: the number of cycles finished, or None if the policy has no cycles.

    Raises:
        ClrError: a solver file cannot be used, or a stage has no iterations.
    """
    return rows(read_stages(paths(solver_files)))


def read_stages(solver_files: Sequence[Path]) -> list[Stage]:
    """Read the stages of a run, one for each solver file; for errors see `schedule`."""
    stages: list[Stage] = []
    first, step = 0, 0
    for number, file in enumerate(solver_files, start=1):
        opened = prototxt.open_solver(file)
        solver_checks.check_policy(opened)
        solver = opened.parameter
        if solver.max_iter <= 0:
            value = solver.max_iter if solver.HasField("max_iter") else "not set"
            raise ClrError(
                f"{file}: max_iter is {value}; set it to the iteration at which the run ends"
            )
        if solver.max_iter <= first:
            raise ClrError(
                f"{file}: max_iter is {solver.max_iter}, but the stage before it ends at {first};"
                " set it above that, or swap the solvers"
            )
        step = policies.policy_of(solver).resume(solver, first, step)
        stages.append(Stage(number, solver, first))
        first = solver.max_iter
    return stages


def rows(stages: list[Stage]) -> list[dict[str, Any]]:
    """The rows of schedule."""
    spacing = -(-(stages[-1].last + 1) // _MOST_ROWS)
    moving = any(policies.cyclical_momentum(stage.solver) for stage in stages)
    return [row for stage in stages for row in _stage_rows(stage, spacing, moving)]


def _stage_rows(stage: Stage, spacing: int, moving: bool) -> Iterator[dict[str, Any]]:
    ends = np.array([stage.first, stage.last])
    spaced = np.arange(stage.first, stage.last, spacing)
    marks = np.concatenate([_marks(stage), _momentum_marks(stage)])
    within = marks[(stage.first <= marks) & (marks <= stage.last)]
    iterations = np.unique(np.concatenate([ends, spaced, within]))
    values = zip(iterations, stage.rates(iterations), stage.momenta(iterations), strict=True)
    for iteration, rate, momentum in values:
        yield {
            "iteration": int(iteration),
            "lr": float(rate),
            **({"momentum": float(momentum)} if moving else {}),
            "stage": stage.number,
            "cycle": int(stage.cycles(int(iteration))) if stage.has_cycles else None,
        }


def _marks(stage: Stage) -> Iterations:
    """Where the rate of a stage turns or steps; if that is often, of one cycle in so many."""
    begins, offsets = stage.policy.marks(stage.solver)
    first = max(0, bisect.bisect_right(begins, stage.first) - 1)
    stride = max(1, -(-(len(begins) - first) // _MOST_ROWS))
    return np.add.outer(np.array(begins[first::stride], np.int64), offsets).ravel()


def _momentum_marks(stage: Stage) -> Iterations:
    """Where the momentum of a stage turns, before and after it where that is in between."""
    cycle = policies.cyclical_momentum(stage.solver)
    if not cycle:
        return np.array([], np.int64)
    start, half = int(stage.solver.start_lr_policy), float(cycle[1])
    first, last = (max(0, end - start) // half for end in (stage.first, stage.last))
    stride = max(1, (last - first) // _MOST_ROWS)
    turns = start + half * np.arange(first, last + 1, stride)
    return np.concatenate([np.floor(turns), np.ceil(turns)]).astype(np.int64)
