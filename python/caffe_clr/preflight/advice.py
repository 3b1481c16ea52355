"""Warns of runs that are not as the paper advises (L. N. Smith, arXiv 1506.01186).

The advice on a single cycle is from his later report (arXiv 1803.09820).

A run has one or more stages. Each is a solver that continues from the solver state of the one
before, as in the paper's Table 2.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, counted
from caffe_clr.preflight import epochs
from caffe_clr.prototxt import SolverFile

FEWEST_CYCLES = epochs.CYCLES[0]


def check_stages(stages: Sequence[SolverFile]) -> list[str]:
    """Refuse stages that cannot continue from one another.

    Args:
        stages: the solver of each stage, which solver_checks.check_policy has passed.

    Returns:
        A warning for each of the paper's policies that does not start where the stage
        before it ends.

    Raises:
        ClrError: a max_iter is not above that of the stage before, or solver types or
            train nets differ, so that the solver state does not fit.
    """
    warnings = []
    for number, (earlier, later) in enumerate(pairwise(stages), 2):
        before, previous = earlier.name, earlier.parameter
        name, parameter = later.name, later.parameter
        if parameter.max_iter <= previous.max_iter:
            raise ClrError(
                f"stage {number} ({name}): max_iter is {parameter.max_iter}, but stage"
                f" {number - 1} ({before}) ends at {previous.max_iter};"
                " set it above that, because iterations continue from there"
            )
        solver_types = [prototxt.solver_type(solver) for solver in (previous, parameter)]
        if solver_types[0] != solver_types[1]:
            raise ClrError(
                f"stage {number} ({name}): the solver is {solver_types[1]}, but {solver_types[0]}"
                f" in stage {number - 1} ({before}); the solver state would not fit: use one type"
            )
        if difference := _difference(_trained_layers(earlier), _trained_layers(later)):
            raise ClrError(
                f"stage {number} ({name}): its net differs from that of stage {number - 1}"
                f" ({before}), so the solver state would not fit: {difference}"
            )
        if effect := _effect_of_start(parameter, previous.max_iter):
            warnings.append(
                f"stage {number} ({name}) starts its policy at {parameter.start_lr_policy}, but"
                f" stage {number - 1} ends at {previous.max_iter}: {effect};"
                f" set start_lr_policy: {previous.max_iter}"
            )
    return warnings


def advise(name: str, parameter: Any, start: int, epoch: int | None) -> list[str]:
    """Warn of a cyclical policy that is not as the paper advises.

    With repeated cycles, it warns of a run that ends within a cycle, of fewer than three
    cycles, of a stepsize outside 2 to 10 epochs (section 3.2), and of cycles that have
    been halved to almost nothing (section 3.1). With a single cycle, it warns of a run
    that ends with the cycle or before. A range test, half a cycle, gets no warning.

    Args:
        name: the solver file, for the messages.
        parameter: its SolverParameter, which solver_checks.check_policy has passed.
        start: the iteration at which the run, or this stage of it, starts.
        epoch: iterations per epoch; None if unknown.

    Returns:
        The warnings.
    """
    policy = policies.policy_of(parameter)
    if not policy.cycles:
        return []
    end, cycle = parameter.max_iter, 2 * parameter.stepsize
    first = parameter.start_lr_policy
    begin = max(start, first)
    if begin == first and end == first + parameter.stepsize:
        return []
    if end <= first:
        return [
            f"{name}: its policy starts at {first}, after the run's end at {end}: the rate stays"
            f" at {parameter.base_lr:g}; lower start_lr_policy or raise max_iter"
        ]
    if policy.cycles == 1:
        return _advise_one_cycle(name, end, first, first + cycle)
    warnings = []
    if end - begin < FEWEST_CYCLES * cycle:
        whole = first + (-((first - begin) // cycle) + FEWEST_CYCLES) * cycle
        warnings.append(
            f"{name}: {end - begin} iterations are fewer than {FEWEST_CYCLES} cycles of {cycle},"
            f" the minimum that the paper advises (section 3.2): set max_iter: {whole}, or a"
            " smaller stepsize"
        )
    elif (end - first) % cycle:
        within = end - (end - first) % cycle
        warnings.append(
            f"{name}: max_iter {end} is within a cycle of {cycle} iterations; accuracy is best at"
            f" a cycle's end (section 3.2): set max_iter: {within} or {within + cycle}"
        )
    if policy.next_height == 1 / 2 and end - first >= policies.HALVED_AWAY * cycle:
        warnings.append(
            f"{name}: {(end - first) // cycle} cycles of {policy.name}; from cycle"
            f" {policies.HALVED_AWAY} on the rate rises by 1/{2 ** (policies.HALVED_AWAY - 1)} of"
            " max_lr - base_lr or less (section 3.1): use a larger stepsize, or triangular"
        )
    return warnings + _advise_stepsize(name, parameter.stepsize, epoch)


def _advise_one_cycle(name: str, end: int, first: int, cycle_end: int) -> list[str]:
    if cycle_end < end:
        return []
    return [
        f"{name}: the run ends at {end}, and its one cycle at {cycle_end}; some iterations should"
        " follow the cycle, at a rate far below base_lr (arXiv 1803.09820): raise max_iter above"
        f" {cycle_end}, or set stepsize: {max(1, round(policies.ONE_CYCLE * (end - first) / 2))}"
    ]


def _advise_stepsize(name: str, stepsize: int, epoch: int | None) -> list[str]:
    if epoch is None:
        return []
    least, most = (number * epoch for number in epochs.ADVISED)
    if least <= stepsize <= most:
        return []
    relation = f"less than {epochs.ADVISED[0]}" if stepsize < least else f"over {epochs.ADVISED[1]}"
    return [
        f"{name}: stepsize {stepsize} is {relation} epochs of {epoch} iterations"
        f" (section 3.2): set it to {least} to {most}"
    ]


def _trained_layers(solver: SolverFile) -> list[Any]:
    """The layers with bottoms of a solver's train net, without their include and exclude."""
    layers = []
    for layer in solver.train_net.parameter.layer:
        if layer.bottom:
            trained = type(layer)()
            trained.CopyFrom(layer)
            trained.ClearField("include")
            trained.ClearField("exclude")
            layers.append(trained)
    return layers


def _difference(previous: list[Any], layers: list[Any]) -> str | None:
    """The first of two nets' layers that differs, in words."""
    for layer, other in zip(layers, previous, strict=False):
        if layer.name != other.name:
            return f'it has layer "{layer.name}" instead of "{other.name}"'
        if layer != other:
            return f'layer "{layer.name}" differs'
    if len(layers) > len(previous):
        return f'layer "{layers[len(previous)].name}" is new'
    if len(layers) < len(previous):
        return f'layer "{previous[len(layers)].name}" is missing'
    return None


def _effect_of_start(parameter: Any, previous_end: int) -> str | None:
    """What becomes of a rate whose policy does not begin where the stage before ends."""
    policy = policies.policy_of(parameter)
    if not policy.bounded:
        return None
    elapsed = previous_end - parameter.start_lr_policy
    if elapsed < 0:
        rate = getattr(parameter, policy.start)
        return f"the rate stays at {rate:g} for {counted(-elapsed, 'iteration')}"
    if not policy.cycles:
        return f"its first {elapsed:,} iterations are skipped" if elapsed else None
    cycles, position = divmod(elapsed, 2 * parameter.stepsize)
    if cycles >= policy.cycles:
        return "its cycle is skipped"
    if position:
        return "the rate starts partway through a cycle"
    if cycles and policy.next_height != 1:
        return f"its first {'cycle is' if cycles == 1 else f'{cycles} cycles are'} skipped"
    return None
