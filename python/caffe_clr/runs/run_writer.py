"""Writes a run folder while the run trains; run_folder describes its files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.runs import begun_solvers, records, run_folder, snapshots, status
from caffe_clr.runs.history import History, Phase
from caffe_clr.runs.records import Records
from caffe_clr.runs.snapshots import Snapshot, SnapshotList
from caffe_clr.runs.status import Status

_LOCK_SECONDS = 30  # how long an interrupted run may take to end


class RunWriter:
    """A run folder that is being written; see `open_run`.

    Attributes:
        records: its tables.
        snapshots: its list of snapshots.
        problems: a message for each damaged file that is skipped.
        begun: the run.json of the run that is resumed; empty if there is none, or it
            cannot be read.
    """

    def __init__(self, folder: Path, stages: Sequence[Any], about: dict[str, Any]) -> None:
        self.folder = folder
        self.problems = run_folder.damage(folder)
        self.records = Records(folder, run_folder.read_history(folder))
        self.snapshots = SnapshotList(folder, stages, self.problems)
        self.begun = run_folder.begun(folder)
        self._about = about
        self._stages = stages

    @property
    def history(self) -> History:
        """The records of the run."""
        return self.records.history

    @property
    def is_finished(self) -> bool:
        """Whether the last stage has been trained to its present max_iter."""
        last = self._stages[-1].max_iter
        return self.begun.get("status") == Status.FINISHED and bool(self.begun["iteration"] >= last)

    @property
    def divergence(self) -> tuple[str, int] | None:
        """The message and the iteration of the run's divergence, if it diverged."""
        if self.begun.get("status") != Status.DIVERGED:
            return None
        return self.begun["message"], self.begun["iteration"]

    def start(self, snapshot: Snapshot | None) -> None:
        """Start, or continue from a snapshot and drop the records after it."""
        first = snapshot.iteration if snapshot else 0
        self.set_status(Status.RUNNING, first)
        for phase in Phase:
            left = self.records.cut(phase, first)
            known = snapshot.memory.rows.get(phase, 0) if snapshot else 0
            if left < known:
                self.problems.append(
                    f"{records.table(self.folder, phase)}: {known - left} of the {known} rows"
                    f" before iteration {first} are missing"
                )
        self.snapshots.clean()
        begun_solvers.write(self.folder, self._stages)
        snapshots.folder_of(self.folder).mkdir(exist_ok=True)

    def set_status(self, now: Status, iteration: int, message: str = "") -> None:
        """Write run.json."""
        changing = {"status": now, "iteration": iteration, "message": message}
        status.write(self.folder, {**self._about, **changing})


@contextmanager
def open_run(
    folder: Path, stages: Sequence[Any], about: dict[str, Any], *, resume: bool
) -> Iterator[RunWriter]:
    """Open a run folder for this process alone.

    Args:
        stages: the SolverParameter of each stage, as it will be trained.
        about: the content of run.json.
        resume: continue the run in the folder, if there is one.

    Raises:
        UsageError: the folder has a run and `resume` is false, or the run was started
            with other solvers.
        ClrError: the folder cannot be written, or another process uses it.
    """
    run_folder.make_folder(folder)
    with _locked(folder):
        begun = run_folder.check_new(folder, resume)
        run = RunWriter(folder, stages, about)
        if begun:
            solvers = run.begun.get("solvers", [])
            if len(solvers) > len(stages):
                raise UsageError(
                    f"{folder} has a run with more stages; give all of them: {' '.join(solvers)}"
                )
            run.problems += begun_solvers.check(folder, stages)
        yield run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS).acquire()
    except Timeout:
        raise ClrError(f"{folder}: another process is training in it") from None
    with lock:
        yield
