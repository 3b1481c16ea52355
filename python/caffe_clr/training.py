"""Trains solvers with pycaffe into a run folder: one solver, or stages of a run."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe_clr import advice, checks, epochs, policies, prototxt, runs, solvers
from caffe_clr.errors import ClrError, DivergedError, Interrupted
from caffe_clr.history import History, Phase, Row
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import Run, Snapshot, Status

_RISE = 4  # how far above the first loss is "risen"
# What SoftmaxWithLoss says of probabilities that are 0 or nan: -log(FLT_MIN)
_SOFTMAX_LOST = -math.log(float(np.finfo(np.float32).tiny))


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
    *,
    seed: int | None = None,
    gpu: int | None = None,
    images: int | None = None,
) -> Plan:
    """Read and check the solvers of a run, without importing caffe.

    Arguments and errors are those of `train`.

    Returns:
        The plan; its warnings are what the paper advises against, and what
        Caffe does without a word. epoch is the iterations of one, None where
        the size of the data set is not known.
    """
    folder = (out or runs.default_folder(solver_files[0])).resolve()
    stages = []
    warnings = []
    for file in solver_files:
        solver = prototxt.open_solver(file)
        parameter = solver.parameter
        name = Path(parameter.snapshot_prefix).name or runs.solver_name(file)
        parameter.snapshot_prefix = str(folder / "snapshots" / name)
        if seed is not None:
            parameter.random_seed = seed
        warnings += checks.check_run(solver, gpu=gpu)
        modes = parameter.SolverMode
        parameter.solver_mode = modes.Value("CPU" if gpu is None else "GPU")
        parameter.device_id = gpu or 0
        stages.append(solver)
    warnings += advice.check_stages(stages)
    epoch = _epoch(stages[0], images)
    start = 0
    for stage in stages:
        warnings += advice.advise(stage.name, stage.parameter, start, epoch)
        start = stage.parameter.max_iter
    return Plan(stages, folder, epoch, list(dict.fromkeys(warnings)))


def train(
    solver_files: Path | Sequence[Path],
    out: Path | None = None,
    *,
    seed: int | None = None,
    gpu: int | None = None,
    images: int | None = None,
    resume: bool = False,
    snapshot_cycles: bool = False,
    stop_early: bool = False,
    on_iteration: Callable[[Progress], None] = lambda progress: None,
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
        seed: replaces random_seed.
        gpu: the number of the GPU to train on; None for the CPU.
        images: the size of the training set, which is counted where this is None.
        resume: go on from the newest whole snapshot in `out`.
        snapshot_cycles: also snapshot where a cycle ends.
        stop_early: end not only at a loss that is nan, inf, or the 87.3365 that
            SoftmaxWithLoss reports for them, but also at one that has risen to
            four times the first.
        on_iteration: called after each iteration.
        stop: asked after each iteration; a signal number ends the run with a
            snapshot and Interrupted.

    Raises:
        DivergedError: the loss diverged; what was recorded and snapshot before
            is in the folder.
        ClrError: a solver, net, data set or the folder cannot be used.
    """
    files = [solver_files] if isinstance(solver_files, Path) else list(solver_files)
    planned = plan(files, out, seed=seed, gpu=gpu, images=images)
    for solver in planned.solvers:
        solvers.check_layers([solver.train_net, *solver.test_nets])
    about = {"solvers": [str(file) for file in files], "seed": seed, "gpu": gpu}
    with runs.open_run(planned.folder, planned.stages, about, resume=resume) as run:
        if run.is_finished:
            return run.history
        if run.divergence:
            raise DivergedError(*run.divergence)
        snapshot = run.newest_snapshot()
        run.start(snapshot)
        status, iteration, message = Status.INTERRUPTED, 0, ""
        try:
            for number in range(snapshot.stage if snapshot else 0, len(files)):
                stage = _Stage(planned, number, run, snapshot_cycles, stop_early)
                try:
                    stage.begin(snapshot, gpu)
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


class _Stage:
    """One solver of a run."""

    def __init__(
        self, planned: Plan, number: int, run: Run, snapshot_cycles: bool, stop_early: bool
    ) -> None:
        self.parameter = planned.stages[number]
        self._tests = bool(planned.solvers[number].tested_nets)
        self.newest: Snapshot | None = None
        self._number = number
        self._is_last = number == len(planned.stages) - 1
        self._epoch = planned.epoch
        self._run = run
        self._snapshot_cycles = snapshot_cycles
        self._stop_early = stop_early
        self._momentum_cycles = any(stage.cyclical_momentum for stage in planned.stages)
        self._losses: list[float] = []
        self._first_loss = math.nan
        self._solver: Any = None
        self._began = time.monotonic()

    @property
    def iteration(self) -> int:
        return int(self._solver.iter) if self._solver else 0

    def begin(self, snapshot: Snapshot | None, gpu: int | None) -> None:
        """Make the solver, and put it where a snapshot, of this or the last stage, was taken."""
        self._solver = solvers.load_solver(solvers.only_training(self.parameter), gpu)
        self._softmax = any(layer.type == "SoftmaxWithLoss" for layer in self._solver.net.layers)
        if snapshot:
            solvers.restore(self._solver, snapshot.state, snapshot.model)
            self.newest = snapshot
        rows = self._run.history.train + self._run.history.test
        self._began -= max((row["seconds"] for row in rows), default=0)

    def train(
        self, on_iteration: Callable[[Progress], None], stop: Callable[[], int | None]
    ) -> None:
        """Train to max_iter; see `train` above."""
        first = self.iteration
        while True:
            if self._test_is_due(first):
                self._test(stop)
            number = stop()
            if number:
                self._snapshot()
                raise Interrupted(number, f"iteration {self.iteration} is kept in a snapshot")
            if self.iteration >= self.parameter.max_iter:
                break
            lr = self._solver.lr
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
        self._losses.append(loss)
        display = self.parameter.display
        shown = display > 0 and iteration % display == 0
        mean = math.fsum(self._losses) / len(self._losses) if math.isfinite(loss) else loss
        if shown:
            results = solvers.outputs(self._solver.net)
            self._run.add(Phase.TRAIN, {**row, **results, "loss": mean, **self._seconds()})
            self._losses.clear()
        if self._has_diverged(loss, mean if shown else loss):
            raise DivergedError(
                f"diverged at iteration {iteration}, rate {lr:.4g}: the loss is {mean:.6g};"
                " lower the rate (max_lr or base_lr)",
                iteration,
            )

    def _has_diverged(self, loss: float, mean: float) -> bool:
        if math.isnan(self._first_loss):
            self._first_loss = mean
        is_lost = self._softmax and abs(loss - _SOFTMAX_LOST) < 1e-3
        has_risen = self._stop_early and mean > _RISE * self._first_loss
        return not math.isfinite(loss) or is_lost or has_risen

    def _test_is_due(self, first: int) -> bool:
        """At each test_interval, and where a run ends or a stage begins."""
        if not any(self.parameter.test_iter):
            return False
        iteration, interval = self.iteration, self.parameter.test_interval
        if iteration == 0:
            return bool(self.parameter.test_initialization)
        if not self._tests:
            return False
        if iteration >= self.parameter.max_iter:
            return self._is_last
        return iteration % interval == 0 or (iteration == first and self._is_joint)

    @property
    def _is_joint(self) -> bool:
        return self.newest is not None and self.newest.stage < self._number

    def _test(self, stop: Callable[[], int | None]) -> None:
        row = self._row(self.iteration, self._solver.lr)
        for means in solvers.test(self._solver, list(self.parameter.test_iter)):
            if stop():
                return
            row.update(means)
        self._run.add(Phase.TEST, row | self._seconds())

    def _snapshot_is_due(self) -> bool:
        iteration, solver = self.iteration, self.parameter
        if solver.snapshot and iteration % solver.snapshot == 0:
            return True
        if not self._snapshot_cycles or solver.lr_policy not in policies.CYCLES:
            return False
        elapsed = iteration - solver.start_lr_policy
        return bool(elapsed > 0 and elapsed % (2 * solver.stepsize) == 0)

    def _snapshot(self) -> None:
        if self.newest and (self.newest.stage, self.newest.iteration) == (
            self._number,
            self.iteration,
        ):
            return
        hdf5 = self.parameter.snapshot_format == self.parameter.SnapshotFormat.Value("HDF5")
        state, model = solvers.snapshot_files(self.parameter.snapshot_prefix, self.iteration, hdf5)
        self._solver.snapshot()
        solvers.check_snapshot(self._solver, state, model)
        self.newest = Snapshot(self._number, self.iteration, state, model)
        self._run.add_snapshot(self.newest)

    def _row(self, iteration: int, lr: float) -> Row:
        epoch = {"epoch": round(iteration / self._epoch, 4)} if self._epoch else {}
        momentum = {"momentum": float(self._solver.momentum)} if self._momentum_cycles else {}
        return {"iteration": iteration, **epoch, "lr": lr, **momentum}

    def _seconds(self) -> Row:
        return {"seconds": round(time.monotonic() - self._began, 3)}


def _epoch(solver: SolverFile, images: int | None) -> int | None:
    try:
        return epochs.epoch(solver, images=images).iterations
    except ClrError:
        return None
