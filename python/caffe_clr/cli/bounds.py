"""Shows a range test: how it goes, what each rule says, and the bounds it suggests."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr import checks, plots, prototxt, runs
from caffe_clr.cli.console import progress, resumable, warn
from caffe_clr.errors import UsageError
from caffe_clr.range_test import Options, range_test
from caffe_clr.results import RangeTest


def show_bounds(
    solver_file: Path, out: Path | None, options: Options, console: Console
) -> RangeTest:
    """Run a range test, and show how it goes and what it found."""
    folder = out or runs.default_folder(solver_file)
    if not options.resume and any(map(runs.is_run, folder.glob("seed_*"))):
        raise UsageError(f"{folder} has a range test; go on: --resume, or name another --out")
    solver = prototxt.open_solver(solver_file, check_policy=False)
    warn(checks.warn_of_no_tests(solver), console)
    remedy = f"what is trained is kept; go on with the same command and --out {folder} --resume"
    with progress(console) as shown, resumable(remedy):
        task = shown.add_task("range test", total=None)

        def show(done: int, total: int) -> None:
            shown.update(task, total=total, completed=done)

        result = range_test(
            solver_file, folder, options, show, lambda warning: warn([warning], console)
        )
    seeds = ", ".join(map(str, result.seeds))
    picture = folder / "range_test.png"
    plots.plot_range_test(result, f"LR range test of {solver_file}, seed {seeds}", picture)
    console.print(_bounds_table(result))
    for field, bound in result.suggestions.bounds.items():
        rate = "no suggestion" if bound.rate is None else f"{bound.rate:.2g}"
        confidence = f" ({bound.confidence} confidence)" if bound.rate is not None else ""
        console.print(f"[bold]{field}[/bold] {rate}{confidence}: {bound.reason}", soft_wrap=True)
    console.print(f"Plot: {picture}", soft_wrap=True)
    if result.solver:
        console.print(f"Solver: {result.solver}", soft_wrap=True)
    return result


def _bounds_table(result: RangeTest) -> Table:
    table = Table("field", "rule", title="What each rule says", title_justify="left")
    table.add_column("rate", justify="right")
    table.add_column("reason")
    bounds = result.suggestions.bounds
    for rule in result.suggestions.rules:
        table.add_row(
            rule.field,
            rule.name,
            "" if rule.rate is None else f"{rule.rate:.2g}",
            rule.reason,
            style="bold" if rule.name == bounds[rule.field].rule else "",
        )
    return table
