"""Counts how often method.suggestions is right on curves whose bounds are known."""

import importlib.util
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rich.table import Table

from benchmarks import curves, tables
from caffe_clr.errors import UsageError
from caffe_clr.method import suggestions
from caffe_clr.method.curves import read
from caffe_clr.method.suggestions import Suggestion, Suggestions

Rules = Callable[..., Suggestions]

_WITHIN = 2  # times the right rate, or part of it
_RECORDED = ("tests/recorded/*range_test*.csv", "models/*/results/*range_test*.csv")
_BOUNDS = ("base_lr", "max_lr")
_CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class Count:
    """How many suggestions were right, missing although there is a rate, or wrong."""

    right: int = 0
    missing: int = 0
    wrong: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(
            *(self.right + other.right, self.missing + other.missing, self.wrong + other.wrong)
        )

    @property
    def total(self) -> int:
        return self.right + self.missing + self.wrong

    def shown(self) -> str:
        right, *rest = (100 * n / self.total for n in (self.right, self.missing, self.wrong))
        return f"{right:.0f} ({rest[0]:.0f} / {rest[1]:.0f})"


@dataclass
class Counts:
    """Counts of both bounds, by kind of curve and by confidence."""

    by_kind: dict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))
    by_confidence: dict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))


def is_right(suggested: float | None, known: float | None) -> bool:
    """Whether a rate is within a factor of two of the right one, or rightly missing."""
    if suggested is None or known is None:
        return suggested is known
    return known / _WITHIN <= suggested <= known * _WITHIN


def outcome(suggested: float | None, known: float | None) -> Count:
    """A suggestion, counted."""
    if is_right(suggested, known):
        return Count(right=1)
    return Count(missing=1) if suggested is None else Count(wrong=1)


def count(kinds: Sequence[str], seeds: Sequence[int], rules: Rules) -> Counts:
    """How often rules are right about the curves of the kinds and the seeds."""
    counts = Counts()
    for kind in kinds:
        for seed in seeds:
            known = curves.make(kind, seed)
            found = rules(
                *(known.rates, known.values),
                loss_rates=known.loss_rates,
                losses=known.losses,
                diverged_at=known.diverged_at,
                is_loss=known.is_loss,
                chance=known.chance,
            )
            for name, suggested in found.bounds.items():
                counted = outcome(suggested.rate, getattr(known, name))
                counts.by_kind[kind, name] += counted
                if suggested.rate is not None:
                    counts.by_confidence[suggested.confidence, name] += counted
    return counts


def show(number: int, first: int, root: Path, before: Path | None) -> None:
    """Print how often bounds and confidences are right, and what recorded curves get.

    Args:
        number: how many seeds of each kind of curve.
        first: the first of them.
        root: the checkout.
        before: an older suggestions.py to compare with.
    """
    seeds = range(first, first + number)
    rules = {"before": _load(before)} if before else {}
    rules["now"] = suggestions.suggest
    counts = {name: count(list(curves.KINDS), seeds, each) for name, each in rules.items()}
    tables.console.print(_kinds(counts, f"seeds {first} to {seeds[-1]} of each kind"))
    tables.console.print(_confidences(counts))
    for name, each in rules.items():
        tables.console.print(_recorded(root, name, each))


def _load(path: Path) -> Rules:
    """The rules of another suggestions.py, which may not know of the chance level."""
    specification = importlib.util.spec_from_file_location("rules_before", path)
    if specification is None or specification.loader is None or not path.is_file():
        raise UsageError(f"{path}: cannot be loaded; give the suggestions.py of another commit")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    known = inspect.signature(module.suggest).parameters

    def suggest(*curve: Any, **options: Any) -> Suggestions:
        options = {name: value for name, value in options.items() if name in known}
        return cast(Suggestions, module.suggest(*curve, **options))

    return suggest


def _kinds(counts: dict[str, Counts], seeds: str) -> Table:
    columns = [(name, rules) for name in _BOUNDS for rules in counts]
    headings = [f"{name} {rules}" for name, rules in columns]
    notes = [
        f"{seeds}; right: within a factor of {_WITHIN} of the true rate, or none if there is none",
        "none: no rate is suggested although there is one; wrong: every other rate",
        f"held out: not used to make the rules: {', '.join(curves.HELD_OUT)}",
    ]
    table = tables.table("Suggested bounds, % right (none / wrong)", "kind", headings, notes)
    for kind in curves.KINDS:
        table.add_row(kind, *(counts[rules].by_kind[kind, name].shown() for name, rules in columns))
    table.add_section()
    for title, kinds in (("all", curves.KINDS), ("held out", curves.HELD_OUT)):
        totals = [
            sum((counts[rules].by_kind[kind, name] for kind in kinds), Count())
            for name, rules in columns
        ]
        table.add_row(title, *(total.shown() for total in totals))
    return table


def _confidences(counts: dict[str, Counts]) -> Table:
    columns = [(name, rules) for name in _BOUNDS for rules in counts]
    headings = [f"{name} {rules}" for name, rules in columns]
    table = tables.table("Confidences, % right of how many", "confidence", headings, [])
    for confidence in _CONFIDENCES:
        given = [counts[rules].by_confidence[confidence, name] for name, rules in columns]
        row = [f"{100 * each.right / max(1, each.total):.0f} of {each.total:,}" for each in given]
        table.add_row(confidence, *row)
    return table


def _recorded(root: Path, name: str, rules: Rules) -> Table:
    headings = ["base_lr", "", "max_lr", ""]
    table = tables.table(f"Recorded curves, {name}", "curve", headings, [])
    for path in sorted(path for pattern in _RECORDED for path in root.glob(pattern)):
        found = read(path, suggest=rules).suggestions
        cells = [cell for bound in found.bounds.values() for cell in _shown(bound)]
        table.add_row(str(path.relative_to(root)), *cells)
    return table


def _shown(bound: Suggestion) -> tuple[str, str]:
    if bound.rate is None:
        return "none", ""
    return f"{bound.rate:.2g}", f"{bound.rule}, {bound.confidence}"
