"""The results of comparisons and range tests, which plots draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from caffe_clr.method.suggestions import Suggestions
from caffe_clr.method.sweeps import Step
from caffe_clr.runs import metrics
from caffe_clr.runs.history import History, Row
from caffe_clr.runs.metrics import Metric


@dataclass(frozen=True)
class Entry:
    """The runs of one solver.

    Attributes:
        histories: the records of each run, by seed.
        diverged: the messages of the runs that diverged, by seed.
        schedule: iteration, lr, cycle, and momentum if it cycles, as schedule.rows returns
            them.
        solver_type: such as SGD or Adam.
    """

    name: str
    metric: Metric
    max_iter: int
    histories: dict[int, History]
    diverged: dict[int, str]
    schedule: Sequence[Mapping[str, Any]]
    solver_type: str = "SGD"

    @property
    def is_cyclical(self) -> bool:
        """Whether its rate has cycles, in any stage."""
        return any(row.get("cycle") is not None for row in self.schedule)

    def curve(self) -> list[Row]:
        """Rows with iteration, lr, mean, low and high, where all seeds have the metric."""
        seeds = [self.metric.rows(history) for history in self.histories.values()]
        return metrics.over_seeds(seeds, self.metric.name)

    def rates(self) -> dict[float, float]:
        """The learning rate by iteration, up to the last iteration that any seed recorded."""
        return self._scheduled("lr")

    def momenta(self) -> dict[float, float]:
        """The momentum by iteration, likewise; empty if it does not cycle."""
        return self._scheduled("momentum")

    def _scheduled(self, name: str) -> dict[float, float]:
        recorded = (
            row["iteration"]
            for history in self.histories.values()
            for row in history.train + history.test
        )
        last = max(recorded, default=0)
        return {
            row["iteration"]: row[name]
            for row in self.schedule
            if name in row and row["iteration"] <= last
        }

    def finals(self) -> list[float]:
        """The last value of each seed that reached max_iter."""
        return [self._values(seed)[-1] for seed in self._whole()]

    def bests(self) -> list[float]:
        """The best value of each seed that reached max_iter."""
        return [self.metric.best(self._values(seed)) for seed in self._whole()]

    def reached(self, value: float) -> int | None:
        """The iteration at which the solver is as good as `value`; None if it never is.

        It is that of the first of two tests in a row in which the mean over the seeds is, so
        that a single lucky test does not count. The last test counts alone. Seeds that did
        not reach max_iter are left out. Where nothing is tested, displays count instead.
        """
        seeds = [self.metric.rows(self.histories[seed]) for seed in self._whole()]
        rows = metrics.over_seeds(seeds, self.metric.name) if seeds else []
        good = [self.metric.best(row["mean"], value) == row["mean"] for row in rows]
        in_a_row = zip(rows, pairwise([*good, True]), strict=True)
        return next((int(row["iteration"]) for row, both in in_a_row if all(both)), None)

    def _whole(self) -> list[int]:
        return [seed for seed in self.histories if seed not in self.diverged and self._ends(seed)]

    def _ends(self, seed: int) -> bool:
        """Whether the last row of a seed is a result."""
        history = self.histories[seed]
        recorded = history.test if self.metric.of_test else history.train
        return self.metric.rows(history)[-1:] == recorded[-1:] != []

    def _values(self, seed: int) -> list[float]:
        return [row[self.metric.name] for row in self.metric.rows(self.histories[seed])]


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test.

    Attributes:
        rows: one row for each test: iteration, lr, the metric (the mean over the seeds)
            and, with several seeds, its lowest and highest value as <metric>_low and
            <metric>_high.
        losses: the mean training loss at each display, with its lr.
        diverged_at: the lowest rate at which a seed diverged, if one did.
        stopped: a message if a seed diverged, else empty.
        others: the outputs of the tests that are not judged.
        guess: what else a sweep is judged by; see suggestions.swept.
        chance, epochs: what else a test in a given range is judged by; see
            suggestions.suggest.
        iterations: how many were trained, over all seeds and steps.
        steps: the tests by which the range was found, if it was not given. The rows and
            losses are those of the last.
        solvers: the solver files that were written with the bounds, as stages of a run.
    """

    metric: Metric
    seeds: Sequence[int]
    rows: list[Row]
    losses: list[Row]
    diverged_at: float | None
    suggestions: Suggestions
    stopped: str = ""
    others: Sequence[str] = ()
    chance: float | None = None
    guess: float | None = None
    epochs: float | None = None
    iterations: int = 0
    steps: Sequence[Step] = ()
    solvers: list[Path] = field(default_factory=list)
