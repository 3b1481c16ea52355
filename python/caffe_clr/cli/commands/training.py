"""The commands of the paper's method: bounds, stepsize, schedule, training, comparison."""

from pathlib import Path
from typing import Annotated, Any

import typer

from caffe_clr.cli.app import TRAINING, app
from caffe_clr.cli.console import console
from caffe_clr.cli.training_options import Jobs, Scheduler, check_picture, declared, offered
from caffe_clr.errors import UsageError
from caffe_clr.runs.options import COMPARE, RANGE_TEST, TRAIN, PlotFormat, TrainingOptions

Solver = Annotated[Path, typer.Argument(metavar="SOLVER", help="A solver prototxt.")]
Stages = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOLVER", help="Solver prototxt files; each continues where the last one ended."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Write into this folder. Default: runs/<solver name>-<time>."),
]
Policy = Annotated[
    str | None,
    typer.Option(help="Policy of the new solver: 1cycle (default), triangular2, …"),
]
MaxIter = Annotated[
    int | None, typer.Option(help="max_iter of the new solver. Default: the solver's own.")
]
Images = Annotated[int | None, declared("images")]
Format = Annotated[PlotFormat, declared("plot_format")]


@app.command(rich_help_panel=TRAINING)
@offered(TRAIN)
def train(solvers: Stages, out: Out = None, **options: Any) -> None:
    """Train a solver, or several as the stages of one run (the paper's Table 2).

    Records rate, loss and outputs as CSV, and plots them. Ctrl-C takes a snapshot.

    Example: caffe-clr train models/digits/triangular2_solver.prototxt
    """
    from caffe_clr.cli.run_display import show_training

    show_training(solvers, out, TrainingOptions(**options), console)


@app.command(rich_help_panel=TRAINING)
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    together: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the accuracy and the rate of all runs into this PNG, SVG or PDF.",
        ),
    ] = None,
    plot_format: Format = PlotFormat.PNG,
) -> None:
    """Draw what runs have recorded so far, finished or not.

    Example: caffe-clr plot runs/triangular2-* --together runs.png
    """
    from caffe_clr.cli.run_display import plot_runs

    plot_runs(runs, together, plot_format, console)


@app.command(RANGE_TEST, rich_help_panel=TRAINING)
@offered(RANGE_TEST)
def range_test(
    solver: Solver,
    min_lr: Annotated[
        float | None,
        typer.Option(help="The rate at the start. Without both rates, the range is found."),
    ] = None,
    max_lr: Annotated[float | None, typer.Option(help="The rate at the end.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length of the test in epochs.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Length in iterations.")] = None,
    images: Images = None,
    policy: Policy = None,
    max_iter: MaxIter = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", "--repeat", min=1, help="Number of seeds; several give a band."),
    ] = 1,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Stop only at NaN, not if the loss rises.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the range test in --out.")
    ] = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Find base_lr and max_lr by training while the rate rises (section 3.3).

    Suggests both bounds, and writes a solver prototxt with them. Without --min-lr and
    --max-lr, two sweeps find the range; for each seed, they take at most 15 % of max_iter,
    but at least 30 iterations each.

    Example: caffe-clr range-test models/digits/fixed_solver.prototxt
    """
    from caffe_clr.cli.bounds import show_bounds
    from caffe_clr.cli.ranks import follow
    from caffe_clr.method.sweeps import Options
    from caffe_clr.runs.ranks import Place

    if epochs is not None and iterations is not None:
        raise UsageError("give the length of the test as either --epochs or --iterations")
    test = Options(
        min_lr=min_lr,
        max_lr=max_lr,
        iterations=iterations,
        epochs=epochs,
        images=images,
        policy=policy,
        max_iter=max_iter,
        seeds=seeds,
        jobs=jobs,
        resume=resume,
        stop_early=not keep_going,
        scheduler=scheduler,
        **options,
    )
    place = Place.of(test.mpi)
    if place.rank:
        follow((), TrainingOptions.of(test), place)
        return
    show_bounds(solver, out, test, console)


@app.command(rich_help_panel=TRAINING)
def suggest(
    curve: Annotated[
        Path,
        typer.Argument(
            metavar="CURVE",
            help="A log of `caffe train`, the folder of a run or of a range test, or a table (CSV)"
            " with the columns lr, an output such as accuracy, and optionally loss.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Judge by this output. Default: the training loss, if it is recorded.",
        ),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Lower values of that output are better.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also draw the curve and the bounds into this PNG, SVG or PDF."
        ),
    ] = None,
    solver: Annotated[
        Path | None,
        typer.Option(help="Also write a new solver: this one with the bounds, as range-test does."),
    ] = None,
    policy: Policy = None,
    max_iter: MaxIter = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the new solver into this folder. Default: the current one."),
    ] = None,
) -> None:
    """Suggest base_lr and max_lr from a recorded training whose rate rises.

    Example: caffe-clr suggest models/cifar10_full/results/range_test_1.csv
    """
    from caffe_clr.cli.bounds import NewSolver, show_suggestions
    from caffe_clr.method.sweeps import Options

    check_picture("--plot", plot)
    if lower_is_better and output is None:
        raise UsageError("--lower-is-better needs --output with the name of an output")
    for option, value in (("--policy", policy), ("--max-iter", max_iter), ("--out", out)):
        if solver is None and value is not None:
            raise UsageError(f"{option} is for a new solver; name the given one with --solver")
    new = None
    if solver:
        new = NewSolver(solver, Options(policy=policy, max_iter=max_iter), out or Path())
    show_suggestions(curve, output, lower_is_better, plot, console, new)


@app.command(rich_help_panel=TRAINING)
def stepsize(
    solver: Solver,
    epochs: Annotated[float, typer.Option(help="Half a cycle; the paper advises 2 to 10.")] = 4,
    images: Images = None,
    ranks: Annotated[int, typer.Option(min=1, help="Ranks, or GPUs, that train together.")] = 1,
) -> None:
    """Convert epochs into a stepsize, with the sizes of the data set and the batches.

    Example: caffe-clr stepsize models/digits/triangular2_solver.prototxt
    """
    from caffe_clr.cli.stepsizes import show_stepsize

    show_stepsize(solver, epochs, images, ranks, console)


@app.command(rich_help_panel=TRAINING)
def schedule(
    solvers: Stages,
    log: Annotated[
        Path | None, typer.Option(help="Also draw the rates in this log of caffe train.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write into this folder. Default: runs/schedule-<solver names>."),
    ] = None,
    plot_format: Format = PlotFormat.PNG,
) -> None:
    """Draw the rate over a whole run before any training.

    Needs no net, and also draws Caffe's own policies.

    Example: caffe-clr schedule models/digits/triangular2_solver.prototxt
    """
    from caffe_clr.cli.schedules import show_schedule

    show_schedule(solvers, out, console, log, plot_format)


@app.command(rich_help_panel=TRAINING)
@offered(COMPARE)
def compare(
    solvers: Annotated[
        list[Path],
        typer.Argument(metavar="SOLVER", help="Solver files; the first is the baseline."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Train with the seeds 1 to N.")] = 3,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write into this folder. Default: runs/compare-<solver names>."),
    ] = None,
    **options: Any,
) -> None:
    """Train several solvers with the same seeds; draw and tabulate their accuracy.

    Run it again to resume: finished runs are not repeated.

    Example: caffe-clr compare models/digits/{fixed,triangular2}_solver.prototxt
    """
    from caffe_clr.cli.comparisons import show_comparison
    from caffe_clr.method.comparison import Options

    comparison = Options(seeds=seeds, jobs=jobs, scheduler=scheduler, **options)
    show_comparison(solvers, out, comparison, console)


@app.command(rich_help_panel=TRAINING)
def log(
    logfile: Annotated[
        Path, typer.Argument(metavar="LOGFILE", help="The standard error of `caffe train`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write into this folder. Default: <LOGFILE>-results, without .log and .gz."
        ),
    ] = None,
    plot_format: Format = PlotFormat.PNG,
) -> None:
    """Read a log of caffe train, write losses, tests and rates as CSV, and plot them.

    Example: caffe-clr log train.log
    """
    from caffe_clr.cli.log_summary import default_folder, show_log

    show_log(logfile, out or default_folder(logfile), console, plot_format)
