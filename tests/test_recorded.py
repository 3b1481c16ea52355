"""Bounds from range tests that others ran: logs of `caffe train`, run folders, CSV."""

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import curves, plots
from caffe_clr.method.curves import read
from caffe_clr.method.range_test import range_test
from caffe_clr.method.sweeps import Options
from caffe_clr.runs import metrics
from caffe_clr.runs.history import write_csv
from caffe_clr.system import installed_caffe

RATES = np.linspace(0.001, 0.05, 50)
TURN = 0.02  # where the accuracy is best and the loss is lowest
ACCURACIES = np.interp(RATES, [0.001, 0.008, TURN, 0.032, 0.05], [0.1, 0.7, 0.8, 0.7, 0.2])
LOSSES = 2.3 - 2 * ACCURACIES
BOUNDS = pytest.approx((TURN / 12, TURN / 2), rel=0.15)


def table(path: Path, **columns: Iterable[float]) -> Path:
    """A CSV of these columns; what is not finite is left empty."""
    names = list(columns)
    rows = [
        {name: value for name, value in zip(names, row, strict=True) if math.isfinite(value)}
        for row in zip(*columns.values(), strict=True)
    ]
    write_csv(rows, path)
    return path


def bounds(found: Any) -> tuple[float | None, float | None]:
    return found.suggestions.base_lr.rate, found.suggestions.max_lr.rate


def log(
    path: Path, losses: Iterable[float] = LOSSES, *, first: int = 0, highest: float = RATES[-1]
) -> Path:
    """A log of `caffe train` that displays and tests every 10 iterations, from `first` on."""
    lines = []
    rates = RATES * highest / RATES[-1]
    for number, (rate, loss) in enumerate(zip(rates, losses, strict=False)):
        iteration = first + 10 * number
        lines += [
            f"solver.cpp:330] Iteration {iteration}, Testing net (#0)",
            f"solver.cpp:397]     Test net output #0: accuracy = {ACCURACIES[number]:.6g}",
            f"solver.cpp:397]     Test net output #1: loss = {loss:.6g} (* 1 = {loss:.6g} loss)",
            f"solver.cpp:218] Iteration {iteration} (50 iter/s), loss = {loss:.6g}",
            f"solver.cpp:237]     Train net output #0: loss = {loss:.6g} (* 1 = {loss:.6g} loss)",
            f"sgd_solver.cpp:105] Iteration {iteration}, lr = {rate:.6g}",
        ]
    lines.append("caffe.cpp:259] Optimization Done.")
    path.write_text("".join(f"I1125 10:00:00.000000 77 {line}\n" for line in lines))
    return path


def run_folder(path: Path, losses: Collection[float] = LOSSES, status: str = "finished") -> Path:
    path.mkdir()
    iterations = range(0, 10 * len(losses), 10)
    columns: dict[str, Iterable[float]] = {"iteration": iterations, "lr": RATES[: len(losses)]}
    table(path / "train.csv", **columns, loss=losses)
    table(path / "test.csv", **columns, accuracy=ACCURACIES[: len(losses)], loss=losses)
    about = {"status": status, "iteration": iterations[-1], "solvers": [], "message": ""}
    (path / "run.json").write_text(json.dumps(about))
    return path


def csv_file(path: Path) -> Path:
    return table(path.with_suffix(".csv"), lr=RATES, top_1=ACCURACIES, train_loss=LOSSES)


@pytest.mark.parametrize("write", [log, run_folder, csv_file])
def test_bounds_are_those_of_the_curve(write: Callable[..., Path], tmp_path: Path) -> None:
    found = read(write(tmp_path / "curve"))
    assert found.metric.name in ("accuracy", "top_1")
    assert bounds(found) == BOUNDS
    assert "where the training loss is lowest" in found.suggestions.max_lr.reason
    assert found.diverged_at is None


@pytest.mark.parametrize("write", [log, run_folder])
def test_an_output_is_chosen(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / "curve")
    found = read(path, "loss")
    assert (found.metric.name, found.metric.of_test) == ("loss", True)
    assert not found.metric.is_accuracy
    assert bounds(found) == BOUNDS
    with pytest.raises(UsageError, match="has no output top_5; use one of accuracy, loss"):
        read(path, "top_5")


def test_an_output_that_is_named_is_judged_instead_of_the_losses(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "curve")
    assert read(file).suggestions.by_loss
    named = read(file, "top_1")
    assert not named.suggestions.by_loss
    assert "the accuracy is best" in named.suggestions.max_lr.reason


def test_what_the_reader_of_a_log_leaves_out_is_warned_of(tmp_path: Path) -> None:
    path, warnings = log(tmp_path / "train.log"), list[str]()
    read(path, on_warning=warnings.append)
    assert not warnings
    text = path.read_text()
    unlogged = text.replace("Iteration 90, lr = ", "Iteration 90, rate ")
    path.write_text(text + unlogged[: unlogged.index("Iteration 490 (")])
    found = read(path, on_warning=warnings.append)
    assert len(found.rows) == RATES.size - 2
    assert [warning.split(": ")[1] for warning in warnings] == [
        "rows without a rate (not logged, and the log has no solver parameters)",
        "skipped results that a later run in the log repeats",
    ]
    assert all(warning.startswith(f"{path}: ") for warning in warnings)


def test_a_log_judges_by_outputs_that_have_a_weight(tmp_path: Path) -> None:
    path = log(tmp_path / "train.log")
    text = path.read_text().replace("Test net output #1: loss = ", "Test net output #1: xent = ")
    path.write_text(re.sub(r"(?m)(Iteration 200.*\n.*\n.*xent = )\S+ ", r"\1nan ", text))
    found = read(path)
    assert (found.metric.name, len(found.rows)) == ("accuracy", RATES.size - 1)


@pytest.mark.parametrize("lost", [math.nan, math.inf, 87.3365])
def test_a_log_ends_where_the_loss_is_lost(lost: float, tmp_path: Path) -> None:
    losses = [*LOSSES[:30], lost, lost, lost]
    found = read(log(tmp_path / "train.log", losses))
    assert found.diverged_at == pytest.approx(RATES[30])
    assert [row["lr"] for row in found.rows] == pytest.approx(list(RATES[:30]))
    assert found.stopped == "Diverged at rate 0.031"


def test_an_output_with_a_weight_is_a_loss_whatever_its_name(tmp_path: Path) -> None:
    path = log(tmp_path / "train.log")
    text = "\n".join(line for line in path.read_text().splitlines() if "accuracy" not in line)
    path.write_text(text.replace("#1: loss = ", "#1: distance = ") + "\n")
    metric = read(path).metric
    assert (metric.name, metric.is_accuracy) == ("distance", False)
    assert not read(path, "distance").metric.is_accuracy


def test_a_run_that_diverged_says_so(tmp_path: Path) -> None:
    found = read(run_folder(tmp_path / "run", LOSSES[:5], "diverged"))
    assert found.diverged_at == RATES[4]
    assert "end the range below 0.005" in found.suggestions.max_lr.reason


def test_a_cycle_counts_up_to_its_peak(tmp_path: Path) -> None:
    up = {"lr": RATES, "accuracy": ACCURACIES}
    once = read(table(tmp_path / "once.csv", **up))
    there_and_back = {
        "lr": [*RATES, *RATES[::-1][1:]],
        "accuracy": [*ACCURACIES, *np.full(RATES.size - 1, 0.9)],
    }
    assert read(table(tmp_path / "cycle.csv", **there_and_back)) == once


def test_losses_alone_will_do(tmp_path: Path) -> None:
    found = read(table(tmp_path / "loss.csv", lr=RATES, loss=LOSSES))
    assert (found.metric.name, found.metric.of_test) == ("loss", False)
    assert bounds(found) == BOUNDS


def test_rows_of_tests_and_of_losses_alternate(tmp_path: Path) -> None:
    tested = np.where(np.arange(RATES.size) % 2, ACCURACIES, np.nan)
    trained = np.where(np.arange(RATES.size) % 2, np.nan, LOSSES)
    found = read(table(tmp_path / "both.csv", lr=RATES, accuracy=tested, train_loss=trained))
    assert (len(found.rows), len(found.losses)) == (25, 25)
    assert bounds(found) == BOUNDS


def test_what_is_no_range_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fixed\.csv: the rate never rises, so this is not"):
        read(table(tmp_path / "fixed.csv", lr=[0.01] * 20, accuracy=range(20)))
    with pytest.raises(ClrError, match=r"rate\.csv: has no column lr"):
        read(table(tmp_path / "rate.csv", rate=RATES, accuracy=ACCURACIES))
    (tmp_path / "words.csv").write_text("lr,accuracy\nlow,high\n")
    with pytest.raises(ClrError, match=r"words\.csv: is not a CSV of numbers"):
        read(tmp_path / "words.csv")
    with pytest.raises(ClrError, match="is not a run folder"):
        read(tmp_path)
    with pytest.raises(ClrError, match=r"none\.csv: no such file or folder"):
        read(tmp_path / "none.csv")
    about = '{"seeds": [], "diverged_at": null'
    for damaged in ("", "[]", '{"seeds": [1]}', f"{about}}}", f'{about}, "steps": [{{}}]}}'):
        (tmp_path / "range_test.json").write_text(damaged)
        with pytest.raises(ClrError, match=r"range_test\.json: cannot be read; give the range_te"):
            read(tmp_path)


def test_an_accuracy_beside_a_loss_that_is_no_number_is_no_result(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run")
    lines = (path / "test.csv").read_text().splitlines(keepends=True)
    lines[21] = f"200,{RATES[20]},1,nan\n"
    (path / "test.csv").write_text("".join(lines))
    found = read(path)
    assert len(found.rows) == RATES.size - 1
    assert 200 not in [row["iteration"] for row in found.rows]


def test_every_recorded_curve_of_caffe_supports_both_bounds(root: Path) -> None:
    files = [
        root / "tests" / "recorded" / "cifar10_range_test.csv",
        *root.glob("models/*/results/range_*.csv"),
    ]
    assert len(files) >= 4
    for file in files:
        base_lr, max_lr = bounds(curves.read(file))
        assert base_lr is not None, file
        assert max_lr is not None, file
        assert base_lr < max_lr / 2, file


def test_the_mean_of_three_recorded_seeds_has_a_band(
    root: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    results = root / "models" / "cifar10_full" / "results"
    mean = curves.read(results / "range_test.csv")
    seeds = [curves.read(results / f"range_test_{seed}.csv").rows for seed in (1, 2, 3)]
    for row, *values in zip(mean.rows, *seeds, strict=True):
        accuracies = [value["accuracy"] for value in values]
        assert row["accuracy"] == pytest.approx(sum(accuracies) / 3)
        assert row["accuracy_low"] == min(accuracies)
        assert row["accuracy_high"] == max(accuracies)
    plots.plot_range_test(mean, "three seeds", tmp_path / "three.png")
    plots.plot_range_test(curves.read(results / "range_test_1.csv"), "one", tmp_path / "one.png")
    assert [len(figure.axes[0].collections) for figure in figures] == [1, 0]


def test_a_curve_without_losses_has_no_panel_for_them(
    root: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    for file in ("digits/results/range_test.csv", "cifar10_full/results/range_test.csv"):
        plots.plot_range_test(curves.read(root / "models" / file), file, tmp_path / "curve.png")
    labels = [[axes.get_ylabel() for axes in figure.axes] for figure in figures]
    assert labels == [["test accuracy (%)"], ["test accuracy (%)", "training loss"]]


def test_a_rate_that_falls_again_is_warned_of(tmp_path: Path) -> None:
    rates, warnings = [*np.linspace(0, 0.02, 51)], list[str]()
    accuracies = [*np.interp(rates, [0.005, 0.01], [0.1, 0.8])]
    rising = table(tmp_path / "rising.csv", lr=rates, accuracy=accuracies)
    curves.read(rising, on_warning=warnings.append)
    assert not warnings
    cycle = table(tmp_path / "cycle.csv", lr=rates + rates[::-1], accuracy=accuracies * 2)
    found = curves.read(cycle, on_warning=warnings.append)
    assert warnings == [
        f"{cycle}: the rate also falls, as in cycles or between stages; only the rise from 0 to"
        " 0.02 is judged. To judge another rise, give only its lines"
    ]
    assert found.suggestions == curves.read(rising).suggestions


def test_of_stages_the_highest_rise_is_judged_and_told(tmp_path: Path) -> None:
    warnings = list[str]()
    stages = [
        log(tmp_path / f"{first}.log", first=first, highest=highest).read_text()
        for first, highest in ((0, 0.01), (500, 0.05), (1000, 0.02))
    ]
    (tmp_path / "all.log").write_text("".join(stages))
    found = read(tmp_path / "all.log", on_warning=warnings.append)
    assert found.suggestions == read(tmp_path / "500.log").suggestions
    assert [row["iteration"] for row in found.rows] == list(range(500, 1000, 10))
    assert "only the rise from 0.001 to 0.05 (iterations 500 to 990) is judged" in warnings[0]


@pytest.mark.parametrize(("highest", "labels"), [(0.05, 4), (0.0045, 1)])
def test_bounds_that_are_none_are_not_in_the_key(
    highest: float, labels: int, tmp_path: Path, figures: list[Figure]
) -> None:
    rates = np.linspace(0.001, highest, 50)
    heights = np.interp(rates, RATES, ACCURACIES)
    found = read(table(tmp_path / "curve.csv", lr=rates, accuracy=heights))
    plots.plot_range_test(found, "a curve", tmp_path / "curve.png")
    (figure,) = figures
    assert [len(legend.get_texts()) for legend in figure.legends] == [labels]


@pytest.mark.parametrize("counter", ["", "step", "Wall time", "batch"])
def test_a_counter_is_no_output(counter: str, tmp_path: Path) -> None:
    path = table(tmp_path / "exported.csv", **{counter: range(50), "lr": RATES, "loss": LOSSES})
    found = read(path)
    assert found.metric == metrics.TRAINING_LOSS
    assert bounds(found) == bounds(read(table(tmp_path / "loss.csv", lr=RATES, loss=LOSSES)))


def test_an_error_is_to_fall(tmp_path: Path) -> None:
    errors = 100 * (1 - ACCURACIES)
    found = read(table(tmp_path / "mae.csv", lr=RATES, mae=errors))
    assert (found.metric.name, found.metric.is_accuracy) == ("mae", False)
    assert bounds(found) == BOUNDS


def test_what_no_name_tells_can_be_said(tmp_path: Path) -> None:
    path = table(tmp_path / "curve.csv", lr=RATES, margin=1 - ACCURACIES, gate=RATES)
    with pytest.raises(
        UsageError,
        match=r"\(margin, gate\) do not tell .*; choose one with --output, and add --lower",
    ):
        read(path)
    found = read(path, "margin", lower_is_better=True)
    assert not found.metric.is_accuracy
    assert bounds(found) == BOUNDS
    assert read(path, "margin").metric.is_accuracy


def test_a_value_far_beyond_a_share_is_no_accuracy(tmp_path: Path) -> None:
    columns = {"lr": RATES, "rank": 1000 * ACCURACIES, "loss": LOSSES}
    assert read(table(tmp_path / "rank.csv", **columns)).metric == metrics.TRAINING_LOSS
    columns["rank"] = 100 * ACCURACIES
    found = read(table(tmp_path / "percent.csv", **columns))
    assert found.metric.name == "rank"
    assert bounds(found) == BOUNDS


def test_where_nothing_is_tested_the_loss_can_be_chosen(tmp_path: Path) -> None:
    path = table(tmp_path / "loss.csv", lr=RATES, loss=LOSSES)
    with pytest.raises(UsageError, match=r"has no output accuracy; use one of loss$"):
        read(path, "accuracy")


def test_few_displays_are_counted_as_such(tmp_path: Path) -> None:
    few = read(table(tmp_path / "few.csv", lr=RATES[:5], loss=LOSSES[:5]))
    assert "5 displays are too few (8 are needed)" in few.suggestions.max_lr.reason


def top_k_log(path: Path, *, shows_nets: bool) -> Path:
    """A log with two accuracies, whose nets tell which of them is the one of a single guess."""
    nets = """I1125 10:00:00.000000 77 net.cpp:53] Initializing net from parameters: 
state { phase: TRAIN }
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "train" } }
I1125 10:00:00.000000 77 net.cpp:53] Initializing net from parameters: 
state { phase: TEST }
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "test" } }
layer { name: "a" type: "Accuracy" bottom: "data" bottom: "label" top: "first_acc" }
layer {
  name: "b" type: "Accuracy" bottom: "data" bottom: "label" top: "second_acc"
  accuracy_param { top_k: 5 }
}
"""
    log(path)
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if "accuracy" in line:
            value = float(line.split()[-1])
            second = line.replace("#0: accuracy", "#2: second_acc")
            second = second.replace(f"{value:.6g}", f"{1 - value:.6g}")
            lines[number] = line.replace("accuracy", "first_acc") + second
    path.write_text((nets if shows_nets else "") + "".join(lines))
    return path


@pytest.mark.usefixtures("tree")
def test_the_net_in_a_log_tells_what_to_judge_by(tmp_path: Path) -> None:
    found = read(top_k_log(tmp_path / "train.log", shows_nets=True))
    assert found.metric.name == "first_acc"
    assert set(found.others) == {"second_acc", "loss"}
    headless = read(top_k_log(tmp_path / "headless.log", shows_nets=False))
    assert headless.metric.name == "second_acc"


@pytest.mark.usefixtures("tree")
def test_a_logged_loss_is_of_the_middle_of_average_loss(tmp_path: Path) -> None:
    """The loss falls at once where the rate is 0.025; a mean of 100 iterations is late by 50."""
    head = "I1125 10:00:00.000000 77 solver.cpp:45] Initializing solver from parameters: \n"
    window = 10
    losses = np.where(RATES > 0.025, 0.5, 2.3) + 0.001 * np.arange(RATES.size) % 2
    means = [losses[max(0, i + 1 - window) : i + 1].mean() for i in range(losses.size)]
    path = log(tmp_path / "train.log", means)
    text = "\n".join(line for line in path.read_text().splitlines() if "accuracy" not in line)
    text = "\n".join(line for line in text.splitlines() if "Test net" not in line)
    rates = []
    for number in (1, window * 10):  # displays are ten iterations apart
        parameters = f'lr_policy: "triangular"\naverage_loss: {number}\n'
        path.write_text(f"{head}{parameters}{text}\n")
        rates.append(next(row["lr"] for row in read(path).losses if row["loss"] < 1.4))
    assert rates[0] > 0.028
    assert rates[1] == pytest.approx(0.025, abs=0.0011)


def test_the_folder_of_a_range_test_has_all_outputs(
    tmp_path: Path, write_solver: Callable[..., Path]
) -> None:
    solver = write_solver(test_iter=[3], test_interval=8)
    options = Options(min_lr=0.001, max_lr=0.2, epochs=20, seeds=2)
    tested = range_test(solver, tmp_path / "found", options)
    again = read(tmp_path / "found")
    assert again.rows == [{key: row[key] for key in row} for row in tested.rows]
    assert again.metric == tested.metric
    assert again.suggestions == tested.suggestions
    assert again.others == tested.others
    for other in tested.others:
        assert read(tmp_path / "found", other).metric.name == other


@pytest.mark.usefixtures("tree")
def test_the_net_within_a_recurrent_layer_is_no_test_net(tmp_path: Path) -> None:
    unrolled = """I1125 10:00:00.000000 77 net.cpp:53] Initializing net from parameters: 
name: "lstm_unrolled"
layer { name: "in" type: "Input" top: "x" }
layer { name: "gap" type: "Reduction" bottom: "x" top: "gap" loss_weight: 1 }
"""
    path = top_k_log(tmp_path / "train.log", shows_nets=True)
    before, test_net = path.read_text().rsplit("I1125 10:00:00.000000 77 net.cpp:53]", 1)
    path.write_text(f"{before}{unrolled}I1125 10:00:00.000000 77 net.cpp:53]{test_net}")
    assert read(path).metric.name == "first_acc"


def test_without_a_caffe_names_tell_what_to_judge_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "caffe.proto.caffe_pb2", raising=False)
    monkeypatch.setattr(installed_caffe, "package", lambda: None)
    warnings: list[str] = []
    found = read(top_k_log(tmp_path / "train.log", shows_nets=True), on_warning=warnings.append)
    assert found.metric.name == "second_acc"
    (warning,) = warnings
    assert "so outputs are judged by their names: no Caffe in this Python environment" in warning


@pytest.mark.parametrize(
    "column",
    ["train_loss", "train/loss", "Training Loss", "smoothed_loss", "train_loss_step", "Loss/train"],
)
def test_the_training_loss_by_other_names(column: str, tmp_path: Path) -> None:
    path = table(tmp_path / "curve.csv", **{"lr": RATES, column: LOSSES})
    assert read(path).metric == read(path, column).metric == metrics.TRAINING_LOSS


@pytest.mark.parametrize(
    ("tested", "trained"),
    [
        ("val_acc", "train_acc"),
        ("valid_accuracy", "train_accuracy"),
        ("Accuracy/test", "batch acc"),
    ],
)
def test_an_accuracy_of_training_is_none_of_a_test(
    tested: str, trained: str, tmp_path: Path
) -> None:
    columns = {"lr": RATES, tested: ACCURACIES, trained: np.linspace(0, 1, RATES.size)}
    found = read(table(tmp_path / "both.csv", **columns, train_loss=LOSSES))
    assert (found.metric.name, found.others) == (tested, [trained])
    assert bounds(found) == BOUNDS
    del columns[tested]
    alone = read(table(tmp_path / "alone.csv", **columns, train_loss=LOSSES))
    assert alone.metric == metrics.TRAINING_LOSS
    assert read(tmp_path / "alone.csv", trained).metric.is_accuracy


def test_rates_and_tests_may_have_rows_of_their_own(tmp_path: Path) -> None:
    lines = ["step,lr,train_loss,val_accuracy"]
    for step, (rate, loss, accuracy) in enumerate(zip(RATES, LOSSES, ACCURACIES, strict=True)):
        lines += [f"{step},{rate},,", f"{step},,{loss},", f"{step},,,{accuracy}"]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, ""]))
    found = read(tmp_path / "metrics.csv")
    assert found.metric.name == "val_accuracy"
    assert (len(found.rows), len(found.losses)) == (50, 50)
    assert bounds(found) == BOUNDS
    assert found.others == []


def test_a_lost_loss_has_its_own_rate_whatever_average_loss_is(tmp_path: Path) -> None:
    head = "I1125 10:00:00.000000 77 solver.cpp:45] Initializing solver from parameters: "
    path = log(tmp_path / "train.log", [*LOSSES[:30], *[math.nan] * 20])
    path.write_text(f'{head}\nlr_policy: "triangular"\naverage_loss: 200\n{path.read_text()}')
    found = read(path)
    assert found.diverged_at == pytest.approx(RATES[30])
    assert [row["lr"] for row in found.rows] == pytest.approx(list(RATES[:30]))
