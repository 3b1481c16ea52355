"""Reads tables of other programs: spreadsheets, Caffe's parse_log.py, other frameworks."""

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from caffe_clr.errors import ClrError
from caffe_clr.runs.history import Row, number

_EXTENSIONS = (".csv", ".tsv")
_DELIMITERS = "\t;,"  # the first that is in the header parts the columns
_LONGEST_HEADER = 100_000
_LONGEST_EXAMPLE = 100
_RATES = ("lr", "learningrate")
_ITERATION = "NumIters"  # what parse_log.py calls it
_OWN = {_ITERATION: "iteration", "Seconds": "seconds"}
_EMPTY = {"NA", "N/A", "null", "None", "-"}  # what stands for no value
_BANDS = ("__MIN", "__MAX")  # of Weights & Biases, beside each column

Cells = list[str]


@dataclass
class Table:
    """The numbers of a table.

    Attributes:
        rows: the rows, without empty cells and without columns that lack a name or have
            no numbers; the rate is named `lr`.
        is_of_parse_log: whether Caffe's parse_log.py wrote the table.
    """

    rows: list[Row]
    is_of_parse_log: bool


def is_table(path: Path) -> bool:
    """Whether a file is a table with rates, judged by its extension, else by its first line.

    Raises:
        ClrError: it cannot be read.
    """
    if path.suffix.lower() in _EXTENSIONS:
        return True
    line = "".join(_text(path, _LONGEST_HEADER).splitlines()[:1])
    header = next(iter(_split(line)), [])
    return len(header) > 1 and any(map(_is_rate, header))


def read(path: Path) -> Table:
    """Read a table in UTF-8 or UTF-16.

    Commas, semicolons or tabs separate its columns. With semicolons or tabs, numbers may
    have a decimal comma, if no number in the table has a point. The column of the rate may
    be called lr, learning_rate and the like, as in `lr-SGD` or `run 1 - lr`; if there are
    several, it is the one called lr.

    Raises:
        ClrError: the file cannot be read, has no column of rates or several, or has lines
            that hold something other than numbers.
    """
    text = _text(path)
    try:
        header, *lines = _split(text) or [[]]
    except csv.Error as error:
        raise ClrError(f"{path}: is not a CSV: {error}") from None
    if lines and len(lines[-1]) < len(header) and not text.endswith("\n"):
        del lines[-1]  # it is still being written
    names = _names(path, header)
    has_points = any("." in cell for cells in lines for cell in cells)
    if not has_points and "," in "".join(map("".join, lines)):
        lines = [[cell.replace(",", ".") for cell in cells] for cells in lines]
    columns = [column for column in zip(names, *lines, strict=False) if column[0]]
    of_numbers = {name for name, *cells in columns if any(map(_is_number, cells))}
    rows = [
        {
            name: cell
            for name, cell in zip(names, cells, strict=False)
            if cell and (name in of_numbers or name == "lr")
        }
        for cells in lines
    ]
    wrong = [
        cells
        for cells, row in zip(lines, rows, strict=True)
        if len(cells) != len(header) or not all(map(_is_number, row.values()))
    ]
    if wrong:
        raise ClrError(
            f"{path}: is not a CSV of numbers: {len(wrong)} of its lines cannot be read, such as"
            f" {' '.join(wrong[0])[:_LONGEST_EXAMPLE]}; separate columns with commas, and write"
            " numbers with a decimal point"
        )
    numbers = [{name: number(cell) for name, cell in row.items()} for row in rows]
    return Table([row for row in numbers if row], _ITERATION in header)


def _text(path: Path, size: int = -1) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(size)
    except OSError as error:
        raise ClrError(f"{path}: cannot be read: {error.strerror}") from None
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf_16 else "utf-8-sig", errors="replace")
    # which tells a spreadsheet the delimiter
    return text.partition("\n")[2] if text.startswith("sep=") else text


def _split(text: str) -> list[Cells]:
    """The cells of each line that is not empty."""
    header = "".join(text.splitlines()[:1])
    delimiter = next((each for each in _DELIMITERS if each in header), ",")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    stripped = ([cell.strip() for cell in cells] for cells in lines if cells)
    return [["" if cell in _EMPTY else cell for cell in cells] for cells in stripped]


def _names(path: Path, header: Cells) -> Cells:
    """The names of the columns; those that are not read have none."""
    rates = [name for name in header if _is_rate(name)]
    rate = "lr" if "lr" in rates else "".join(rates[:1])
    if not rates:
        raise ClrError(f"{path}: has no column lr; rename the column with the rates to lr")
    if rate != "lr" and len(rates) > 1:
        raise ClrError(
            f"{path}: several columns may be the rate: {', '.join(rates)}; rename the right one"
            " to lr"
        )
    names = ["lr" if name == rate else _OWN.get(name.lstrip("# "), name) for name in header]
    return ["" if name.endswith(_BANDS) else name for name in names]


def _is_rate(name: str) -> bool:
    """Whether a column is called a rate: by what comes behind the name of a run or of a phase."""
    last = re.split(r" - |/(?!pg\d)", name)[-1].lower()
    return last.startswith("lr-") or re.sub(r"[\W_]", "", last) in _RATES


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True
