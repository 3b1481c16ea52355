"""Trains the rows of the paper's tables.

TABLE/ROW/seed_N is the run of a row, beside the folders of Table.root.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.experiments.paper import Row, Sweep, Table
from caffe_clr.method import sweeps
from caffe_clr.runs import jobs, run_folder, solvers
from caffe_clr.runs.jobs import Job
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.status import Status

_ROUGHLY = (1, 2)  # iterations to warm up, and to time
_CLOSELY = (5, 20)
_SAFE_LR = 1e-6  # nothing diverges while it is timed
_LONG = 1  # seconds; a longer iteration is measured roughly
_BOUNDS = "range_test.json"  # is written last


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


def recorded(row: Row, seeds: int, out: Path) -> dict[int, Path]:
    """The tests of the seeds that have been trained to the end, or their range tests."""
    folders = {seed: _run(row, seed, out) for seed in range(1, seeds + 1)}
    return {
        seed: folder if row.sweep else folder / "test.csv"
        for seed, folder in folders.items()
        if _status(row, folder) == Status.FINISHED
    }


def diverged(row: Row, seeds: int, out: Path) -> list[int]:
    """The seeds that diverged."""
    return [
        seed
        for seed in range(1, seeds + 1)
        if _status(row, _run(row, seed, out)) == Status.DIVERGED
    ]


def missing(rows: Sequence[Row], seeds: int, out: Path) -> Runs:
    """The rows and seeds that have not been trained to the end, nor diverged."""
    return [
        (row, seed)
        for row in rows
        for seed in range(1, seeds + 1)
        if _status(row, _run(row, seed, out)) not in (Status.FINISHED, Status.DIVERGED)
    ]


def iterations_done(runs: Runs, out: Path) -> int:
    """The iterations that runs have recorded."""
    return sum(_iterations_done(row, seed, out) for row, seed in runs)


@dataclass(frozen=True)
class Speed:
    """The seconds that a run takes to start, and for each iteration."""

    start: float
    iteration: float

    def seconds(self, iterations: int, runs: int = 1) -> float:
        """How long runs with so many iterations in all take, one after another."""
        return runs * self.start + iterations * self.iteration


def speed(table: Table, row: Row, seed: int, out: Path, options: Options) -> Speed:
    """Measure how fast a row trains whose data is there, by training a little."""
    solver = solvers.without_tests(prototxt.read_solver(row.solvers[0]))
    solver.display, solver.snapshot, solver.snapshot_after_train = 1, 0, False
    for field in ("test_interval", "cyclical_momentum"):
        solver.ClearField(field)
    solver.lr_policy, solver.base_lr = "fixed", _SAFE_LR
    root, threads = table.root(seed, out), jobs.threads(options.jobs)
    found = Speed(0, 0)
    for warm_up, timed in (_ROUGHLY, _CLOSELY):
        if found.iteration > _LONG:
            break
        solver.max_iter = warm_up + timed
        with tempfile.TemporaryDirectory(dir=out, prefix="timing-") as folder:
            file = Path(folder, "solver.prototxt").resolve()
            file.write_text(text_format.MessageToString(solver))
            training = TrainingOptions(gpu=options.gpu, seed=seed)
            job = Job((str(file),), str(file.parent / "run"), training, str(root), threads)
            begun = time.monotonic()
            jobs.run(job)
            taken = time.monotonic() - begun
            times = [each["seconds"] for each in run_folder.read_history(Path(job.out)).train]
        iteration = (times[-1] - times[warm_up]) / (len(times) - 1 - warm_up)
        found = Speed(max(0, taken - solver.max_iter * iteration), iteration)
    return found


def train(
    table: Table,
    runs: Runs,
    out: Path,
    options: Options,
    on_progress: Callable[[int], None] = lambda done: None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> None:
    """Train runs but for range tests, or continue those that were interrupted.

    Args:
        on_progress: called a few times a second with the iterations done, over all runs.
        on_warning: see training.train.

    Raises:
        ClrError: see training.train. Divergence is not an error.
    """

    threads = None if options.scheduler else jobs.threads(options.jobs)
    tasks = [
        Job(
            tuple(map(_in_root, row.solvers)),
            str(_run(row, seed, out)),
            TrainingOptions(gpu=options.gpu, seed=seed, resume=True),
            str(table.root(seed, out)),
            threads,
        )
        for row, seed in runs
        if not row.sweep
    ]

    def show() -> None:
        on_progress(iterations_done(runs, out))

    jobs.train_all(tasks, options.jobs, options.scheduler, show, on_warning)


def range_test(
    row: Row, sweep: Sweep, seed: int, out: Path, options: Options
) -> tuple[Path, Path, sweeps.Options]:
    """The arguments of range_test.range_test, which is to run in the table's root."""
    test = sweeps.Options(
        min_lr=sweep.min_lr,
        max_lr=sweep.max_lr,
        iterations=row.iterations,
        seed=seed,
        resume=True,
        gpu=options.gpu,
        scheduler=options.scheduler,
    )
    return Path(_in_root(row.solvers[0])), _run(row, seed, out), test


def _in_root(solver: Path) -> str:
    return f"models/{solver.parent.name}/{solver.name}"


def _run(row: Row, seed: int, out: Path) -> Path:
    return (out / row.run / f"seed_{seed}").resolve()


def _iterations_done(row: Row, seed: int, out: Path) -> int:
    folder = _run(row, seed, out)
    return run_folder.last_iteration(folder / f"seed_{seed}" if row.sweep else folder)


def _status(row: Row, folder: Path) -> str | None:
    """The status of a run; a range test is finished when its bounds are written."""
    if row.sweep:
        return Status.FINISHED if (folder / _BOUNDS).is_file() else None
    return run_folder.begun(folder).get("status")
