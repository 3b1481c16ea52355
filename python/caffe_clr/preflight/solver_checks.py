"""Checks a solver file by itself, without its nets and their data."""

import math

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.prototxt import SOLVER_TYPES, WITH_MOMENTUM, SolverFile

_WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")
_REGULARIZATIONS = ("L2", "L1")


def check_policy(solver: SolverFile) -> None:
    """Refuse a solver whose policy or momentum patched Caffe would refuse.

    Raises:
        ClrError: says which field is wrong, its value and the remedy.
    """
    parameter, name = solver.parameter, solver.name
    try:
        policies.learning_rate(parameter, 0)
        policies.momenta(parameter, 0)
    except ValueError as error:
        hint = ""
        if parameter.lr_policy not in policies.POLICIES:
            hint = prototxt.did_you_mean(parameter.lr_policy, policies.POLICIES)
        raise ClrError(f"{name}: {error}{hint}") from None
    kind = prototxt.solver_type(parameter)
    if policies.cyclical_momentum(parameter) and kind not in WITH_MOMENTUM:
        raise ClrError(
            f"{name}: {kind} has no momentum that could cycle; remove cyclical_momentum, or use"
            f" {', '.join(WITH_MOMENTUM)}"
        )


def check_type(solver: SolverFile) -> None:
    """Refuse a solver that this Caffe cannot make, whatever its bounds and nets.

    Raises:
        ClrError: says which field is wrong, its value and the remedy.
    """
    parameter, name = solver.parameter, solver.name
    policy = policies.POLICIES.get(parameter.lr_policy)
    if policy and not prototxt.has_policy(policy.name):
        raise ClrError(
            f'{name}: lr_policy "{policy.name}": {prototxt.NO_PATCH.format(policy.patch)};'
            " use another policy"
        )
    if parameter.average_loss < 1:
        raise ClrError(f"{name}: average_loss is {parameter.average_loss}; set it to 1 or more")
    if parameter.HasField("type") and parameter.HasField("solver_type"):
        raise ClrError(f"{name}: both type and solver_type are set; keep type")
    kind = prototxt.solver_type(parameter)
    _check_known("type", kind, SOLVER_TYPES, name)
    if parameter.momentum and kind in _WITHOUT_MOMENTUM:
        raise ClrError(
            f"{name}: momentum is {parameter.momentum:g}, but {kind} has no momentum; remove it"
        )
    if kind == "RMSProp" and not 0 <= parameter.rms_decay < 1:
        raise ClrError(
            f"{name}: rms_decay is {parameter.rms_decay:g}; set it to 0 or more, and below 1"
        )
    if parameter.weight_decay:
        kind = parameter.regularization_type
        _check_known("regularization_type", kind, _REGULARIZATIONS, name)


def _check_known(field: str, value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        hint = prototxt.did_you_mean(value, known)
        raise ClrError(f'{name}: {field} "{value}" is unknown; use one of {", ".join(known)}{hint}')


def check_finite(solver: SolverFile) -> None:
    for field, value in solver.parameter.ListFields():
        if field.type != field.TYPE_FLOAT:
            continue
        for number in [value] if isinstance(value, float) else value:
            if not math.isfinite(number):
                raise ClrError(
                    f"{solver.name}: {field.name} is {number:g}; set it to a finite number"
                )


def check_max_iter(solver: SolverFile) -> None:
    _check_above_0(solver, "max_iter")


def check_iter_size(solver: SolverFile) -> None:
    _check_above_0(solver, "iter_size")


def _check_above_0(solver: SolverFile, field: str) -> None:
    value = getattr(solver.parameter, field)
    if value < 1:
        raise ClrError(f"{solver.name}: {field} is {value}; set it to 1 or more")
