"""The search for a range: on losses made for it, and what it refuses with real Caffe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import range_search
from caffe_clr.method.range_test import range_test
from caffe_clr.method.sweeps import Options, Sweep
from caffe_clr.prototxt import SolverFile

Write = Callable[..., Path]
NAN = """
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {
    shape { dim: 8 dim: 1 } shape { dim: 8 dim: 1 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: nan }
  }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "scores" bottom: "target" top: "loss" }
"""


@pytest.mark.parametrize(
    ("layers", "fields", "message"),
    [
        (None, {"base_lr": -0.01}, "base_lr is -0.01; set it above 0"),
        (
            NAN,
            {},
            "the training loss is not finite from the first iteration, before the rate matters;"
            " check the data, the labels and the weights",
        ),
    ],
)
def test_a_solver_that_no_rate_trains_is_refused(
    layers: str | None, fields: dict[str, Any], message: str, write_solver: Write, tmp_path: Path
) -> None:
    if layers is not None:
        (tmp_path / "net.prototxt").write_text(layers)
        fields = {**fields, "net": str(tmp_path / "net.prototxt")}
    file = write_solver(**fields)
    with pytest.raises(ClrError) as refused:
        range_test(file, tmp_path / "out", Options())
    assert str(refused.value) == f"{file}: {message}"


def test_a_search_resumed_with_another_length_says_which_options_to_give(
    write_solver: Write, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", write_solver()
    range_test(file, out, Options(iterations=30))
    with pytest.raises(UsageError, match=r"another gamma; .*follow from .*--seeds.*--iterations"):
        range_test(file, out, Options(iterations=60, resume=True))


def test_a_base_lr_far_from_any_rate_that_trains_is_named(
    write_solver: Write, tmp_path: Path
) -> None:
    warnings: list[str] = []
    found = range_test(
        write_solver(base_lr=1e-12), tmp_path / "out", Options(), on_warning=warnings.append
    )
    assert found.suggestions.max_lr.rate is None
    assert "began at a hundredth of base_lr, 1e-12; " in warnings[-1]


LEARNS, BEST, FAILS = 0.002, 0.05, 2.0


def trained(number: int, low: float, high: float) -> Sweep:
    """A sweep over a net that learns from LEARNS to BEST, and worse from there to FAILS."""
    rates = np.geomspace(low, high, 100)
    points = np.log([LEARNS, BEST, FAILS, 10 * FAILS])
    losses = np.interp(np.log(rates), points, [2.3, 0.5, 2.4, 9])
    losses += (2.3 - losses) * np.linspace(1, -3, rates.size).clip(0)  # it starts untrained
    displays = np.linspace(0, 750, rates.size)
    rows = [
        {"iteration": iteration, "lr": float(rate), "loss": float(loss)}
        for iteration, rate, loss in zip(displays, rates, losses, strict=True)
    ]
    return Sweep([], rows, None, "", 750)


def diverging(number: int, low: float, high: float) -> Sweep:
    """The same, stopped where the loss is above its start."""
    whole = trained(number, low, high)
    kept = [row for row in whole.losses if row["lr"] < FAILS]
    return Sweep([], kept, FAILS if high > FAILS else None, "Stopped early: …", 700)


@pytest.mark.parametrize("sweep", [trained, diverging])
@pytest.mark.parametrize("base_lr", [0, 0.0005, 0.1, 1])
def test_the_range_is_found_from_any_base_lr(
    base_lr: float, sweep: Callable[[int, float, float], Sweep], solver: Callable[..., Any]
) -> None:
    warnings: list[str] = []
    given = SolverFile(solver(base_lr=base_lr))
    found = range_search.search(given, sweep, warnings.append)
    assert warnings == []
    coarse, fine = found.steps
    assert coarse.min_lr == pytest.approx((base_lr or 0.01) / 100)
    assert (coarse.name, fine.name) == ("sweep_1", "sweep_2")
    assert fine.min_lr < LEARNS * 10
    assert FAILS / 2 < fine.max_lr < 4 * FAILS
    assert "where the training loss is lowest" in fine.outcome
    middle = float(fine.outcome.split(" to ")[0]), float(fine.outcome.split()[2].rstrip(","))
    assert middle[0] < BEST < middle[1]
    assert found.suggestions.max_lr.rate is not None
    assert found.last == sweep(2, fine.min_lr, fine.max_lr)


def test_a_net_that_never_learns_has_no_bounds(solver: Callable[..., Any]) -> None:
    def flat(number: int, low: float, high: float) -> Sweep:
        sweep = trained(number, low, high)
        return Sweep([], [{**row, "loss": 2.3} for row in sweep.losses], None, "", 750)

    found = range_search.search(SolverFile(solver()), flat, lambda warning: None)
    assert found.suggestions.max_lr.rate is None
    assert found.steps[1].outcome == found.suggestions.max_lr.reason
    assert "does not fall clearly below its start" in found.steps[1].outcome


@pytest.mark.parametrize(
    ("max_iter", "given", "expected"),
    [
        (1200, None, (30, 144)),
        (10_000, None, (150, 1200)),
        (10**6, None, (4000, 4000)),
        (10, None, (30, 30)),
        (1200, 2000, (250, 2000)),
        (1200, 8, (30, 30)),
    ],
)
def test_both_sweeps_take_at_most_a_seventh_of_a_usual_training(
    max_iter: int, given: int | None, expected: tuple[int, int]
) -> None:
    assert range_search.lengths(max_iter, given) == expected
