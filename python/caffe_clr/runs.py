"""The folder of a training run: what it holds, how it is written and how it is resumed.

    solver_1.prototxt …   the solver of each stage, as it is trained
    train.csv, test.csv   a row for each display and each test, written as they come
    snapshots/            .caffemodel and .solverstate; snapshots.csv lists the whole ones
                          by stage, iteration, and each file with its SHA-256
    caffe.log             what Caffe logged
    run.json              what is being trained, and whether it is finished

It stays usable whenever the process is killed: rows are written whole or
ignored, and a snapshot counts when it is in the list with its checksums.
"""

import csv
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr.errors import ClrError, UsageError

Row = dict[str, float]

_LOCK_SECONDS = 30  # how long an interrupted run may take to end
# what may change between the parts of a run without changing what was trained before
_CHANGEABLE = (
    *("display", "max_iter", "snapshot", "test_iter", "test_interval", "test_initialization"),
    *("solver_mode", "device_id", "snapshot_prefix"),
)


@dataclass
class History:
    """What a run recorded: two lists of rows, each a dict with its iteration and its rate.

    `train` has a row for each `display` of the solver: iteration, epoch where
    the data set's size is known, lr, loss (the mean since the row before), the
    outputs of the train net, and seconds since the run began. `test` has one
    for each `test_interval`, with the mean of every output of the test nets
    (of a second test net as name#1). The rate, `lr`, is that of the same
    iteration. `losses` are outputs that are known to be losses, since they have
    a weight.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    losses: set[str] = field(default_factory=set)

    def rates(self) -> dict[float, float]:
        """The rate by iteration, in order, from rows of both kinds; nan and inf are left out."""
        rows = self.train + self.test
        rates = {row["iteration"]: row["lr"] for row in rows if math.isfinite(row["lr"])}
        return dict(sorted(rates.items()))


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot: which stage (from 0) it was taken in, at which iteration, and the files."""

    stage: int
    iteration: int
    state: Path
    model: Path


def default_folder(solver_file: Path) -> Path:
    """runs/<solver name>-<time>."""
    return Path("runs") / f"{solver_name(solver_file)}-{time.strftime('%Y%m%d-%H%M%S')}"


def newest_folder(solver_files: Sequence[Path]) -> Path:
    """The folder under runs/ that a run of these solvers was begun in last.

    Raises:
        UsageError: there is none.
    """
    wanted = [str(file) for file in solver_files]
    folders = Path("runs").glob(f"{solver_name(solver_files[0])}-*")
    for folder in sorted((f for f in folders if is_run(f)), reverse=True):
        if read_status(folder)["solvers"] == wanted:
            return folder
    raise UsageError("--resume: no run of these solvers under runs/; name its folder with --out")


def solver_name(solver_file: Path) -> str:
    """A solver file's name without what all of them end in."""
    return solver_file.stem.removesuffix("_solver") or solver_file.stem


def is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def has_begun(folder: Path) -> bool:
    """Whether a folder has a run that came so far as to record or snapshot something."""
    history = read_history(folder)
    snapshots = _whole_lines(folder / "snapshots.csv")
    return is_run(folder) and bool(history.train or history.test or snapshots)


def check_new(folder: Path, resume: bool) -> bool:
    """Refuse to begin where there is a run, and without --resume.

    Returns:
        Whether there is a run to go on with.

    Raises:
        UsageError: says what to do instead.
    """
    begun = has_begun(folder)
    if begun and not resume:
        raise UsageError(f"{folder} has a run; go on with it: --resume, or name another --out")
    return begun


def read_history(folder: Path) -> History:
    """What the run in a folder has recorded so far."""
    return History(read_csv(folder / "train.csv"), read_csv(folder / "test.csv"))


def read_status(folder: Path) -> dict[str, Any]:
    """The run.json of a folder.

    Raises:
        ClrError: there is no run in the folder.
    """
    try:
        status: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        inside = min(folder.glob("**/run.json"), default=None)
        hint = f"; {inside.parent} is one" if inside else "; it would have a run.json"
        raise ClrError(f"{folder}: there is no run in it{hint}") from None
    return status


def make_folder(folder: Path) -> None:
    """Make a folder to write a run into.

    Raises:
        ClrError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ClrError(
            f"{folder}: cannot be written: {error.strerror}; name another --out"
        ) from None


def last_iteration(folder: Path) -> int:
    """The last iteration that the run in a folder has recorded, 0 where there is none."""
    tables = [_whole_lines(folder / name) for name in ("train.csv", "test.csv")]
    return max((int(lines[-1].split(",")[0]) for lines in tables if len(lines) > 1), default=0)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows, a column for each key of any of them; a row that lacks it has it empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[Row]:
    """The rows that write_csv or a run wrote; a torn last line is left out."""
    return [
        {key: _number(value) for key, value in row.items() if value}
        for row in csv.DictReader(_whole_lines(path))
    ]


class Run:
    """A run folder that is being written to; see `open_run`."""

    def __init__(self, folder: Path, stages: Sequence[Any], about: dict[str, Any]) -> None:
        self.folder = folder
        self.history = read_history(folder)
        self._about = about
        self._stages = stages
        self._list = folder / "snapshots.csv"

    @property
    def is_finished(self) -> bool:
        """Whether the last stage has been trained to its present max_iter."""
        if not is_run(self.folder):
            return False
        status = read_status(self.folder)
        last = self._stages[-1].max_iter
        return bool(status["status"] == "finished" and status["iteration"] >= last)

    @property
    def divergence(self) -> tuple[str, int] | None:
        """What was said of this run when it diverged, and where."""
        status = read_status(self.folder) if is_run(self.folder) else {}
        if status.get("status") != "diverged":
            return None
        return status["message"], status["iteration"]

    def start(self, snapshot: Snapshot | None) -> None:
        """Go on from a snapshot, or begin: forget what was recorded after it."""
        first = snapshot.iteration if snapshot else 0
        for name, rows in (("train", self.history.train), ("test", self.history.test)):
            rows[:] = [row for row in rows if row["iteration"] < first]
            partial = self.folder / f"{name}.csv.partial"
            write_csv(rows, partial)
            partial.rename(self.folder / f"{name}.csv")
        self._list.touch()
        self._list.write_text("".join(_whole_lines(self._list)))
        for index, stage in enumerate(self._stages):
            self.solver_file(index).write_text(text_format.MessageToString(stage))
        (self.folder / "snapshots").mkdir(exist_ok=True)
        self.set_status("running", first)

    def solver_file(self, stage: int) -> Path:
        return self.folder / f"solver_{stage + 1}.prototxt"

    def set_status(self, status: str, iteration: int, message: str = "") -> None:
        """Write run.json; status is running, interrupted, diverged or finished."""
        content = {**self._about, "status": status, "iteration": iteration, "message": message}
        partial = self.folder / "run.json.partial"
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.rename(self.folder / "run.json")

    def add(self, kind: str, row: Row) -> None:
        """Record a row of kind train or test."""
        rows = getattr(self.history, kind)
        rows.append(row)
        path = self.folder / f"{kind}.csv"
        if len(rows) == 1:
            write_csv(rows, path)
            return
        with path.open("a", newline="") as file:
            csv.DictWriter(file, rows[0].keys(), extrasaction="ignore").writerow(row)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """List a snapshot that has been checked."""
        files = [(file.name, _sha256(file)) for file in (snapshot.state, snapshot.model)]
        with self._list.open("a", newline="") as file:
            csv.writer(file).writerow((snapshot.stage + 1, snapshot.iteration, *sum(files, ())))

    def newest_snapshot(self) -> Snapshot | None:
        """The last one in the list that is still whole."""
        folder = self.folder / "snapshots"
        for stage, iteration, state, state_sha256, model, model_sha256 in reversed(
            list(csv.reader(_whole_lines(self._list)))
        ):
            files = [(folder / state, state_sha256), (folder / model, model_sha256)]
            if all(file.is_file() and _sha256(file) == sha256 for file, sha256 in files):
                return Snapshot(int(stage) - 1, int(iteration), folder / state, folder / model)
        return None


@contextmanager
def open_run(
    folder: Path, stages: Sequence[Any], about: dict[str, Any], *, resume: bool
) -> Iterator[Run]:
    """A run folder, for this process alone.

    Args:
        stages: the SolverParameter of each stage, as it is to be trained.
        about: what to say of the run in run.json.
        resume: go on with the run in the folder, if there is one.

    Raises:
        UsageError: the folder has a run and resume is false, or was begun with
            other solvers.
        ClrError: the folder cannot be written, or another process uses it.
    """
    make_folder(folder)
    with (folder / ".lock").open("w") as lock:
        _wait_for(lock, folder)
        begun = check_new(folder, resume)
        run = Run(folder, stages, about)
        if begun:
            solvers = read_status(folder)["solvers"]
            if len(solvers) > len(stages):
                raise UsageError(
                    f"{folder} was begun with more stages; give all of them: {' '.join(solvers)}"
                )
            for index, stage in enumerate(stages):
                _check_same(run.solver_file(index), stage)
        yield run


def _check_same(begun_file: Path, stage: Any) -> None:
    if not begun_file.is_file():
        return
    begun = text_format.Parse(begun_file.read_text(), type(stage)())
    differing = [
        name
        for name in stage.DESCRIPTOR.fields_by_name
        if name not in _CHANGEABLE and getattr(begun, name) != getattr(stage, name)
    ]
    if differing:
        raise UsageError(
            f"{begun_file}: the run was begun with another {', '.join(differing)};"
            " change it back, or name another --out"
        )


def _wait_for(lock: Any, folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ClrError(f"{folder}: another process is training in it") from None
            time.sleep(0.1)


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file, if there is one, without a last one that is not yet ended."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [line for line in file if line.endswith("\n")]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _number(text: str) -> float:
    number = float(text)
    return int(number) if text.lstrip("-").isdigit() else number
