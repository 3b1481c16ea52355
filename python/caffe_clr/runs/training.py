"""Trains solvers with pycaffe into a run folder: one solver, or stages of a run."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError, DivergedError
from caffe_clr.preflight import data_layers
from caffe_clr.runs import event_files, metrics, planning, run_writer, solvers
from caffe_clr.runs.history import History
from caffe_clr.runs.options import DEFAULTS, TrainingOptions
from caffe_clr.runs.planning import Plan
from caffe_clr.runs.run_writer import RunWriter
from caffe_clr.runs.snapshots import Snapshot
from caffe_clr.runs.stage import Progress, Stage, check_labels
from caffe_clr.runs.status import DIGESTS, Status


def train(
    solver_files: Path | Sequence[Path],
    out: Path | None = None,
    options: TrainingOptions = DEFAULTS,
    *,
    on_iteration: Callable[[Progress], None] = lambda progress: None,
    on_warning: Callable[[str], None] = lambda warning: None,
    stop: Callable[[], int | None] = lambda: None,
) -> History:
    """Train a solver to its max_iter, testing and snapshotting as its prototxt says.

    Several solvers are stages (the paper's Table 2): each goes on from the
    weights, iteration and solver state in which the one before ended. Paths in
    a prototxt are relative to the working directory, as for `caffe train`; of
    snapshot_prefix only the name is used, snapshots are in the run folder.

    Args:
        solver_files: a solver prototxt, or one for each stage.
        out: the run folder; by default runs/<solver name>-<time>.
        options: the seed, the GPU, whether to resume, …
        on_iteration: called after each iteration.
        on_warning: called with what a resumed run cannot restore: what is damaged
            in the folder, and what differs from an uninterrupted run.
        stop: asked after each iteration; a signal number ends the run with a
            snapshot and Interrupted.

    Raises:
        DivergedError: the loss diverged; what was recorded and snapshot before
            is in the folder.
        ClrError: a solver, net, data set or the folder cannot be used.
    """
    files = [solver_files] if isinstance(solver_files, Path) else list(solver_files)
    if options.tensorboard:
        event_files.check()
    planned = planning.plan(files, out, options)
    _check_caffe(planned, options)
    about = _about(files, planned, options)
    with run_writer.open_run(planned.folder, planned.stages, about, resume=options.resume) as run:
        if run.is_finished or run.divergence:
            _tell(run.problems, on_warning)
            if run.divergence:
                raise DivergedError(*run.divergence)
            return run.history
        snapshot = run.snapshots.newest(lambda found: _is_whole(planned, found, options.gpu))
        changes = _begin(run, snapshot, about)
        _tell([*run.problems, *changes], on_warning)
        _train_stages(planned, run, snapshot, options, on_iteration, on_warning, stop)
        return run.history


def check(solver_files: Sequence[Path], out: Path, options: TrainingOptions = DEFAULTS) -> None:
    """Refuse what `train` would refuse of a run that is new, and train nothing.

    Layers and labels are checked with Caffe itself: this is for a process of its own, too.

    Raises:
        ClrError: as train.
    """
    planned = planning.plan(solver_files, out, options)
    _check_caffe(planned, options)
    for solver in planned.solvers:
        live = solvers.load_solver(solvers.only_training(solver.parameter), options.gpu)
        check_labels(solver, live)


def _check_caffe(planned: Plan, options: TrainingOptions) -> None:
    """Refuse what the Caffe that is installed cannot train."""
    if options.gpu is not None:
        solvers.check_gpu(options.gpu)
    for solver in planned.solvers:
        solvers.check_layers(solver.nets)


def _about(files: Sequence[Path], planned: Plan, options: TrainingOptions) -> dict[str, Any]:
    """What run.json says of a run."""
    return {
        "solvers": [str(file) for file in files],
        "seed": options.seed,
        "gpu": options.gpu,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "snapshot_cycles": options.snapshot_cycles,
        "metric": vars(metrics.metric_of(planned.solvers[-1])),
        "nets": [_digest(solver.train_net.parameter) for solver in planned.solvers],
        "data": [data_layers.digest(solver.nets) for solver in planned.solvers],
    }


def _begin(run: RunWriter, snapshot: Snapshot | None, about: dict[str, Any]) -> list[str]:
    """Begin a run, or go on from a snapshot.

    Returns:
        What it goes on with that changes its bits.
    """
    if not snapshot and run.history.train:
        run.problems.append(f"{run.folder}: no complete snapshot; starts again from iteration 0")
    changes: list[str] = []
    if snapshot:
        changes = _changes(run.folder, run.begun, about)
        # it stays a run of what it was begun with
        about.update({key: run.begun[key] for key in DIGESTS if key in run.begun})
    run.start(snapshot)
    return changes


def _train_stages(
    planned: Plan,
    run: RunWriter,
    snapshot: Snapshot | None,
    options: TrainingOptions,
    on_iteration: Callable[[Progress], None],
    on_warning: Callable[[str], None],
    stop: Callable[[], int | None],
) -> None:
    """Train from a snapshot, or the beginning, to the end of the last stage."""
    status, iteration, message = Status.INTERRUPTED, 0, ""
    board = event_files.written(run, planned.stages) if options.tensorboard else nullcontext()
    try:
        with board:
            for number in range(snapshot.stage if snapshot else 0, len(planned.solvers)):
                stage = Stage(planned, number, run, options)
                try:
                    _tell(stage.begin(snapshot), on_warning)
                    stage.train(on_iteration, stop)
                finally:
                    iteration = stage.iteration
                snapshot = stage.newest
        status = Status.FINISHED
    except DivergedError as error:
        status, iteration, message = Status.DIVERGED, error.iteration, str(error)
        raise
    finally:
        run.set_status(status, iteration, message)


def _tell(warnings: Sequence[str], on_warning: Callable[[str], None]) -> None:
    for warning in warnings:
        on_warning(warning)


def _digest(net: Any) -> str:
    return hashlib.sha256(net.SerializeToString(deterministic=True)).hexdigest()


def _changes(folder: Path, begun: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """What a run is resumed with that changes its bits, though not its solvers."""
    names = {"gpu": "--gpu", "threads": "OMP_NUM_THREADS"}
    changed = [
        f"{folder}: the {key.removesuffix('s')} of stage {number} has changed since the run was"
        " begun: the result is not that of an uninterrupted run"
        for key in DIGESTS
        for number, (before, now) in enumerate(
            zip(begun.get(key, about[key]), about[key], strict=False), 1
        )
        if before != now
    ]
    return changed + [
        f"{folder}: the run was begun with {_given(name, begun[key])}, and goes on with"
        f" {_given(name, about[key])}: its bits are not those of an uninterrupted one"
        for key, name in names.items()
        if begun.get(key, about[key]) != about[key]
    ]


def _given(name: str, value: object) -> str:
    if value is None:
        return f"no {name}" if name.isupper() else "the CPU"
    return f"{name} {value}" if name.startswith("--") else f"{name}={value}"


def _is_whole(planned: Plan, snapshot: Snapshot, gpu: int | None) -> bool:
    solver = solvers.load_solver(solvers.only_training(planned.stages[snapshot.stage]), gpu)
    try:
        solvers.check_snapshot(solver, snapshot.state, snapshot.model)
    except ClrError:
        return False
    return True
