"""Shows the progress of a range test, and the suggested bounds."""

import re
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from caffe_clr import prototxt
from caffe_clr.cli.console import progress, resumable, table, warn
from caffe_clr.cli.ranks import shared
from caffe_clr.cli.resume_command import continuation
from caffe_clr.errors import KEPT, ClrError, UsageError, after_all_ranks
from caffe_clr.method import curves, new_solver, plots
from caffe_clr.method.range_test import range_test
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.sweeps import Options
from caffe_clr.runs import run_folder
from caffe_clr.runs.ranks import Place

_ELEMENT = re.compile(r"\[\d+\]$")  # of a vector


class NewSolver(NamedTuple):
    """The solver to write: whose nets and settings it has, with which options, and where."""

    given: Path
    options: Options
    out: Path


def show_bounds(
    solver_file: Path, out: Path | None, options: Options, console: Console
) -> RangeTest:
    """Run a range test, and show its progress and its result."""
    if options.resume and out is None:
        raise UsageError("--resume: name the folder of the range test with --out")
    if options.mpi:
        size = Place.of(options.mpi).size
        console.print(shared(prototxt.open_solver(solver_file), size), soft_wrap=True)
    folder = out or run_folder.default_folder(solver_file)
    go_on = continuation(None if out else folder, not options.resume, options.mpi)
    with progress(console) as shown, resumable(f"{KEPT}; {go_on}"):
        task = shown.add_task("range test", total=None, visible=False)

        def show(done: int, total: int) -> None:
            shown.update(task, total=total, completed=done, visible=True)

        result = range_test(
            solver_file, folder, options, show, lambda warning: warn([warning], console)
        )
    picture = folder / f"range_test.{options.plot_format}"
    with after_all_ranks():
        _show_result(result, _title(solver_file), picture, console)
    return result


def show_suggestions(
    curve: Path,
    output: str | None,
    lower_is_better: bool,
    picture: Path | None,
    console: Console,
    new: NewSolver | None = None,
) -> None:
    """Suggest bounds as curves.read does, show them, and write a solver with them if wanted."""

    def tell(warning: str) -> None:
        warn([warning], console)

    if new:
        given = prototxt.open_solver(new.given)
        plan = new_solver.plan(given, new.options)
    result = curves.read(curve, output, lower_is_better=lower_is_better, on_warning=tell)
    if new and result.suggestions.max_lr.rate is not None:
        run_folder.make_folder(new.out)
        files = new_solver.write(given, plan, result.suggestions, new.out, None, tell)
        result.solvers.extend(files)
    _show_result(result, _title(curve), picture, console)


def _title(file: Path) -> str:
    return f"LR range test of {'/'.join(file.parts[-2:])}"


def _show_result(result: RangeTest, title: str, picture: Path | None, console: Console) -> None:
    """Print the result of a range test.

    Raises:
        ClrError: neither bound can be suggested.
    """
    if result.stopped and not result.steps:
        console.print(result.stopped, style="bold", soft_wrap=True)
    if result.steps:
        console.print(_steps_table(result))
    console.print(_judged_by(result), soft_wrap=True, markup=False)
    bounds, max_lr = result.suggestions.bounds, result.suggestions.max_lr.rate
    if all(bound.rate is not None for bound in bounds.values()):
        for field, bound in bounds.items():
            console.print(field, end=" ", style="bold")
            console.print(f"{bound.rate:.2g}: {bound.reason}", soft_wrap=True)
    if picture and result.rows:
        plots.plot_range_test(result, title, picture)
        console.print(f"Plot: {picture}", soft_wrap=True)
    if result.solvers:
        word = "Solvers, stages of one run" if len(result.solvers) > 1 else "Solver"
        console.print(f"{word}: {' '.join(map(str, result.solvers))}", soft_wrap=True)
        policy = new_solver.policy_of(result.solvers[0])
        if policy.cycles == 1 and max_lr is not None:
            start = float(f"{max_lr:.2g}") / new_solver.ONE_CYCLE_RATIO  # as it is written
            console.print(f"{policy.name} starts below base_lr, at a tenth of max_lr: {start:.2g}")
    if all(bound.rate is None for bound in bounds.values()):
        raise ClrError(f"no bounds: {bounds['max_lr'].reason}")


def _judged_by(result: RangeTest) -> str:
    """The outputs that are judged, and those that are not."""
    metric, others = result.metric, list(result.others)
    if result.suggestions.by_loss:
        judged = f"training loss (lower is better), {len(result.losses)} values"
        if metric.of_test:
            others.insert(0, metric.name)
    else:
        better = "higher" if metric.is_accuracy else "lower"
        judged = f"{metric.name} ({better} is better), {len(result.rows)} values"
    names = ", ".join(dict.fromkeys(_ELEMENT.sub("[…]", name) for name in others))
    return f"Judged by: {judged}; not judged: {names}" if names else f"Judged by: {judged}"


def _steps_table(result: RangeTest) -> Table:
    """The tests by which the range was found, and what they cost."""
    title = f"Range found in {result.iterations:,} iterations"
    shown = table(title, ["test"], ["from", "to", "iterations"])
    shown.add_column("outcome")
    for step in result.steps:
        rates = (f"{step.min_lr:.2g}", f"{step.max_lr:.2g}")
        shown.add_row(step.name, *rates, f"{step.iterations:,}", step.outcome)
    return shown
