"""Shows the paper's tables, trains their rows, and prints them beside the paper's."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column
from rich.table import Table as Shown

from caffe_clr import prototxt
from caffe_clr.cli.console import progress, resumable, table, warn
from caffe_clr.errors import AGAIN, KEPT, ClrError, UsageError, counted
from caffe_clr.experiments import paper, paper_data, paper_figures, paper_runs, verdicts
from caffe_clr.experiments.paper import Claim, Row, Table
from caffe_clr.experiments.paper_data import Sources
from caffe_clr.experiments.paper_runs import Options, Runs, Speed
from caffe_clr.experiments.verdicts import Results
from caffe_clr.method import curves, plots
from caffe_clr.method.range_test import range_test

_FIT = 6  # columns of a table in a terminal; the READMEs have all


def show_tables(console: Console) -> None:
    """List the tables, how long they are, and what has been recorded."""
    shown = table(None, [Column("table", no_wrap=True), ""], ["iterations a seed", "recorded"])
    for each in paper.tables().values():
        runs = sum(len(row.recorded) for row in each.rows.values())
        title = each.title.rpartition(": ")[2]
        told = counted(runs, "run") if runs else ""
        shown.add_row(each.name, title, f"{each.iterations:,}", told)
    console.print(shown)


def show_times_of_tables(options: Options, console: Console) -> None:
    """Say how long the tables take on this machine, with one seed."""
    prototxt.caffe_pb2()  # one error if there is no Caffe, not one for each table
    shown = table(None, ["table"], ["iterations", "s an iteration", "one seed"])
    speeds: dict[tuple[Path, str], Speed] = {}
    for each in paper.tables().values():
        net = (each.folder, each.net)
        if net not in speeds:
            try:
                speeds[net] = _speed(each, options, console)
            except ClrError as error:
                warn([f"{each.name} is left out: {error}"], console)
                continue
        taken = _duration(speeds[net].seconds(each.iterations, len(each.rows)))
        shown.add_row(each.name, f"{each.iterations:,}", f"{speeds[net].iteration:.2g}", taken)
    console.print(shown)


def show_times(name: str, chosen: Sequence[str], options: Options, console: Console) -> None:
    """Say how long the rows of a table take on this machine."""
    from_paper = paper.chosen(name)
    rows = _rows(from_paper, chosen)
    speed = _speed(from_paper, options, console)
    shown = table(from_paper.title, [""], ["iterations", "one seed"])
    for row in rows:
        shown.add_row(row.name, f"{row.iterations:,}", _duration(speed.seconds(row.iterations)))
    console.print(shown)
    console.print(f"{speed.iteration:.2g} s an iteration on this machine")


def show_recorded(name: str, chosen: Sequence[str], console: Console) -> None:
    """Print a table from the recorded tests."""
    from_paper = paper.chosen(name)
    rows = _rows(from_paper, chosen)
    _print(from_paper, rows, paper.recorded(rows), console)


def show_training(
    name: str,
    chosen: Sequence[str],
    sources: Sources,
    out: Path,
    options: Options,
    console: Console,
) -> None:
    """Train the rows of a table that are missing, print it, and draw its figures."""
    from_paper = paper.chosen(name)
    rows = _rows(from_paper, chosen)
    runs = paper_runs.missing(rows, options.seeds, out)
    with resumable(f"{KEPT}; {AGAIN}"):
        if runs:
            _train(from_paper, runs, sources, out.resolve(), options, console)
    found = {row.name: paper_runs.recorded(row, options.seeds, out) for row in rows}
    lost = {row.name: paper_runs.diverged(row, options.seeds, out) for row in rows}
    _print(from_paper, rows, found, console, lost)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for figure in from_paper.figures:
        if all(found.get(row.name) for row in figure.lines.values()):
            picture = folder / f"{figure.name}.png"
            plots.plot_comparison(paper_figures.entries(figure, found), figure.title, picture)
            console.print(f"Plot: {picture}", soft_wrap=True)
    console.print(f"Runs: {out}", soft_wrap=True)


def _train(
    from_paper: Table,
    runs: Runs,
    sources: Sources,
    out: Path,
    options: Options,
    console: Console,
) -> None:
    def tell(folder: Path) -> None:
        console.print(f"Data: {folder}", soft_wrap=True)

    with console.status("writing data"):
        for seed in sorted({seed for _, seed in runs}):
            paper_data.prepare(from_paper, seed, sources, out, tell)
    total = sum(row.iterations for row, _ in runs)
    about = f"{counted(len(runs), 'run')} of {total:,} iterations"
    if not options.scheduler:
        with console.status("measuring an iteration"):
            speed = paper_runs.speed(from_paper, *runs[0], out, options)
        left = total - paper_runs.iterations_done(runs, out)
        duration = _duration(speed.seconds(left, len(runs)) / options.jobs)
        about += f", about {duration}: {speed.iteration:.2g} s an iteration on this machine"
    console.print(about, soft_wrap=True)
    with progress(console) as shown:
        task = shown.add_task(from_paper.name, total=total)

        def show(done: int) -> None:
            shown.update(task, completed=done)

        def tell_of(warning: str) -> None:
            warn([warning], console)

        for row, seed in runs:
            if row.sweep:
                given = paper_runs.range_test(row, row.sweep, seed, out, options)
                with contextlib.chdir(from_paper.root(seed, out)):
                    range_test(
                        *given,
                        lambda *_: show(paper_runs.iterations_done(runs, out)),
                        tell_of,
                    )
        paper_runs.train(from_paper, runs, out, options, show, tell_of)


def _speed(from_paper: Table, options: Options, console: Console) -> Speed:
    """How fast a table's net trains on this machine, with random images."""
    row = next(iter(from_paper.rows.values()))
    with console.status(f"measuring {from_paper.name}"), tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        paper_data.prepare_random(from_paper, out)
        return paper_runs.speed(from_paper, row, 1, out, options)


def _rows(from_paper: Table, chosen: Sequence[str]) -> list[Row]:
    rows = from_paper.rows
    for name in chosen:
        if name not in rows:
            raise UsageError(f"{from_paper.name} has no row {name}; choose from {', '.join(rows)}")
    return [row for row in rows.values() if not chosen or row.name in chosen]


def _print(
    from_paper: Table,
    rows: Sequence[Row],
    tests: Mapping[str, Mapping[int, Path]],
    console: Console,
    diverged: Mapping[str, Sequence[int]] | None = None,
) -> None:
    trained = [row for row in rows if not row.sweep]
    results = {row.name: verdicts.results(row, tests[row.name]) for row in trained}
    for row in rows:
        if row.sweep:
            console.print(_bounds_table(from_paper.title, row, tests[row.name]))
    if trained:
        console.print(_accuracy_table(from_paper.title, trained, results, diverged or {}))
        for row in trained:
            if row.about:
                console.print(f"{row.name}: {row.about}")
    claims = [claim for claim in from_paper.claims if {*claim.rows()} <= results.keys()]
    if claims:
        console.print(_claims_table(claims, results))


def _bounds_table(title: str, row: Row, tests: Mapping[int, Path]) -> Shown:
    name, *headings = verdicts.BOUND_HEADINGS
    shown = table(f"{title}, bounds", [name], headings)
    suggestions = [curves.read(file).suggestions for file in tests.values()]
    for cells in verdicts.bound_cells(row, suggestions):
        shown.add_row(*cells)
    return shown


def _accuracy_table(
    title: str, rows: Sequence[Row], results: Results, diverged: Mapping[str, Sequence[int]]
) -> Shown:
    lines = [verdicts.row_cells(row, results[row.name], diverged.get(row.name, ())) for row in rows]
    kept = [number for number in range(1, _FIT) if any(line[number] for line in lines)]
    headings = [verdicts.HEADINGS[number] for number in kept]
    names = Column("", min_width=max(len(row.name) for row in rows))
    shown = table(f"{title}, accuracy in percent", [names], headings)
    for line in lines:
        shown.add_row(line[0], *(line[number] for number in kept))
    return shown


def _claims_table(claims: Sequence[Claim], results: Results) -> Shown:
    name, stated, measured, verdict = verdicts.CLAIM_HEADINGS
    shown = table("Claims; differences are in points", [Column(name, overflow="fold")], [stated])
    shown.add_column(measured, justify="right")
    shown.add_column(verdict)
    for claim in claims:
        shown.add_row(*verdicts.claim_cells(claim, results))
    return shown


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(round(seconds / length), unit)
    return counted(max(1, round(seconds)), "second")
