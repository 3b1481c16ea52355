"""The records of a run: rows of numbers, in memory, as CSV, and as a plot."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe_clr.errors import ClrError, counted
from caffe_clr.runs import drawing, notebook, output_kinds
from caffe_clr.runs.drawing import GREY, HUES, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Row = dict[str, float]
Points = dict[float, float]  # values by iteration

OWN_COLUMNS = ("iteration", "epoch", "lr", "lr_computed", "momentum", "seconds")  # no outputs
_NO_CURVES = (*OWN_COLUMNS, "output loss")  # of which "loss" is the mean
_ROWS_IN_HTML = 5


class Phase(StrEnum):
    """The kind of a row, which is also the name of its file without .csv."""

    TRAIN = "train"
    TEST = "test"


@dataclass(repr=False)
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

    def plot(self, title: str = "") -> "Figure":
        """Draw the losses, the outputs from 0 to 1, such as accuracies, and the rate.

        Those outputs are drawn in percent. The momentum is drawn at the bottom if it changes.
        Other outputs are not drawn, and a panel has at most eight curves.

        Raises:
            ClrError: nothing is recorded.
        """
        if not self.train and not self.test:
            raise ClrError("nothing is recorded yet; there is nothing to plot")
        losses, shares = self._curves()
        outputs = {name.split(" ", 1)[1] for name in shares}  # without the phase
        kind = outputs.pop() if len(outputs) == 1 else "outputs"
        percent = {
            name: {at: 100 * value for at, value in points.items()}
            for name, points in shares.items()
        }
        panels = [
            (label, curves)
            for label, curves in (("loss", losses), (f"{kind} (%)", percent))
            if curves
        ]
        momenta = self.momenta()
        below = [self.rates()] + ([momenta] if len(set(momenta.values())) > 1 else [])
        heights = [2] * len(panels) + [1] * len(below)
        figure = drawing.figure(8, 1 + 1.25 * sum(heights))
        grid = list(
            figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False).flat
        )
        for axes, (label, curves) in zip(grid, panels, strict=False):
            _draw_outputs(axes, label, curves)
        rates, *others = grid[len(panels) :]
        for axes, points in zip((rates, *others), below, strict=True):
            axes.plot(*drawing.stepped(points), color=GREY, linewidth=1.6)
            mark = {"marker": drawing.marker(len(points)), "markersize": 4}
            axes.plot(*drawing.as_curve(points), color=GREY, linewidth=0, **mark)
        drawing.rates_from_zero(rates)
        for axes in others:
            axes.set(ylabel="momentum")
        drawing.over_iterations(grid[-1])
        for axes in grid:
            drawing.plain(axes)
        drawing.title(grid[0], title)
        figure.align_ylabels()
        return figure

    def _curves(self) -> tuple[dict[str, Points], dict[str, Points]]:
        """The losses, and the other outputs that are from 0 to 1, by name."""
        losses: dict[str, Points] = {}
        others: dict[str, Points] = {}
        for phase in Phase:
            for row in self.rows(phase):
                for name, value in row.items():
                    if name in _NO_CURVES:
                        continue
                    curves = losses if output_kinds.is_loss(name, self.losses) else others
                    known = curves is losses or output_kinds.has_scores(row, name, self.losses)
                    curve = curves.setdefault(f"{phase} {name}", {})
                    curve[row["iteration"]] = value if known else math.nan
        shares = {
            name: curve
            for name, curve in others.items()
            if not any(value < 0 or value > 1 for value in curve.values())
        }
        return losses, shares

    def to_frame(self) -> "DataFrame":
        """All rows as a pandas DataFrame, by iteration; the column `phase` is train or test.

        Raises:
            ClrError: pandas is not installed.
        """
        rows = [{"phase": str(phase), **row} for phase in Phase for row in self.rows(phase)]
        return frame(sorted(rows, key=lambda row: row["iteration"]))

    def __repr__(self) -> str:
        rows = self.train + self.test
        told = f"{counted(len(self.train), 'train row')}, {counted(len(self.test), 'test row')}"
        if rows:
            told += f", up to iteration {max(row['iteration'] for row in rows):,}"
        return f"{type(self).__name__}({told})"

    def _repr_html_(self) -> str:
        """The last rows and the plot, for a notebook."""
        rows = self.test or self.train
        if not rows:
            return escape(repr(self))
        names = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_shown(row.get(name)) for name in names] for row in rows[-_ROWS_IN_HTML:]]
        kind = Phase.TEST if self.test else Phase.TRAIN
        note = f"the last {len(cells)} of {counted(len(rows), f'{kind} row')}"
        return notebook.table(names, cells, [note]) + drawing.html(self.plot())


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


def frame(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Rows as a pandas DataFrame.

    Raises:
        ClrError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ClrError("to_frame needs pandas: pip install pandas") from None
    return pandas.DataFrame(list(rows))


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


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _draw_outputs(axes: "Axes", label: str, curves: dict[str, Points]) -> None:
    names = list(curves)[: len(HUES)]
    looks = [
        {"color": colour, "label": name, "marker": drawing.marker(len(curves[name]))}
        for name, colour in zip(names, HUES, strict=False)
    ]
    drawing.draw(axes, [drawing.as_curve(curves[name]) for name in names], looks)
    hidden = len(curves) - len(names)
    drawing.side_key(axes, f"{hidden:,} more not shown" if hidden > 0 else None)
    values = [value for points in curves.values() for value in points.values()]
    axes.set(ylabel=literal(label, 24, 1), yscale=drawing.scale(values))
