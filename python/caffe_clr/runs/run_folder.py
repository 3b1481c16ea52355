"""The folder of a training run: what it holds, how it is written and how it is resumed.

    solver_1.prototxt …   the solver of each stage, as it is trained
    train.csv, test.csv   a row for each display and each test, written as they come
    snapshots/            .caffemodel and .solverstate; snapshots.csv lists the whole ones
                          by stage, iteration, and each file with its SHA-256, and what the
                          run knew by then that is in neither file
    caffe.log             what Caffe logged
    run.json              what is being trained, and whether it is finished

It stays usable whenever the process is killed: rows are written whole or
ignored, and a snapshot counts when it is in the list with its checksums. What
is damaged is left out, and said; a whole snapshot is enough to go on from.
"""

import csv
import glob
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from google.protobuf import text_format

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.prototxt import text_parser
from caffe_clr.prototxt.text_parser import TextError
from caffe_clr.runs.history import History, Phase, Row, cells_of, read_table, whole_lines, write_csv
from caffe_clr.system.files import replacing

_LOCK_SECONDS = 30  # how long an interrupted run may take to end
# what may change between the parts of a run without changing what was trained before
_CHANGEABLE = (
    *("display", "max_iter", "snapshot", "test_iter", "test_interval", "test_initialization"),
    *("solver_mode", "device_id", "snapshot_prefix"),
)
_MAX_ITERATION = 2**31 - 1
_STATE = re.compile(r"(?P<prefix>[^/]*)_iter_(?P<iteration>\d+)\.solverstate(?P<hdf5>\.h5)?")
DIGESTS = ("nets", "data")  # in run.json, a list each: of each stage's net and data
PLOT = "training.png"
_LIST = "snapshots.csv"
_REPLACED = r"(train|test)\.csv|solver_\d+\.prototxt|training\.png"
_COLUMNS = (
    *("stage", "iteration", "state", "state_sha256", "model", "model_sha256"),
    *("early_loss", "loss_sum", "losses", "train_rows", "test_rows"),
)


class Status(StrEnum):
    """How far a run is, as in its run.json."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"
    FINISHED = "finished"


@dataclass(frozen=True)
class Memory:
    """What a run knows at a snapshot that Caffe's files do not tell.

    Attributes:
        early_loss: the largest of the first tenth of the run, without its sign; nan where
            it is not known.
        loss_sum: of the losses since the last display.
        losses: how many those are.
        rows: recorded before this iteration, by phase, where that is known.
    """

    early_loss: float = math.nan
    loss_sum: float = 0.0
    losses: int = 0
    rows: dict[Phase, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot: which stage (from 0) it was taken in, at which iteration, and the files."""

    stage: int
    iteration: int
    state: Path
    model: Path
    memory: Memory = Memory()


def default_folder(solver_file: Path) -> Path:
    """runs/<solver name>-<time>, to the microsecond: several may be begun at once."""
    return Path("runs") / f"{solver_name(solver_file)}-{datetime.now():%Y%m%d-%H%M%S-%f}"


def newest_folder(solver_files: Sequence[Path]) -> Path:
    """The folder under runs/ that a run of these solvers was begun in last.

    Raises:
        UsageError: there is none.
    """
    wanted = [str(file) for file in solver_files]
    name = glob.escape(solver_name(solver_files[0]))
    folders = Path("runs").glob(f"{name}-*")
    for folder in sorted((f for f in folders if is_run(f)), reverse=True):
        if read_status(folder)["solvers"] == wanted:
            return folder
    raise UsageError("--resume: no run of these solvers under runs/; name its folder with --out")


def solver_name(solver_file: Path) -> str:
    """A solver file's name without what all of them end in."""
    return solver_file.stem.removesuffix("_solver") or solver_file.stem


def is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("run.json", _LIST)) or _has_states(folder)


def has_begun(folder: Path) -> bool:
    """Whether a folder has a run that came so far as to record or snapshot something."""
    recorded = any(any(_read_table(folder, phase)) for phase in Phase)
    listed = any(line[:1].isdigit() for line in whole_lines(folder / _LIST))
    return is_run(folder) and (recorded or listed or _has_states(folder))


def check_new(folder: Path, resume: bool) -> bool:
    """Refuse to begin where there is a run, and without --resume.

    Returns:
        Whether there is a run to go on with.

    Raises:
        UsageError: there is a run, or files that are no run's and that one would
            replace; says what to do instead.
    """
    check_replaced(folder, _REPLACED, is_own=is_run(folder))
    begun = has_begun(folder)
    if begun and not resume:
        raise UsageError(
            f"{folder} already has a run; continue it with --resume, or name another --out"
        )
    return begun


def check_replaced(folder: Path, names: str, *, is_own: bool) -> None:
    """Refuse to replace files that no command of this package has written.

    Args:
        names: a regular expression of those that are going to be written.
        is_own: whether the folder is one that such a command has written.

    Raises:
        UsageError: names one of them.
    """
    if is_own or not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        if re.fullmatch(names, name):
            raise UsageError(
                f"{folder / name} is there already, and would be replaced; move it, or name another"
                " --out"
            )


def is_own_table(path: Path) -> bool:
    """Whether a file begins as the tables of runs, logs and schedules do."""
    first = b"iteration,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(first)) == first


def read_history(folder: Path) -> History:
    """What the run in a folder has recorded so far; what cannot be read is left out."""
    return History(_read_table(folder, Phase.TRAIN)[0], _read_table(folder, Phase.TEST)[0])


def damage(folder: Path) -> list[str]:
    """What of the records of a run cannot be read, a line for each file."""
    found = [_read_status(folder)[1], *(_read_table(folder, phase)[1] for phase in Phase)]
    return [problem for problem in found if problem]


def read_status(folder: Path) -> dict[str, Any]:
    """The run.json of a folder; what cannot be read of it is as of a run that was killed.

    Raises:
        ClrError: there is no run in the folder.
    """
    if not is_run(folder):
        inside = min(folder.glob("**/run.json"), default=None)
        hint = f"; {inside.parent} is one" if inside else "; it would have a run.json"
        raise ClrError(f"{folder}: there is no run in it{hint}")
    return _read_status(folder)[0]


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
    """The last iteration that a run has recorded, or ended at; 0 where there is none."""
    tables = [whole_lines(_table(folder, phase)) for phase in Phase]
    last = [lines[-1].split(",")[0] for lines in tables if len(lines) > 1]
    ended = int(_read_status(folder)[0]["iteration"])
    return max(ended, *(int(cell) for cell in last if cell.isdecimal()), 0)


class Run:
    """A run folder that is being written to; see `open_run`.

    Attributes:
        history: what it has recorded.
        problems: what is damaged in it and left out, a line each.
        begun: what run.json said of the run that is gone on with; empty where
            there is none, or that cannot be read.
        on_row: called with each row that is recorded.
    """

    def __init__(self, folder: Path, stages: Sequence[Any], about: dict[str, Any]) -> None:
        self.folder = folder
        self.history = read_history(folder)
        self.problems = damage(folder)
        status, problem = _read_status(folder)
        self.begun = status if is_run(folder) and not problem else {}
        self.on_row: Callable[[Phase, Row], None] = lambda phase, row: None
        self._about = about
        self._stages = stages
        self._list = folder / _LIST
        self._columns: dict[Phase, list[str]] = {}

    @property
    def is_finished(self) -> bool:
        """Whether the last stage has been trained to its present max_iter."""
        last = self._stages[-1].max_iter
        return self.begun.get("status") == Status.FINISHED and bool(self.begun["iteration"] >= last)

    @property
    def divergence(self) -> tuple[str, int] | None:
        """What was said of this run when it diverged, and where."""
        if self.begun.get("status") != Status.DIVERGED:
            return None
        return self.begun["message"], self.begun["iteration"]

    def start(self, snapshot: Snapshot | None) -> None:
        """Go on from a snapshot, or begin: forget what was recorded after it."""
        first = snapshot.iteration if snapshot else 0
        self.set_status(Status.RUNNING, first)
        for phase in Phase:
            rows = self.history.rows(phase)
            rows[:] = [row for row in rows if row["iteration"] < first]
            self._write(phase)
            known = snapshot.memory.rows.get(phase, 0) if snapshot else 0
            if len(rows) < known:
                self.problems.append(
                    f"{_table(self.folder, phase)}: {known - len(rows)} of the {known} rows before"
                    f" iteration {first} are missing"
                )
        self._write_list(self._read_list()[0])
        for index, stage in enumerate(self._stages):
            self.solver_file(index).write_text(text_format.MessageToString(stage))
        (self.folder / "snapshots").mkdir(exist_ok=True)

    def solver_file(self, stage: int) -> Path:
        return solver_file(self.folder, stage)

    def set_status(self, status: Status, iteration: int, message: str = "") -> None:
        """Write run.json."""
        content = {**self._about, "status": status, "iteration": iteration, "message": message}
        with replacing(self.folder / "run.json") as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")

    def add(self, phase: Phase, row: Row) -> None:
        """Record a row."""
        self.history.rows(phase).append(row)
        self.on_row(phase, row)
        path, columns = _table(self.folder, phase), self._columns[phase]
        if not columns or not row.keys() <= set(columns) or not path.is_file():
            self._write(phase)
            return
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """List a snapshot that has been checked."""
        files = [(file.name, _sha256(file)) for file in (snapshot.state, snapshot.model)]
        memory = snapshot.memory
        rows = [memory.rows.get(phase, "") for phase in (Phase.TRAIN, Phase.TEST)]
        if not self._list.is_file():
            self._write_list([])
        with self._list.open("a", newline="") as file:
            csv.writer(file).writerow(
                (
                    *(snapshot.stage + 1, snapshot.iteration, *sum(files, ())),
                    *(memory.early_loss, memory.loss_sum, memory.losses, *rows),
                )
            )

    def rows_before(self, iteration: int) -> dict[Phase, int]:
        """How many rows are recorded before an iteration, by phase."""
        return {
            phase: sum(row["iteration"] < iteration for row in self.history.rows(phase))
            for phase in Phase
        }

    def newest_snapshot(self, is_whole: Callable[[Snapshot], bool]) -> Snapshot | None:
        """The furthest in the list that is still whole, or, if the list is damaged, in the folder.

        Args:
            is_whole: says it of a snapshot that has no checksum.
        """
        rows, is_damaged = self._read_list()
        folder = self.folder / "snapshots"
        for cells in sorted(rows, key=lambda cells: (int(cells[0]), int(cells[1])), reverse=True):
            state, model = folder / cells[2], folder / cells[4]
            changed = [
                file
                for file, sha256 in ((state, cells[3]), (model, cells[5]))
                if not file.is_file() or _sha256(file) != sha256
            ]
            if not changed:
                memory = _memory(cells[6:])
                return Snapshot(int(cells[0]) - 1, int(cells[1]), state, model, memory)
            self.problems.append(
                f"{changed[0]}: has changed since it was written; an earlier snapshot is used"
                if changed[0].exists()
                else f"{changed[0]}: is missing; an earlier snapshot is used"
            )
        unlisted = self._unlisted() if is_damaged else []
        if not unlisted:
            return None
        self.problems.append(
            f"{self._list}: cannot be read; the snapshots that are in the folder are used"
        )
        return next(filter(is_whole, unlisted), None)

    def _unlisted(self) -> list[Snapshot]:
        """What the snapshots' folder has, by name, the furthest first."""
        found = []
        for state in (self.folder / "snapshots").glob("*"):
            name = _STATE.fullmatch(state.name)
            if not name:
                continue
            iteration = int(name["iteration"])
            model = state.with_name(state.name.replace(".solverstate", ".caffemodel"))
            stage = next(
                (
                    index
                    for index, stage in enumerate(self._stages)
                    if Path(stage.snapshot_prefix).name == name["prefix"]
                    and iteration <= stage.max_iter
                ),
                None,
            )
            if stage is not None and model.is_file():
                found.append(Snapshot(stage, iteration, state, model))
        return sorted(found, key=lambda snapshot: snapshot.iteration, reverse=True)

    def _read_list(self) -> tuple[list[list[str]], bool]:
        """The rows of the list of snapshots, as text, and whether more of it cannot be read."""
        lines = whole_lines(self._list)
        cells = [cells_of(line) for line in lines]
        rows = [row for row in cells if self._is_snapshot(row)]
        heads = sum(row == list(_COLUMNS) for row in cells)
        return rows, not lines or len(rows) + heads < len(lines)

    def _is_snapshot(self, cells: list[str]) -> bool:
        if len(cells) < len(_COLUMNS[:6]) or not (cells[0] + cells[1]).isdecimal():
            return False
        state = _STATE.fullmatch(cells[2])
        return (
            bool(state and int(state["iteration"]) == int(cells[1]))
            and cells[4] == cells[2].replace(".solverstate", ".caffemodel")
            and all(re.fullmatch("[0-9a-f]{64}", cells[column]) for column in (3, 5))
            and 0 < int(cells[0]) <= len(self._stages)
        )

    def _write_list(self, rows: Sequence[Sequence[str]]) -> None:
        with (
            replacing(self._list) as partial,
            partial.open("w", newline="") as file,
        ):
            csv.writer(file).writerows([_COLUMNS, *rows])

    def _write(self, phase: Phase) -> None:
        rows = self.history.rows(phase)
        self._columns[phase] = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(_table(self.folder, phase)) as partial:
            write_csv(rows, partial)


def _has_states(folder: Path) -> bool:
    return any((folder / "snapshots").glob("*.solverstate*"))


def solver_file(folder: Path, stage: int) -> Path:
    """The solver of a stage, counted from 0, in a run folder."""
    return folder / f"solver_{stage + 1}.prototxt"


def solver_files(folder: Path) -> list[Path]:
    """Those of all stages.

    Raises:
        ClrError: there is none.
    """
    named = (solver_file(folder, stage) for stage in itertools.count())
    files = list(itertools.takewhile(Path.is_file, named))
    if not files:
        raise ClrError(f"{solver_file(folder, 0)}: is missing; draw this run alone")
    return files


def _table(folder: Path, phase: Phase) -> Path:
    return folder / f"{phase}.csv"


def _read_table(folder: Path, phase: Phase) -> tuple[list[Row], str | None]:
    """The rows of a phase in order, one for an iteration, and what is damaged, if anything is."""
    path = _table(folder, phase)
    found, unreadable = read_table(path)
    rows = {row["iteration"]: row for row in found if _is_row(row)}
    unreadable += len(found) - len(rows)
    ordered = [rows[iteration] for iteration in sorted(rows)]
    if not unreadable:
        return ordered, None
    what = "1 line" if unreadable == 1 else f"{unreadable} lines"
    return ordered, f"{path}: {what} damaged or twice there, and left out"


def _is_row(row: Row) -> bool:
    iteration = row.get("iteration")
    return isinstance(iteration, int) and 0 <= iteration <= _MAX_ITERATION and "lr" in row


def _read_status(folder: Path) -> tuple[dict[str, Any], str | None]:
    """What run.json says, completed by what is so of a killed run, and what is damaged in it."""
    killed: dict[str, Any] = {
        **{"solvers": [], "seed": None, "gpu": None},
        **{"status": Status.RUNNING, "iteration": 0, "message": ""},
    }
    path = folder / "run.json"
    problem = f"{path}: cannot be read; what it said is not used"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return killed, f"{path}: is missing; what it said is not used" if is_run(folder) else None
    except (OSError, ValueError, RecursionError):
        return killed, problem
    if not isinstance(content, dict) or not _is_status({**killed, **content}):
        return killed, problem
    return {**killed, **content}, None


def _is_status(content: dict[str, Any]) -> bool:
    solvers, status = content["solvers"], content["status"]
    return (
        isinstance(solvers, list)
        and all(isinstance(solver, str) for solver in solvers)
        and all(isinstance(content.get(key, []), list) for key in DIGESTS)
        and status in list(Status)
        and isinstance(content["message"], str)
        and all(
            type(content.get(key)) in types
            for key, types in (
                ("iteration", (int,)),
                ("seed", (int, type(None))),
                ("gpu", (int, type(None))),
                ("threads", (str, type(None))),
            )
        )
    )


def _memory(cells: Sequence[str]) -> Memory:
    """What is at the end of a row of the list; nothing where that cannot be read."""
    try:
        early_loss, loss_sum, losses, *rows = cells
        return Memory(
            early_loss=float(early_loss),
            loss_sum=float(loss_sum),
            losses=int(losses),
            rows=dict(zip((Phase.TRAIN, Phase.TEST), map(int, rows), strict=True)),
        )
    except ValueError:
        return Memory()


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
    with _locked(folder):
        begun = check_new(folder, resume)
        run = Run(folder, stages, about)
        if begun:
            solvers = run.begun.get("solvers", [])
            if len(solvers) > len(stages):
                raise UsageError(
                    f"{folder} was begun with more stages; give all of them: {' '.join(solvers)}"
                )
            run.problems += _check_stages(folder, stages)
        yield run


def check_begun(folder: Path, solver: Any, seed: int) -> None:
    """Refuse another solver or seed than that of the run in a folder, if there is one.

    open_run does so itself; this is to be called before others are trained.

    Args:
        solver: its SolverParameter.

    Raises:
        UsageError: says what is another.
    """
    if has_begun(folder):
        stage = type(solver)()
        stage.CopyFrom(solver)
        stage.random_seed = seed
        _check_stages(folder, [stage])


def _check_stages(folder: Path, stages: Sequence[Any]) -> list[str]:
    """Refuse other stages than those of a run; says which of those cannot be read."""
    problems = [
        _check_same(solver_file(folder, index), stage) for index, stage in enumerate(stages)
    ]
    return [problem for problem in problems if problem]


def _check_same(begun_file: Path, stage: Any) -> str | None:
    """Refuse a stage that is not the one in a file; says so where that cannot be read."""
    try:
        begun = text_parser.parse(begun_file.read_bytes(), type(stage)())
    except FileNotFoundError:
        return None
    except (OSError, TextError):
        return f"{begun_file}: cannot be read; written again from the solver that was given"
    differing = [
        name
        for name in stage.DESCRIPTOR.fields_by_name
        if name not in _CHANGEABLE and getattr(begun, name) != getattr(stage, name)
    ]
    if differing == ["random_seed"]:
        seed = f"with --seed {begun.random_seed}" if begun.random_seed >= 0 else "without --seed"
        raise UsageError(
            f"{begun_file}: the run was begun with another random_seed; go on {seed}, or name"
            " another --out"
        )
    if differing:
        raise UsageError(
            f"{begun_file}: the run was begun with another {', '.join(differing)};"
            " change it back, or name another --out"
        )
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS).acquire()
    except Timeout:
        raise ClrError(f"{folder}: another process is training in it") from None
    with lock:
        yield


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
