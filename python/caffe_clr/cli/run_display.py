"""Shows the progress and the result of a training, and plots runs."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from caffe_clr import policies
from caffe_clr.cli.console import progress, reading, warn
from caffe_clr.cli.ranks import follow, shared
from caffe_clr.cli.resume_command import continuation
from caffe_clr.cli.training_options import check_picture
from caffe_clr.errors import (
    AGAIN,
    KEPT,
    ClrError,
    DiedError,
    Interrupted,
    UsageError,
    after_all_ranks,
)
from caffe_clr.method import comparison, plots, results
from caffe_clr.runs import event_files, jobs, metrics, planning, run_folder
from caffe_clr.runs.history import History
from caffe_clr.runs.jobs import Job, WorkerReport
from caffe_clr.runs.metrics import Metric
from caffe_clr.runs.options import PlotFormat, TrainingOptions
from caffe_clr.runs.planning import Plan
from caffe_clr.runs.ranks import Place

_TOLD_SECONDS = 60  # from line to line where a bar cannot be redrawn


def show_training(
    solver_files: Sequence[Path],
    out: Path | None,
    options: TrainingOptions,
    console: Console,
) -> None:
    """Train in a subprocess, as training.train does, and show the progress and the result."""
    place = Place.of(options.mpi)
    if place.rank:
        follow(solver_files, options, place)
        return
    named = out is not None
    planned = _planned(solver_files, out, options, console)
    if options.mpi:
        console.print(shared(planned.solvers[0], place.size), soft_wrap=True)
    warn(planned.warnings, console)
    folder = planned.folder
    job = Job(tuple(map(str, solver_files)), str(folder), options)
    go_on = continuation(None if named else folder, not options.resume, options.mpi)
    metric = metrics.metric_of(planned.solvers[-1])
    # a line of stages is too long for a bar
    with progress(console, bar=len(planned.stages) == 1) as shown:
        task = shown.add_task("", total=planned.stages[-1].max_iter, visible=False)
        told = time.monotonic()

        def show(report: WorkerReport) -> None:
            nonlocal told
            description = _describe(planned.stages, report, metric)
            shown.update(task, completed=report["iteration"], description=description, visible=True)
            if not console.is_terminal and time.monotonic() - told >= _TOLD_SECONDS:
                told = time.monotonic()
                console.print(f"iteration {report['iteration']:,}: {description}", soft_wrap=True)

        try:
            jobs.run(job, show, lambda warning: warn([warning], console))
        except Interrupted as interrupted:
            kept = KEPT if interrupted.remedy == AGAIN else interrupted.remedy
            raise interrupted.saying(f"{kept}; {go_on}") from None
        except ClrError as error:
            has_begun = run_folder.has_begun(folder)
            if has_begun:
                with suppress(OSError):  # a full disk is what it may be about
                    _show_run(folder, metric, options.plot_format, console)
            if isinstance(error, DiedError) and has_begun:
                raise error.saying(f"{error}\n{go_on}") from None
            raise
        shown.update(task, completed=planned.stages[-1].max_iter)
    with after_all_ranks():
        _show_run(folder, metric, options.plot_format, console)


def _planned(
    solver_files: Sequence[Path], out: Path | None, options: TrainingOptions, console: Console
) -> Plan:
    if out is None and options.resume:
        out = run_folder.newest_folder(solver_files)
    if out is not None:
        if options.resume and not run_folder.is_run(out):
            raise UsageError(f"--resume: there is no run in {out} to resume")
        run_folder.check_new(out, options.resume)
    if options.tensorboard:
        event_files.check()
    with reading(console):
        return planning.plan(solver_files, out, options)


def plot_runs(
    folders: Sequence[Path], together: Path | None, plot_format: PlotFormat, console: Console
) -> None:
    """Draw the records of runs, finished or not: each on its own, or all in one plot."""
    check_picture("--together", together)
    for folder in folders:
        run_folder.read_status(folder)
    if together:
        warn([problem for folder in folders for problem in run_folder.damage(folder)], console)
        entries = comparison.of_runs(folders)
        plots.plot_comparison(entries, results.compared(entries), together)
        console.print(f"Plot: {together}", soft_wrap=True)
        return
    for folder in folders:
        history = run_folder.read_history(folder)
        warn(run_folder.damage(folder), console)
        if not history.train and not history.test:
            raise ClrError(f"{folder}: nothing is recorded yet; wait for the first display or test")
        _plot(history, folder, plot_format, console)


def _describe(stages: Sequence[Any], report: WorkerReport, metric: Metric) -> str:
    """The cycle, rate, loss and newest test result of a run, in a line."""
    iteration = report["iteration"]
    stage = next(i for i, solver in enumerate(stages) if iteration <= solver.max_iter)
    solver = stages[stage]
    parts = [f"stage {stage + 1}/{len(stages)}"] if len(stages) > 1 else []
    if policies.policy_of(solver).cycles > 1:
        begin = max(solver.start_lr_policy, stages[stage - 1].max_iter if stage else 0)
        length = 2 * solver.stepsize
        cycle = max(iteration - 1 - begin, 0) // length + 1
        parts.append(f"cycle {cycle}/{max(1, -(-(solver.max_iter - begin) // length))}")
    parts.append(f"lr {report['lr']:.3g}")
    if "loss" in report["train"]:
        parts.append(f"loss {report['train']['loss']:.3g}")
    if metric.of_test and not math.isnan(report["test"].get(metric.name, math.nan)):
        parts.append(f"test {metric.shown(report['test'][metric.name])}")
    parts.append(f"{report['speed']:.3g} it/s")
    return " ".join(parts)


def _show_run(folder: Path, metric: Metric, plot_format: PlotFormat, console: Console) -> None:
    """Draw a run, and print its last and best result and its folder."""
    history = run_folder.read_history(folder)
    rows = metric.rows(history)
    if rows:
        last = rows[-1]
        best = metric.best(row[metric.name] for row in rows)
        console.print(
            f"{metric.name} {metric.shown(last[metric.name])} at iteration"
            f" {last['iteration']:,.0f}, best {metric.shown(best)}"
        )
    if history.train or history.test:
        _plot(history, folder, plot_format, console)
    console.print(f"Run: {folder}", soft_wrap=True)


def _plot(history: History, folder: Path, plot_format: PlotFormat, console: Console) -> None:
    picture = folder / f"{run_folder.PLOT}.{plot_format}"
    plots.plot_log(history, folder.resolve().name, picture)
    console.print(f"Plot: {picture}", soft_wrap=True)
