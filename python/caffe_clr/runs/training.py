"""Trains a solver, or several as the stages of a run, with pycaffe into a run folder."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError, DivergedError, counted
from caffe_clr.preflight import data_layers
from caffe_clr.prototxt import Net
from caffe_clr.runs import event_files, metrics, notebook, planning, run_writer, solvers
from caffe_clr.runs.history import History
from caffe_clr.runs.options import DEFAULTS, TrainingOptions
from caffe_clr.runs.planning import Plan
from caffe_clr.runs.ranks import Place, Ranks, join
from caffe_clr.runs.run_writer import RunWriter
from caffe_clr.runs.snapshots import Snapshot
from caffe_clr.runs.stage import Progress, Stage, check_labels
from caffe_clr.runs.status import DIGESTS, Status
from caffe_clr.system.paths import StrPath, paths


def train(
    solver_files: StrPath | Sequence[StrPath],
    out: StrPath | None = None,
    options: TrainingOptions = DEFAULTS,
    *,
    on_iteration: Callable[[Progress], None] | None = None,
    on_warning: Callable[[str], None] = lambda warning: None,
    stop: Callable[[], int | None] = lambda: None,
) -> History:
    """Train a solver to its max_iter, testing and snapshotting as its prototxt says.

    Several solvers are the stages of one run (the paper's Table 2): each continues from
    the weights, iteration and solver state at the end of the one before. Paths in a
    prototxt are relative to the working directory, as for `caffe train`. Snapshots go
    into the run folder, under the last part of snapshot_prefix.

    Args:
        solver_files: a solver prototxt, or one for each stage.
        out: the run folder; by default runs/<solver name>-<time>.
        options: the seed, the GPU, whether to resume, …
        on_iteration: called after each iteration; by default, a notebook shows a bar.
        on_warning: called with a message for each damaged file in the folder, and for
            each way in which a resumed run differs from an uninterrupted one.
        stop: called after each iteration; if it returns the number of a signal, the run
            takes a snapshot and raises Interrupted.

    Returns:
        The records of the run, including those from before it was resumed.

    Raises:
        DivergedError: the loss diverged; earlier records and snapshots stay in the folder.
        ClrError: a solver, net, data set or the folder cannot be used.
    """
    files = paths(solver_files)
    folder = None if out is None else Path(out)
    if options.tensorboard:
        event_files.check()
    ranks = join(options.mpi)
    ranks.stop = stop
    options = _on_this_rank(options)
    planned = ranks.together(lambda: _checked_plan(files, folder, options))
    about = _about(files, planned, options, ranks)
    if options.mpi:
        ranks.check_same(_facts(planned, about))
    with ExitStack() as opened:
        run: RunWriter | None = None

        def begin() -> tuple[bool, Snapshot | None]:
            nonlocal run
            run = opened.enter_context(
                run_writer.open_run(planned.folder, planned.stages, about, resume=options.resume)
            )
            if run.is_finished or run.divergence:
                _tell(run.problems, on_warning)
                if run.divergence:
                    raise DivergedError(*run.divergence)
                return True, None
            snapshot = run.snapshots.newest(lambda found: _is_whole(planned, found, options.gpu))
            changes = _begin(run, snapshot, about)
            _tell([*run.problems, *changes], on_warning)
            return False, snapshot

        is_finished, snapshot = ranks.from_root(begin)
        if not is_finished:
            bars = opened.enter_context(notebook.Bars())
            on_iteration = on_iteration or _shown(bars, planned)
            _train_stages(planned, run, snapshot, options, ranks, on_iteration, on_warning, stop)
        return run.history if run else History()


def _shown(bars: notebook.Bars, planned: Plan) -> Callable[[Progress], None]:
    total = planned.solvers[-1].parameter.max_iter

    def show(progress: Progress) -> None:
        bars.show({"training": (progress.iteration, total)}, f"lr {progress.lr:.3g}")

    return show


def _on_this_rank(options: TrainingOptions) -> TrainingOptions:
    """The options with this rank's GPU: the given one and those after it, one a rank."""
    if options.gpu is None:
        return options
    return TrainingOptions.of(options, gpu=options.gpu + Place.of(options.mpi).local_rank)


def check(solver_files: Sequence[Path], out: Path, options: TrainingOptions = DEFAULTS) -> None:
    """Refuse a new run that `train` would refuse, without training it.

    Caffe itself checks layers and labels, so call this in a subprocess.

    Raises:
        ClrError: see train.
    """
    planned = planning.plan(solver_files, out, options)
    _check_caffe(planned, options)
    for solver in planned.solvers:
        live = solvers.load_solver(solvers.only_training(solver.parameter), options.gpu)
        check_labels(solver, live)


def _checked_plan(files: Sequence[Path], out: Path | None, options: TrainingOptions) -> Plan:
    planned = planning.plan(files, out, options)
    _check_caffe(planned, options)
    ranks = join(options.mpi)
    if ranks.size > 1:
        for solver in planned.solvers:
            _check_shared(solver.train_net)
    ranks.prepare(solvers.import_caffe())
    return planned


def _check_shared(net: Net) -> None:
    """Refuse data that only one process can read at a time."""
    for layer in net.parameter.layer:
        data = layer.data_param
        if layer.type == "Data" and data.backend == data.DB.Value("LEVELDB"):
            raise ClrError(
                f'{net.name}: layer "{layer.name}": only one process at a time can read the'
                f" LevelDB {data.source}; convert it to LMDB"
            )


def _check_caffe(planned: Plan, options: TrainingOptions) -> None:
    """Refuse a run that the installed Caffe cannot train."""
    if options.gpu is not None:
        solvers.check_gpu(options.gpu)
    for solver in planned.solvers:
        solvers.check_layers(solver.nets)


def _about(
    files: Sequence[Path], planned: Plan, options: TrainingOptions, ranks: Ranks
) -> dict[str, Any]:
    """The entries of a run's run.json."""
    return {
        "solvers": [str(file) for file in files],
        "seed": options.seed,
        "gpu": options.gpu,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "ranks": ranks.size,
        "snapshot_cycles": options.snapshot_cycles,
        "metric": vars(metrics.metric_of(planned.solvers[-1])),
        "nets": [_digest(solver.train_net.parameter) for solver in planned.solvers],
        "data": [data_layers.digest(solver.nets) for solver in planned.solvers],
    }


def _facts(planned: Plan, about: dict[str, Any]) -> dict[str, str]:
    """What must be the same on all ranks."""
    stages = []
    for stage in planned.stages:
        one = type(stage)()
        one.CopyFrom(stage)
        one.ClearField("snapshot_prefix")
        one.ClearField("device_id")
        stages.append(_digest(one))
    return {
        "version of caffe-clr": metadata.version("caffe-clr"),
        "version of Caffe": str(solvers.import_caffe().__version__),
        "solver": ", ".join(stages),
        "value of --snapshot-cycles": str(about["snapshot_cycles"]),
        "net": ", ".join(about["nets"]),
        "data set": ", ".join(about["data"]),
    }


def _begin(run: RunWriter, snapshot: Snapshot | None, about: dict[str, Any]) -> list[str]:
    """Start a run, or continue it from a snapshot.

    Returns:
        A message for each change that makes the result differ.
    """
    if not snapshot and run.history.train:
        run.problems.append(f"{run.folder}: no complete snapshot; starting again at iteration 0")
    changes: list[str] = []
    if snapshot:
        changes = _changes(run.folder, run.begun, about)
        # it stays a run of what it was begun with
        about.update({key: run.begun[key] for key in DIGESTS if key in run.begun})
    run.start(snapshot)
    return changes


def _train_stages(
    planned: Plan,
    run: RunWriter | None,
    snapshot: Snapshot | None,
    options: TrainingOptions,
    ranks: Ranks,
    on_iteration: Callable[[Progress], None],
    on_warning: Callable[[str], None],
    stop: Callable[[], int | None],
) -> None:
    """Train from a snapshot, or the beginning, to the end of the last stage."""
    status, iteration, message = Status.INTERRUPTED, 0, ""
    board: Any = nullcontext()
    if run and options.tensorboard:
        board = event_files.written(run, planned.stages)
    try:
        with board:
            for number in range(snapshot.stage if snapshot else 0, len(planned.solvers)):
                stage = Stage(planned, number, run, options, ranks)
                try:
                    _tell(ranks.together(partial(stage.begin, snapshot)), on_warning)
                    stage.train(on_iteration, stop)
                finally:
                    iteration = stage.iteration
                snapshot = stage.newest
        status = Status.FINISHED
    except DivergedError as error:
        status, iteration, message = Status.DIVERGED, error.iteration, str(error)
        raise
    finally:
        if run:
            run.set_status(status, iteration, message)


def _tell(warnings: Sequence[str], on_warning: Callable[[str], None]) -> None:
    for warning in warnings:
        on_warning(warning)


def _digest(message: Any) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def _changes(folder: Path, begun: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """A message for each change, besides the solvers, that makes the result differ."""
    names = {"gpu": "--gpu", "threads": "OMP_NUM_THREADS", "ranks": "ranks"}
    if begun:
        begun = {"ranks": 1, **begun}  # what a run of an earlier release had
    changed = [
        f"{folder}: the {key.removesuffix('s')} of stage {number} has changed since the run"
        " started; the result will differ from an uninterrupted run"
        for key in DIGESTS
        for number, (before, now) in enumerate(
            zip(begun.get(key, about[key]), about[key], strict=False), 1
        )
        if before != now
    ]
    return changed + [
        f"{folder}: the run was started with {_given(name, begun[key])} and continues with"
        f" {_given(name, about[key])}; the result will not be bit-identical to an uninterrupted run"
        for key, name in names.items()
        if begun.get(key, about[key]) != about[key]
    ]


def _given(name: str, value: object) -> str:
    if value is None:
        return f"no {name}" if name.isupper() else "the CPU"
    if name == "ranks":
        return counted(int(str(value)), "rank")
    return f"{name} {value}" if name.startswith("--") else f"{name}={value}"


def _is_whole(planned: Plan, snapshot: Snapshot, gpu: int | None) -> bool:
    solver = solvers.load_solver(solvers.only_training(planned.stages[snapshot.stage]), gpu)
    try:
        solvers.check_snapshot(solver, snapshot.state, snapshot.model)
    except ClrError:
        return False
    return True
