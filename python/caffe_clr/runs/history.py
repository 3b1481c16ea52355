"""The records of a run: rows of numbers, in memory and as CSV."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Row = dict[str, float]

OWN_COLUMNS = ("iteration", "epoch", "lr", "lr_computed", "momentum", "seconds")  # no outputs


class Phase(StrEnum):
    """The kind of a row, which is also the name of its file without .csv."""

    TRAIN = "train"
    TEST = "test"


@dataclass
class History:
    """The records of a run: two lists of rows, each a dict with its iteration and rate.

    Attributes:
        train: a row for each `display` of the solver: iteration, epoch (if the size of
            the data set is known), lr, momentum (if it cycles in the run), loss (the
            mean since the previous row), the outputs of the train net, and seconds since
            the run started. lr and momentum are those of the same iteration.
        test: a row for each `test_interval`, with the mean of each output of the test
            nets instead; outputs of a second test net are called name#1.
        losses: the outputs that are known to be losses, because they have a weight.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    losses: set[str] = field(default_factory=set)

    def rows(self, phase: Phase) -> list[Row]:
        return self.train if phase is Phase.TRAIN else self.test

    def rates(self) -> dict[float, float]:
        """The rate by iteration, in order, from all rows; nan and inf are left out."""
        return self._by_iteration("lr")

    def momenta(self) -> dict[float, float]:
        """The momentum by iteration, likewise; empty if none is recorded."""
        return self._by_iteration("momentum")

    def _by_iteration(self, name: str) -> dict[float, float]:
        rows = self.train + self.test
        values = {row["iteration"]: row[name] for row in rows if name in row}
        return {at: value for at, value in sorted(values.items()) if math.isfinite(value)}


def column(output: str, net: int = 0) -> str:
    """The column for an output of a net: its name, unless that is taken.

    Args:
        net: the number of the net among the test nets.

    >>> column("accuracy"), column("accuracy", 1), column("lr")
    ('accuracy', 'accuracy#1', 'lr#0')
    """
    return f"{output}#{net}" if net or output in OWN_COLUMNS else output


def outputs(rows: Iterable[Row]) -> list[str]:
    """The columns that hold outputs of a net."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name and name not in OWN_COLUMNS]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV, with a column for each key of any row; missing values are empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> tuple[list[Row], int]:
    """Read the rows that write_csv or a run wrote, and count the lines that are damaged.

    A row has a number, or nothing, for each column. A last line without a newline does
    not count: it is still being written, or was when the run was killed.
    """
    header, *lines = whole_lines(path) or [""]
    columns = cells_of(header)
    rows = [row for row in (_row(columns, cells_of(line)) for line in lines) if row]
    return rows, len(lines) - len(rows)


def whole_lines(path: Path) -> list[str]:
    """The complete lines of a file; none if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", errors="replace") as file:
        return [line for line in file if line.endswith("\n")]


def cells_of(line: str) -> list[str]:
    """The cells of a CSV line; none if it is not one."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _row(columns: list[str], cells: list[str]) -> Row:
    """A row; empty where it cannot be read."""
    if len(columns) != len(cells):
        return {}
    try:
        return {key: number(value) for key, value in zip(columns, cells, strict=True) if value}
    except ValueError:
        return {}


def number(text: str) -> float:
    """The number in a cell; an int if it is whole.

    Raises:
        ValueError: the cell does not hold a number.
    """
    value = float(text)
    return int(text) if text.lstrip("-").isdecimal() else value
