"""Draws the figures in models/ from the recorded runs, and the plot of the policies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import tables
from caffe_clr import prototxt
from caffe_clr.method import curves, plots, schedule, suggestions
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.results import Entry
from caffe_clr.runs.history import History, read_table
from caffe_clr.runs.metrics import TRAINING_LOSS, Metric

_ACCURACY = Metric("accuracy", of_test=True, is_accuracy=True)
_TABLE_2 = ("triangular2_2", "triangular2_3")  # its later stages


@dataclass(frozen=True)
class _Line:
    """A line of a figure: the recorded runs, a file a seed, and the solvers of their stages."""

    name: str
    runs: Sequence[str]
    stages: Sequence[str]


def _seeds(run: str) -> list[str]:
    return [f"{run}_{seed}" for seed in (1, 2, 3)]


def _method(title: str, name: str) -> list[_Line]:
    """A solver type of Table 3 at its fixed rate and with the triangular policy."""
    return [
        _Line(f"{title}, {policy}", [f"{name}_{policy}"], [f"{name}_{policy}"])
        for policy in ("fixed", "triangular")
    ]


_FIXED = _Line("fixed", _seeds("h200/fixed"), ["fixed"])
_TRIANGULAR2 = _Line(
    "triangular2, Table 2", _seeds("h200/triangular2"), ["triangular2_1", *_TABLE_2]
)
_DIGITS_FIXED = _Line("fixed", _seeds("fixed"), ["fixed"])
# by the model and the name of the PNG in its results
FIGURES = {
    ("cifar10_full", "fixed_triangular2"): (
        "Figure 1, cifar10_full: fixed and triangular2",
        [_FIXED, _TRIANGULAR2],
    ),
    ("cifar10_full", "exp_exp_range"): (
        "Figure 4, cifar10_full: exp and exp_range",
        [
            _Line("exp", _seeds("h200/exp"), ["exp"]),
            _Line("exp_range", _seeds("h200/exp_range"), ["exp_range"]),
        ],
    ),
    ("cifar10_full", "readings"): (
        "cifar10_full: readings of the first stage of triangular2, and decay",
        [
            _TRIANGULAR2,
            _Line(
                "triangular, to 0.006",
                _seeds("h200/triangular_stages"),
                ["triangular_1", *_TABLE_2],
            ),
            _Line(
                "triangular, to 0.005",
                ["h200/triangular_table2_1", *(f"cpu/triangular_table2_{seed}" for seed in (2, 3))],
                ["triangular_table2_1", *_TABLE_2],
            ),
            _Line(
                "divided by the cycle",
                _seeds("h200/divided"),
                [*(f"divided_{number}" for number in (1, 2, 3, 4)), *_TABLE_2],
            ),
            _Line(
                "decay with the drops",
                _seeds("h200/decay_drops"),
                [f"decay_drops_{number}" for number in (1, 2, 3)],
            ),
        ],
    ),
    ("cifar10_full", "1cycle"): (
        "cifar10_full, 25,000 iterations: fixed, triangular2 and 1cycle",
        [
            _Line("fixed", ["cpu/fixed_25000_1"], ["fixed_25000"]),
            _Line("triangular2, Table 2", ["cpu/triangular2_1"], _TRIANGULAR2.stages),
            _Line("1cycle", _seeds("cpu/1cycle"), ["1cycle"]),
            _Line("1cycle, cyclical momentum", ["cpu/1cycle_momentum_1"], ["1cycle_momentum"]),
        ],
    ),
    ("cifar10_full_adaptive", "nesterov_adam_rmsprop"): (
        "Table 3, cifar10_full: Nesterov, Adam and RMSProp, fixed and triangular",
        [
            *_method("Nesterov", "nesterov"),
            *_method("Adam", "adam"),
            *_method("RMSProp", "rmsprop"),
        ],
    ),
    ("cifar10_full_adaptive", "adagrad_adadelta"): (
        "Table 3, cifar10_full: AdaGrad and AdaDelta, fixed and triangular",
        [*_method("AdaGrad", "adagrad"), *_method("AdaDelta", "adadelta")],
    ),
    ("cifar10_sigmoid_bn", "fixed_triangular"): (
        "Figure 6, cifar10_full with sigmoids and batch normalization",
        [_Line("fixed", ["fixed"], ["fixed"]), _Line("triangular", ["triangular"], ["triangular"])],
    ),
    ("digits", "comparison"): (
        "digits: fixed and the suggested 1cycle",
        [_DIGITS_FIXED, _Line("1cycle, suggested", _seeds("suggested"), ["suggested"])],
    ),
    ("digits", "1cycle"): (
        "digits: fixed, triangular2 and 1cycle",
        [
            _DIGITS_FIXED,
            _Line("triangular2", _seeds("triangular2"), ["triangular2"]),
            _Line("1cycle", _seeds("1cycle"), ["1cycle"]),
            _Line("1cycle, cyclical momentum", _seeds("1cycle_momentum"), ["1cycle_momentum"]),
        ],
    ),
}
_PAPERS_CYCLE = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}  # on CIFAR-10
_POLICIES = {
    "triangular": _PAPERS_CYCLE,
    "triangular2": _PAPERS_CYCLE,
    "exp_range": {**_PAPERS_CYCLE, "gamma": 0.99994},
    "decay": {"base_lr": 0.001, "max_lr": 0.007, "stepsize": 4000},
}


def draw(root: Path, out: Path) -> None:
    """Draw every figure from what is recorded in the checkout at `root`.

    Args:
        out: where the figures go, into folders like the checkout's.
    """
    for (model, name), (title, lines) in FIGURES.items():
        folder = root / "models" / model
        picture = _new(out / "models" / model / "results" / f"{name}.png")
        plots.plot_comparison([entry(line, folder) for line in lines], title, picture)
        tables.console.print(f"Plot: {picture}", soft_wrap=True)
    for model, result in (("cifar10_full", _paper_test(root)), ("digits", _sweep(root))):
        picture = _new(out / "models" / model / "results" / "range_test.png")
        plots.plot_range_test(result, f"LR range test of {model}", picture)
        tables.console.print(f"Plot: {picture}", soft_wrap=True)
    picture = _new(out / "caffe_patch" / "policies.png")
    plots.plot_policies(_POLICIES, picture)
    tables.console.print(f"Plot: {picture}", soft_wrap=True)


def _new(picture: Path) -> Path:
    picture.parent.mkdir(parents=True, exist_ok=True)
    return picture


def _paper_test(root: Path) -> RangeTest:
    """The paper's test of cifar10_full."""
    results = root / "models" / "cifar10_full" / "results"
    return replace(curves.read(results / "range_test.csv"), seeds=(1, 2, 3))


def _sweep(root: Path) -> RangeTest:
    """The last sweep of the digits' range test, in whose last row a seed diverged."""
    rows, _ = read_table(root / "models" / "digits" / "results" / "sweep.csv")
    columns = ([row[name] for row in rows] for name in ("iteration", "lr", "loss"))
    diverged_at = rows[-1]["lr"]
    suggested = suggestions.swept(*columns, diverged_at=diverged_at)
    return RangeTest(TRAINING_LOSS, (1701, 1702, 1703), rows, rows, diverged_at, suggested)


def entry(line: _Line, folder: Path) -> Entry:
    """The recorded runs of a line of a figure.

    Args:
        folder: the model's.
    """
    rows = [read_table(folder / "results" / f"{run}.csv")[0] for run in line.runs]
    stages = schedule.read_stages([folder / f"{stage}_solver.prototxt" for stage in line.stages])
    return Entry(
        name=line.name,
        metric=_ACCURACY,
        max_iter=stages[-1].solver.max_iter,
        histories={seed: History([], test) for seed, test in enumerate(rows, 1)},
        diverged={},
        schedule=schedule.rows(stages),
        solver_type=prototxt.solver_type(stages[-1].solver),
    )
