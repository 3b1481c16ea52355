"""Reads and writes the tables of a run folder, train.csv and test.csv."""

import csv
from collections.abc import Callable
from pathlib import Path

from caffe_clr.runs.history import History, Phase, Row, read_table, write_csv
from caffe_clr.system.files import replacing

_MAX_ITERATION = 2**31 - 1


def table(folder: Path, phase: Phase) -> Path:
    return folder / f"{phase}.csv"


def read(folder: Path, phase: Phase) -> tuple[list[Row], str | None]:
    """The rows of a phase, one per iteration, in order; and a message if lines were skipped."""
    path = table(folder, phase)
    found, unreadable = read_table(path)
    rows = {row["iteration"]: row for row in found if _is_row(row)}
    unreadable += len(found) - len(rows)
    ordered = [rows[iteration] for iteration in sorted(rows)]
    if not unreadable:
        return ordered, None
    lines = "line" if unreadable == 1 else "lines"
    return ordered, f"{path}: skipped {unreadable} damaged or duplicate {lines}"


def _is_row(row: Row) -> bool:
    iteration = row.get("iteration")
    return isinstance(iteration, int) and 0 <= iteration <= _MAX_ITERATION and "lr" in row


class Records:
    """The tables of a run that is training.

    Attributes:
        history: their rows, those of an earlier part of the run first.
        on_row: called with each new row.
    """

    def __init__(self, folder: Path, history: History) -> None:
        self.history = history
        self.on_row: Callable[[Phase, Row], None] = lambda phase, row: None
        self._folder = folder
        self._columns: dict[Phase, list[str]] = {}

    def cut(self, phase: Phase, first: int) -> int:
        """Drop the rows of a phase from an iteration on, and return how many are left."""
        rows = self.history.rows(phase)
        rows[:] = [row for row in rows if row["iteration"] < first]
        self._write(phase)
        return len(rows)

    def add(self, phase: Phase, row: Row) -> None:
        """Record a row."""
        self.history.rows(phase).append(row)
        self.on_row(phase, row)
        path, columns = table(self._folder, phase), self._columns[phase]
        if not columns or not row.keys() <= set(columns) or not path.is_file():
            self._write(phase)
            return
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)

    def before(self, iteration: int) -> dict[Phase, int]:
        """The number of rows before an iteration, by phase."""
        return {
            phase: sum(row["iteration"] < iteration for row in self.history.rows(phase))
            for phase in Phase
        }

    def _write(self, phase: Phase) -> None:
        rows = self.history.rows(phase)
        self._columns[phase] = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(table(self._folder, phase)) as partial:
            write_csv(rows, partial)
