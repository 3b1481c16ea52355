"""Writes the solvers that a range test suggests: its bounds, and a schedule that ends low."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method.suggestions import Suggestions
from caffe_clr.method.sweeps import Options, with_policy
from caffe_clr.policies import Policy
from caffe_clr.preflight import epochs
from caffe_clr.prototxt import SolverFile
from caffe_clr.system.files import replacing

ONE_CYCLE_RATIO = 10  # of max_lr to base_lr, as arXiv 1803.09820 advises
_EPOCHS_A_STEP = 4  # the paper: 2 to 10
_CYCLES = range(epochs.CYCLES[0], policies.HALVED_AWAY)
_CYCLING = 0.8  # of a run with several cycles; the rate falls in the rest
_DECLINED = 0.1  # of the bounds of exp_range, at the end of the last cycle
_LOWEST = 0.01  # of the rate at their end, at the end of the run
_FEWEST_ITERATIONS, _MOST_ITERATIONS = 10, 2**31 - 1
_OTHERS = ("1cycle", "triangular2", "triangular", "exp_range")


@dataclass(frozen=True)
class Plan:
    """What will be written: a policy, and the iterations of the whole run."""

    policy: Policy
    max_iter: int


def plan(solver: SolverFile, options: Options) -> Plan:
    """Choose the policy and the length of the new solver.

    Raises:
        UsageError: the policy has no cycles, or this Caffe lacks it, or there is no max_iter.
    """
    own = policies.POLICIES.get(solver.parameter.lr_policy)
    policy: Policy | None
    if options.policy is not None:
        policy = policies.POLICIES.get(options.policy)
    elif own and own.cycles:
        policy = own
    else:
        *others, last = policies.SUGGESTED
        policy = next((each for each in others if prototxt.has_policy(each.name)), last)
    if policy is None or not policy.cycles:
        names = [each.name for each in policies.POLICIES.values() if each.cycles]
        raise UsageError(f"--policy {options.policy}: give one of {', '.join(names)}")
    if not prototxt.has_policy(policy.name):
        where = "--policy" if options.policy is not None else f"{solver.name}: lr_policy"
        missing = prototxt.NO_PATCH.format(policy.patch)
        raise UsageError(f'{where} "{policy.name}": {missing}; give another --policy')
    max_iter = solver.parameter.max_iter if options.max_iter is None else options.max_iter
    if max_iter < _FEWEST_ITERATIONS:
        where = "--max-iter" if options.max_iter is not None else f"{solver.name}: max_iter"
        raise UsageError(
            f"{where} {max_iter}: give the length of the training that the bounds are for, at"
            f" least {_FEWEST_ITERATIONS}"
        )
    if max_iter > _MOST_ITERATIONS:
        raise UsageError(f"--max-iter {max_iter}: give {_MOST_ITERATIONS:,} or less")
    return Plan(policy, max_iter)


def names(policy: Policy) -> str:
    """A regular expression for the files that `write` writes."""
    return rf"{policy.name}(_\d)?_solver\.prototxt"


def policy_of(file: Path) -> Policy:
    """The policy of a file that `write` has written."""
    found = (each for each in policies.POLICIES.values() if re.fullmatch(names(each), file.name))
    return next(found)


def write(
    given: SolverFile,
    plan: Plan,
    found: Suggestions,
    out: Path,
    images: int | None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> list[Path]:
    """Write the solver with what was suggested, or the solvers of its stages.

    A file that is there stays as it is, because its user may have changed it.

    A single cycle takes nine tenths of the run. Of a run with several cycles, whole cycles
    of about 4 epochs up and 4 down take four fifths, and a second stage lowers the rate
    to a hundredth of where they end: a net is best after its rate has been lowered.

    Args:
        on_warning: called with a message for each file that differs from what is suggested.

    Returns:
        The files, in the order of the stages; none if no bounds are suggested.
    """
    if found.max_lr.rate is None:
        return []
    max_lr = float(f"{found.max_lr.rate:.2g}")
    write_stages = _one_cycle if plan.policy.cycles == 1 else _cycles
    stages = write_stages(given, plan, found, max_lr, images)
    others = [name for name in _OTHERS if name != plan.policy.name and prototxt.has_policy(name)]
    numbers = [f"_{number}" for number in range(1, len(stages) + 1)] if len(stages) > 1 else [""]
    files = [out / f"{plan.policy.name}{number}_solver.prototxt" for number in numbers]
    command = f"caffe-clr train {' '.join(file.name for file in files)}"
    for number, (file, (solver, remarks)) in enumerate(zip(files, stages, strict=True), 1):
        if solver.snapshot_prefix:  # without one, Caffe names snapshots after the solver file
            solver.snapshot_prefix = _prefix(solver.snapshot_prefix, plan.policy.name)
        lines = [
            f"{given.name} with the bounds and the schedule that caffe-clr suggests",
            *([f"Stage {number} of 2: `{command}` trains both"] if files[1:] else []),
            *remarks,
            f"Other schedules with these bounds: --policy {', '.join(others)}",
        ]
        text = "".join(f"# {line}.\n" for line in lines) + text_format.MessageToString(solver)
        content = text.encode(errors="surrogateescape")  # a name that is no UTF-8 stays as it is
        if not file.exists():
            with replacing(file) as partial:
                partial.write_bytes(content)
        elif file.read_bytes() != content:
            on_warning(
                f"{file} is kept, but differs from what is now suggested; rename it to have that"
                " written"
            )
    return files


def _prefix(given: str, policy: str) -> str:
    """Where the snapshots do not replace those of the given solver; a folder stays one."""
    if given.endswith("/") or Path(given).is_dir():
        return str(Path(given) / policy)
    prefix = Path(given).with_name(policy)
    return str(prefix.with_name(f"{policy}_suggested") if prefix == Path(given) else prefix)


def one_cycle(parameter: Any, plan: Plan, max_lr: float) -> Any:
    """A copy of a solver with a single cycle up to max_lr."""
    stepsize = max(1, round(policies.ONE_CYCLE * plan.max_iter / 2))
    base_lr = float(f"{max_lr / ONE_CYCLE_RATIO:.2g}")
    solver = with_policy(
        parameter, plan.policy, stepsize, base_lr=base_lr, max_lr=max_lr, stepsize=stepsize
    )
    solver.max_iter = plan.max_iter
    return solver


def _one_cycle(
    given: SolverFile, plan: Plan, found: Suggestions, max_lr: float, images: int | None
) -> list[tuple[Any, list[str]]]:
    return [
        (
            one_cycle(given.parameter, plan, max_lr),
            [
                f"max_lr: {found.max_lr.reason}",
                "base_lr: a tenth of max_lr, as advised for a single cycle (arXiv 1803.09820)",
                f"stepsize: the cycle takes {policies.ONE_CYCLE:.0%} of max_iter; after it, the"
                " rate stays far below base_lr",
                "1cycle: one high rate early, and a low one at the end",
            ],
        )
    ]


def _cycles(
    given: SolverFile, plan: Plan, found: Suggestions, max_lr: float, images: int | None
) -> list[tuple[Any, list[str]]]:
    cycling = _CYCLING * plan.max_iter / 2
    try:
        fit = cycling / (_EPOCHS_A_STEP * epochs.epoch(given, images=images).iterations)
    except ClrError:  # the length of an epoch is unknown
        fit = 0
    cycles = min(max(round(fit), _CYCLES[0]), _CYCLES[-1])
    stepsize = int(cycling // cycles)
    base_lr = float(f"{found.base_lr.rate:.2g}")
    bounds = {"base_lr": base_lr, "max_lr": max_lr}
    cyclical = with_policy(given.parameter, plan.policy, stepsize, **bounds, stepsize=stepsize)
    cyclical.max_iter = 2 * stepsize * cycles
    remarks = [f"base_lr: {found.base_lr.reason}", f"max_lr: {found.max_lr.reason}"]
    if "gamma" in plan.policy.fields:
        cyclical.gamma, why = _gamma(given.parameter, plan, cyclical.max_iter)
        remarks.append(f"gamma: {why}")
    rest = plan.max_iter - cyclical.max_iter
    end = float(policies.learning_rate(cyclical, cyclical.max_iter))
    bounds = {"base_lr": float(f"{_LOWEST * end:.2g}"), "max_lr": float(f"{end:.2g}")}
    falling = with_policy(given.parameter, policies.FALLING, stepsize, **bounds, stepsize=rest)
    falling.start_lr_policy = cyclical.max_iter
    falling.max_iter = plan.max_iter
    if policies.cyclical_momentum(falling):  # a low rate goes with the momentum at a cycle's end
        falling.ClearField("cyclical_momentum")
    return [
        (cyclical, [*remarks, f"stepsize: {cycles} whole cycles in four fifths of the run"]),
        (falling, ["The rate falls from where the cycles end to a hundredth of it"]),
    ]


def _gamma(own: Any, plan: Plan, cycling: int) -> tuple[float, str]:
    """The gamma of a solver and its reason: the given solver's own, if it has one."""
    if own.lr_policy != plan.policy.name or not 0 < own.gamma <= 1:
        return _DECLINED ** (
            1 / cycling
        ), f"both bounds fall to {_DECLINED:.0%} until the cycles end"
    if own.max_iter in (0, plan.max_iter):
        return own.gamma, "that of the given solver"
    gamma = own.gamma ** (own.max_iter / plan.max_iter)
    return (
        gamma,
        f"falls as far in {plan.max_iter} iterations as that of the given in {own.max_iter}",
    )
