"""Shows the paper's tables, trains their rows, and prints them beside the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Column
from rich.table import Table as Shown

from caffe_clr.cli.console import progress, resumable, warn
from caffe_clr.errors import AGAIN, KEPT, UsageError, counted
from caffe_clr.experiments import paper, paper_runs
from caffe_clr.experiments.paper import Result, Row, Table
from caffe_clr.experiments.paper_runs import Options

_FIT = 6  # columns of a table in a terminal; the READMEs have all


def show_tables(console: Console) -> None:
    """List the tables: their rows, how long they are, and what has been recorded."""
    shown = _shown(None, [Column("table", no_wrap=True), ""], ["rows", "iterations", "recorded"])
    for table in paper.tables().values():
        rows = table.rows.values()
        runs = sum(len(row.recorded) for row in rows)
        told = counted(runs, "run") if runs else "nothing"
        total = sum(row.iterations for row in rows)
        title = table.title.rpartition(": ")[2]
        shown.add_row(table.name, title, str(len(rows)), f"{total:,}", told)
    console.print(shown)


def show_recorded(name: str, chosen: Sequence[str], console: Console) -> None:
    """Print a table from the recorded tests."""
    table = paper.chosen(name)
    rows = _rows(table, chosen)
    _print(table, rows, {row.name: paper.recorded(row) for row in rows}, console)


def show_training(
    name: str,
    chosen: Sequence[str],
    sources: Mapping[str, Path | None],
    out: Path,
    options: Options,
    console: Console,
) -> None:
    """Train the rows of a table that are missing, and print it."""
    table = paper.chosen(name)
    rows = _rows(table, chosen)
    runs = paper_runs.missing(table, rows, options.seeds, out)
    with resumable(f"{KEPT}; {AGAIN}"):
        if runs:
            _train(table, runs, sources, out, options, console)
    found = {row.name: paper_runs.results(table, row, options.seeds, out) for row in rows}
    _print(table, rows, found, console)
    console.print(f"Runs: {out / table.name}", soft_wrap=True)


def _train(
    table: Table,
    runs: paper_runs.Runs,
    sources: Mapping[str, Path | None],
    out: Path,
    options: Options,
    console: Console,
) -> None:
    def tell(folder: Path) -> None:
        console.print(f"Data: {folder}", soft_wrap=True)

    paper_runs.prepare(table, runs, sources, out, tell)
    total = sum(row.iterations for row, _ in runs)
    about = f"{counted(len(runs), 'run')} of {total:,} iterations"
    if not options.scheduler:
        seconds = paper_runs.seconds_per_iteration(table, *runs[0], out, options)
        left = total - paper_runs.iterations_done(table, runs, out)
        console.print(
            f"{about}, about {_duration(left * seconds / options.jobs)}: {seconds:.2g} s an"
            " iteration on this machine",
            soft_wrap=True,
        )
    else:
        console.print(about, soft_wrap=True)
    with progress(console) as shown:
        task = shown.add_task(table.name, total=total)
        paper_runs.train(
            *(table, runs, out, options),
            lambda done: shown.update(task, completed=done),
            lambda warning: warn([warning], console),
        )


def _rows(table: Table, chosen: Sequence[str]) -> list[Row]:
    for name in chosen:
        if name not in table.rows:
            raise UsageError(f"{table.name} has no row {name}; choose from {', '.join(table.rows)}")
    return [row for row in table.rows.values() if not chosen or row.name in chosen]


def _print(
    table: Table,
    rows: Sequence[Row],
    results: Mapping[str, Mapping[int, Result]],
    console: Console,
) -> None:
    lines = [paper.row_cells(row, results[row.name]) for row in rows]
    kept = [number for number in range(1, _FIT) if any(line[number] for line in lines)]
    headings = [paper.HEADINGS[number] for number in kept]
    shown = _shown(f"{table.title}, accuracy in percent", [""], headings)
    for line in lines:
        shown.add_row(line[0], *(line[number] for number in kept))
    console.print(shown)
    claims = _shown("Claims, difference in points", paper.CLAIM_HEADINGS[:1], ["paper", "measured"])
    claims.add_column("verdict")
    for claim in table.claims:
        claims.add_row(*paper.claim_cells(table, claim, results))
    if table.claims:
        console.print(claims)


def _shown(title: str | None, names: Sequence[Column | str], numbers: Sequence[str]) -> Shown:
    shown = Shown(
        *names,
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in numbers:
        shown.add_column(heading, justify="right")
    return shown


def _duration(seconds: float) -> str:
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(round(seconds / length), unit)
    return counted(max(1, round(seconds)), "second")
