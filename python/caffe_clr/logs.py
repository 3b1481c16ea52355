"""Reads the log of `caffe train`: losses and test results, each with the rate of its iteration.

The lines and their order are those of Caffe's solver.cpp and sgd_solver.cpp: the
test of iteration N comes first, then its loss and train outputs, then its rate.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.history import History, Row

_NUMBER = r"[-+]?(?:nan|inf|\d+\.?\d*(?:e[-+]?\d+)?)"
_GLOG = re.compile(
    r"[IWEF](?P<year>2\d{3})?(?P<month>0[1-9]|1[0-2])(?P<day>\d\d) +"
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d\.\d+) +(?P<thread>\S+) [^\]]+:\d+\]"
)
_ITERATION = re.compile(
    r"Iteration (?P<iteration>\d+)(?: \(.*\))?, "
    rf"(?:loss = (?P<loss>{_NUMBER})|lr = (?P<lr>{_NUMBER})|Testing net \(#(?P<net>\d+)\))"
)
_OUTPUT = re.compile(
    r"(?:Train|Test) net output #(?P<number>\d+): (?P<name>.+?) = "
    rf"(?P<value>{_NUMBER})(?: \(\* .* loss\))?"
)
_START = "Initializing solver from parameters:"
_CLOSING = ("Iteration ", "Snapshotting ", "Optimization ")  # what follows a whole result
_HALF_A_YEAR = timedelta(days=180)
_REMEDY = "give the file that the standard error of `caffe train` went to"


@dataclass
class _Result:
    """What a thread logged of an iteration's training, or of its test.

    Attributes:
        outputs: name and value, by the numbers of net and output.
        closed: whether the solver went on after it.
    """

    thread: str
    seconds: float
    loss: float
    outputs: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    closed: bool = False


@dataclass
class _Part:
    """What was logged from a start or a resumption up to the next.

    Attributes:
        parameters: the text of the SolverParameter.
        rates: by iteration.
        results: by iteration, and "Train" or "Test".
    """

    parameters: str = ""
    rates: dict[int, float] = field(default_factory=dict)
    results: dict[tuple[int, str], _Result] = field(default_factory=dict)

    @property
    def iterations(self) -> set[int]:
        return {iteration for iteration, _ in self.results}


def read_log(path: Path) -> History:
    """What the log of `caffe train` tells, as far as it is written by now.

    Rows are in the order of their iterations, one an iteration. Each has
    `iteration`, `lr`, the outputs by name, and `seconds` since the log's first
    line; a train row has the solver's `loss` too, a mean over average_loss
    iterations. The accuracy of test net #1 is `accuracy#1`, the elements of a
    vector are `x[0]`, `x[1]` and so on, and an output that is named as another
    column is `output loss`.

    `lr` is the rate logged for that very iteration. Where none is, it is
    computed, to the six digits of a log, from the solver parameters in the log,
    if these give the rates that are logged; else it is nan.

    Where a log holds several runs, each replaces what was logged before it from
    its own first iteration on. A result that was cut off is left out.

    Raises:
        ClrError: the file cannot be read or holds no result of `caffe train`, or
            a rate is to be computed and there is no Caffe.
    """
    history = History()
    for part in _read_parts(path):
        rates = _rates(part)
        for (iteration, phase), result in sorted(part.results.items()):
            row: Row = {"iteration": iteration, "lr": rates[iteration]}
            rows = history.test
            if phase == "Train":
                row["loss"] = result.loss
                rows = history.train
            rows.append({**row, **_named(result, row), "seconds": result.seconds})
    if not history.train and not history.test:
        raise ClrError(f"{path}: no result of an iteration in it: {_REMEDY}, with display set")
    return history


def read_rates(path: Path) -> dict[int, float]:
    """The rates that are logged, by their iterations, in the order of these.

    Raises:
        ClrError: the file cannot be read or holds no rate.
    """
    rates = {
        iteration: rate
        for part in _read_parts(path)
        for iteration, rate in sorted(part.rates.items())
    }
    if not rates:
        raise ClrError(f"{path}: no learning rate in it: {_REMEDY}, with display set")
    return rates


def agree(logged: Iterable[float], rates: Iterable[float]) -> list[bool]:
    """Whether each logged rate is what Caffe prints, in six digits, of the float beside it.

    The float's neighbours will do as well: Caffe's powf may be off by one.
    """
    return [
        any(
            f"{printed:.6g}" == f"{np.nextafter(np.float32(rate), np.float32(to)):.6g}"
            for to in (rate, -np.inf, np.inf)
        )
        for printed, rate in zip(logged, rates, strict=True)
    ]


def _read_parts(path: Path) -> list[_Part]:
    reader, is_binary = _Reader(), False
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                is_binary = is_binary or "\0" in line
                if line.endswith("\n"):
                    reader.read(line)
    except OSError as error:
        raise ClrError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from None
    parts: list[_Part] = []
    for part in map(_whole, reader.parts):
        begun = part.iterations | part.rates.keys()
        if begun:
            parts = [_before(min(begun), earlier) for earlier in parts] + [part]
    if is_binary and not parts:
        raise ClrError(f"{path}: is binary, not a log: {_REMEDY}")
    return parts


class _Reader:
    """Sorts the lines of a log into parts."""

    def __init__(self) -> None:
        self.parts = [_Part()]
        self._clock = _Clock()
        self._iteration = 0
        self._open: dict[str, tuple[_Result, int]] = {}  # with the number of the net, by thread
        self._in_parameters = False

    def read(self, line: str) -> None:
        """Read one line; where it was cut and the next run's first follows on it, the latter."""
        prefixes = list(_GLOG.finditer(line))
        if prefixes:
            prefix = prefixes[-1]
            seconds = self._clock.seconds(prefix)
            self._read_message(line[prefix.end() :].strip(), prefix["thread"], seconds)
        elif self._in_parameters:
            self.parts[-1].parameters += line

    def _read_message(self, message: str, thread: str, seconds: float) -> None:
        self._in_parameters = message.startswith(_START)
        if self._in_parameters:
            self._begin_part("")
        elif output := _OUTPUT.fullmatch(message):
            if thread in self._open:
                result, net = self._open[thread]
                value = (output["name"], float(output["value"]))
                result.outputs.setdefault((net, int(output["number"])), value)
        elif message.startswith(_CLOSING):
            if thread in self._open:
                self._open.pop(thread)[0].closed = True
            if iteration := _ITERATION.fullmatch(message):
                self._read_iteration(iteration, thread, seconds)

    def _read_iteration(self, line: re.Match[str], thread: str, seconds: float) -> None:
        iteration = int(line["iteration"])
        if iteration < self._iteration:
            self._begin_part(self.parts[-1].parameters)
        self._iteration = iteration
        part = self.parts[-1]
        if line["lr"]:
            part.rates.setdefault(iteration, float(line["lr"]))
            return
        phase = "Test" if line["net"] else "Train"
        begun = _Result(thread, seconds, float(line["loss"] or math.nan))
        result = part.results.setdefault((iteration, phase), begun)
        if result.thread == thread:  # another one repeats what the root solver's logged
            result.closed = False
            self._open[thread] = (result, int(line["net"] or 0))

    def _begin_part(self, parameters: str) -> None:
        self.parts.append(_Part(parameters))
        self._iteration = 0
        self._open = {}


class _Clock:
    """Seconds since the first line, from glog's local time, which may lack the year."""

    def __init__(self) -> None:
        self._elapsed = timedelta()
        self._year = 2001  # any without February 29
        self._last: datetime | None = None

    def seconds(self, prefix: re.Match[str]) -> float:
        """Those of a line. They never fall, though a clock may be set back."""
        month, day = int(prefix["month"]), int(prefix["day"])
        if not prefix["year"] and (month, day) == (2, 29) and self._year == 2001:
            self._year = 2000
            self._last = self._last and self._last.replace(year=2000)
        now = datetime(int(prefix["year"] or self._year), month, 1) + timedelta(
            days=day - 1,
            hours=int(prefix["hour"]),
            minutes=int(prefix["minute"]),
            seconds=float(prefix["second"]),
        )
        passed = now - (self._last or now)
        if not prefix["year"] and passed < -_HALF_A_YEAR:
            passed %= timedelta(days=366 if self._year == 2000 else 365)
        self._elapsed += max(passed, timedelta())
        self._last = now
        return self._elapsed.total_seconds()


def _whole(part: _Part) -> _Part:
    """A part without the results that were cut off.

    One is whole if the solver went on after it, or if it has as many outputs as
    those after which it did. A test without outputs was interrupted.
    """
    outputs: dict[str, int] = {}
    for (_, phase), result in part.results.items():
        if result.closed:
            outputs[phase] = max(outputs.get(phase, 0), len(result.outputs))
    whole = {
        (iteration, phase): result
        for (iteration, phase), result in part.results.items()
        if result.closed or len(result.outputs) >= outputs.get(phase, math.inf)
        if result.outputs or phase == "Train"
    }
    return _Part(part.parameters, part.rates, whole)


def _before(end: int, part: _Part) -> _Part:
    return _Part(
        part.parameters,
        {iteration: rate for iteration, rate in part.rates.items() if iteration < end},
        {key: result for key, result in part.results.items() if key[0] < end},
    )


def _rates(part: _Part) -> dict[int, float]:
    """The rates of all iterations of a part: as logged, else of its policy, else nan."""
    missing = sorted(part.iterations - part.rates.keys())
    return part.rates | dict(zip(missing, _computed(part, missing), strict=True))


def _computed(part: _Part, iterations: list[int]) -> list[float]:
    unknown = [math.nan] * len(iterations)
    if not iterations or not part.parameters:
        return unknown
    solver = prototxt.caffe_pb2().SolverParameter()
    try:
        text_format.Parse(part.parameters, solver, allow_unknown_field=True)
        with np.errstate(all="ignore"):  # a rate may be inf, in Caffe too
            logged = policies.learning_rate(solver, list(part.rates))
            rates = policies.learning_rate(solver, iterations)
    except (text_format.ParseError, ValueError):
        return unknown
    if not all(agree(part.rates.values(), logged)):
        return unknown
    return [float(f"{rate:.6g}") for rate in rates]


def _named(result: _Result, others: Iterable[str]) -> Row:
    """A result's outputs by the names of their columns, given the names of others."""
    outputs = sorted(result.outputs.items())
    lengths = Counter((net, name) for (net, _), (name, _) in outputs)
    row: Row = {}
    written: Counter[tuple[int, str]] = Counter()
    for (net, _), (name, value) in outputs:
        column = f"output {name}" if name in (*others, "seconds") else name
        if net:
            column += f"#{net}"
        if lengths[net, name] > 1:
            column += f"[{written[net, name]}]"
            written[net, name] += 1
        row[column] = value
    return row
