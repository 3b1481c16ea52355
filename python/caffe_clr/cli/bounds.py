"""Shows the progress of a range test, the results of its rules, and the suggested bounds."""

import re
import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr.cli.console import progress, resumable, warn
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import curves, plots
from caffe_clr.method.range_test import Options, range_test
from caffe_clr.method.results import RangeTest
from caffe_clr.method.suggestions import FEWEST_TESTS
from caffe_clr.runs import run_folder
from caffe_clr.runs.jobs import KEPT

_ELEMENT = re.compile(r"\[\d+\]$")  # of a vector


def show_bounds(
    solver_file: Path, out: Path | None, options: Options, console: Console
) -> RangeTest:
    """Run a range test, and show its progress and its result."""
    folder = out or run_folder.default_folder(solver_file)
    if not options.resume and any(map(run_folder.is_run, folder.glob("seed_*"))):
        raise UsageError(
            f"{folder} already has a range test; continue it with --resume, or name another --out"
        )
    added = shlex.join(["--out", str(folder), "--resume"])
    remedy = f"{KEPT}; to continue, run the same command with {added}"
    with progress(console) as shown, resumable(remedy):
        task = shown.add_task("range test", total=None, visible=False)

        def show(done: int, total: int) -> None:
            shown.update(task, total=total, completed=done, visible=True)

        result = range_test(
            solver_file, folder, options, show, lambda warning: warn([warning], console)
        )
    seeds = f"seed{'s' if len(result.seeds) > 1 else ''} {', '.join(map(str, result.seeds))}"
    title = f"LR range test of {solver_file}, {seeds}"
    _show_result(result, title, folder / "range_test.png", console)
    return result


def show_suggestions(
    curve: Path, output: str | None, lower_is_better: bool, picture: Path | None, console: Console
) -> None:
    """Suggest bounds as curves.read does, and show them."""
    result = curves.read(
        curve,
        output,
        lower_is_better=lower_is_better,
        on_warning=lambda warning: warn([warning], console),
    )
    _show_result(result, str(curve), picture, console)


def _show_result(result: RangeTest, title: str, picture: Path | None, console: Console) -> None:
    """Print the result of a range test.

    Raises:
        ClrError: neither bound can be suggested.
    """
    if result.diverged_at is not None:
        console.print(result.stopped, style="bold", soft_wrap=True)
    console.print(_judged_by(result), soft_wrap=True, markup=False)
    bounds = result.suggestions.bounds
    if result.suggestions.rules:
        console.print(_bounds_table(result))
        for field, bound in bounds.items():
            rate = "no suggestion" if bound.rate is None else f"{bound.rate:.2g}"
            sure = f" ({bound.confidence} confidence)" if bound.rate is not None else ""
            console.print(field, end=" ", style="bold")
            console.print(f"{rate}{sure}: {bound.reason}", soft_wrap=True)
    if picture and result.rows:
        plots.plot_range_test(result, title, picture)
        console.print(f"Plot: {picture}", soft_wrap=True)
    if result.solver:
        console.print(f"Solver: {result.solver}", soft_wrap=True)
    if all(bound.rate is None for bound in bounds.values()):
        raise ClrError(f"no bounds: {bounds['max_lr'].reason}")


def _judged_by(result: RangeTest) -> str:
    """The outputs that the rules judge, and those that they do not."""
    metric, others = result.metric, list(result.others)
    few = metric.of_test and len(result.rows) < FEWEST_TESTS <= len(result.losses)
    if few:
        others.insert(0, f"{metric.name} (only {len(result.rows)} values)")
    if few or not metric.of_test:
        judged = f"training loss (lower is better), {len(result.losses)} values"
    else:
        better = "higher" if metric.is_accuracy else "lower"
        judged = f"{metric.name} ({better} is better), {len(result.rows)} values"
        judged += ", and the training loss" if result.losses else ""
    names = ", ".join(dict.fromkeys(_ELEMENT.sub("[…]", name) for name in others))
    return f"Judged by: {judged}; not judged: {names}" if names else f"Judged by: {judged}"


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
