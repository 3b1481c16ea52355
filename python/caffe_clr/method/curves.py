"""Suggests bounds from recorded range tests: logs of `caffe train`, run folders and tables."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from caffe_clr.caffe_log import reader
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import suggestions, tables
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.suggestions import Suggestions
from caffe_clr.runs import history, metrics, output_kinds, run_folder
from caffe_clr.runs.history import OWN_COLUMNS, History, Row
from caffe_clr.runs.metrics import Metric
from caffe_clr.runs.status import Status
from caffe_clr.system.paths import StrPath

# words of a table's columns: those of training, and of what counts
_OF_TRAINING = {"train", "training", "trn", "batch"}
_LOSSES = {"loss", "smoothed loss"}
_COUNTERS = {"step", "global step", "epoch", "iter", "iteration", "batch", "time", "wall time"}
_TRAIN = 0  # a Phase
_LIKE = 0.1  # of the difference between a geometric and a linear rise
_BAND = ("_low", "_high")  # over the seeds of a range test


@dataclass
class _Recorded:
    """The rows of a range test, each with its lr; `train` has the loss as `loss`.

    `losses` are outputs of the tests that are known to be losses, and `metric` is the one
    to judge by, where more is known than names. `chance` is of that metric; see
    suggestions.suggest for it and for `epochs`, and suggestions.swept for `guess`.
    """

    test: list[Row]
    train: list[Row]
    diverged_at: float | None = None
    seeds: Sequence[int] = (1,)
    losses: set[str] = field(default_factory=set)
    metric: Metric | None = None
    chance: float | None = None
    guess: float | None = None
    epochs: float | None = None


def read(
    path: StrPath,
    output: str | None = None,
    *,
    lower_is_better: bool = False,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> RangeTest:
    """Suggest bounds from a recorded training whose rate rises.

    Args:
        path: a log of `caffe train`, the folder of a run or of a range test, or a
            table such as a CSV. A table has the columns lr, an output and, optionally,
            the training loss as loss or train_loss (see tables.read). Only the rise up
            to the highest rate is judged.
        output: the output to judge by. Default: the training loss, if it is recorded; else
            the output that metrics.metric_of_net chooses, if the net is known; else one
            named like an accuracy or a loss.
        lower_is_better: lower values of `output` are better, whatever its name.
        on_warning: called with a message if part of the data is ignored.

    Raises:
        UsageError: the rate does not rise, the output does not exist, or no name of an
            output tells whether higher or lower is better.
        ClrError: the file cannot be read, or has no rates.
    """
    path = Path(path)
    recorded = _read(path, on_warning)
    test = _rising(recorded.test)
    train = _rising([row for row in recorded.train if "loss" in row])
    rates = [row["lr"] for row in test + train]
    if len(set(rates)) < 2 and recorded.diverged_at is None:
        raise UsageError(
            f"{path}: the rate never rises, so this is not a range test; run one with"
            " `caffe-clr range-test`"
        )
    if rates and any(_falls(rows) for rows in (recorded.test, recorded.train)):
        on_warning(
            f"{path}: the rate also falls, as in cycles or between stages; only"
            f" {_span(test + train)} is judged. To judge another rise, give only its lines"
        )
    lost = [row["lr"] for row in train if output_kinds.is_lost(row["loss"])]
    diverged_at = min(lost, default=recorded.diverged_at)
    if lost:
        test, train = ([row for row in rows if row["lr"] < min(lost)] for rows in (test, train))
    outputs = [name for name in history.outputs(test) if not name.endswith(_BAND)]
    if output is not None:
        metric = _named(path, output, outputs, recorded, lower_is_better)
    else:
        metric = _found(path, test, outputs, recorded)
    rows = metric.rows(History(train, test, recorded.losses))
    named = output is not None and metric.of_test
    suggested = _judged(recorded, metric, rows, [] if named else train, diverged_at)
    stopped = f"Diverged at rate {diverged_at:.4g}" if diverged_at is not None else ""
    return RangeTest(
        *(metric, recorded.seeds, rows, train, diverged_at, suggested),
        stopped=stopped,
        others=[name for name in outputs if name != metric.name],
    )


def _judged(
    recorded: _Recorded,
    metric: Metric,
    rows: Sequence[Row],
    train: Sequence[Row],
    diverged_at: float | None,
) -> Suggestions:
    if _is_geometric(train):
        columns = ([row[name] for row in train] for name in ("iteration", "lr", "loss"))
        return suggestions.swept(*columns, diverged_at=diverged_at, guess=recorded.guess)
    return suggestions.of_rows(
        *(metric, rows, train),
        diverged_at=diverged_at,
        chance=recorded.chance if metric == recorded.metric else None,
        epochs=recorded.epochs,
    )


def _is_geometric(rows: Sequence[Row]) -> bool:
    """Whether the rate rises by the same factor in each iteration, and not by the same step."""
    if len(rows) < 3 or not all("iteration" in row for row in rows) or rows[0]["lr"] <= 0:
        return False
    first, middle, last = rows[0], rows[len(rows) // 2], rows[-1]
    if first["iteration"] >= last["iteration"]:
        return False
    share = (middle["iteration"] - first["iteration"]) / (last["iteration"] - first["iteration"])
    by_factor = first["lr"] * (last["lr"] / first["lr"]) ** share
    by_step = first["lr"] + share * (last["lr"] - first["lr"])
    return bool(abs(middle["lr"] - by_factor) < _LIKE * abs(by_step - by_factor))


def _read(path: Path, on_warning: Callable[[str], None]) -> _Recorded:
    if not path.exists():
        raise ClrError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / "range_test.json").is_file():
            return _read_range_test(path)
        status, run = run_folder.read_status(path), run_folder.read_history(path)
        rates = run.rates().values() if status["status"] == Status.DIVERGED else ()
        return _Recorded(
            *(run.test, run.train, max(rates, default=None)),
            metric=metrics.recorded_metric(status),
        )
    if tables.is_table(path):
        return _read_csv(path, on_warning)
    log = reader.read_log(path)
    for warning in log.warnings():
        on_warning(f"{path}: {warning}")
    window, metric = 1, None
    try:
        window = log.solver.average_loss if log.solver else 1
        metric = _metric_of_nets(log.nets)
    except ClrError as error:
        on_warning(
            f"{path}: the nets in it cannot be read, so outputs are judged by their names: {error}"
        )
    train = _with_middle_rates(log, window)
    return _Recorded(log.test, train, losses=log.losses, metric=metric)


def _metric_of_nets(nets: Sequence[Any]) -> Metric | None:
    """What the nets that a log shows, the train net and then the test nets, are judged by."""
    tops = [net for net in nets if not _is_unrolled(net)]
    trained = next((net for net in tops if net.state.phase == _TRAIN), None)
    tested = dict(enumerate(net for net in tops if net.state.phase != _TRAIN))
    if not tested:
        return None
    number = metrics.judged_net(tested, trained)
    return metrics.metric_of_net(tested[number], number)


def _is_unrolled(net: Any) -> bool:
    """Whether it is a net within a recurrent layer, which Caffe prints, too."""
    return any(layer.type == "Input" for layer in net.layer)


def _read_range_test(folder: Path) -> _Recorded:
    path = folder / "range_test.json"
    try:
        about = json.loads(path.read_text())
        seeds, diverged_at = [int(seed) for seed in about["seeds"]], about["diverged_at"]
        steps = about.get("steps", [])
        last = folder / steps[-1]["name"] if steps else folder
        folders = [last / f"seed_{seed}" for seed in seeds]
        metric = metrics.recorded_metric(run_folder.read_status(folders[0]))
        histories = [run_folder.read_history(each) for each in folders]
    except (OSError, ValueError, LookupError, TypeError):
        raise ClrError(f"{path}: cannot be read; give the range_test.csv beside it") from None
    losses = metrics.over_seeds([each.train for each in histories], "loss")
    train = [{**row, "loss": row["mean"]} for row in losses]
    return _Recorded(
        *(_tests_over_seeds(histories), train, diverged_at, seeds),
        metric=metric,
        chance=about.get("chance"),
        guess=about.get("guess"),
        epochs=about.get("epochs"),
    )


def _tests_over_seeds(histories: Sequence[History]) -> list[Row]:
    """The mean of each output over the seeds and, of several, its band."""
    rows: dict[float, Row] = {}
    for name in history.outputs(histories[0].test):
        seeds = [[row for row in each.test if name in row] for each in histories]
        for mean in metrics.over_seeds(seeds, name):
            row = rows.setdefault(
                mean["iteration"], {key: mean[key] for key in ("iteration", "lr")}
            )
            row[name] = mean["mean"]
            if len(histories) > 1:
                row[f"{name}_low"], row[f"{name}_high"] = mean["low"], mean["high"]
    return list(rows.values())


def _read_csv(path: Path, on_warning: Callable[[str], None]) -> _Recorded:
    table = tables.read(path)
    if table.is_of_parse_log:
        on_warning(
            f"{path}: parse_log.py writes the rate of the previous display into each row; give"
            " the log itself"
        )
    rows = _by_rate(table.rows)
    is_of_tests = table.is_of_parse_log and ".test" in path.suffixes
    columns = [name for name in history.outputs(rows) if _words(name) not in _COUNTERS]
    losses = [] if is_of_tests else list(filter(_is_training_loss, columns))
    train = [{**row, "loss": row[name]} for name in losses[:1] for row in rows if name in row]
    tested = {*OWN_COLUMNS, *columns}.difference(losses)
    test = [{name: value for name, value in row.items() if name in tested} for row in rows]
    return _Recorded([row for row in test if row.keys() - OWN_COLUMNS], train)


def _by_rate(rows: Sequence[Row]) -> list[Row]:
    """The rows of a table, one for each time that the rate changes.

    Some tables have the rate, the training and the test in rows of their own; one without
    a rate has that of the row before it.
    """
    merged: list[Row] = []
    for row in rows:
        if merged and row.get("lr", merged[-1]["lr"]) == merged[-1]["lr"]:
            merged[-1].update(row)
        elif "lr" in row:
            merged.append(dict(row))
    return merged


def _words(column: str) -> str:
    return re.sub(r"[\W_]+", " ", column).strip().lower()


def _is_of_training(column: str) -> bool:
    return not _OF_TRAINING.isdisjoint(_words(column).split())


def _is_training_loss(column: str) -> bool:
    return _words(column) in _LOSSES or (_is_of_training(column) and output_kinds.is_loss(column))


def _rising(rows: Sequence[Row]) -> list[Row]:
    """The rows of the rise that ends at the highest rate; of equal rates, the last."""
    rows = [row for row in rows if math.isfinite(row["lr"])]
    if not rows:
        return []
    top = max(range(len(rows)), key=lambda index: rows[index]["lr"])
    first = top
    while first and rows[first - 1]["lr"] <= rows[first]["lr"]:
        first -= 1
    rising = rows[first : top + 1]
    return [row for row, after in pairwise(rising) if row["lr"] < after["lr"]] + rising[-1:]


def _span(rows: Sequence[Row]) -> str:
    """Which rise rows are of."""
    rates = [row["lr"] for row in rows]
    iterations = [row["iteration"] for row in rows if "iteration" in row]
    where = f" (iterations {min(iterations):,} to {max(iterations):,})" if iterations else ""
    return f"the rise from {min(rates):.4g} to {max(rates):.4g}{where}"


def _falls(rows: Sequence[Row]) -> bool:
    return any(after["lr"] < row["lr"] for row, after in pairwise(rows))


def _named(
    path: Path, name: str, outputs: list[str], recorded: _Recorded, lower_is_better: bool
) -> Metric:
    """The output of a name."""
    if name in outputs:
        is_loss = lower_is_better or output_kinds.is_loss(name, recorded.losses)
        return Metric(name, of_test=True, is_accuracy=not is_loss)
    if _is_training_loss(name) and recorded.train:
        return metrics.TRAINING_LOSS
    names = dict.fromkeys([*outputs, *(["loss"] if recorded.train else [])])
    raise UsageError(f"{path}: has no output {name}; use one of {', '.join(names)}")


def _found(path: Path, rows: Sequence[Row], outputs: list[str], recorded: _Recorded) -> Metric:
    """The output to judge by, where none is named."""
    if recorded.metric and recorded.metric.name in outputs:
        return recorded.metric
    possible = [
        name
        for name in outputs
        if not _is_of_training(name)
        and (not output_kinds.is_accuracy(name, recorded.losses) or _are_shares(rows, name))
    ]
    metric = metrics.metric_of_outputs(possible, recorded.losses)
    if metric is None and outputs and not recorded.train:
        raise UsageError(
            f"{path}: the names of its outputs ({', '.join(outputs)}) do not tell whether higher"
            " or lower is better; choose one with --output, and add --lower-is-better if it should"
            " fall"
        )
    return metric or metrics.TRAINING_LOSS


def _are_shares(rows: Sequence[Row], name: str) -> bool:
    """Whether all values are from 0 to 1, or percent."""
    values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
    return all(0 <= value <= 100 for value in values)


def _with_middle_rates(log: History, window: int) -> list[Row]:
    """The training losses of a log, each with the rate in the middle of what it is a mean of.

    One that is lost keeps its own: a single lost loss spoils the mean.

    Args:
        window: average_loss; a loss that is logged is the mean of so many iterations.
    """
    rates = log.rates()
    if window <= 1 or not rates:
        return log.train
    before = [min(window - 1, row["iteration"]) / 2 for row in log.train]
    at = [row["iteration"] - half for row, half in zip(log.train, before, strict=True)]
    middle = np.interp(at, list(rates), list(rates.values()))
    return [
        row
        if math.isnan(row["lr"]) or output_kinds.is_lost(row["loss"])
        else {**row, "lr": float(rate)}
        for row, rate in zip(log.train, middle, strict=True)
    ]
