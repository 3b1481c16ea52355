"""Shows a summary of a log of `caffe train`."""

import math
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr.caffe_log import reader
from caffe_clr.cli.console import warn
from caffe_clr.method import plots
from caffe_clr.runs import output_kinds, run_folder
from caffe_clr.runs.history import OWN_COLUMNS, History, Phase, Row, write_csv
from caffe_clr.runs.metrics import Metric
from caffe_clr.runs.options import PlotFormat


def default_folder(path: Path) -> Path:
    """The default folder: beside the log, under its name without .gz and .log."""
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.log')}-results")


def show_log(
    path: Path, out: Path, console: Console, plot_format: PlotFormat = PlotFormat.PNG
) -> None:
    """Write a log's train.csv, test.csv and plot into `out`, and print a summary.

    Raises:
        ClrError: see reader.read_log; or `out` cannot be written.
    """
    history = reader.read_log(path)
    run_folder.check_replaced(
        out, rf"(train|test)\.csv|log\.{run_folder.PLOTS}", is_own=_is_own(out)
    )
    run_folder.make_folder(out)
    files = [out / name for name in ("train.csv", "test.csv", f"log.{plot_format}")]
    write_csv(history.train, files[0])
    write_csv(history.test, files[1])
    plots.plot_log(history, path.name, files[2])
    rows = sorted(history.test + history.train, key=lambda row: row["iteration"])
    first, last = rows[0]["iteration"], rows[-1]["iteration"]
    seconds = max(row["seconds"] for row in rows)
    console.print(f"Iterations {first:,} to {last:,}, {seconds:,.0f} s from the log's first line")
    if history.train:
        row = history.train[-1]
        console.print(f"Last loss {row['loss']:g}, at iteration {row['iteration']:,}")
    for iteration, lost in _first_lost(history):
        values = ", ".join(f"{name} {value}" for name, value in lost.items())
        console.print(f"First lost value at iteration {iteration:,}: {values}")
    if history.test:
        console.print(_test_table(history))
    if history.computed:
        console.print(f"Rates computed, not logged (lr_computed is 1): {history.computed:,}")
    warn(history.warnings(), console)
    console.print("Wrote", ", ".join(map(str, files)), soft_wrap=True)


def _is_own(folder: Path) -> bool:
    """Whether a folder has the results of a log, and is not the run itself."""
    tables = (folder / "train.csv", folder / "test.csv")
    return not run_folder.is_run(folder) and any(map(run_folder.is_own_table, tables))


def _first_lost(history: History) -> list[tuple[float, Row]]:
    """The iteration at which losses are first lost, and that of other outputs, with the values.

    Others are lost where they were numbers before: an output may have none from the
    start. The elements of a vector are of classes, which may be absent from a batch.
    """
    losses: dict[float, Row] = {}
    others: dict[float, Row] = {}
    for phase in Phase:
        numbers: set[str] = set()
        for row in history.rows(phase):
            iteration = row["iteration"]
            for name, value in row.items():
                if output_kinds.is_loss(name, history.losses):
                    if output_kinds.is_lost(value):
                        losses.setdefault(iteration, {})[name] = value
                elif name in OWN_COLUMNS or name.endswith("]"):
                    continue
                elif math.isfinite(value):
                    numbers.add(name)
                elif name in numbers:
                    others.setdefault(iteration, {})[name] = value
    return [min(found.items()) for found in (losses, others) if found]


def _test_table(history: History) -> Table:
    rows = history.test
    table = Table("output", title="Test", title_justify="left")
    for heading in ("final", "best", "", "at iteration"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(chain(*rows)):
        if name in OWN_COLUMNS:
            continue
        tested = [row for row in rows if name in row]
        is_loss = output_kinds.is_loss(name, history.losses)
        known = Metric(name, of_test=True, is_accuracy=not is_loss).rows(history)
        choose, kind = (min, "lowest") if is_loss else (max, "highest")
        best = choose(known, key=lambda row: row[name]) if known else None
        told = (f"{best[name]:g}", kind, f"{best['iteration']:,}") if best else ("none", "", "")
        table.add_row(name, f"{tested[-1][name]:g}", *told)
    return table
