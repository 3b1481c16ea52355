"""What plots draw: what a comparison and a range test found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr.method.suggestions import Suggestions
from caffe_clr.runs import metrics
from caffe_clr.runs.history import History, Row
from caffe_clr.runs.metrics import Metric


@dataclass(frozen=True)
class Entry:
    """The runs of one solver: what was recorded, and where it diverged, by seed.

    schedule has iteration, lr, and momentum where that cycles, as schedule.rows gives them.
    """

    name: str
    metric: Metric
    max_iter: int
    histories: dict[int, History]
    diverged: dict[int, str]
    schedule: Sequence[Mapping[str, Any]]

    def curve(self) -> list[Row]:
        """The metric over the seeds where all have it: iteration, lr, mean, low, high."""
        seeds = [self.metric.rows(history) for history in self.histories.values()]
        return metrics.over_seeds(seeds, self.metric.name)

    def rates(self) -> dict[float, float]:
        """The learning rate by iteration, as far as the seed that came furthest."""
        return self._scheduled("lr")

    def momenta(self) -> dict[float, float]:
        """The same of the momentum; empty where that does not cycle."""
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

    def reached(self, value: float) -> list[int]:
        """The iterations after which each seed is as good as `value`, of those that ever are."""
        found = []
        for history in self.histories.values():
            for row in self.metric.rows(history):
                if self.metric.best(row[self.metric.name], value) == row[self.metric.name]:
                    found.append(int(row["iteration"]))
                    break
        return found

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
    """What a range test found.

    `rows` has a row for each test: iteration, lr, the metric (a mean over the
    seeds) and, of several seeds, its lowest and highest value as metric_low
    and metric_high. `losses` has the mean training loss at each display, with
    its lr. diverged_at is the lowest rate at which a seed diverged, and stopped
    says so. solver is the solver file with what was suggested, and others are the
    outputs of the tests beside the metric.
    """

    metric: Metric
    seeds: Sequence[int]
    rows: list[Row]
    losses: list[Row]
    diverged_at: float | None
    suggestions: Suggestions
    solver: Path | None
    stopped: str = ""
    others: Sequence[str] = ()
