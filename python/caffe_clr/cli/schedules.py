"""Shows the learning rate of a run, before any training."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from caffe_clr.caffe_log import reader
from caffe_clr.cli.console import table, warn
from caffe_clr.method import plots, schedule
from caffe_clr.method.schedule import Stage
from caffe_clr.preflight import advice
from caffe_clr.runs import run_folder
from caffe_clr.runs.history import write_csv
from caffe_clr.runs.options import PlotFormat


def show_schedule(
    solver_files: Sequence[Path],
    out: Path | None,
    console: Console,
    log: Path | None = None,
    plot_format: PlotFormat = PlotFormat.PNG,
) -> None:
    """Write schedule.csv and a plot, and print a row for each stage.

    Args:
        out: the folder; by default runs/schedule-<solver names>. Its files are replaced.
        log: the log of a run of these solvers, whose rates are compared with the schedule.

    Raises:
        ClrError: see schedule.schedule and reader.read_rates; or `out` cannot be written.
    """
    stages = schedule.read_stages(solver_files)
    rows = schedule.rows(stages)
    logged = reader.read_rates(log) if log else {}
    names = [run_folder.solver_name(file) for file in solver_files]
    out = out or run_folder.named_after("schedule", names)
    files = out / "schedule.csv", out / f"schedule.{plot_format}"
    replaced = rf"schedule\.(csv|{run_folder.PLOTS})"
    run_folder.check_replaced(out, replaced, is_own=run_folder.is_own_table(files[0]))
    run_folder.make_folder(out)
    write_csv(rows, files[0])
    plots.plot_schedule(rows, logged, f"Learning rate of {', '.join(names)}", files[1])
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
    console.print(f"Wrote {files[0]}, {files[1]}", soft_wrap=True)


def _table(stages: list[Stage], rows: list[dict[str, Any]]) -> Table:
    moving = "momentum" in rows[0]
    headings = ["iterations", "cycles", "first", "highest", "lowest", "last"]
    if moving:
        headings.append("momentum")
    shown = table("Learning rate", ["stage", "policy"], headings)
    for stage in stages:
        rates = [row["lr"] for row in rows if row["stage"] == stage.number]
        finite = [rate for rate in rates if math.isfinite(rate)] or [math.nan]
        cycles = ""
        if stage.has_cycles:
            cycles = f"{round(stage.cycles(stage.last + 1) - stage.cycles(stage.first), 2):g}"
        shown.add_row(
            str(stage.number),
            stage.solver.lr_policy,
            f"{stage.first:,} to {stage.last:,}",
            cycles,
            *(f"{rate:.6g}" for rate in (rates[0], max(finite), min(finite), rates[-1])),
            *([_momenta(rows, stage)] if moving else []),
        )
    return shown


def _momenta(rows: list[dict[str, Any]], stage: Stage) -> str:
    momenta = [row["momentum"] for row in rows if row["stage"] == stage.number]
    ends = sorted({f"{end:.6g}" for end in (min(momenta), max(momenta))})
    return "-".join(ends)


def _comparison(stages: list[Stage], logged: dict[int, float]) -> str:
    """The number of logged rates that differ from the schedule, and the first of them."""
    rates = {
        iteration: float(rate)
        for stage in stages
        if (within := [i for i in logged if stage.first <= i <= stage.last])
        for iteration, rate in zip(within, stage.rates(within), strict=True)
    }
    max_lr = max(stage.solver.max_lr for stage in stages)
    same = reader.agree([logged[iteration] for iteration in rates], rates.values(), max_lr)
    differing = [iteration for iteration, agrees in zip(rates, same, strict=True) if not agrees]
    text = f"Log: {len(logged):,} rates, {len(differing):,} differ from the schedule"
    if differing:
        first = differing[0]
        text += (
            f", first at iteration {first:,}:"
            f" logged {logged[first]:g}, scheduled {rates[first]:.6g}"
        )
    beyond = len(logged) - len(rates)
    return text + (f"; {beyond:,} are after the end of the schedule" if beyond else "")
