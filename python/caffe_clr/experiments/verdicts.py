"""Whether what was measured agrees with the paper, by the rules of models/README.md."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, counted
from caffe_clr.experiments.paper import Claim, Row
from caffe_clr.method.suggestions import Suggestions
from caffe_clr.runs.history import read_table

POINTS = 0.5  # as good as, or in agreement with
FACTOR = 1.5  # of the bounds of a range test
HEADINGS = (
    *("", "iterations", "paper", "measured", "verdict"),
    *("over one\nmore epoch", "rate", "best"),
)
CLAIM_HEADINGS = ("claim (iterations)", "paper", "measured", "verdict")
BOUND_HEADINGS = ("bound", "paper", "measured", "verdict")


@dataclass(frozen=True)
class Result:
    """What one seed reached.

    Attributes:
        tests: the accuracy in percent at each iteration that was tested.
        after: the mean of the tests over one more epoch, if there are some.
    """

    tests: Mapping[int, float]
    after: float | None = None

    @property
    def final(self) -> float:
        """The accuracy at the end of the training."""
        return self.tests[max(self.tests)]

    @property
    def best(self) -> tuple[float, int]:
        """The highest accuracy, and its first iteration."""
        at, highest = max(self.tests.items(), key=lambda test: test[1])
        return highest, at

    def reached(self, accuracy: float) -> int | None:
        """The first tested iteration with an accuracy; None if there is none."""
        return min((at for at, each in self.tests.items() if each >= accuracy), default=None)


Results = Mapping[str, Mapping[int, Result]]  # by the name of the row, and by seed


def results(row: Row, tests: Mapping[int, Path]) -> dict[int, Result]:
    """What the tests of each seed of a row show.

    Args:
        tests: a CSV of the tests by seed. Those over one more epoch are in a file of the same
            name in the folder within_epoch beside it, if there are some.

    Raises:
        ClrError: a CSV lacks the test at the end.
    """
    return {seed: _result(row, file) for seed, file in tests.items()}


def _result(row: Row, file: Path) -> Result:
    tests = _accuracies(file, row.metric)
    if row.iterations not in tests:
        raise ClrError(
            f"{file}: there is no {row.metric} at iteration {row.iterations:,}; to train it again,"
            f" remove {file.parent}"
        )
    within_epoch = file.parent / "within_epoch" / file.name
    after = None
    if within_epoch.is_file():
        _, *later = _accuracies(within_epoch, row.metric).values()  # the first is the end
        after = statistics.mean(later)
    return Result(tests, after)


def _accuracies(file: Path, metric: str) -> dict[int, float]:
    """Those of a CSV in percent, by iteration; empty if it is missing."""
    rows = read_table(file)[0] if file.is_file() else []
    return {
        int(row["iteration"]): 100 * row[metric]
        for row in rows
        if not math.isnan(row.get(metric, math.nan))
    }


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


def bound_agrees(paper: float, measured: Sequence[float]) -> bool:
    """Whether a bound of range tests agrees with the paper's: within a factor of 1.5."""
    ratio = statistics.mean(measured) / paper
    return 1 / FACTOR <= ratio <= FACTOR


def row_cells(row: Row, results: Mapping[int, Result], diverged: Sequence[int] = ()) -> list[str]:
    """The cells of a training under HEADINGS: what the paper has, and what was measured.

    Args:
        diverged: the seeds that have no result because they diverged.
    """
    cells = [row.name, f"{row.iterations:,}", shown(row.paper)]
    if not results:
        return [*cells, "diverged" if diverged else "not yet run", "", "", _rate(row), ""]
    finals = _finals(results)
    mean = shown(statistics.mean(finals))
    if len(finals) > 1:
        mean += f" ± {shown(statistics.stdev(finals))}"
    if diverged:
        mean += f", {len(diverged)} diverged"
    best, at = max(result.best for result in results.values())
    verdict = ""
    if row.paper is not None:
        off = statistics.mean(finals) - row.paper
        side = "above" if off > 0 else "below"
        verdict = "agrees" if agrees(row.paper, finals) else f"{shown(abs(off), 2)} {side}"
    return [*cells, mean, verdict, _after(results), _rate(row), f"{shown(best)} at {at:,}"]


def bound_cells(row: Row, suggestions: Sequence[Suggestions]) -> list[list[str]]:
    """The cells of a range test under BOUND_HEADINGS, a line for each bound.

    Args:
        suggestions: those of each seed.
    """
    lines = []
    for name, paper in row.sweep.paper.items() if row.sweep else ():
        rates = [each.bounds[name].rate for each in suggestions]
        found = [rate for rate in rates if rate is not None]
        verdict = ""
        if found:
            verdict = "agrees" if bound_agrees(paper, found) else "does not agree"
        told = ["none" if rate is None else f"{rate:.2g}" for rate in rates]
        lines.append([name, f"{paper:g}", ", ".join(told) or "not yet run", verdict])
    return lines


def claim_cells(claim: Claim, results: Results) -> list[str]:
    """The cells of a claim under CLAIM_HEADINGS, from the results by row and seed."""
    row, others = results.get(claim.row.name), [results.get(each.name) for each in claim.others]
    at = claim.at or claim.row.iterations
    goal = "" if claim.accuracy is None else f"at {claim.accuracy:g} % "
    first = f"{claim.row.name} ({at:,}) is {goal}{claim.relation}"
    sentence = f"{first} {claim.other} ({claim.others[0].iterations:,})"
    stated = "" if claim.paper is None else f"{claim.paper:+.1f}"
    if not row or not all(others):
        return [sentence, stated, "not yet run", ""]
    other = max((each for each in others if each), key=lambda each: statistics.mean(_finals(each)))
    if claim.accuracy is None:
        measured, verdict = _by_accuracy(claim, row, other)
    else:
        measured, verdict = _by_iterations(claim.accuracy, row, other)
    seeds = "; one seed" if min(len(row), len(other)) == 1 else ""
    return [sentence, stated, measured, f"{verdict}{seeds}"]


def _by_accuracy(
    claim: Claim, row: Mapping[int, Result], other: Mapping[int, Result]
) -> tuple[str, str]:
    """What was measured, and the verdict."""
    ahead, finals = _finals(row), _finals(other)
    if claim.at is not None:
        ahead = [result.tests.get(claim.at, math.nan) for result in row.values()]
        if any(map(math.isnan, ahead)):
            return f"no test at {claim.at:,}", ""
    found = relation(ahead, finals)
    measured = _difference(ahead, finals)
    later = any(each.after is not None for each in (*row.values(), *other.values()))
    if later and claim.at is None:
        after = _difference(_finals(row, after=True), _finals(other, after=True))
        measured += f"; {after} over one more epoch"
    if (claim.relation, found) == ("as good as", "better than"):
        return measured, "better than claimed"
    return measured, "holds" if found == claim.relation else f"does not hold: {found}"


def _by_iterations(
    accuracy: float, row: Mapping[int, Result], other: Mapping[int, Result]
) -> tuple[str, str]:
    """When each of them reaches an accuracy, and whether each seed of the row does sooner."""
    reached = [result.reached(accuracy) for result in row.values()]
    others = [result.reached(accuracy) for result in other.values()]
    sooner = max(each or math.inf for each in reached) < min(each or math.inf for each in others)
    return f"{_span(reached)}; the other {_span(others)}", "holds" if sooner else "does not hold"


def _span(iterations: Sequence[int | None]) -> str:
    """From the first to the last, as "at 17,500 to 20,000"."""
    found = sorted(each for each in iterations if each is not None)
    if not found:
        return "never"
    told = " to ".join(f"{each:,}" for each in dict.fromkeys((found[0], found[-1])))
    missing = len(iterations) - len(found)
    return f"at {told}" + (f", {counted(missing, 'seed')} never" if missing else "")


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
