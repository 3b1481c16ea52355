"""The learning rate of a whole run, before any training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from caffe_clr import advice, logs, plots, policies, prototxt, runs
from caffe_clr.console import warn
from caffe_clr.errors import ClrError

Iterations = NDArray[np.int64]

_MOST_ROWS = 10_000  # besides the cycles' ends and peaks


@dataclass(frozen=True)
class _Stage:
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

    def cycles(self, iteration: int) -> float:
        """How many cycles are done before an iteration."""
        elapsed = max(0, iteration - int(self.solver.start_lr_policy))
        return elapsed / (2 * int(self.solver.stepsize))


def schedule(solver_files: Sequence[Path]) -> list[dict[str, Any]]:
    """The rate at each iteration of a run, as its solvers set it.

    Several solvers are stages (the paper's Table 2): each goes on, as with
    `caffe train --snapshot`, from the max_iter of the one before to its own.
    The last iteration is max_iter - 1, the last that changes the weights.

    A run of more than 10,000 iterations is thinned to about as many at equal
    distance; first and last iterations of stages and the ends and peaks of
    cycles are always there, unless there are more than 10,000 of these in a
    stage: then each is of a cycle in so many.

    Returns:
        Rows with iteration, lr, stage (from 1) and cycle: the number of cycles
        finished in the run, or None for policies without cycles.

    Raises:
        ClrError: a solver file cannot be used, or a stage has no iterations.
    """
    return _rows(_stages(solver_files))


def show(
    solver_files: Sequence[Path], out: Path, console: Console, log: Path | None = None
) -> None:
    """Write schedule.csv and schedule.png into `out`, and print a row for each stage.

    Args:
        log: of a run of these solvers; its rates are compared with the schedule.

    Raises:
        ClrError: see schedule and logs.read_rates; or `out` cannot be written.
    """
    stages = _stages(solver_files)
    rows = _rows(stages)
    logged = logs.read_rates(log) if log else {}
    runs.make_folder(out)
    files = out / "schedule.csv", out / "schedule.png"
    runs.write_csv(rows, files[0])
    plots.plot_schedule(rows, logged, files[1])
    console.print(_table(stages, rows))
    for stage, file in zip(stages, solver_files, strict=True):
        warn(advice.advise(str(file), stage.solver, stage.first, None), console)
    lost = [row for row in rows if not math.isfinite(row["lr"])]
    if lost:
        console.print(f"The rate is {lost[0]['lr']} at iteration {lost[0]['iteration']:,}")
    if logged:
        console.print(_comparison(stages, logged))
    if len(rows) <= stages[-1].last:
        console.print(f"{len(rows):,} of {stages[-1].last + 1:,} iterations are written")
    console.print(f"Wrote {files[0]}, {files[1]}", soft_wrap=True, markup=False)


def _stages(solver_files: Sequence[Path]) -> list[_Stage]:
    stages: list[_Stage] = []
    first, step = 0, 0
    for number, file in enumerate(solver_files, start=1):
        solver = prototxt.read_solver(file)
        if solver.max_iter <= 0:
            raise ClrError(
                f"{file}: max_iter is {solver.max_iter}; set it to the iteration at which to end"
            )
        if solver.max_iter <= first:
            raise ClrError(
                f"{file}: max_iter is {solver.max_iter}, but the stage before it ends at {first};"
                " set it above, or exchange the solvers"
            )
        step = _resume_steps(solver, first, step)
        stages.append(_Stage(number, solver, first))
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


def _rows(stages: list[_Stage]) -> list[dict[str, Any]]:
    spacing = -(-(stages[-1].last + 1) // _MOST_ROWS)
    return [row for stage in stages for row in _stage_rows(stage, spacing)]


def _stage_rows(stage: _Stage, spacing: int) -> Iterator[dict[str, Any]]:
    ends = np.array([stage.first, stage.last])
    spaced = np.arange(stage.first, stage.last, spacing)
    iterations = np.unique(np.concatenate([ends, spaced, _marks(stage)]))
    has_cycles = stage.solver.lr_policy in policies.CYCLES
    for iteration, rate in zip(iterations, stage.rates(iterations), strict=True):
        yield {
            "iteration": int(iteration),
            "lr": float(rate),
            "stage": stage.number,
            "cycle": int(stage.cycles(int(iteration))) if has_cycles else None,
        }


def _marks(stage: _Stage) -> Iterations:
    """Where the rate of a stage turns or steps; if that is often, of one cycle in so many."""
    solver = stage.solver
    if solver.lr_policy == "multistep":
        begins, offsets = np.array(solver.stepvalue, np.int64), [-1, 0]
    elif solver.lr_policy == "step":
        begins, offsets = _periods(stage, 0, solver.stepsize), [-1, 0]
    elif solver.lr_policy == "decay":
        begins, offsets = np.array([solver.start_lr_policy]), [0, solver.stepsize]
    elif solver.lr_policy in policies.CYCLES:
        begins = _periods(stage, solver.start_lr_policy, 2 * solver.stepsize)
        offsets = [0, *_peak(solver)]
    else:
        begins, offsets = np.array([], np.int64), [0]
    marks = np.add.outer(begins, offsets).ravel()
    return marks[(stage.first <= marks) & (marks <= stage.last)]


def _periods(stage: _Stage, start: int, period: int) -> Iterations:
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


def _table(stages: list[_Stage], rows: list[dict[str, Any]]) -> Table:
    table = Table(
        *("stage", "policy"),
        title="Learning rate",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("iterations", "cycles", "first", "highest", "lowest", "last"):
        table.add_column(heading, justify="right")
    for stage in stages:
        rates = [row["lr"] for row in rows if row["stage"] == stage.number]
        finite = [rate for rate in rates if math.isfinite(rate)] or [math.nan]
        cycles = ""
        if stage.solver.lr_policy in policies.CYCLES:
            cycles = f"{round(stage.cycles(stage.last + 1) - stage.cycles(stage.first), 2):g}"
        table.add_row(
            str(stage.number),
            stage.solver.lr_policy,
            f"{stage.first:,} to {stage.last:,}",
            cycles,
            *(f"{rate:.6g}" for rate in (rates[0], max(finite), min(finite), rates[-1])),
        )
    return table


def _comparison(stages: list[_Stage], logged: dict[int, float]) -> str:
    """How many logged rates are those of the schedule, and the first that is not."""
    rates = {
        iteration: float(rate)
        for stage in stages
        if (within := [i for i in logged if stage.first <= i <= stage.last])
        for iteration, rate in zip(within, stage.rates(within), strict=True)
    }
    max_lr = max(stage.solver.max_lr for stage in stages)
    same = logs.agree([logged[iteration] for iteration in rates], rates.values(), max_lr)
    differing = [iteration for iteration, agrees in zip(rates, same, strict=True) if not agrees]
    text = f"Log: {len(logged):,} rates, {len(differing):,} differ from the schedule"
    if differing:
        first = differing[0]
        text += (
            f", first at iteration {first:,}:"
            f" logged {logged[first]:g}, scheduled {rates[first]:.6g}"
        )
    beyond = len(logged) - len(rates)
    return text + (f"; {beyond:,} are after its end" if beyond else "")
