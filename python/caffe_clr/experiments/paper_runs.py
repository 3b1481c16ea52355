"""Trains the rows of the paper's tables.

Everything is in one folder: DATA_N has the models, and a data set with the training images in
the order of seed N; TABLE/ROW/seed_N is a run.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr import locations, prototxt
from caffe_clr.errors import UsageError
from caffe_clr.experiments import cifar, datasets, nets, paper
from caffe_clr.experiments.paper import Result, Row, Table
from caffe_clr.runs import jobs, run_folder, solvers
from caffe_clr.runs.jobs import Job, Processes
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.status import Status

_ARCHIVES = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}
_PADDED = "_padded"
_PIXELS = 4  # by which images are padded
_WARM_UP, _TIMED = 5, 20  # iterations


@dataclass(frozen=True, kw_only=True)
class Options:
    """How rows are trained.

    Attributes:
        seeds: each row is trained with the seeds 1 to `seeds`.
        jobs: number of runs to train at a time on this machine.
        scheduler: address of a Dask scheduler; its workers then train the runs.
        gpu: number of the GPU to train on; None for the CPU.
    """

    seeds: int = 3
    jobs: int = 1
    scheduler: str | None = None
    gpu: int | None = None


Runs = list[tuple[Row, int]]


def results(table: Table, row: Row, seeds: int, out: Path) -> dict[int, Result]:
    """The results of the seeds that have been trained to the end."""
    folders = {seed: _run(table, row, seed, out) for seed in range(1, seeds + 1)}
    return {
        seed: paper.result(folder / "test.csv")
        for seed, folder in folders.items()
        if _is_finished(folder)
    }


def missing(table: Table, rows: Sequence[Row], seeds: int, out: Path) -> Runs:
    """The rows and seeds that have not been trained to the end."""
    return [
        (row, seed)
        for row in rows
        for seed in range(1, seeds + 1)
        if not _is_finished(_run(table, row, seed, out))
    ]


def iterations_done(table: Table, runs: Runs, out: Path) -> int:
    """The iterations that runs have recorded."""
    return sum(run_folder.last_iteration(_run(table, row, seed, out)) for row, seed in runs)


def prepare(
    table: Table,
    runs: Runs,
    sources: Mapping[str, Path | None],
    out: Path,
    on_data: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the models and the data that runs need, unless they are there.

    Args:
        sources: the archive or folder of cifar10 and of cifar100, where it is given.
        on_data: called with the folder of a data set before it is written.

    Raises:
        UsageError: a source is needed and missing.
        ClrError: see cifar.read.
    """
    for seed in sorted({seed for _, seed in runs}):
        root = _root(table, seed, out)
        models = locations.shipped("models")
        shutil.copytree(
            models,
            root / "models",
            ignore=_not_needed,
            dirs_exist_ok=True,
        )
        data = root / "data" / table.data
        if table.data == "digits":
            datasets.write_digits(root / "models/digits")
        elif not datasets.existing(data):
            on_data(data)
            data.parent.mkdir(parents=True, exist_ok=True)
            datasets.write(_read(table.data, seed, sources), data)
        if table.net:
            file = root / "models" / table.folder.name / f"{table.net}.prototxt"
            nets.write(_net(table), file)


def seconds_per_iteration(table: Table, row: Row, seed: int, out: Path, options: Options) -> float:
    """Measure an iteration of a row, by training a few."""
    solver = solvers.without_tests(prototxt.read_solver(row.solvers[0]))
    solver.max_iter, solver.display = _WARM_UP + _TIMED, 1
    solver.snapshot, solver.snapshot_after_train = 0, False
    solver.ClearField("test_interval")
    with tempfile.TemporaryDirectory(dir=out, prefix="timing-") as folder:
        file = Path(folder, "solver.prototxt").resolve()
        file.write_text(text_format.MessageToString(solver))
        job = Job(
            (str(file),),
            str(file.parent / "run"),
            TrainingOptions(gpu=options.gpu, seed=seed),
            str(_root(table, seed, out)),
            jobs.threads(options.jobs),
        )
        Processes().run(job)
        times = [each["seconds"] for each in run_folder.read_history(Path(job.out)).train]
    return (times[-1] - times[_WARM_UP]) / (len(times) - 1 - _WARM_UP)


def train(
    table: Table,
    runs: Runs,
    out: Path,
    options: Options,
    on_progress: Callable[[int], None] = lambda done: None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> None:
    """Train runs, or continue those that were interrupted.

    Args:
        on_progress: called a few times a second with the iterations done, over all runs.
        on_warning: see training.train.

    Raises:
        ClrError: see training.train. Divergence is not an error.
    """
    threads = None if options.scheduler else jobs.threads(options.jobs)
    tasks = [
        Job(
            tuple(f"models/{file.parent.name}/{file.name}" for file in row.solvers),
            str(_run(table, row, seed, out)),
            TrainingOptions(gpu=options.gpu, seed=seed, resume=True),
            str(_root(table, seed, out)),
            threads,
        )
        for row, seed in runs
    ]

    def show() -> None:
        on_progress(iterations_done(table, runs, out))

    jobs.train_all(tasks, options.jobs, options.scheduler, show, on_warning)


def _net(table: Table) -> Any:
    """The net of a row of Table 4."""
    classes = 100 if table.data.startswith("cifar100") else 10
    data = Path("data", table.data)
    match table.folder.name:
        case "stochastic_depth":
            return nets.stochastic_depth(110, 0.5, classes, data)
        case "densenet":
            return nets.densenet(40, 12, classes, data)
    return nets.resnet(20 if table.net == "resnet_20" else 110, classes, data)


def _read(data: str, seed: int, sources: Mapping[str, Path | None]) -> dict[str, datasets.Split]:
    name = data.removesuffix(_PADDED)
    source = sources[name]
    if source is None:
        raise UsageError(
            f"--{name} is missing: name the archive of {_ARCHIVES[name].archive}, or its folder"
        )
    splits = cifar.read(source, _ARCHIVES[name], None if seed == 1 else seed)
    return datasets.padded(splits, _PIXELS) if data.endswith(_PADDED) else splits


def _root(table: Table, seed: int, out: Path) -> Path:
    """The folder that a run's paths start from; the digits have one order."""
    return (out / f"{table.data}_{1 if table.data == 'digits' else seed}").resolve()


def _run(table: Table, row: Row, seed: int, out: Path) -> Path:
    return (out / table.name / row.name / f"seed_{seed}").resolve()


def _is_finished(folder: Path) -> bool:
    return run_folder.begun(folder).get("status") == Status.FINISHED


def _not_needed(folder: str, names: list[str]) -> list[str]:
    """All but the folders in models, and the prototxt files in those."""
    if Path(folder) == locations.shipped("models"):
        return [name for name in names if Path(folder, name).is_file()]
    return [name for name in names if not name.endswith(".prototxt")]
