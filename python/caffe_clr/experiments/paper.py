"""The paper's tables: what it reports, what was measured, and whether they agree.

models/paper.toml lists the tables, their rows and their claims. The rules are those of
models/README.md.
"""

import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr import locations, policies, prototxt
from caffe_clr.errors import UsageError
from caffe_clr.runs.history import read_table

POINTS = 0.5  # as good as, or in agreement with
HEADINGS = (
    *("", "iterations", "paper", "measured", "verdict"),
    *("over one more epoch", "rate", "best"),
)
CLAIM_HEADINGS = ("claim (iterations)", "paper", "measured", "verdict")
_BEST = "the best "  # of the rows whose names begin with what follows


@dataclass(frozen=True)
class Result:
    """What one seed reached, in percent.

    Attributes:
        final: the accuracy at the end of the training.
        best: the highest of all tests, and its iteration.
        after: the mean of the tests over one more epoch, if there are some.
    """

    final: float
    best: tuple[float, int]
    after: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        solvers: the solver files of its stages.
        iterations: the length of the whole run.
        paper: the accuracy in the paper in percent; None where it has none.
        recorded: the recorded tests of the seeds 1, 2, ….
        about: more about the row.
    """

    name: str
    solvers: Sequence[Path]
    iterations: int
    paper: float | None
    recorded: Sequence[Path]
    about: str = ""


@dataclass(frozen=True)
class Claim:
    """What the paper says of two rows: that `row` is as good as, better than or behind `other`.

    Attributes:
        paper: the difference in the paper in points; None where it has none.
    """

    row: str
    relation: str
    other: str
    paper: float | None = None


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        folder: the experiment's, in models.
        data: the data set that its nets read, a folder in data/.
        net: the name of the net's file, if it is to be written first; else empty.
    """

    name: str
    title: str
    folder: Path
    data: str
    rows: Mapping[str, Row]
    claims: Sequence[Claim] = ()
    net: str = ""


def tables(models: Path | None = None) -> dict[str, Table]:
    """The tables in paper.toml, by name.

    Args:
        models: the folder models; by default the one that is shipped.
    """
    models = models or locations.shipped("models")
    content = tomllib.loads((models / "paper.toml").read_text())
    return {name: _table(name, table, models) for name, table in content.items()}


def chosen(name: str) -> Table:
    """A table by its name.

    Raises:
        UsageError: there is none; names those that there are.
    """
    found = tables()
    if name not in found:
        raise UsageError(f"the paper has no {name}; choose from {', '.join(found)}")
    return found[name]


def recorded(row: Row) -> dict[int, Result]:
    """The recorded results of a row by seed."""
    return {
        seed: result(file, file.parent / "within_epoch" / file.name)
        for seed, file in enumerate(row.recorded, 1)
    }


def result(tests: Path, within_epoch: Path | None = None) -> Result:
    """What the tests in a CSV show.

    Args:
        within_epoch: the tests over one more epoch; the file may be missing.
    """
    rows = [row for row in read_table(tests)[0] if not math.isnan(row.get("accuracy", math.nan))]
    best = max(rows, key=lambda row: row["accuracy"])
    after = None
    if within_epoch and within_epoch.is_file():
        _, *later = read_table(within_epoch)[0]  # the first is the end of the training
        after = 100 * statistics.mean(row["accuracy"] for row in later)
    return Result(
        100 * rows[-1]["accuracy"], (100 * best["accuracy"], int(best["iteration"])), after
    )


def agrees(paper: float, finals: Sequence[float]) -> bool:
    """Whether a measured accuracy agrees with the paper's.

    It does within half a point, or with three seeds within two standard deviations.
    """
    off = abs(statistics.mean(finals) - paper)
    return off <= POINTS or (len(finals) > 2 and off <= 2 * statistics.stdev(finals))


def relation(row: Sequence[float], other: Sequence[float]) -> str:
    """How good a row is beside another: as good as, better than, behind, or undecided.

    As good means that their means differ by at most half a point; better, that its mean is
    ahead by more, and each seed ahead of each of the other's.
    """
    ahead = statistics.mean(row) - statistics.mean(other)
    if abs(ahead) <= POINTS:
        return "as good as"
    if min(row) > max(other):
        return "better than"
    return "behind" if max(row) < min(other) else "undecided"


def row_cells(row: Row, results: Mapping[int, Result]) -> list[str]:
    """The cells of a row under HEADINGS: what the paper has, and what was measured."""
    cells = [row.name, f"{row.iterations:,}", shown(row.paper)]
    if not results:
        return [*cells, "not yet run", "", "", _rate(row), ""]
    finals = [result.final for result in results.values()]
    mean = shown(statistics.mean(finals))
    if len(finals) > 1:
        mean += f" ± {shown(statistics.stdev(finals))}"
    best, at = max(result.best for result in results.values())
    verdict = ""
    if row.paper is not None:
        off = statistics.mean(finals) - row.paper
        side = "above" if off > 0 else "below"
        verdict = "agrees" if agrees(row.paper, finals) else f"{shown(abs(off), 2)} {side}"
    return [*cells, mean, verdict, _after(results), _rate(row), f"{shown(best)} at {at:,}"]


def claim_cells(
    table: Table, claim: Claim, results: Mapping[str, Mapping[int, Result]]
) -> list[str]:
    """The cells of a claim under CLAIM_HEADINGS, from the results by row and seed."""
    row, others = results.get(claim.row), [results.get(name) for name in _named(table, claim.other)]
    sentence = f"{_told(table, claim.row)} is {claim.relation} {_told(table, claim.other)}"
    stated = "" if claim.paper is None else f"{claim.paper:+.1f}"
    if not row or not all(others):
        return [sentence, stated, "not yet run", ""]
    other = max((each for each in others if each), key=lambda each: statistics.mean(_finals(each)))
    found = relation(_finals(row), _finals(other))
    measured = _difference(_finals(row), _finals(other))
    if any(each.after is not None for each in (*row.values(), *other.values())):
        later = _difference(_finals(row, after=True), _finals(other, after=True))
        measured += f"; {later} over one more epoch"
    verdict = "holds" if found == claim.relation else f"does not hold: {found}"
    if (claim.relation, found) == ("as good as", "better than"):
        verdict = "better than claimed"
    seeds = "; one seed" if min(len(row), len(other)) == 1 else ""
    return [sentence, stated, measured, f"{verdict}{seeds}"]


def _finals(results: Mapping[int, Result], after: bool = False) -> list[float]:
    """The accuracies of a row; over one more epoch, if every seed has one."""
    later = [result.after for result in results.values() if result.after is not None]
    if after and len(later) == len(results):
        return later
    return [result.final for result in results.values()]


def _difference(row: Sequence[float], other: Sequence[float]) -> str:
    return f"{statistics.mean(row) - statistics.mean(other):+.2f}"


def _after(results: Mapping[int, Result]) -> str:
    """The mean over one more epoch, with the seeds that have one unless all do."""
    later = {seed: result.after for seed, result in results.items() if result.after is not None}
    if not later:
        return ""
    seeds = ", ".join(map(str, later))
    some = "" if len(later) == len(results) else f" (seed{'s' * (len(later) > 1)} {seeds})"
    return f"{shown(statistics.mean(later.values()))}{some}"


def _rate(row: Row) -> str:
    """The rate of the first stage, or its bounds."""
    solver = prototxt.read_solver(row.solvers[0])
    bounds = [f"{solver.base_lr:g}"]
    if policies.policy_of(solver).cycles:
        bounds.append(f"{solver.max_lr:g}")
    return "-".join(bounds)


def shown(number: float | None, digits: int = 1) -> str:
    """A number of points; a half is rounded up, as in the paper's tables."""
    return "" if number is None else f"{number + 1e-9:.{digits}f}"


def _told(table: Table, name: str) -> str:
    """A row with its iterations."""
    rows = [table.rows[each] for each in _named(table, name)]
    return f"{name} ({rows[0].iterations:,})"


def _named(table: Table, name: str) -> list[str]:
    """The rows that a claim names: one, or those that begin as in "the best fixed"."""
    if name.startswith(_BEST):
        return [row for row in table.rows if row.startswith(name.removeprefix(_BEST))]
    return [name]


def _table(name: str, content: dict[str, Any], models: Path) -> Table:
    folder = models / content["folder"]
    rows = {key: _row(key, row, folder) for key, row in content["rows"].items()}
    claims = [
        Claim(claim["row"], claim["is"], claim["other"], claim.get("paper"))
        for claim in content.get("claims", ())
    ]
    net = content.get("net", "")
    return Table(name, content["title"], folder, content["data"], rows, claims, net)


def _row(name: str, content: dict[str, Any], folder: Path) -> Row:
    solvers = [folder / f"{solver}_solver.prototxt" for solver in content["solvers"]]
    return Row(
        name,
        solvers,
        int(prototxt.read_solver(solvers[-1]).max_iter),
        content.get("paper"),
        [folder / "results" / f"{file}.csv" for file in content.get("recorded", ())],
        content.get("about", ""),
    )
