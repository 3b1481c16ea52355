"""Compares solvers that train the same net with the same seeds (paper, section 4)."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caffe_clr import prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import schedule
from caffe_clr.method.results import Comparison, Entry, TableLine
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import begun_solvers, jobs, metrics, notebook, run_folder
from caffe_clr.runs.history import write_csv
from caffe_clr.runs.jobs import Job
from caffe_clr.runs.metrics import Metric
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.status import Status
from caffe_clr.system.paths import StrPath, paths

_UNNAMED = "solver"  # a solver file that its folder names
_STAGE = re.compile(r"solver_\d+\.prototxt")  # of a run


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a comparison: those of each training, and how to run them.

    The comparison sets `seed` and `resume` itself.

    Attributes:
        seeds: number of seeds; each solver is trained with the seeds 1 to `seeds`.
        jobs: number of runs to train at a time on this machine.
        scheduler: address of a Dask scheduler; its workers then train the runs.
    """

    seeds: int = 3
    jobs: int = 1
    scheduler: str | None = None


DEFAULTS = Options()


def default_folder(solver_files: Sequence[Path]) -> Path:
    """The default folder, runs/compare-<names>: the same solvers resume their comparison."""
    return run_folder.named_after("compare", names(solver_files))


def compare(
    solver_files: StrPath | Sequence[StrPath],
    out: StrPath | None = None,
    options: Options = DEFAULTS,
    on_progress: Callable[[dict[str, int]], None] | None = None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> Comparison:
    """Train each solver with the seeds 1 to `options.seeds`, and return the results.

    Each run has its own folder, out/<solver name>/seed_<n>. Finished runs are not
    repeated, and interrupted runs are resumed.

    Args:
        solver_files: the solver prototxts; the first is the baseline.
        out: the folder of the comparison; by default runs/compare-<names>.
        options: see Options.
        on_progress: called a few times a second with the number of iterations done, by
            solver name, summed over the seeds; by default, a notebook shows bars.
        on_warning: see training.train.

    Returns:
        An entry for each solver, in the same order.

    Raises:
        UsageError: the nets have no metric in common, or a run in `out` was started with
            a different solver.
        ClrError: see training.train. A solver that cannot be trained is refused before any
            training starts; a run that fails later does not stop the others. Divergence
            is not an error.
    """
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds}: give 1 or more")
    solver_files = paths(solver_files)
    out = Path(out) if out else default_folder(solver_files)
    folders = run_folders(solver_files, out, options.seeds)
    solvers = {file: prototxt.open_solver(file) for file in solver_files}
    by = _metrics(list(solvers.values()))
    for file, folder, seed in folders:
        run_folder.check_begun(folder, solvers[file].parameter, seed)
    tables = "|".join(map(re.escape, ["comparison", *names(solver_files)]))
    is_own = any(folder.is_dir() for _, folder, _ in folders)
    run_folder.check_replaced(out, rf"({tables})\.(csv|{run_folder.PLOTS})", is_own=is_own)
    threads = None if options.scheduler else jobs.threads(options.jobs)
    tasks = [
        Job(
            solver_files=(str(file),),
            out=str(folder.resolve()),
            options=TrainingOptions.of(options, seed=seed, resume=True),
            cwd=str(Path.cwd()),
            threads=threads,
        )
        for file, folder, seed in folders
    ]

    if not options.scheduler:
        _check([job for job in tasks if job.options.seed == 1])

    total = {
        name: options.seeds * solvers[file].parameter.max_iter
        for name, file in zip(names(solver_files), solver_files, strict=True)
    }

    def show() -> None:
        done = dict.fromkeys((folder.parent.name for _, folder, _ in folders), 0)
        for _, folder, _ in folders:
            done[folder.parent.name] += run_folder.last_iteration(folder)
        if on_progress:
            on_progress(done)
        else:
            bars.show({name: (iterations, total[name]) for name, iterations in done.items()})

    with notebook.Bars() as bars:
        jobs.train_all(tasks, options.jobs, options.scheduler, show, on_warning)
    return Comparison(
        _read(
            name,
            file,
            by[str(file)],
            solvers[file].parameter,
            {seed: folder for other, folder, seed in folders if other == file},
        )
        for name, file in zip(names(solver_files), solver_files, strict=True)
    )


def _check(tasks: Sequence[Job]) -> None:
    """Refuse a solver that cannot be trained before the first of them is."""
    for job in tasks:
        if not run_folder.has_begun(Path(job.out)):
            jobs.run(replace(job, only_check=True))


def of_runs(folders: Sequence[Path]) -> list[Entry]:
    """The records of several runs for one plot, named after their folders.

    Raises:
        UsageError: the runs have no metric in common, or a folder is given twice.
        ClrError: a folder holds no run, or nothing is recorded yet.
    """
    entries = []
    for folder, name in zip(folders, _folder_names(folders), strict=True):
        status = run_folder.read_status(folder)
        files = begun_solvers.solver_files(folder)
        stages = schedule.read_stages(files)
        entry = Entry(
            name=name,
            metric=_metric_of_run(status, files[-1]),
            max_iter=stages[-1].solver.max_iter,
            histories={0: run_folder.read_history(folder)},
            diverged={},
            schedule=schedule.rows(stages),
            solver_type=prototxt.solver_type(stages[-1].solver),
        )
        if not entry.curve():
            label = entry.metric.label
            raise ClrError(f"{folder}: no {label} is recorded yet; try again later")
        entries.append(entry)
    if len({entry.metric for entry in entries}) > 1:
        told = ", ".join(f"{entry.name}: {entry.metric.label}" for entry in entries)
        raise UsageError(f"the runs record different metrics ({told}); plot them separately")
    return entries


def run_folders(
    solver_files: Sequence[Path], out: Path, seeds: int
) -> list[tuple[Path, Path, int]]:
    """The solver file, run folder and seed of each run, in the order of the seeds."""
    return [
        (file, out / name / f"seed_{seed}", seed)
        for seed in range(1, seeds + 1)
        for name, file in zip(names(solver_files), solver_files, strict=True)
    ]


def table(entries: Sequence[Entry]) -> list[TableLine]:
    """The lines of the comparison table; the first solver is the baseline."""
    return Comparison(entries).table()


def write(entries: Sequence[Entry], lines: Sequence[TableLine], out: Path) -> None:
    """Write the table as comparison.csv, and each solver's curve over the seeds as <name>.csv."""
    write_csv([line.row() for line in lines], out / "comparison.csv")
    for entry in entries:
        write_csv(entry.curve(), out / f"{entry.name}.csv")


def _folder_names(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its folder, with as many parent folders as make it unique."""
    found = _told_apart([folder.resolve().parts for folder in folders], "/")
    if found is None:
        raise UsageError("a run is given twice; give each one once")
    return found


def names(solver_files: Sequence[Path]) -> list[str]:
    """A short name for each solver: that of its file, after its folders where two would be equal.

    solver.prototxt says nothing beside its folder, nor does the solver_1.prototxt of a run. The
    time in the name of a run's folder is left out as far as the rest tells the solvers apart.

    Raises:
        UsageError: nothing tells two of them apart.
    """
    for clock in run_folder.CLOCKS:
        found = _told_apart([_parts(file.resolve(), clock) for file in solver_files], "-")
        if found is not None:
            return found
    raise UsageError("two of the solvers have the same name; rename one, or give each one once")


def _parts(file: Path, clock: str) -> Sequence[str]:
    """The folders of a solver file and its name, as far as they tell anything."""
    folders = [run_folder.with_clock(folder, clock) for folder in file.parts[1:-1]]
    if _STAGE.fullmatch(file.name) and run_folder.is_run(file.parent):
        return folders
    return [*folders, run_folder.solver_name(file)]


def _told_apart(paths: Sequence[Sequence[str]], separator: str) -> list[str] | None:
    """The last part of each path, after as many before it as tell it from the others.

    Returns:
        The names; None if two paths are equal.
    """
    sizes = [1] * len(paths)
    while True:
        found = [_joined(path[-size:], separator) for path, size in zip(paths, sizes, strict=True)]
        times = Counter(found)
        longer = [
            size + (times[name] > 1 and size < len(path))
            for path, size, name in zip(paths, sizes, found, strict=True)
        ]
        if longer == sizes:
            return found if len(times) == len(found) else None
        sizes = longer


def _joined(parts: Sequence[str], separator: str) -> str:
    return separator.join(parts[:-1] if parts[1:] and parts[-1] == _UNNAMED else parts)


def _metric_of_run(status: dict[str, Any], solver_file: Path) -> Metric:
    """As run.json has it, or, of a run of an earlier version, by the nets of its solver."""
    found = metrics.recorded_metric(status)
    return found or metrics.metric_of(prototxt.open_solver(solver_file))


def _metrics(solvers: Sequence[SolverFile]) -> dict[str, Metric]:
    """What to compare each solver by; refuses those whose runs could not be compared."""
    found = {solver.name: metrics.metric_of(solver) for solver in solvers}
    for solver in solvers:
        if not found[solver.name].of_test and not solver.parameter.display:
            raise ClrError(
                f"{solver.name}: nothing is recorded to compare, because display is 0 and there is"
                " no test net; set display"
            )
    labels = {metric.label: name for name, metric in found.items()}
    if len(labels) > 1:
        told = ", ".join(f"{name}: {label}" for label, name in labels.items())
        raise UsageError(
            f"the solvers have no metric in common ({told}); use nets with the same outputs"
        )
    return found


def _read(name: str, file: Path, metric: Metric, solver: Any, folders: dict[int, Path]) -> Entry:
    """What became of a solver's runs, whose folders are given by seed.

    Args:
        solver: its SolverParameter.
    """
    statuses = {seed: run_folder.read_status(folder) for seed, folder in folders.items()}
    return Entry(
        name=name,
        metric=metric,
        max_iter=solver.max_iter,
        histories={seed: run_folder.read_history(folder) for seed, folder in folders.items()},
        diverged={
            seed: status["message"]
            for seed, status in statuses.items()
            if status["status"] == Status.DIVERGED
        },
        schedule=schedule.schedule([file]),
        solver_type=prototxt.solver_type(solver),
    )
