"""The command of the paper's tables."""

from pathlib import Path
from typing import Annotated

import typer

from caffe_clr.cli.app import TRAINING, app
from caffe_clr.cli.console import console
from caffe_clr.cli.training_options import Jobs, Scheduler, declared
from caffe_clr.errors import UsageError

Source = Annotated[
    Path | None, typer.Option(metavar="SOURCE", help="Its official archive, or a folder; see data.")
]


@app.command(rich_help_panel=TRAINING)
def paper(
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Such as table-1. Default: list them.")
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Print what is recorded in models; train nothing.")
    ] = False,
    times: Annotated[
        bool, typer.Option("--times", help="Measure how long the rows take here; train nothing.")
    ] = False,
    rows: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these rows, separated by commas.")
    ] = None,
    cifar10: Source = None,
    cifar100: Source = None,
    imagenet: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A folder with its LMDBs and its mean image."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with the seeds 1 to N.")] = 3,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    gpu: Annotated[int | None, declared("gpu")] = None,
    out: Annotated[Path, typer.Option(help="Train in this folder.")] = Path("runs/paper"),
) -> None:
    """Train the paper's tables and figures, and print them beside the paper's.

    Makes the data, says how long it will take, and trains what is missing in --out. Run it
    again to resume.

    Example: caffe-clr paper table-1 --cifar10 cifar-10-binary.tar.gz
    """
    from caffe_clr.cli.papers import (
        show_recorded,
        show_tables,
        show_times,
        show_times_of_tables,
        show_training,
    )
    from caffe_clr.experiments.paper_runs import Options

    chosen = rows.split(",") if rows else []
    options = Options(seeds=seeds, jobs=jobs, scheduler=scheduler, gpu=gpu)
    if table is None:
        if recorded or chosen:
            raise UsageError("name the table, as in `paper table-1`")
        if times:
            show_times_of_tables(options, console)
        else:
            show_tables(console)
    elif times:
        show_times(table, chosen, options, console)
    elif recorded:
        show_recorded(table, chosen, console)
    else:
        sources = {"cifar10": cifar10, "cifar100": cifar100, "imagenet": imagenet}
        show_training(table, chosen, sources, out, options, console)
