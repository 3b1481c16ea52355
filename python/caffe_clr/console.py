"""Shows trainings on a console: progress, tables, and where the plots are."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from caffe_clr import (
    comparison,
    datasets,
    measures,
    plots,
    policies,
    prototxt,
    range_test,
    recorded,
    runs,
    training,
)
from caffe_clr.comparison import Entry, Line
from caffe_clr.datasets import Split
from caffe_clr.errors import ClrError, Interrupted, UsageError
from caffe_clr.jobs import Job, Report
from caffe_clr.jobs import run as run_job
from caffe_clr.measures import Measure
from caffe_clr.range_test import RangeTest

PLOT = "training.png"
_TOLD_SECONDS = 60  # from line to line where a bar cannot be drawn anew


def write_data(
    read: Callable[[Callable[[int, int], None]], dict[str, Split]],
    out: Path,
    force: bool,
    console: Console,
) -> None:
    """Read a data set and write it with datasets.write, showing how it goes and what it holds.

    Args:
        read: is given what to call with how many of how many files are read.
        force: write into a folder that is not empty.

    Raises:
        UsageError: `out` is not empty.
        ClrError: Caffe, whose messages are written, is not built.
    """
    if not force and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists; write over what is in it: --force, or name another OUT")
    prototxt.caffe_pb2()  # before all images are read
    remedy = "nothing is written; run the same command again"
    with _progress(console) as progress, _resumable(remedy):
        reading = progress.add_task("reading", total=None)
        splits = read(lambda done, total: progress.update(reading, completed=done, total=total))
        progress.remove_task(reading)
        total = sum(len(split.images) for split in splits.values())
        writing = progress.add_task("writing", total=total)
        made = datasets.write(splits, out, lambda: progress.advance(writing))
    for phase, split in splits.items():
        counts = np.unique(split.labels, return_counts=True)[1]
        each = f"{min(counts):,}" + (f" to {max(counts):,}" if min(counts) < max(counts) else "")
        console.print(f"{phase}: {len(split.images):,} images, {len(counts)} classes of {each}")
    console.print(f"Data: {', '.join(map(str, made))}", soft_wrap=True)


def train(
    solver_files: Sequence[Path],
    out: Path | None,
    console: Console,
    *,
    seed: int | None,
    gpu: int | None,
    resume: bool,
    snapshot_cycles: bool,
) -> None:
    """Train as training.train does, in a process of its own, and show how it goes."""
    if out is None and resume:
        out = runs.newest_folder(solver_files)
    if out is not None:
        if resume and not runs.is_run(out):
            raise UsageError(f"--resume: there is no run in {out} to go on with")
        runs.check_new(out, resume)
    planned = training.plan(solver_files, out, seed=seed, gpu=gpu)
    warn(planned.warnings, console)
    folder = planned.folder
    job = Job(
        *(tuple(map(str, solver_files)), str(folder), seed, gpu, resume, snapshot_cycles),
    )
    measure = measures.measure_of(planned.stages[-1], str(solver_files[-1]))
    # a line of stages is too long for a bar
    with _progress(console, bar=len(planned.stages) == 1) as progress:
        task = progress.add_task("", total=planned.stages[-1].max_iter)
        told = time.monotonic()

        def show(report: Report) -> None:
            nonlocal told
            description = _describe(planned.stages, report, measure)
            progress.update(task, completed=report["iteration"], description=description)
            if not console.is_terminal and time.monotonic() - told >= _TOLD_SECONDS:
                told = time.monotonic()
                console.print(f"iteration {report['iteration']:,}: {description}", soft_wrap=True)

        try:
            run_job(job, show)
        except Interrupted as interrupted:
            names = " ".join(map(str, solver_files))
            command = f"{_program()} train {names} --out {folder} --resume"
            raise Interrupted(
                interrupted.signal_number, f"{interrupted.remedy}; go on with: {command}"
            ) from None
        except ClrError:
            with suppress(OSError):  # a full disk is what it may be about
                _show_run(folder, measure, console)
            raise
        progress.update(task, completed=planned.stages[-1].max_iter)
    _show_run(folder, measure, console)


def plot(folders: Sequence[Path], together: Path | None, console: Console) -> None:
    """Draw what runs have recorded so far, finished or not: each apart, or in one plot."""
    if together:
        if together.suffix != ".png":
            raise UsageError(f"--together {together}: name a file that ends in .png")
        entries = comparison.of_runs(folders)
        plots.plot_comparison(entries, "", together)
        console.print(f"Plot: {together}", soft_wrap=True)
        return
    for folder in folders:
        runs.read_status(folder)
        history = runs.read_history(folder)
        if not history.train and not history.test:
            raise ClrError(f"{folder}: nothing is recorded yet; wait for the first display or test")
        plots.plot_log(history, folder / PLOT)
        console.print(f"Plot: {folder / PLOT}", soft_wrap=True)


def find_bounds(solver_file: Path, out: Path | None, console: Console, **options: Any) -> RangeTest:
    """Run range_test.range_test with its options, and show how it goes and what it found."""
    folder = out or runs.default_folder(solver_file)
    if not options.get("resume") and any(map(runs.is_run, folder.glob("seed_*"))):
        raise UsageError(f"{folder} has a range test; go on: --resume, or name another --out")
    remedy = f"what is trained is kept; go on with the same command and --out {folder} --resume"
    with _progress(console) as progress, _resumable(remedy):
        task = progress.add_task("range test", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, total=total, completed=done)

        result = range_test.range_test(solver_file, folder, on_progress=show, **options)
    seeds = ", ".join(map(str, result.seeds))
    title = f"LR range test of {solver_file}, seed {seeds}"
    _show_bounds(result, title, folder / "range_test.png", console)
    return result


def suggest(curve: Path, output: str | None, picture: Path | None, console: Console) -> None:
    """Suggest bounds as recorded.read does, and show them."""
    result = recorded.read(curve, output)
    console.print(f"Judged by: {result.measure.name}, {len(result.rows)} values")
    _show_bounds(result, str(curve), picture, console)


def _show_bounds(result: RangeTest, title: str, picture: Path | None, console: Console) -> None:
    """Say what a range test found.

    Raises:
        ClrError: nothing can be said of the bounds.
    """
    if result.diverged_at is not None:
        console.print(f"[bold]{result.stopped}[/bold]", soft_wrap=True)
    bounds = result.suggestions.bounds
    if result.suggestions.rules:
        console.print(_bounds_table(result))
        for field, bound in bounds.items():
            rate = "no suggestion" if bound.rate is None else f"{bound.rate:.2g}"
            sure = f" ({bound.confidence} confidence)" if bound.rate is not None else ""
            console.print(f"[bold]{field}[/bold] {rate}{sure}: {bound.reason}", soft_wrap=True)
    elif result.diverged_at is not None:
        console.print(f"No bounds: {bounds['max_lr'].reason}", soft_wrap=True)
    if picture and result.rows:
        plots.plot_range_test(result, title, picture)
        console.print(f"Plot: {picture}", soft_wrap=True)
    if result.solver:
        console.print(f"Solver: {result.solver}", soft_wrap=True)
    if result.diverged_at is None and not result.suggestions.rules:
        raise ClrError(f"no bounds: {bounds['max_lr'].reason}")


def compare(
    solver_files: Sequence[Path], out: Path | None, title: str, console: Console, **options: Any
) -> list[Entry]:
    """Run comparison.compare with its options, and show how it goes and what came of it."""
    folder = out or comparison.default_folder(solver_files)
    seeds = options["seeds"]
    plans = [training.plan([file], folder, gpu=options["gpu"]) for file in solver_files]
    for planned in plans:
        warn(planned.warnings, console)
    remedy = f"what is trained is kept; go on with the same command and --out {folder}"
    with _progress(console) as progress, _resumable(remedy):
        tasks = {
            name: progress.add_task(name, total=seeds * planned.stages[0].max_iter)
            for name, planned in zip(comparison.names(solver_files), plans, strict=True)
        }

        def show(done: dict[str, int]) -> None:
            for name, iterations in done.items():
                progress.update(tasks[name], completed=iterations)

        entries = comparison.compare(solver_files, folder, on_progress=show, **options)
    lines = comparison.table(entries)
    comparison.write(entries, lines, folder)
    picture = folder / "comparison.png"
    plots.plot_comparison(entries, title, picture)
    console.print(_comparison_table(lines, entries[0].measure))
    for entry in entries:
        for seed, message in entry.diverged.items():
            console.print(f"{entry.name}, seed {seed}: {message}", soft_wrap=True)
    console.print(f"Plot: {picture}", soft_wrap=True)
    return entries


def warn(warnings: Sequence[str], console: Console) -> None:
    for warning in warnings:
        console.print("[yellow]warning:[/yellow]", end=" ")
        console.print(warning, markup=False, soft_wrap=True)


def _program() -> str:
    """How this program was called, to be called so again."""
    name = sys.argv[0]
    return os.path.relpath(name) if os.path.basename(name) == "caffe-clr" else "caffe-clr"


@contextmanager
def _resumable(remedy: str) -> Iterator[None]:
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(interrupted.signal_number, remedy) from None


@contextmanager
def _progress(console: Console, bar: bool = True) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        *((BarColumn(bar_width=8),) if bar else ()),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def _describe(stages: Sequence[Any], report: Report, measure: Measure) -> str:
    """The cycle, rate, loss and newest test result of a run, in a line."""
    iteration = report["iteration"]
    stage = next(i for i, solver in enumerate(stages) if iteration <= solver.max_iter)
    solver = stages[stage]
    parts = [f"stage {stage + 1}/{len(stages)}"] if len(stages) > 1 else []
    if solver.lr_policy in policies.CYCLES:
        begin = max(solver.start_lr_policy, stages[stage - 1].max_iter if stage else 0)
        length = 2 * solver.stepsize
        cycle = max(iteration - 1 - begin, 0) // length + 1
        parts.append(f"cycle {cycle}/{max(1, -(-(solver.max_iter - begin) // length))}")
    parts.append(f"lr {report['lr']:.3g}")
    if "loss" in report["train"]:
        parts.append(f"loss {report['train']['loss']:.3g}")
    if measure.of_test and measure.name in report["test"]:
        parts.append(f"test {measure.shown(report['test'][measure.name])}")
    parts.append(f"{report['speed']:.3g} it/s")
    return " ".join(parts)


def _show_run(folder: Path, measure: Measure, console: Console) -> None:
    """Draw a run and say where it is, as far as it came."""
    history = runs.read_history(folder)
    rows = measure.rows(history)
    if rows:
        last = rows[-1]
        best = measure.best(row[measure.name] for row in rows)
        console.print(
            f"{measure.name} {measure.shown(last[measure.name])} at iteration"
            f" {last['iteration']:,.0f}, best {measure.shown(best)}"
        )
    if history.train or history.test:
        plots.plot_log(history, folder / PLOT)
        console.print(f"Plot: {folder / PLOT}", soft_wrap=True)
    console.print(f"Run: {folder}", soft_wrap=True)


def _bounds_table(result: RangeTest) -> Table:
    table = Table("field", "rule", title="What each rule says", title_justify="left")
    table.add_column("rate", justify="right")
    table.add_column("reason")
    bounds = result.suggestions.bounds
    for rule in result.suggestions.rules:
        table.add_row(
            *(rule.field, rule.name, "" if rule.rate is None else f"{rule.rate:.2g}", rule.reason),
            style="bold" if rule.name == bounds[rule.field].rule else "",
        )
    return table


def _comparison_table(lines: Sequence[Line], measure: Measure) -> Table:
    seeds = f"{lines[0].seeds} seeds" if lines[0].seeds > 1 else "one seed"
    table = Table(
        "solver",
        title=f"{measure.label.capitalize()}, {seeds}",
        title_justify="left",
        caption=f"reached: iterations until a run is as good as {lines[0].name} in the end",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("iterations", "final", "best", "reached", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            *(line.name, f"{line.iterations:,}"),
            *(_spread(values, line.seeds, measure) for values in (line.final, line.best)),
            _reached(line),
            "" if line.ratio is None else f"{line.ratio:.2f}",
        )
    return table


def _reached(line: Line) -> str:
    if line.reached is None:
        return "never"
    of = "" if line.reached_by == line.seeds else f" ({line.reached_by} of {line.seeds})"
    return f"{line.reached:,.0f}{of}"


def _spread(values: tuple[float, float] | None, seeds: int, measure: Measure) -> str:
    if values is None:
        return "diverged"
    mean, deviation = values
    if seeds == 1:
        return f"{100 * mean:.2f}" if measure.is_accuracy else f"{mean:.4g}"
    if measure.is_accuracy:
        return f"{100 * mean:.2f} ± {100 * deviation:.2f}"
    return f"{mean:.4g} ± {deviation:.2g}"
