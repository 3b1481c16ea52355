"""Trains solvers with pycaffe into a run folder: one solver, or stages of a run."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, DivergedError, Interrupted
from caffe_clr.preflight import advice, checks, data_layers, epochs, label_range
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import event_files, metrics, resuming, run_folder, solvers
from caffe_clr.runs.history import History, Phase, Row
from caffe_clr.runs.options import DEFAULTS, TrainingOptions
from caffe_clr.runs.run_folder import Memory, Run, Snapshot, Status

_MAX_ITER = 2**31 - 1
_MOST_BYTES_OF_NAME = 255  # on Linux, as those of a path
_MOST_BYTES_OF_PATH = 4095
_RISE = 4  # times the largest early loss is "risen"
_EARLY = 10  # one part in so many of a run is early


@dataclass(frozen=True)
class Progress:
    """Where a run is: the iterations done and the rate of the last."""

    iteration: int
    lr: float
    history: History


@dataclass(frozen=True)
class Plan:
    """What is to be trained: the solvers of the stages as they are trained, and remarks."""

    solvers: Sequence[SolverFile]
    folder: Path
    epoch: int | None
    warnings: Sequence[str]

    @property
    def stages(self) -> list[Any]:
        """The SolverParameter of each stage."""
        return [solver.parameter for solver in self.solvers]


def plan(
    solver_files: Sequence[Path],
    out: Path | None = None,
    options: TrainingOptions = DEFAULTS,
) -> Plan:
    """Read and check the solvers of a run, without importing caffe.

    Arguments and errors are those of `train`.

    Returns:
        The plan; its warnings are what the paper advises against, and what
        Caffe does without a word. epoch is the iterations of one, None where
        the size of the data set is not known.
    """
    folder = (out or run_folder.default_folder(solver_files[0])).resolve()
    stages = []
    warnings = []
    for file in solver_files:
        if file.is_fifo():
            raise ClrError(
                f"{file}: is a pipe, but has to be read twice; write the solver to a file"
            )
        solver = prototxt.open_solver(file)
        parameter = solver.parameter
        parameter.snapshot_prefix = _snapshot_prefix(solver, file, folder)
        if options.seed is not None:
            parameter.random_seed = options.seed
        warnings += checks.check_run(solver, gpu=options.gpu)
        modes = parameter.SolverMode
        parameter.solver_mode = modes.Value("CPU" if options.gpu is None else "GPU")
        parameter.device_id = options.gpu or 0
        stages.append(solver)
    warnings += advice.check_stages(stages)
    epoch = _epoch(stages[0], options.images)
    start = 0
    for stage in stages:
        warnings += advice.advise(stage.name, stage.parameter, start, epoch)
        start = stage.parameter.max_iter
    return Plan(stages, folder, epoch, list(dict.fromkeys(warnings)))


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
    if options.tensorboard:
        event_files.check()
    files = [solver_files] if isinstance(solver_files, Path) else list(solver_files)
    planned = plan(files, out, options)
    if options.gpu is not None:
        solvers.check_gpu(options.gpu)
    for solver in planned.solvers:
        solvers.check_layers(solver.nets)
    about = {
        "solvers": [str(file) for file in files],
        "seed": options.seed,
        "gpu": options.gpu,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "snapshot_cycles": options.snapshot_cycles,
        "metric": vars(metrics.metric_of(planned.solvers[-1])),
        "nets": [_digest(solver.train_net.parameter) for solver in planned.solvers],
        "data": [data_layers.digest(solver.nets) for solver in planned.solvers],
    }
    with run_folder.open_run(planned.folder, planned.stages, about, resume=options.resume) as run:
        if run.is_finished or run.divergence:
            _tell(run.problems, on_warning)
            if run.divergence:
                raise DivergedError(*run.divergence)
            return run.history
        snapshot = run.newest_snapshot(lambda found: _is_whole(planned, found, options.gpu))
        if not snapshot and run.history.train:
            run.problems.append(
                f"{run.folder}: no complete snapshot; starts again from iteration 0"
            )
        changes: list[str] = []
        if snapshot:
            changes = _changes(run.folder, run.begun, about)
            # it stays a run of what it was begun with
            about.update({key: run.begun[key] for key in run_folder.DIGESTS if key in run.begun})
        run.start(snapshot)
        _tell([*run.problems, *changes], on_warning)
        status, iteration, message = Status.INTERRUPTED, 0, ""
        board = event_files.written(run, planned.stages) if options.tensorboard else nullcontext()
        try:
            with board:
                for number in range(snapshot.stage if snapshot else 0, len(files)):
                    stage = _Stage(planned, number, run, options)
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
        return run.history


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
        for key in run_folder.DIGESTS
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


class _Stage:
    """One solver of a run."""

    def __init__(self, planned: Plan, number: int, run: Run, options: TrainingOptions) -> None:
        self.parameter = planned.stages[number]
        self._tests = bool(planned.solvers[number].tested_nets)
        self.newest: Snapshot | None = None
        self._file = planned.solvers[number]
        self._number = number
        self._start = planned.stages[number - 1].max_iter if number else 0
        self._is_last = number == len(planned.stages) - 1
        self._epoch = planned.epoch
        self._run = run
        self._options = options
        self._momentum_cycles = any(policies.cyclical_momentum(stage) for stage in planned.stages)
        self._loss_sum = 0.0  # of the losses since the last display
        self._losses = 0
        self._early_loss = 0.0  # the largest of the first iterations, without its sign
        self._early = max(1, self.parameter.max_iter // _EARLY)
        self._solver: Any = None
        self._began = time.monotonic()

    @property
    def iteration(self) -> int:
        return int(self._solver.iter) if self._solver else 0

    def begin(self, snapshot: Snapshot | None) -> list[str]:
        """Make the solver, and put it where a snapshot, of this or the last stage, was taken.

        Returns:
            What is doubtful in the labels, and what could not be put where it was, a
            line each.
        """
        self._solver = solvers.load_solver(solvers.only_training(self.parameter), self._options.gpu)
        live_nets = [self._solver.net, *self._solver.test_nets]
        warnings = []
        for net, live in zip(self._file.nets, live_nets, strict=True):
            shapes = {name: tuple(blob.shape) for name, blob in live.blobs.items()}
            warnings += label_range.check(net, shapes)
        self._softmax_losses = solvers.softmax_losses(self._solver.net)
        rows = self._run.history.train + self._run.history.test
        self._began -= max((row.get("seconds", 0) for row in rows), default=0)
        if not snapshot:
            return warnings
        solvers.restore(self._solver, snapshot.state, snapshot.model)
        self.newest = snapshot
        self._early_loss = snapshot.memory.early_loss
        if snapshot.stage != self._number:
            return warnings
        self._loss_sum, self._losses = snapshot.memory.loss_sum, snapshot.memory.losses
        return warnings + self._read_on()

    def _read_on(self) -> list[str]:
        """Have the data layers go on where they were at this iteration."""
        iterations = range(self._start, self.iteration)
        tests = sum(self._test_is_due_at(iteration) for iteration in iterations)
        solver, batches = self._solver, len(iterations) * self.parameter.iter_size
        problems = resuming.redrawn(solver.net)
        problems += resuming.read_on(self._file.train_net, solver.net, batches, is_training=True)
        for net, live, test_iter in zip(
            self._file.test_nets, solver.test_nets, self.parameter.test_iter, strict=True
        ):
            problems += resuming.read_on(net, live, tests * test_iter, is_training=False)
        return problems

    def train(
        self, on_iteration: Callable[[Progress], None], stop: Callable[[], int | None]
    ) -> None:
        """Train to max_iter; see `train` above."""
        while True:
            if self._test_is_due_at(self.iteration):
                self._test(stop)
            number = stop()
            if number:
                self._snapshot()
                raise Interrupted(number, f"iteration {self.iteration} is saved in a snapshot")
            if self.iteration >= self.parameter.max_iter:
                break
            lr = solvers.rate(self._solver, self.parameter)
            self._step(lr)
            if self._snapshot_is_due():
                self._snapshot()
            on_iteration(Progress(self.iteration, lr, self._run.history))
        if not self._is_last or self.parameter.snapshot_after_train:
            self._snapshot()

    def _step(self, lr: float) -> None:
        iteration = self.iteration
        row = self._row(iteration, lr)
        self._solver.step(1)
        loss = solvers.loss(self._solver.net)
        self._loss_sum += loss
        self._losses += 1
        shown = self.parameter.display > 0 and iteration % self.parameter.display == 0
        mean = loss
        if shown:
            if math.isfinite(loss):
                mean = self._loss_sum / self._losses
            results = solvers.outputs(self._solver.net)
            self._run.add(Phase.TRAIN, {**row, **results, "loss": mean, **self._seconds()})
            self._loss_sum, self._losses = 0.0, 0
        if iteration < self._early:
            self._early_loss = max(self._early_loss, abs(loss))
        reason = self._lost(loss)
        if not reason and self._options.stop_early and shown and iteration >= self._early:
            reason = self._risen(mean)
        if reason:
            raise DivergedError(
                f"diverged at iteration {iteration}, rate {lr:.4g}: {reason};"
                " lower the rate (max_lr or base_lr)",
                iteration,
            )

    def _lost(self, loss: float) -> str | None:
        """The loss that is of scores that are not finite, if there is one."""
        blobs = self._solver.net.blobs
        softmax = [float(blobs[name].data.sum()) for name in self._softmax_losses]
        lost = [value for value in softmax if metrics.is_lost(value)]
        if not math.isfinite(loss):
            lost.append(loss)
        return f"the loss is {lost[0]:.6g}" if lost else None

    def _risen(self, mean: float) -> str | None:
        """The mean loss of a display, if it has risen far above the early ones."""
        if not 0 < _RISE * self._early_loss < mean:
            return None
        return (
            f"the loss is {mean:.6g}, over {_RISE} times the largest of the first {self._early}"
            " iterations (with --keep-going the range test goes on)"
        )

    def _test_is_due_at(self, iteration: int) -> bool:
        """At each test_interval, and where a run ends or a stage begins."""
        if not any(self.parameter.test_iter):
            return False
        if iteration == 0:
            return bool(self.parameter.test_initialization)
        if not self._tests:
            return False
        if iteration >= self.parameter.max_iter:
            return self._is_last
        return iteration % self.parameter.test_interval == 0 or iteration == self._start

    def _test(self, stop: Callable[[], int | None]) -> None:
        row = self._row(self.iteration, solvers.rate(self._solver, self.parameter))
        for means in solvers.test(self._solver, list(self.parameter.test_iter)):
            if stop():
                return
            row.update(means)
        self._run.add(Phase.TEST, row | self._seconds())

    def _snapshot_is_due(self) -> bool:
        iteration, solver = self.iteration, self.parameter
        if solver.snapshot and iteration % solver.snapshot == 0:
            return True
        policy = policies.policy_of(solver)
        if not self._options.snapshot_cycles or not policy.cycles:
            return False
        finished, position = divmod(iteration - solver.start_lr_policy, 2 * solver.stepsize)
        return bool(position == 0 and 0 < finished <= policy.cycles)

    def _snapshot(self) -> None:
        if self.newest and (self.newest.stage, self.newest.iteration) == (
            self._number,
            self.iteration,
        ):
            return
        hdf5 = self.parameter.snapshot_format == self.parameter.SnapshotFormat.Value("HDF5")
        state, model = solvers.snapshot_files(self.parameter.snapshot_prefix, self.iteration, hdf5)
        state.parent.mkdir(exist_ok=True)
        self._solver.snapshot()
        solvers.check_snapshot(self._solver, state, model)
        memory = Memory(
            self._early_loss,
            self._loss_sum,
            self._losses,
            self._run.rows_before(self.iteration),
        )
        self.newest = Snapshot(self._number, self.iteration, state, model, memory)
        self._run.add_snapshot(self.newest)

    def _row(self, iteration: int, lr: float) -> Row:
        epoch = {"epoch": round(iteration / self._epoch, 4)} if self._epoch else {}
        row = {"iteration": iteration, **epoch, "lr": lr}
        if self._momentum_cycles:
            row["momentum"] = solvers.momentum(self._solver, self.parameter)
        return row

    def _seconds(self) -> Row:
        return {"seconds": round(time.monotonic() - self._began, 3)}


def _snapshot_prefix(solver: SolverFile, file: Path, folder: Path) -> str:
    """Where the snapshots of a solver go: the name that it gives them, in the run folder."""
    given = solver.parameter.snapshot_prefix
    if isinstance(given, bytes):
        raise ClrError(f"{solver.name}: snapshot_prefix is not UTF-8; save the file as UTF-8")
    name = Path(given).name or run_folder.solver_name(file)
    longest = solvers.snapshot_files(name, _MAX_ITER, hdf5=True)[0].name
    prefix = str(folder / "snapshots" / name)
    if name == ".." or "\0" in given or len(os.fsencode(longest)) > _MOST_BYTES_OF_NAME:
        shown = f"{given[:40]}…" if len(given) > 40 else given
        raise ClrError(
            f"{solver.name}: snapshot_prefix {shown!r} cannot be a file name; give a"
            " shorter, plain one"
        )
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ClrError(f"{folder}: is not UTF-8, which Caffe needs; name another --out") from None
    if len(os.fsencode(prefix)) + len(longest) > _MOST_BYTES_OF_PATH:
        raise ClrError(f"{folder}: the path is too long for its snapshots; name another --out")
    return prefix


def _epoch(solver: SolverFile, images: int | None) -> int | None:
    try:
        return epochs.epoch(solver, images=images).iterations
    except ClrError:
        return None
