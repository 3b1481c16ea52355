"""The learning rate and the momentum of a whole run, before any training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.preflight import solver_checks

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
    def has_cycles(self) -> bool:
        return self.solver.lr_policy in policies.WITH_CYCLE

    def cycles(self, iteration: int) -> float:
        """How many cycles are done before an iteration."""
        elapsed = max(0, iteration - int(self.solver.start_lr_policy))
        cycles = elapsed / (2 * int(self.solver.stepsize))
        return min(1, cycles) if self.solver.lr_policy == "1cycle" else cycles


def schedule(solver_files: Sequence[Path]) -> list[dict[str, Any]]:
    """The rate and the momentum at each iteration of a run, as its solvers set them.

    Several solvers are stages (the paper's Table 2): each goes on, as with
    `caffe train --snapshot`, from the max_iter of the one before to its own.
    The last iteration is max_iter - 1, the last that changes the weights.

    A run of more than 10,000 iterations is thinned to about as many at equal
    distance; first and last iterations of stages and the ends and peaks of
    cycles are always there, unless there are more than 10,000 of these in a
    stage: then each is of a cycle in so many.

    Returns:
        Rows with iteration, lr, momentum where that cycles in the run, stage (from
        1) and cycle: the number of cycles finished in the run, or None for policies
        without cycles.

    Raises:
        ClrError: a solver file cannot be used, or a stage has no iterations.
    """
    return rows(read_stages(solver_files))


def read_stages(solver_files: Sequence[Path]) -> list[Stage]:
    """The stages of a run, one for each solver file; for errors see schedule."""
    stages: list[Stage] = []
    first, step = 0, 0
    for number, file in enumerate(solver_files, start=1):
        opened = prototxt.open_solver(file)
        solver_checks.check_policy(opened)
        solver = opened.parameter
        if solver.max_iter <= 0:
            value = solver.max_iter if solver.HasField("max_iter") else "not set"
            raise ClrError(f"{file}: max_iter is {value}; set it to the iteration at which to end")
        if solver.max_iter <= first:
            raise ClrError(
                f"{file}: max_iter is {solver.max_iter}, but the stage before it ends at {first};"
                " set it above that, or swap the solvers"
            )
        step = _resume_steps(solver, first, step)
        stages.append(Stage(number, solver, first))
        first = solver.max_iter
    return stages


def _resume_steps(solver: Any, first: int, step: int) -> int:
    """Give a multistep solver the stepvalues that act as its own do after a resumption.

    Caffe keeps the number of steps taken in its snapshots, whatever the policy
    is then, and takes at most one an iteration (GetLearningRate in
    sgd_solver.cpp).

    Args:
        first: where the solver goes on.
        step: how many steps were taken before.

    Returns:
        How many are taken when it ends.
    """
    last = solver.max_iter - 1
    if solver.lr_policy == "step":
        return int(last // solver.stepsize)
    if solver.lr_policy != "multistep":
        return step
    taken = [0] * step
    for stepvalue in solver.stepvalue[step:]:
        first = max(first, stepvalue)
        taken.append(first)
        first += 1
    solver.stepvalue[:] = taken
    return sum(stepvalue <= last for stepvalue in taken)


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
    solver = stage.solver
    if solver.lr_policy == "multistep":
        begins, offsets = np.array(solver.stepvalue, np.int64), [-1, 0]
    elif solver.lr_policy == "step":
        begins, offsets = _periods(stage, 0, solver.stepsize), [-1, 0]
    elif solver.lr_policy == "decay":
        begins, offsets = np.array([solver.start_lr_policy]), [0, solver.stepsize]
    elif solver.lr_policy == "1cycle":
        begins, way = np.array([solver.start_lr_policy]), solver.stepsize
        offsets = [0, way, 2 * way]
    elif solver.lr_policy in policies.CYCLES:
        begins = _periods(stage, solver.start_lr_policy, 2 * solver.stepsize)
        offsets = [0, *_peak(solver)]
    else:
        begins, offsets = np.array([], np.int64), [0]
    return np.add.outer(begins, offsets).ravel()


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


def _periods(stage: Stage, start: int, period: int) -> Iterations:
    """The iterations at which periods that touch a stage begin."""
    first = start + max(0, stage.first - start) // period * period
    count = -(-(stage.last + 1 - first) // period)
    stride = max(1, -(-count // _MOST_ROWS))
    return np.arange(first, stage.last + 1, stride * period)


def _peak(solver: Any) -> list[int]:
    """The iterations of a cycle of which one has its highest rate.

    In mid-cycle; but where exp_range declines by more in a cycle than it rises,
    earlier: where (base_lr + (max_lr - base_lr) * p / stepsize) * gamma^p does.
    """
    rise = (solver.max_lr - solver.base_lr) / solver.stepsize
    if solver.lr_policy != "exp_range" or solver.gamma == 1 or rise == 0:
        return [solver.stepsize]
    position = -1 / math.log(solver.gamma) - solver.base_lr / rise
    within = min(max(position, 0), solver.stepsize)
    return [math.floor(within), math.ceil(within), solver.stepsize]
