"""Range tests that were trained and recorded by whatever means: logs, run folders and CSV."""

import json
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from caffe_clr import logs, metrics, runs, suggestions
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.history import OWN_COLUMNS, History, Row, read_table
from caffe_clr.metrics import Metric
from caffe_clr.results import RangeTest
from caffe_clr.runs import Status
from caffe_clr.suggestions import Suggestions

_LOSSES = ("loss", "train_loss")  # what the training loss is called in a CSV
_BAND = ("_low", "_high")  # over the seeds of a range test


@dataclass
class _Recorded:
    """The rows of a range test, each with its lr; `train` has the loss as `loss`.

    `losses` are outputs of the tests that are known to be losses.
    """

    test: list[Row]
    train: list[Row]
    diverged_at: float | None = None
    seeds: Sequence[int] = (1,)
    losses: Container[str] = ()


def read(
    path: Path,
    output: str | None = None,
    *,
    suggest: Callable[..., Suggestions] = suggestions.suggest,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> RangeTest:
    """Suggest bounds from what was recorded while the rate rose.

    Args:
        path: a log of `caffe train`, the folder of a run or of a range test, or a
            CSV with a column lr, one of an output and, if it was recorded, one of
            the training loss: loss or train_loss. Where the rate falls again, as
            after half a cycle, what comes after is left out.
        output: what to judge by. Default: the last accuracy, the last other
            output, or the training loss.
        suggest: the rules.
        on_warning: called where something is left out.

    Raises:
        UsageError: the rate does not rise, or there is no such output.
        ClrError: the file cannot be read, or has no rates.
    """
    recorded = _read(path)
    test = _rising(recorded.test)
    train = _rising([row for row in recorded.train if "loss" in row])
    rates = [row["lr"] for row in test + train]
    if len(set(rates)) < 2 and recorded.diverged_at is None:
        raise UsageError(
            f"{path}: the rate never rises in it, as it does in a range test: see"
            " `caffe-clr range-test`"
        )
    if rates and any(_falls(rows) for rows in (recorded.test, recorded.train)):
        on_warning(
            f"{path}: the rate falls again after {max(rates):.4g}, as in a cycle; only the way up"
            " to it is judged, as if it were a range test"
        )
    lost = [row["lr"] for row in train if metrics.is_lost(row["loss"])]
    diverged_at = min(lost, default=recorded.diverged_at)
    if lost:
        test, train = ([row for row in rows if row["lr"] < min(lost)] for rows in (test, train))
    metric = _metric(path, test, output, recorded.losses)
    rows = metric.rows(History(train, test))
    suggested = suggest(
        [row["lr"] for row in rows],
        [row[metric.name] for row in rows],
        loss_rates=[row["lr"] for row in train],
        losses=[row["loss"] for row in train],
        diverged_at=diverged_at,
        is_loss=not metric.is_accuracy,
    )
    stopped = f"Diverged at rate {diverged_at:.4g}" if diverged_at is not None else ""
    return RangeTest(metric, recorded.seeds, rows, train, diverged_at, suggested, None, stopped)


def _read(path: Path) -> _Recorded:
    if not path.exists():
        raise ClrError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if (path / "range_test.json").is_file():
            return _read_range_test(path)
        status, history = runs.read_status(path), runs.read_history(path)
        rates = history.rates().values() if status["status"] == Status.DIVERGED else ()
        return _Recorded(history.test, history.train, max(rates, default=None))
    if path.suffix == ".csv":
        return _read_csv(path)
    history = logs.read_log(path)
    return _Recorded(history.test, history.train, losses=history.losses)


def _read_range_test(folder: Path) -> _Recorded:
    path = folder / "range_test.json"
    try:
        about = json.loads(path.read_text())
        seeds, diverged_at = [int(seed) for seed in about["seeds"]], about["diverged_at"]
        trained = [runs.read_history(folder / f"seed_{seed}").train for seed in seeds]
        losses = metrics.over_seeds(trained, "loss")
    except (OSError, ValueError, LookupError, TypeError):
        raise ClrError(f"{path}: cannot be read; name the range_test.csv beside it") from None
    train = [{**row, "loss": row["mean"]} for row in losses]
    return _Recorded(_read_numbers(folder / "range_test.csv"), train, diverged_at, seeds)


def _read_csv(path: Path) -> _Recorded:
    rows = _read_numbers(path)
    if not any("lr" in row for row in rows):
        raise ClrError(f"{path}: it has no column lr; give the column of the rates that name")
    rows = [row for row in rows if "lr" in row]
    names = [name for name in _LOSSES if any(name in row for row in rows)]
    train = [{**row, "loss": row[name]} for name in names[:1] for row in rows if name in row]
    test = [{name: row[name] for name in row if name not in _LOSSES} for row in rows]
    return _Recorded([row for row in test if row.keys() - OWN_COLUMNS], train)


def _read_numbers(path: Path) -> list[Row]:
    try:
        rows, others = read_table(path)
    except OSError as error:
        raise ClrError(f"{path}: cannot be read: {error.strerror}") from None
    if others:
        raise ClrError(f"{path}: is not a CSV of numbers: {others} of its lines cannot be read")
    return rows


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


def _falls(rows: Sequence[Row]) -> bool:
    return any(after["lr"] < row["lr"] for row, after in pairwise(rows))


def _metric(path: Path, rows: Sequence[Row], output: str | None, losses: Container[str]) -> Metric:
    """What to judge by, among the outputs of the tests."""
    names = dict.fromkeys(name for row in rows for name in row)
    outputs = [name for name in names if name not in OWN_COLUMNS and not name.endswith(_BAND)]
    if output is not None:
        if output not in outputs:
            raise UsageError(f"{path}: no output {output}; there are {', '.join(outputs)}")
        return Metric(output, of_test=True, is_accuracy=not metrics.is_loss(output, losses))
    accuracies = [name for name in outputs if not metrics.is_loss(name, losses)]
    if accuracies:
        return Metric(accuracies[-1], of_test=True, is_accuracy=True)
    if outputs:
        return Metric(outputs[-1], of_test=True, is_accuracy=False)
    return Metric("loss", of_test=False, is_accuracy=False)
