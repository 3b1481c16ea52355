"""Draws the figures of models/cifar10_full from what was recorded beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tables
from caffe_clr import plots, schedule
from caffe_clr.history import History, read_table
from caffe_clr.metrics import Metric
from caffe_clr.results import Entry

_ACCURACY = Metric("accuracy", of_test=True, is_accuracy=True)
_TABLE_2 = ("triangular2_2", "triangular2_3")  # its later stages


@dataclass(frozen=True)
class _Line:
    """A line of a figure: the recorded runs, a file a seed, and the solvers of their stages."""

    name: str
    runs: Sequence[str]
    stages: Sequence[str]


_SEEDS = (1, 2, 3)
_FIXED = _Line("fixed", [f"h200/fixed_{seed}" for seed in _SEEDS], ["fixed"])
_TRIANGULAR2 = _Line(
    "triangular2, Table 2",
    [f"h200/triangular2_{seed}" for seed in _SEEDS],
    ["triangular2_1", *_TABLE_2],
)
FIGURES = {
    "fixed_triangular2": (
        "Figure 1, mean of three seeds, lowest to highest",
        [_FIXED, _TRIANGULAR2],
    ),
    "exp_exp_range": (
        "Figure 4, one seed",
        [
            _Line("exp", ["h200/exp_1"], ["exp"]),
            _Line("exp_range", ["h200/exp_range_1"], ["exp_range"]),
        ],
    ),
    "readings": (
        "The readings of the first stage; bands: three seeds, lowest to highest",
        [
            _TRIANGULAR2,
            _Line(
                "triangular, to 0.006",
                [f"h200/triangular_stages_{seed}" for seed in _SEEDS],
                ["triangular_1", *_TABLE_2],
            ),
            _Line(
                "triangular, to 0.005",
                ["h200/triangular_table2_1", *(f"cpu/triangular_table2_{seed}" for seed in (2, 3))],
                ["triangular_table2_1", *_TABLE_2],
            ),
            _Line(
                "divided by the cycle",
                ["h200/divided_1"],
                [*(f"divided_{number}" for number in (1, 2, 3, 4)), *_TABLE_2],
            ),
            _Line(
                "decay with the drops",
                ["h200/decay_drops_1"],
                [f"decay_drops_{number}" for number in (1, 2, 3)],
            ),
        ],
    ),
    "1cycle": (
        "25,000 iterations, one seed",
        [
            _Line("fixed", ["cpu/fixed_25000_1"], ["fixed_25000"]),
            _Line("triangular2, Table 2", ["cpu/triangular2_1"], _TRIANGULAR2.stages),
            _Line("1cycle", ["cpu/1cycle_1"], ["1cycle"]),
            _Line("1cycle, cyclical momentum", ["cpu/1cycle_momentum_1"], ["1cycle_momentum"]),
        ],
    ),
}


def draw(root: Path, out: Path) -> None:
    """Draw every figure from what is recorded in the checkout at `root`."""
    folder = root / "models" / "cifar10_full"
    for name, (title, lines) in FIGURES.items():
        picture = out / f"{name}.png"
        plots.plot_comparison([_entry(line, folder) for line in lines], title, picture)
        tables.console.print(f"Plot: {picture}", soft_wrap=True)


def _entry(line: _Line, folder: Path) -> Entry:
    rows = [read_table(folder / "results" / f"{run}.csv")[0] for run in line.runs]
    stages = schedule.read_stages([folder / f"{stage}_solver.prototxt" for stage in line.stages])
    return Entry(
        name=line.name,
        metric=_ACCURACY,
        max_iter=stages[-1].solver.max_iter,
        histories={seed: History([], test) for seed, test in enumerate(rows, 1)},
        diverged={},
        schedule=schedule.rows(stages),
    )
