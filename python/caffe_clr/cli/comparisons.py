"""Shows the progress, the table and the plot of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr.cli.console import progress, reading, resumable, table, warn
from caffe_clr.cli.resume_command import continuation
from caffe_clr.errors import KEPT
from caffe_clr.method import comparison, plots, results
from caffe_clr.method.comparison import Options
from caffe_clr.method.results import HEADING, Comparison
from caffe_clr.runs import planning


def show_comparison(
    solver_files: Sequence[Path], out: Path | None, options: Options, console: Console
) -> Comparison:
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
    comparison.write(entries, entries.table(), folder)
    picture = folder / f"comparison.{options.plot_format}"
    net = plans[0].solvers[0].train_net.parameter.name
    plots.plot_comparison(entries, results.compared(entries, net), picture)
    console.print(_comparison_table(entries))
    for entry in entries:
        for seed, message in entry.diverged.items():
            console.print(f"{entry.name}, seed {seed}: {message}", soft_wrap=True)
    console.print(f"Plot: {picture}", soft_wrap=True)
    return entries


def _comparison_table(entries: Comparison) -> Table:
    lines = entries.table()
    shown = table(
        entries.title,
        HEADING[:1],
        HEADING[1:],
        caption="\n".join(entries.notes(lines)),
        caption_justify="left",
    )
    for line in lines:
        shown.add_row(*entries.cells(line))
    return shown
