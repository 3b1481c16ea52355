"""Shows how far Caffe's rates differ from those of the reference."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_clr import parity
from caffe_clr.errors import ClrError
from caffe_clr.parity import Result
from caffe_clr.runs import solvers


def show_parity(solver_files: Sequence[Path], points: int, console: Console) -> None:
    """Compare as parity.check_all does, and print a table.

    Raises:
        ClrError: the rates of a solver differ by more than is allowed, or a file is
            refused. The other solvers are compared all the same.
    """
    solvers.import_caffe()
    start = time.monotonic()
    refused: list[ClrError] = []
    results = list(parity.check_all(solver_files, points, refused.append))
    seconds = time.monotonic() - start
    problems = [str(error) for error in refused]
    if results:
        _print(results, seconds, console)
    failed = [result for result in results if not result.passed]
    if failed:
        problems.append(f"{len(failed)} of {len(results)} solvers differ from the reference")
    if problems:
        raise ClrError("\n".join(problems))


def _print(results: Sequence[Result], seconds: float, console: Console) -> None:
    table = Table(title="Caffe's rates compared with the NumPy reference", title_justify="left")
    table.add_column("policy", no_wrap=True)
    table.add_column("solver", overflow="fold")
    for heading in ("points", "differ", "units", "allowed", "amplitude"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.policy,
            result.name or result.solver_type,
            f"{result.points:,}",
            f"{result.differing:,}",
            f"{result.units:.3g}",
            f"{result.units_allowed}",
            f"{result.share:.2g}",
            style="" if result.passed else "red",
        )
    console.print(table)
    total = sum(result.points for result in results)
    differing = sum(result.differing for result in results)
    console.print(
        f"{total:,} points in {seconds:.1f} s, {differing:,} differ.\n"
        "units: the largest difference, in units in the last place of a float. Two are\n"
        "allowed if Caffe itself calls powf or expf. amplitude: the largest difference\n"
        "as a fraction of max_lr - base_lr, or of base_lr if there is no max_lr."
    )
