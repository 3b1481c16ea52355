"""Trains one stage of a run, from the end of the previous stage or from a snapshot."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caffe_clr.errors import DivergedError, Interrupted
from caffe_clr.preflight import label_range
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import resuming, solvers
from caffe_clr.runs.history import History, Phase, Row
from caffe_clr.runs.losses import Losses, lost
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.planning import Plan
from caffe_clr.runs.ranks import Ranks
from caffe_clr.runs.recorder import Recorder
from caffe_clr.runs.run_writer import RunWriter
from caffe_clr.runs.snapshots import Memory, Snapshot
from caffe_clr.runs.timetable import Timetable


@dataclass(frozen=True)
class Progress:
    """The iterations that a run has done, the rate of the last one, and the records."""

    iteration: int
    lr: float
    history: History


class Stage:
    """A stage in training.

    Attributes:
        newest: the last snapshot that was taken or restored.

    Args:
        run: what the root records; None on the other ranks.
    """

    def __init__(
        self,
        planned: Plan,
        number: int,
        run: RunWriter | None,
        options: TrainingOptions,
        ranks: Ranks,
    ) -> None:
        self.newest: Snapshot | None = None
        self._file = planned.solvers[number]
        self._parameter = self._file.parameter
        self._number = number
        self._run = run
        self._options = options
        self._ranks = ranks
        self._timetable = Timetable.of(planned, number, options.snapshot_cycles)
        self._losses = Losses(self._parameter.max_iter)
        self._recorder = Recorder(planned, run.records if run else None)
        self._solver: Any = None

    @property
    def iteration(self) -> int:
        return int(self._solver.iter) if self._solver else 0

    def begin(self, snapshot: Snapshot | None) -> list[str]:
        """Make the solver, and restore it from a snapshot of this or the previous stage.

        Returns:
            Warnings on the labels, and on data layers that could not be restored.
        """
        training = solvers.only_training(self._parameter)
        if not self._run:
            training = solvers.without_tests(training)
        self._solver = solvers.load_solver(training, self._options.gpu)
        self._softmax_losses = solvers.softmax_losses(self._solver.net)
        warnings = check_labels(self._file, self._solver) if self._run else []
        if not snapshot:
            return warnings
        solvers.restore(self._solver, snapshot.state, snapshot.model)
        self.newest = snapshot
        self._losses.early_loss = snapshot.memory.early_loss
        if snapshot.stage != self._number:
            return warnings
        self._losses.loss_sum = snapshot.memory.loss_sum
        self._losses.losses = snapshot.memory.losses
        return warnings + _read_on(self._file, self._solver, self._timetable, self._ranks.size)

    def train(
        self, on_iteration: Callable[[Progress], None], stop: Callable[[], int | None]
    ) -> None:
        """Train to max_iter; see training.train."""
        self._ranks.share(self._solver)
        while True:
            if self._run and self._timetable.tests(self.iteration):
                self._test(stop)
            number = self._ranks.agree(stop())
            if number:
                self._ranks.stop = lambda: None  # all wait for the snapshot
                self._snapshot()
                raise Interrupted(number, f"iteration {self.iteration} is saved in a snapshot")
            if self.iteration >= self._parameter.max_iter:
                break
            row = self._step()
            if self._timetable.snapshots(self.iteration):
                self._snapshot()
            if self._run:
                on_iteration(Progress(self.iteration, row["lr"], self._run.history))
        if self._timetable.snapshots_at_end:
            self._snapshot()

    def _step(self) -> Row:
        """Do an iteration; returns the first columns of its row."""
        iteration, row, net = self.iteration, self._row(), self._solver.net
        self._solver.step(1)
        softmax = [float(net.blobs[name].data.sum()) for name in self._softmax_losses]
        loss, *softmax = self._ranks.mean([solvers.loss(net), *softmax])
        self._losses.add(iteration, loss)
        reason = lost(loss, softmax)
        if self._timetable.displays(iteration):
            mean = self._losses.displayed(loss)
            results = solvers.outputs(net)
            means = self._ranks.mean(list(results.values()))
            results = dict(zip(results, means, strict=True))
            self._recorder.add(Phase.TRAIN, {**row, **results, "loss": mean})
            if not reason and self._options.stop_early:
                reason = self._losses.risen(iteration, mean)
        if reason:
            raise DivergedError(
                f"diverged at iteration {iteration}, rate {row['lr']:.4g}: {reason};"
                " lower the rate (max_lr or base_lr)",
                iteration,
            )
        return row

    def _test(self, stop: Callable[[], int | None]) -> None:
        row = self._row()
        for means in solvers.test(self._solver, list(self._parameter.test_iter)):
            if stop():
                return
            row.update(means)
        self._recorder.add(Phase.TEST, row)

    def _snapshot(self) -> None:
        """Take a snapshot, on the root; all ranks then know it."""
        self.newest = self._ranks.from_root(self._taken)

    def _taken(self) -> Snapshot:
        here = (self._number, self.iteration)
        if self.newest and (self.newest.stage, self.newest.iteration) == here:
            return self.newest
        assert self._run
        solver = self._parameter
        hdf5 = solver.snapshot_format == solver.SnapshotFormat.Value("HDF5")
        state, model = solvers.snapshot_files(solver.snapshot_prefix, self.iteration, hdf5)
        state.parent.mkdir(exist_ok=True)
        self._solver.snapshot()
        solvers.check_snapshot(self._solver, state, model)
        losses, rows = self._losses, self._run.records.before(self.iteration)
        memory = Memory(losses.early_loss, losses.loss_sum, losses.losses, rows)
        taken = Snapshot(*here, state, model, memory)
        self._run.snapshots.add(taken)
        return taken

    def _row(self) -> Row:
        return self._recorder.begin(self._solver, self._parameter)


def check_labels(file: SolverFile, solver: Any) -> list[str]:
    """Refuse labels that the live nets of a solver have no output for; see label_range.check."""
    live_nets = [solver.net, *solver.test_nets]
    warnings = []
    for net, live in zip(file.nets, live_nets, strict=True):
        shapes = {name: tuple(blob.shape) for name, blob in live.blobs.items()}
        warnings += label_range.check(net, shapes)
    return warnings


def _read_on(file: SolverFile, solver: Any, timetable: Timetable, ranks: int) -> list[str]:
    """Put the data layers where they were at the solver's iteration."""
    iterations = range(timetable.start, solver.iter)
    tests = sum(map(timetable.tests, iterations))
    batches = len(iterations) * file.parameter.iter_size
    problems = resuming.redrawn(solver.net)
    problems += resuming.read_on(file.train_net, solver.net, batches, is_training=True, ranks=ranks)
    if not solver.test_nets:  # a rank that does not test
        return problems
    for net, live, test_iter in zip(
        file.test_nets, solver.test_nets, file.parameter.test_iter, strict=True
    ):
        problems += resuming.read_on(net, live, tests * test_iter, is_training=False)
    return problems
