"""The paper's tables and figures: what it reports, and what was recorded.

models/paper.toml lists them, their rows and their claims.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr import locations, prototxt
from caffe_clr.errors import UsageError

_ONE_ORDER = ("digits", "imagenet")  # data whose images are not shuffled
_BEST = "the best "  # of the rows whose names begin with what follows


@dataclass(frozen=True)
class Sweep:
    """The rates of a range test.

    Attributes:
        paper: the bounds that the paper found, by the name of the solver's field.
    """

    min_lr: float
    max_lr: float
    paper: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A row of a table: a training, or a range test.

    Attributes:
        path: the table that the row is from, and its name.
        run: the same of the row whose runs it shares; its own, unless that is in another table.
        solvers: the solver files of its stages.
        iterations: the length of the whole run.
        paper: the accuracy in the paper in percent; None where it has none.
        recorded: the recorded tests of the seeds 1, 2, ….
        about: more about the row.
        sweep: what a range test sweeps over; None for a training.
        metric: the test output that is its accuracy.
    """

    path: str
    run: str
    solvers: Sequence[Path]
    iterations: int
    paper: float | None
    recorded: Sequence[Path]
    about: str = ""
    sweep: Sweep | None = None
    metric: str = "accuracy"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Claim:
    """What the paper says of a row beside one or several others.

    Attributes:
        relation: as good as, better than or behind; with an accuracy, sooner than.
        others: the rows that it is compared with; of several, the best counts.
        other: their name.
        paper: the difference in the paper in points; None where it has none.
        at: the iteration at which the row is judged. Default: its end.
        accuracy: in percent; the claim is about the iterations until a test reaches it.
    """

    row: Row
    relation: str
    others: Sequence[Row]
    other: str
    paper: float | None = None
    at: int | None = None
    accuracy: float | None = None

    def rows(self) -> list[str]:
        """The names of the rows that it is about."""
        return [self.row.name, *(row.name for row in self.others)]


@dataclass(frozen=True)
class Figure:
    """A plot of rows of a table.

    Attributes:
        name: of its file, without the suffix.
        lines: the rows, by what the plot calls them.
    """

    name: str
    title: str
    lines: Mapping[str, Row]


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        folder: the experiment's, in models.
        data: the data set that its nets read.
        rows: its own, and those that it shows of other tables.
        net: the name of the net's file, if it is to be written first; else empty.
        depth: of that net.
    """

    name: str
    title: str
    folder: Path
    data: str
    rows: Mapping[str, Row]
    claims: Sequence[Claim] = ()
    figures: Sequence[Figure] = ()
    net: str = ""
    depth: int = 0

    @property
    def iterations(self) -> int:
        """The length of all rows with one seed."""
        return sum(row.iterations for row in self.rows.values())

    def root(self, seed: int, out: Path) -> Path:
        """The folder in `out` that a run's paths start from.

        It has the models, and the data with the training images in the order of the seed.
        """
        order = 1 if self.data in _ONE_ORDER else seed
        return (out / f"{self.data}_{order}").resolve()


def tables(models: Path | None = None) -> dict[str, Table]:
    """The tables in paper.toml, by name.

    Args:
        models: the folder models; by default the one that is shipped.
    """
    models = models or locations.shipped("models")
    content = tomllib.loads((models / "paper.toml").read_text())
    rows = {row.path: row for name, table in content.items() for row in _rows(name, table, models)}
    return {name: _table(name, table, models, rows) for name, table in content.items()}


def chosen(name: str) -> Table:
    """A table by its name.

    Raises:
        UsageError: there is none; names those that there are.
    """
    found = tables()
    if name not in found:
        raise UsageError(f"the paper has no {name}; choose from {', '.join(found)}")
    return found[name]


def recorded(rows: Iterable[Row]) -> dict[str, dict[int, Path]]:
    """The recorded tests by the name of the row, and by seed."""
    return {row.name: dict(enumerate(row.recorded, 1)) for row in rows}


def _table(name: str, content: dict[str, Any], models: Path, rows: Mapping[str, Row]) -> Table:
    paths = [*content.get("shows", ()), *(f"{name}/{row}" for row in content.get("rows", ()))]
    own = {rows[path].name: rows[path] for path in paths}
    return Table(
        name,
        content["title"],
        models / content["folder"],
        content["data"],
        own,
        [_claim(claim, own) for claim in content.get("claims", ())],
        [_figure(key, figure, own) for key, figure in content.get("figures", {}).items()],
        content.get("net", ""),
        content.get("depth", 0),
    )


def _rows(name: str, content: dict[str, Any], models: Path) -> Iterator[Row]:
    folder = models / content["folder"]
    for key, row in content.get("rows", {}).items():
        solvers = [folder / f"{solver}_solver.prototxt" for solver in row["solvers"]]
        recorded = [folder / "results" / f"{file}.csv" for file in row.get("recorded", ())]
        sweep = Sweep(**row["sweep"]) if "sweep" in row else None
        iterations = row.get("iterations") or int(prototxt.read_solver(solvers[-1]).max_iter)
        about, paper = row.get("about", ""), row.get("paper")
        metric = content.get("metric", "accuracy")
        path = f"{name}/{key}"
        run = row.get("same_as", path)
        yield Row(path, run, solvers, iterations, paper, recorded, about, sweep, metric)


def _claim(content: dict[str, Any], rows: Mapping[str, Row]) -> Claim:
    other = content["other"]
    first = other.removeprefix(_BEST)
    others = [row for name, row in rows.items() if name.startswith(first)]
    return Claim(
        rows[content["row"]],
        content["is"],
        others if other != first else [rows[other]],
        other,
        content.get("paper"),
        content.get("at"),
        content.get("accuracy"),
    )


def _figure(name: str, content: dict[str, Any], rows: Mapping[str, Row]) -> Figure:
    lines = {label: rows[row] for row, label in content["lines"].items()}
    return Figure(name, content["title"], lines)
