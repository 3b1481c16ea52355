"""The demo: a range test on handwritten digits, then its bounds against a fixed rate."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from caffe_clr import locations
from caffe_clr.cli.app import TRAINING, app
from caffe_clr.cli.commands.building import build
from caffe_clr.cli.console import console
from caffe_clr.errors import AGAIN, KEPT, ClrError, Interrupted
from caffe_clr.system import installed_caffe, processors

_MODEL = Path("models/digits")
_FIXED = _MODEL / "fixed_solver.prototxt"
_JOBS = min(2, processors.count())


@app.command(rich_help_panel=TRAINING)
def demo(
    out: Annotated[Path, typer.Option(help="Write plots and tables into this folder.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Find bounds and train on handwritten digits; build Caffe first if there is none.

    Run it again to resume; nothing is trained twice.

    Example: caffe-clr demo --out /tmp/demo
    """
    if installed_caffe.package() is None:
        build()
    _run(out.resolve())


def _run(out: Path) -> None:
    """Find bounds and train with them, show the progress, and write plots and tables.

    A demo that was interrupted in `out` is resumed, as comparisons are.
    """
    from caffe_clr.experiments import datasets

    out.mkdir(parents=True, exist_ok=True)
    _enter_model_root(out)
    train, test = datasets.write_digits(_MODEL)
    written = f"Digits: {train.resolve()} (1,500 images), {test.resolve()} (297 images)"
    console.print(written, soft_wrap=True)
    try:
        _find_and_compare(out)
    except Interrupted as interrupted:
        remedy = f"{KEPT}; {AGAIN}"
        raise Interrupted(interrupted.signal_number, remedy) from None


def _find_and_compare(out: Path) -> None:
    from caffe_clr.cli.bounds import show_bounds
    from caffe_clr.cli.comparisons import show_comparison
    from caffe_clr.method import comparison, sweeps

    found = show_bounds(
        _FIXED,
        out / "range_test",
        sweeps.Options(seeds=3, jobs=_JOBS, resume=True),
        console,
    )
    if not found.solvers:
        raise ClrError("the range test on the digits suggests no bounds; please report this")
    show_comparison(
        [_FIXED, *found.solvers],
        out / "comparison",
        comparison.Options(seeds=3, jobs=_JOBS),
        console,
    )


def _enter_model_root(out: Path) -> None:
    """Change to the folder that the paths in the model's prototxt files start from."""
    root = locations.checkout()
    if root is None:
        root = out
        shutil.copytree(
            locations.shipped("models"),
            out / "models",
            copy_function=_copy_new,
            dirs_exist_ok=True,
        )
    os.chdir(root)


def _copy_new(source: str, target: str) -> None:
    if not os.path.exists(target):
        shutil.copy(source, target)
