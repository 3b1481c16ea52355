"""The command line: `python -m benchmarks [COMMAND]`, from the checkout."""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import nets
from caffe_clr.cli import entry
from caffe_clr.errors import ClrError, UsageError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Compare this build with stock Caffe and PyTorch. Without COMMAND, run the first four.",
)

Repeats = Annotated[int, typer.Option(min=1, help="How many times to measure each.")]
Source = Annotated[Path | None, typer.Option(help="Caffe's source. Default: the cached download.")]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        iteration()
        rate()
        reference()
        build()


@app.command()
def iteration(
    net: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NET]...", help=f"Some of {', '.join(nets.NETS)}. Default: all."),
    ] = None,
    repeats: Repeats = 20,
    threads: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of threads. Default: 1 and all.")
    ] = None,
) -> None:
    """Time a training iteration of this build, stock Caffe and PyTorch."""
    from benchmarks import iteration as iterations

    _check_nets(net, nets.NETS)
    iterations.show(net or list(nets.NETS), repeats, _threads(threads))


@app.command()
def ranks(
    net: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NET]...", help=f"Some of {', '.join(nets.OF_RANKS)}. Default: all."
        ),
    ] = None,
    repeats: Repeats = 5,
) -> None:
    """Time an iteration on two ranks with one thread each, beside one process with two."""
    from benchmarks import ranks as many

    _check_nets(net, nets.OF_RANKS)
    many.show(net or nets.OF_RANKS, repeats)


@app.command()
def rate(repeats: Repeats = 20) -> None:
    """Measure what computing a learning rate costs, policy by policy."""
    from benchmarks import rate as rates

    rates.show(repeats)


@app.command()
def reference(repeats: Repeats = 5) -> None:
    """Compare the speed of the NumPy reference with PyTorch's CyclicLR."""
    from benchmarks import reference as references

    references.show(repeats)


@app.command()
def build(source: Source = None) -> None:
    """Time a cold build, and one after a patch has changed."""
    from benchmarks import building

    building.show(source)


@app.command()
def accuracy(
    cifar: Annotated[
        Path, typer.Option(help="A folder with train_lmdb, test_lmdb and mean.binaryproto.")
    ],
    accuracy: Annotated[
        float, typer.Option(min=0, max=1, help="The test accuracy to reach.")
    ] = 0.7,
    seeds: Annotated[int, typer.Option(min=1, help="Train with the seeds 1 to N.")] = 1,
) -> None:
    """Time the training to a given accuracy on CIFAR-10."""
    from benchmarks import accuracy as accuracies

    accuracies.show(cifar, accuracy, seeds)


@app.command()
def within_epoch(
    solver: Annotated[Path, typer.Argument(help="The solver file of the run.")],
    snapshot: Annotated[Path, typer.Argument(help="A .solverstate from the start of an epoch.")],
    csv: Annotated[Path, typer.Argument(help="Where to write the accuracies.")],
) -> None:
    """Measure how the test accuracy varies in the epoch after a snapshot."""
    from benchmarks import within_epoch as within

    within.show(solver, snapshot, csv)


@app.command()
def advice(
    cifar10: Annotated[Path, typer.Argument(help="CIFAR-10's archive or folder.")],
    cifar100: Annotated[Path, typer.Argument(help="CIFAR-100's archive or folder.")],
    out: Annotated[Path, typer.Option(help="The folder to measure in.")] = Path("runs/advice"),
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time.")] = 1,
) -> None:
    """Judge suggested bounds and schedules by training twelve nets; takes hours."""
    from benchmarks.advice import data, measuring, report
    from benchmarks.advice.tasks import TASKS

    for name in tasks or []:
        if name not in TASKS:
            raise UsageError(f"unknown task {name}; choose from {', '.join(TASKS)}")
    chosen = [TASKS[name] for name in tasks or TASKS]
    data.write(cifar10, cifar100, out / "data")
    measuring.measure(out.resolve(), chosen, jobs)
    report.show(out / measuring.FILE, chosen)


@app.command()
def advice_tables(
    measurements: Annotated[
        Path | None, typer.Argument(help="Default: those in benchmarks/advice.")
    ] = None,
) -> None:
    """Print the tables of measurements by `advice`."""
    from benchmarks.advice import report
    from benchmarks.advice.tasks import TASKS

    report.show(measurements or report.RECORDED, list(TASKS.values()))


@app.command()
def trees(
    repositories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Git repositories that contain a Caffe.")
    ],
    compiles: Annotated[
        bool, typer.Option("--compile", help="Also compile the solvers, for the CPU.")
    ] = False,
) -> None:
    """Apply the patches in feature/ to every branch and tag of the repositories DIR."""
    from benchmarks import trees as public

    public.show(repositories, compiles)


@app.command()
def figures() -> None:
    """Make the figures and the tables in models/ from the recorded runs, and draw the policies."""
    from benchmarks import figures as drawn
    from benchmarks import readmes

    root = Path(__file__).parents[1]
    readmes.write(root)
    drawn.draw(root, root)


def _check_nets(given: list[str] | None, known: Collection[str]) -> None:
    for name in given or []:
        if name not in known:
            raise UsageError(f"unknown net {name}; choose from {', '.join(known)}")


def _threads(given: str | None) -> list[int]:
    if given is None:
        return sorted({1, len(os.sched_getaffinity(0))})
    numbers = given.split(",")
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise UsageError(f"--threads {given}: give numbers separated by commas, for example 1,2")
    return list(map(int, numbers))


def main() -> None:
    try:
        app(prog_name="python -m benchmarks")
    except ClrError as error:
        entry.errors.print("error:", end=" ", style="bold red")
        entry.errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
