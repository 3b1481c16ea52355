"""Shows the progress, the table and the plot of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr.cli.console import progress, reading, resumable, table, warn
from caffe_clr.cli.resume_command import continuation
from caffe_clr.errors import KEPT
from caffe_clr.method import comparison, plots
from caffe_clr.method.comparison import Options, TableLine
from caffe_clr.method.results import Entry
from caffe_clr.runs import planning
from caffe_clr.runs.metrics import Metric


def show_comparison(
    solver_files: Sequence[Path], out: Path | None, options: Options, console: Console
) -> list[Entry]:
    """Compare solvers, and show the progress and the results."""
    folder = out or comparison.default_folder(solver_files)
    with reading(console):
        plans = [planning.plan([file], folder, options) for file in solver_files]
    for planned in plans:
        warn(planned.warnings, console)
    with progress(console) as shown, resumable(f"{KEPT}; {continuation()}"):
        tasks = {
            name: shown.add_task(name, total=options.seeds * planned.stages[0].max_iter)
            for name, planned in zip(comparison.names(solver_files), plans, strict=True)
        }

        def show(done: dict[str, int]) -> None:
            for name, iterations in done.items():
                shown.update(tasks[name], completed=iterations)

        entries = comparison.compare(
            solver_files, folder, options, show, lambda warning: warn([warning], console)
        )
    lines = comparison.table(entries)
    comparison.write(entries, lines, folder)
    picture = folder / f"comparison.{options.plot_format}"
    net = plans[0].solvers[0].train_net.parameter.name
    plots.plot_comparison(entries, plots.compared(entries, net), picture)
    console.print(_comparison_table(lines, entries[0].metric))
    for entry in entries:
        for seed, message in entry.diverged.items():
            console.print(f"{entry.name}, seed {seed}: {message}", soft_wrap=True)
    console.print(f"Plot: {picture}", soft_wrap=True)
    return entries


def _comparison_table(lines: Sequence[TableLine], metric: Metric) -> Table:
    seeds = f"{lines[0].seeds} seeds" if lines[0].seeds > 1 else "one seed"
    net = f" of test net #{metric.net}" if metric.net else ""
    shown = table(
        f"{metric.label[:1].upper()}{metric.label[1:]}{net}, {seeds}",
        ["solver"],
        ["iterations", "final", "best", "reached", "ratio"],
        caption=_caption(lines, metric),
        caption_justify="left",
    )
    for line in lines:
        shown.add_row(
            line.name,
            f"{line.iterations:,}",
            _spread(line.final, line, metric),
            _spread(line.best, line, metric),
            "never" if line.reached is None else f"{line.reached:,}",
            "" if line.ratio is None else f"{line.ratio:.2f}",
        )
    return shown


def _caption(lines: Sequence[TableLine], metric: Metric) -> str:
    first = lines[0]
    run = "the mean of the seeds" if first.seeds > 1 else "a run"
    notes = [
        f"reached: iterations until {run} is as good as {first.name} at its end,"
        f" in two {'tests' if metric.of_test else 'displays'} in a row",
        f"ratio: reached, divided by that of {first.name}",
    ]
    return "\n".join(["±: standard deviation over the seeds", *notes][first.seeds == 1 :])


def _spread(values: tuple[float, float] | None, line: TableLine, metric: Metric) -> str:
    if values is None:
        return "diverged" if line.diverged == line.seeds else "no result"
    mean, deviation = values
    scale = metric.scale(mean)
    shown = f"{scale * mean:.2f}" if metric.is_accuracy else f"{mean:.4g}"
    if line.seeds == 1:
        return shown
    return f"{shown} ± {scale * deviation:.2{'f' if metric.is_accuracy else 'g'}}"
