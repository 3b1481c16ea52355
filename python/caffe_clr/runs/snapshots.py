"""The snapshots of a run, and snapshots.csv, the list of the complete ones.

Each line of the list has the stage, the iteration, each file with its SHA-256, and the state
of the run that neither file holds.
"""

import csv
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe_clr.runs.history import Phase, cells_of, whole_lines
from caffe_clr.system.files import replacing

NAME = "snapshots.csv"
_STATE = re.compile(r"(?P<prefix>[^/]*)_iter_(?P<iteration>\d+)\.solverstate(?P<hdf5>\.h5)?")
_FILES = ("stage", "iteration", "state", "state_sha256", "model", "model_sha256")
_COLUMNS = (*_FILES, "early_loss", "loss_sum", "losses", "train_rows", "test_rows")


@dataclass(frozen=True)
class Memory:
    """The state of a run at a snapshot that Caffe's files do not hold.

    Attributes:
        early_loss: the largest absolute loss of the first tenth of the run; nan if
            unknown.
        loss_sum: the sum of the losses since the last display.
        losses: the number of these losses.
        rows: the number of rows recorded before this iteration, by phase, if known.
    """

    early_loss: float = math.nan
    loss_sum: float = 0.0
    losses: int = 0
    rows: dict[Phase, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot: its stage (from 0), its iteration, and its files."""

    stage: int
    iteration: int
    state: Path
    model: Path
    memory: Memory = Memory()


def folder_of(run: Path) -> Path:
    """The folder with the snapshots of a run."""
    return run / "snapshots"


def has_states(run: Path) -> bool:
    return any(folder_of(run).glob("*.solverstate*"))


def is_listed(run: Path) -> bool:
    """Whether a run's list has a snapshot."""
    return any(line[:1].isdigit() for line in whole_lines(run / NAME))


class SnapshotList:
    """The list of the complete snapshots of a run.

    Args:
        run: the run folder.
        stages: the SolverParameter of each stage.
        problems: a list to which messages about damage are added.
    """

    def __init__(self, run: Path, stages: Sequence[Any], problems: list[str]) -> None:
        self._file = run / NAME
        self._folder = folder_of(run)
        self._stages = stages
        self._problems = problems

    def clean(self) -> None:
        """Write the list again without the lines that cannot be read."""
        self._write(self._read()[0])

    def add(self, snapshot: Snapshot) -> None:
        """List a snapshot that has been checked."""
        if not self._file.is_file():
            self._write([])
        with self._file.open("a", newline="") as file:
            csv.writer(file).writerow(_cells(snapshot))

    def newest(self, is_whole: Callable[[Snapshot], bool]) -> Snapshot | None:
        """The furthest complete snapshot of the list or, if that is damaged, of the folder.

        Args:
            is_whole: whether a snapshot without checksums is complete.
        """
        rows, is_damaged = self._read()
        for cells in sorted(rows, key=lambda cells: (int(cells[0]), int(cells[1])), reverse=True):
            snapshot = _snapshot(cells, self._folder)
            checksums = ((snapshot.state, cells[3]), (snapshot.model, cells[5]))
            problem = _changed(checksums)
            if not problem:
                return snapshot
            self._problems.append(f"{problem}; using an earlier snapshot")
        unlisted = self._unlisted() if is_damaged else []
        if not unlisted:
            return None
        self._problems.append(f"{self._file}: cannot be read; using the snapshots in the folder")
        return next(filter(is_whole, unlisted), None)

    def _unlisted(self) -> list[Snapshot]:
        """What the snapshots' folder has, by name, the furthest first."""
        found = [self._named(state) for state in self._folder.glob("*")]
        return sorted(filter(None, found), key=lambda snapshot: snapshot.iteration, reverse=True)

    def _named(self, state: Path) -> Snapshot | None:
        """The snapshot of a solverstate, by its name; None for other files."""
        name = _STATE.fullmatch(state.name)
        if not name:
            return None
        iteration, model = int(name["iteration"]), state.with_name(_model(state.name))
        for index, stage in enumerate(self._stages):
            is_of = Path(stage.snapshot_prefix).name == name["prefix"]
            if is_of and iteration <= stage.max_iter:
                return Snapshot(index, iteration, state, model) if model.is_file() else None
        return None

    def _read(self) -> tuple[list[list[str]], bool]:
        """The rows of the list, as text, and whether more of it cannot be read."""
        lines = whole_lines(self._file)
        cells = [cells_of(line) for line in lines]
        rows = [row for row in cells if _is_row(row) and 0 < int(row[0]) <= len(self._stages)]
        heads = sum(row == list(_COLUMNS) for row in cells)
        return rows, not lines or len(rows) + heads < len(lines)

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        with replacing(self._file) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])


def _is_row(cells: list[str]) -> bool:
    if len(cells) < len(_FILES) or not (cells[0] + cells[1]).isdecimal():
        return False
    state = _STATE.fullmatch(cells[2])
    return (
        bool(state and int(state["iteration"]) == int(cells[1]))
        and cells[4] == _model(cells[2])
        and all(re.fullmatch("[0-9a-f]{64}", cells[column]) for column in (3, 5))
    )


def _model(state: str) -> str:
    """The name of the model beside a solverstate."""
    return state.replace(".solverstate", ".caffemodel")


def _snapshot(cells: Sequence[str], folder: Path) -> Snapshot:
    """That of a row of the list."""
    stage, iteration, memory = int(cells[0]) - 1, int(cells[1]), _memory(cells[len(_FILES) :])
    return Snapshot(stage, iteration, folder / cells[2], folder / cells[4], memory)


def _cells(snapshot: Snapshot) -> list[Any]:
    """The row of the list of a snapshot."""
    files = [(file.name, _sha256(file)) for file in (snapshot.state, snapshot.model)]
    memory = snapshot.memory
    return [
        *(snapshot.stage + 1, snapshot.iteration, *sum(files, ())),
        *(memory.early_loss, memory.loss_sum, memory.losses),
        *(memory.rows.get(phase, "") for phase in (Phase.TRAIN, Phase.TEST)),
    ]


def _changed(checksums: Sequence[tuple[Path, str]]) -> str | None:
    """What is so of the first file that has not its checksum."""
    for file, sha256 in checksums:
        if not file.is_file() or _sha256(file) != sha256:
            has_changed = "has changed since it was written" if file.exists() else "is missing"
            return f"{file}: {has_changed}"
    return None


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


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
