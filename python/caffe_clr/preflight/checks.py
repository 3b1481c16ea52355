"""Checks a solver before Caffe gets it, because a failed CHECK in Caffe ends the process.

Every command that trains or plans a training runs the same list of checks, in the same order.
They need the SolverParameter and the files that it and its nets name, but not `import
caffe`. `solvers.check_layers` and `label_range.check` check layer types and labels in the
process that trains.
"""

import os
from collections.abc import Callable
from typing import Any

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.preflight import data_layers, epochs, solver_checks
from caffe_clr.prototxt import SolverFile

_PREFETCHING = ("Data", "ImageData", "WindowData")


def check_run(solver: SolverFile, *, gpu: int | None = None) -> list[str]:
    """Refuse a solver that Caffe would abort on, or that would train nothing.

    The rules are those of solver.cpp, sgd_solvers.hpp and net.cpp in Caffe's
    source, and those of `data_layers`. Relative paths are relative to the
    working directory, as for `caffe train`.

    Args:
        solver: the solver as Caffe will get it.
        gpu: number of the GPU to run on; None for the CPU.

    Returns:
        Warnings on settings that Caffe accepts but you hardly want.

    Raises:
        ClrError: says which file, layer and field is wrong, and how to fix it.
    """
    for check in _CHECKS:
        check(solver)
    return [
        *_warn_of_no_test_iter(solver),
        *_warn_of_mode(solver, gpu),
        *_warn_of_outputs(solver),
        *_warn_of_coverage(solver),
    ]


def check_unfinished(solver: SolverFile) -> None:
    """Check a solver like `check_run`, except for what may still be missing.

    The policy with its bounds and stepsize, max_iter, the data and the weights are not
    checked.

    Raises:
        ClrError: see check_run.
    """
    for check in _CHECKS:
        if check not in _OF_A_RUN:
            check(solver)


def _check_tests(solver: SolverFile) -> None:
    interval = solver.parameter.test_interval
    if solver.nets[1:] and interval < 1:
        raise ClrError(
            f"{solver.name}: test_interval is {interval}, but there are test nets;"
            " set it to the iterations between two tests"
        )


def _check_prefetch(solver: SolverFile) -> None:
    """Refuse layers that would wait for their own data for ever (base_data_layer.cpp)."""
    for net in solver.nets:
        for layer in net.parameter.layer:
            if layer.type in _PREFETCHING and layer.data_param.prefetch < 1:
                raise ClrError(
                    f'{net.name}: layer "{layer.name}": prefetch is 0, so no batch'
                    " is ever read; set it to 1 or more, or remove it"
                )


def _check_data(solver: SolverFile) -> None:
    for net in solver.nets:
        data_layers.check(net)


def _check_weights(solver: SolverFile) -> None:
    # a field that came after Caffe 1.0
    for models in map(os.fsdecode, getattr(solver.parameter, "weights", ())):
        for model in models.split(","):
            prototxt.check_file(model.strip(), f"{solver.name}: weights")


_CHECKS: tuple[Callable[[SolverFile], None], ...] = (
    solver_checks.check_policy,
    solver_checks.check_finite,
    solver_checks.check_max_iter,
    solver_checks.check_iter_size,
    solver_checks.check_type,
    _check_tests,
    _check_prefetch,
    _check_data,
    _check_weights,
)
_OF_A_RUN = (
    solver_checks.check_policy,
    solver_checks.check_max_iter,
    _check_data,
    _check_weights,
)


def warn_of_no_tests(solver: SolverFile) -> list[str]:
    """A warning if a solver tests nothing, with the reason and the remedy."""
    if solver.tested_nets:
        return []
    parameter = solver.parameter
    if not any(parameter.test_iter):
        reason, remedy = "it has no test_iter above 0", "set test_iter, and test_interval"
    else:
        reason = f"test_interval {parameter.test_interval} is beyond max_iter {parameter.max_iter}"
        remedy = "set test_interval to that or less"
    return [
        f"{solver.name}: nothing is tested, because {reason}; only the training loss can be judged."
        f" To test, {remedy}"
    ]


def _warn_of_no_test_iter(solver: SolverFile) -> list[str]:
    interval = solver.parameter.test_interval
    if not interval or solver.test_nets:
        return []
    return [
        f"{solver.name}: test_interval is {interval}, but nothing is tested without test_iter;"
        " set it"
    ]


def _warn_of_mode(solver: SolverFile, gpu: int | None) -> list[str]:
    """A warning, if a solver asks for a GPU and is trained on the CPU, where gpu is None."""
    parameter = solver.parameter
    if gpu is None and parameter.HasField("solver_mode") and parameter.solver_mode:
        return [
            f"{solver.name}: solver_mode is GPU, but this run is on the CPU; to train on a GPU,"
            " give --gpu"
        ]
    return []


def _warn_of_outputs(solver: SolverFile) -> list[str]:
    """A warning for each test net whose every top is some layer's bottom (Net::Init)."""
    tested = solver.test_nets if solver.tested_nets else []
    return [
        f"{net.name}: the TEST phase has no output, so a test shows nothing; give the loss or an"
        " Accuracy layer a top"
        for net in tested
        if net.parameter.layer and not _outputs(net.parameter)
    ]


def _outputs(net: Any) -> set[str]:
    outputs: set[str] = set()
    for layer in net.layer:
        outputs = (outputs - set(layer.bottom)) | set(layer.top)
    return outputs


def _warn_of_coverage(solver: SolverFile) -> list[str]:
    """A warning for each test that is not of every image once."""
    warnings: list[str] = []
    if not solver.tested_nets:
        return warnings
    pairs = zip(solver.parameter.test_iter, epochs.test_images(solver), strict=True)
    for test_iter, (images, batch_size) in pairs:
        if not images or not batch_size or test_iter * batch_size in (0, images):
            continue
        tested = max(0, test_iter) * batch_size
        what = "fewer than" if tested < images else "more than"
        if images % batch_size:
            batches = images // batch_size
            remedy = (
                f"no test_iter fits: {batches} leaves out {images % batch_size},"
                f" {batches + 1} repeats {batch_size - images % batch_size}"
            )
        else:
            remedy = f"set test_iter: {images // batch_size}"
        warnings.append(
            f"{solver.name}: test_iter {test_iter} with batch_size {batch_size} tests"
            f" {tested:,} images, {what} the {images:,} in the data; {remedy}"
        )
    return warnings
