"""The demo: a fixed rate and triangular2 on handwritten digits, from the same seed."""

import os
import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from caffe_clr import datasets, locations, plots, prototxt, training
from caffe_clr.training import History

POLICIES = ("fixed", "triangular2")
_MODEL = Path("models/digits")


def run(out: Path, console: Console) -> dict[str, History]:
    """Train, showing progress, and write a plot and the recorded numbers into `out`.

    Returns:
        The history of each policy.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _enter_model_root(out)
    train, test = datasets.write_digits(_MODEL)
    console.print(f"Digits: {train} (1,500 images), {test} (297 images)", soft_wrap=True)
    histories = {}
    for policy in POLICIES:
        histories[policy] = _train(_MODEL / f"{policy}_solver.prototxt", policy, console)
        training.write_csv(histories[policy].train, out / f"{policy}_train.csv")
        training.write_csv(histories[policy].test, out / f"{policy}_test.csv")
    plot = out / "comparison.png"
    plots.plot_comparison(histories, "Handwritten digits, one seed", plot)
    console.print(_table(histories))
    console.print(f"Plot: {plot}", soft_wrap=True)
    return histories


def _enter_model_root(out: Path) -> None:
    """Change to the folder that the paths in the model's prototxt files start from."""
    root = locations.checkout()
    if root is None:
        root = out
        shutil.copytree(locations.shipped("models"), out / "models", dirs_exist_ok=True)
    os.chdir(root)


def _train(solver_file: Path, policy: str, console: Console) -> History:
    columns = (
        TextColumn(f"{policy:<12}"),
        BarColumn(bar_width=10),
        TextColumn("{task.completed:>4.0f}/{task.total:.0f}"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    max_iter = prototxt.read_solver(solver_file).max_iter
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=max_iter)

        def show(iteration: int, history: History) -> None:
            progress.update(task, completed=iteration)
            if history.train and history.test:
                now, tested = history.train[-1], history.test[-1]
                progress.update(
                    task,
                    description=f"rate {now['lr']:.4f}  loss {now['loss']:.4f}"
                    f"  accuracy {tested['accuracy']:6.2%}",
                )

        return training.train(solver_file, on_iteration=show)


def _table(histories: dict[str, History]) -> Table:
    table = Table("policy", title="Test accuracy", title_justify="left")
    for heading in ("iterations", "final", "best"):
        table.add_column(heading, justify="right")
    for policy, history in histories.items():
        accuracies = [row["accuracy"] for row in history.test]
        iterations = f"{history.test[-1]['iteration']:,.0f}"
        table.add_row(policy, iterations, f"{accuracies[-1]:.2%}", f"{max(accuracies):.2%}")
    return table
