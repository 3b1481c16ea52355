"""Reads a log of `caffe train`: losses and test results, each with the rate of its iteration.

The order of the lines is that of Caffe's solver.cpp and sgd_solver.cpp: the test of
iteration N comes first, then its loss and train outputs, then its rate. log_lines
describes the lines themselves.
"""

import copy
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caffe_clr import policies, prototxt
from caffe_clr.caffe_log import log_lines, parameters
from caffe_clr.caffe_log.log_lines import Closing, Iteration, Message, NetStart, Output, Start
from caffe_clr.errors import ClrError
from caffe_clr.runs import history
from caffe_clr.runs.history import History, Phase, Row
from caffe_clr.system.paths import StrPath

_HALF_A_YEAR = timedelta(days=180)
_LONGEST_EXAMPLE = 100
_LONGEST_VECTOR = 100  # of which each element is an output
_REMEDY = "give the file with the standard error of `caffe train`"


@dataclass(frozen=True)
class Printed:
    """The parameters that a solver printed when it started.

    Attributes:
        solver: the lines of its SolverParameter.
        nets: the lines of the NetParameter of each of its nets.
    """

    solver: list[str] = field(default_factory=list)
    nets: list[list[str]] = field(default_factory=list)


@dataclass(repr=False)
class Log(History):
    """The records in a log, and what was skipped.

    Attributes:
        not_understood: number of lines that look like results but cannot be read.
        example: the first of these lines, or empty.
        cut_off: number of truncated results.
        replaced: number of results that a later run in the log repeats.
        beside: number of results of other processes that ran at the same time.
        no_rate: the reason why rates are unknown; empty if none are.
        vectors: the lengths of the outputs that are skipped, because they have more than
            a hundred elements.
        printed: the parameters that the last solver printed.
    """

    not_understood: int = field(default=0, compare=False)
    example: str = field(default="", compare=False)
    cut_off: int = field(default=0, compare=False)
    replaced: int = field(default=0, compare=False)
    beside: int = field(default=0, compare=False)
    no_rate: str = field(default="", compare=False)
    vectors: dict[str, int] = field(default_factory=dict, compare=False)
    printed: Printed = field(default_factory=Printed, compare=False)

    @cached_property
    def solver(self) -> Any | None:
        """The last SolverParameter that is printed in the log.

        It has the fields that this Caffe knows and that can be read. None if the log has
        none.

        Raises:
            ClrError: the Caffe here lacks the first patch.
        """
        return _read_solver(self.printed)[0] if self.printed.solver else None

    @cached_property
    def nets(self) -> list[Any]:
        """The NetParameters of that solver that are printed in the log, in order.

        Each has the layers of its phase, state.phase. A net that a recurrent layer unrolls
        follows the net with that layer.

        Raises:
            ClrError: there is no Caffe.
        """
        return [_read_net("".join(lines)) for lines in self.printed.nets]

    @property
    def computed(self) -> int:
        """The number of rows with a rate that is computed, not logged."""
        return sum(int(row.get("lr_computed", 0)) for row in self.train + self.test)

    def warnings(self) -> list[str]:
        """Messages about rates that are unknown and results that were skipped."""
        unknown = sum(math.isnan(row["lr"]) for row in self.train + self.test)
        first = f"{self.not_understood:,}; the first: {self.example}"
        vectors = ", ".join(f"{name} ({length:,})" for name, length in self.vectors.items())
        counts = [
            (unknown, f"rows without a rate ({self.no_rate}): {unknown:,}"),
            (self.not_understood, f"lines that look like results but cannot be read: {first}"),
            (self.cut_off, f"skipped truncated results: {self.cut_off:,}"),
            (
                self.replaced,
                f"skipped results that a later run in the log repeats: {self.replaced:,}; to read"
                " an earlier run, give only its lines, up to the next Initializing solver from"
                " parameters",
            ),
            (self.beside, f"skipped results of other processes: {self.beside:,}"),
            (
                len(self.vectors),
                f"skipped outputs of more than {_LONGEST_VECTOR} elements: {vectors}",
            ),
        ]
        return [text for count, text in counts if count]


class _Rate(NamedTuple):
    lr: float
    momentum: float | None


@dataclass
class _Result:
    """What a thread logged of an iteration's training, or of its test.

    Attributes:
        outputs: by the numbers of net and output.
        closed: whether the solver went on after it.
    """

    seconds: float
    loss: float = math.nan
    outputs: dict[tuple[int, int], Output] = field(default_factory=dict)
    closed: bool = False


@dataclass
class _Part:
    """What a thread logged from a start or a resumption up to the next.

    Attributes:
        printed: what its solver printed.
        first: the number of the first of its lines.
        last: that of the last.
        rates: by iteration.
        results: by iteration and phase.
    """

    printed: Printed
    first: int
    last: int
    rates: dict[int, _Rate] = field(default_factory=dict)
    results: dict[tuple[int, Phase], _Result] = field(default_factory=dict)

    def begin(self) -> int:
        """Its first iteration."""
        return min(chain(self.rates, (iteration for iteration, _ in self.results)))

    def before(self, end: int) -> "_Part":
        """What it holds of the iterations before one."""
        return _Part(
            *(self.printed, self.first, self.last),
            {iteration: rate for iteration, rate in self.rates.items() if iteration < end},
            {key: result for key, result in self.results.items() if key[0] < end},
        )

    def ran_beside(self, other: "_Part") -> bool:
        """Whether it and another logged at the same time, for half of the shorter at least."""
        overlap = min(self.last, other.last) - max(self.first, other.first)
        shorter = min(self.last - self.first, other.last - other.first)
        return overlap >= 0 and 2 * overlap >= shorter


def read_log(path: StrPath) -> Log:
    """Read a log of `caffe train`, which may still be growing.

    Rows are ordered by iteration, with one row per iteration. Each has `iteration`, `lr`,
    the outputs by name, and `seconds` since the first line of the log. A train row also
    has the solver's `loss`, the mean over average_loss iterations; an output of the same
    name is called `output loss`. Other outputs have the names they have in the rows of a
    run. Elements of a vector, and the unnamed scores of early 2014, are called `x[0]`,
    `x[1]` and so on. `momentum` is there if it is logged.

    `lr` is the rate that is logged for the same iteration. If none is, it is computed from
    the solver parameters in the log, to six digits, provided that all parameters are known
    and give the logged rates; otherwise it is nan. If any rate is computed, all rows have
    `lr_computed`, which is 1 for computed rates and else 0.

    If a log holds several runs, each replaces earlier results from its own first iteration
    on. If processes ran at the same time, the one with the most results counts. Truncated
    results are skipped.

    Raises:
        ClrError: the file cannot be read or has no result of `caffe train`, or a rate has
            to be computed and there is no Caffe.
    """
    log, parts = _read_parts(Path(path))
    log.printed = parts[-1].printed if parts else log.printed
    found = [_rates(part, log) for part in parts]
    is_any_computed = any(is_computed for rates in found for _, is_computed in rates.values())
    for part, rates in zip(parts, found, strict=True):
        for (iteration, phase), result in sorted(part.results.items()):
            rate, is_computed = rates[iteration]
            row: Row = {"iteration": iteration, "lr": rate.lr}
            if is_any_computed:
                row["lr_computed"] = int(is_computed)
            if rate.momentum is not None:
                row["momentum"] = rate.momentum
            if phase is Phase.TRAIN:
                row["loss"] = result.loss
            outputs, vectors = _columns(result, phase)
            log.vectors |= vectors
            for column, output in outputs.items():
                row[column] = output.value
                if output.is_loss:
                    log.losses.add(column)
            row["seconds"] = result.seconds
            log.rows(phase).append(row)
    if not log.train and not log.test:
        raise ClrError(f"{path}: has no result of an iteration: {_remedy(log)}")
    return log


def read_rates(path: Path) -> dict[int, float]:
    """Read the logged rates by iteration, in order.

    Raises:
        ClrError: the file cannot be read or has no rate.
    """
    log, parts = _read_parts(path)
    rates = {iteration: rate.lr for part in parts for iteration, rate in sorted(part.rates.items())}
    if not rates:
        raise ClrError(f"{path}: has no learning rate: {_remedy(log)}")
    return rates


def agree(logged: Iterable[float], rates: Iterable[float], max_lr: float = 0) -> list[bool]:
    """Whether each logged rate equals the other one at the precision of a log.

    The sixth digit may differ by one. Half a float unit of max_lr is also allowed,
    because Caffe patched as in the paper's Appendix A rounds the position in the cycle
    to float.
    """
    return [
        _is_same(printed, float(f"{rate:.6g}"), abs(max_lr) * 2.0**-24)
        for printed, rate in zip(logged, rates, strict=True)
    ]


def _remedy(log: Log) -> str:
    """What to do about a log in which nothing is found, and what is in it nevertheless."""
    return "; ".join([f"{_REMEDY}, with display set", *log.warnings()])


def _is_same(printed: float, rate: float, rounding: float) -> bool:
    if not math.isfinite(printed) or not math.isfinite(rate):
        return str(printed) == str(rate)
    smaller = min(abs(printed), abs(rate))
    last_digit = 10.0 ** (math.floor(math.log10(smaller)) - 5) if smaller else 0
    return abs(printed - rate) <= 1.001 * last_digit + rounding


def _read_parts(path: Path) -> tuple[Log, list[_Part]]:
    """A Log without rows yet, and the parts that these are in, in order and without overlap."""
    reader, is_binary = _Reader(), False
    try:
        for line in log_lines.read(path):
            is_binary = is_binary or "\0" in line
            reader.read(line.replace("\0", ""))
    except OSError as error:
        raise ClrError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from None
    log = reader.log
    parts: list[_Part] = []
    for part in _without_those_beside(log, [_whole(log, part) for part in reader.parts]):
        before = [each.before(part.begin()) for each in parts]
        log.replaced += sum(len(each.results) for each in parts)
        log.replaced -= sum(len(each.results) for each in before)
        parts = [*before, part]
    if is_binary and not parts:
        raise ClrError(f"{path}: is binary, not a log: {_REMEDY}")
    return log, parts


@dataclass
class _Thread:
    """Where a thread is.

    Attributes:
        printed: by the solver that began in it, if one did.
        part: None until it logs something of an iteration, and when a solver begins in it.
        starts: how many solvers had begun, in whichever thread, when it logged that last.
        iteration: the iteration that it was.
        open: the result whose outputs may follow, with its phase and the number of its net.
    """

    clock: "_Clock"
    printed: Printed = field(default_factory=Printed)
    part: _Part | None = None
    starts: int = 0
    iteration: int = 0
    open: tuple[_Result, Phase, int] | None = None

    def close(self, starts: int) -> None:
        """The solver goes on after a result; but another may do that after it was cut off."""
        if self.open and starts == self.starts:
            self.open[0].closed = True


class _Reader:
    """Sorts the lines of a log into parts.

    Attributes:
        parts: in the order of their first lines.
        log: where lines that are not understood are counted.
    """

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.log = Log()
        self._number = 0  # of the line
        self._clock = _Clock()  # of the thread that logged last
        self._threads: dict[str, _Thread] = {}
        self._starts = 0
        self._printed = Printed()  # by the newest solver
        self._lines: list[str] = []  # of the parameters that are read
        self._head: str | None = None  # of these lines, while they are read

    def read(self, line: str) -> None:
        """Read one line. The last may be cut off."""
        self._number += 1
        messages = log_lines.split(line)
        for message in messages:
            self._read_message(message)
        if messages:
            return
        if self._head is not None:
            self._lines.append(log_lines.parameters_line(line, self._head))
        self._count_if_result(line)

    def _read_message(self, message: Message) -> None:
        self._head = None
        if message.thread not in self._threads:
            self._threads[message.thread] = _Thread(copy.copy(self._clock))
        thread = self._threads[message.thread]
        self._clock = thread.clock
        seconds = thread.clock.seconds(message.stamp)
        line = log_lines.recognise(message.text)
        if isinstance(line, Start):
            self._starts += 1
            self._printed = thread.printed = Printed()
            self._lines, self._head = self._printed.solver, message.head
            thread.part = thread.open = None
        elif isinstance(line, NetStart):
            self._lines, self._head = [], message.head
            (thread.printed if thread.printed.solver else self._printed).nets.append(self._lines)
        elif isinstance(line, Closing):
            thread.close(self._starts)
            thread.open = None
        elif isinstance(line, Iteration):
            self._read_iteration(line, thread, seconds)
        elif isinstance(line, Output) and thread.open and thread.open[1] == line.phase:
            result, _, net = thread.open
            result.outputs[net, line.number] = line
        else:
            self._count_if_result(message.text)

    def _read_iteration(self, line: Iteration, thread: _Thread, seconds: float) -> None:
        is_rate = line.net is None and line.loss is None
        # NVCaffe names its last iteration N + 1, and then the rate of N
        has_gone_back = line.iteration < thread.iteration - is_rate
        if thread.part is None or has_gone_back:
            printed = Printed(
                thread.printed.solver or self._printed.solver,
                thread.printed.nets or self._printed.nets,
            )
            thread.part = _Part(printed, self._number, self._number)
            thread.open = None
            self.parts.append(thread.part)
        thread.close(self._starts)
        thread.starts, thread.iteration = self._starts, line.iteration
        part = thread.part
        part.last = self._number
        if line.lr is not None:
            part.rates[line.iteration] = _Rate(line.lr, line.momentum)
        if is_rate:
            return
        phase = Phase.TRAIN if line.net is None else Phase.TEST
        result = part.results.setdefault((line.iteration, phase), _Result(seconds))
        result.closed = False
        if line.loss is not None:
            result.loss = line.loss
        thread.open = (result, phase, line.net or 0)

    def _count_if_result(self, text: str) -> None:
        if log_lines.looks_like_result(text):
            self.log.not_understood += 1
            example = text.strip()[:_LONGEST_EXAMPLE].replace(log_lines.CUT, " (cut off)")
            self.log.example = self.log.example or example


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


def _whole(log: Log, part: _Part) -> _Part:
    """A part without the results that were cut off, which are counted.

    One is whole if the solver went on after it, or if it has as many outputs as
    those after which it did. A test without outputs was interrupted.
    """
    outputs: dict[Phase, int] = {}
    for (_, phase), result in part.results.items():
        if result.closed:
            outputs[phase] = max(outputs.get(phase, 0), len(result.outputs))
    some = {
        key: result
        for key, result in part.results.items()
        if result.outputs or key[1] is Phase.TRAIN
    }
    whole = {
        key: result
        for key, result in some.items()
        if result.closed or len(result.outputs) >= outputs.get(key[1], math.inf)
    }
    log.cut_off += len(some) - len(whole)
    return _Part(part.printed, part.first, part.last, part.rates, whole)


def _without_those_beside(log: Log, parts: list[_Part]) -> list[_Part]:
    """Of the parts that were logged at the same time the one with the most results.

    The results of the others are counted. One of rates alone adds these.
    """
    kept: list[_Part] = []
    some = [part for part in parts if part.results or part.rates]
    for part in sorted(some, key=lambda part: (-len(part.results), -len(part.rates))):
        beside = [other for other in kept if part.ran_beside(other)]
        if not beside:
            kept.append(part)
        elif part.results:
            log.beside += len(part.results)
        else:
            for other in beside:
                other.rates = part.rates | other.rates
    return sorted(kept, key=lambda part: part.first)


def _rates(part: _Part, log: Log) -> dict[int, tuple[_Rate, bool]]:
    """The rates of all iterations of a part, and whether each is computed; else nan."""
    rates = {iteration: (rate, False) for iteration, rate in part.rates.items()}
    missing = sorted({iteration for iteration, _ in part.results} - rates.keys())
    if missing:
        computed, why_not = _computed(part, missing)
        log.no_rate = log.no_rate or why_not
        for iteration, lr in zip(missing, computed, strict=True):
            rates[iteration] = (_Rate(lr, None), not math.isnan(lr))
    return rates


def _computed(part: _Part, iterations: list[int]) -> tuple[list[float], str]:
    """The rates of iterations by the solver parameters in the log; nan, and why, if unsure."""
    unknown = [math.nan] * len(iterations)
    if not part.printed.solver:
        return unknown, "not logged, and the log has no solver parameters"
    solver, left_out = _read_solver(part.printed)
    logged = dict(sorted(part.rates.items()))
    try:
        with np.errstate(all="ignore"):  # a rate may be inf, in Caffe too
            scheduled = policies.learning_rate(solver, list(logged))
            rates = policies.learning_rate(solver, iterations)
    except ValueError as error:
        return unknown, f"not logged, and the schedule of the solver in the log is unknown: {error}"
    but = f"; its fields {', '.join(left_out)} are unknown here" if left_out else ""
    if not all(agree([rate.lr for rate in logged.values()], scheduled, solver.max_lr)):
        return unknown, f"not logged, and the logged ones differ from the solver in the log{but}"
    first, last = _vouched_for(list(logged)) if left_out else (-math.inf, math.inf)
    return (
        [
            float(f"{rate:.6g}") if first <= iteration <= last else math.nan
            for iteration, rate in zip(iterations, rates, strict=True)
        ],
        f"not logged, and the solver in the log does not determine it{but}",
    )


def _vouched_for(logged: list[int]) -> tuple[float, float]:
    """The first and the last iteration at which logged rates show what the schedule is.

    That is up to where the next would be: Caffe logs none at max_iter.
    """
    if len(logged) < 2:
        return math.inf, -math.inf
    return logged[0], 2 * logged[-1] - logged[-2]


def _read_solver(printed: Printed) -> tuple[Any, list[str]]:
    """A SolverParameter, and the names of its fields that are left out."""
    solver = prototxt.solver_parameter()()
    left_out = parameters.read("".join(printed.solver), solver)
    return solver, list(dict.fromkeys(left_out))


def _read_net(text: str) -> Any:
    net = prototxt.caffe_pb2().NetParameter()
    parameters.read(text, net)
    try:
        return prototxt.upgraded(net, "the net in the log")
    except ClrError:
        return net


def _columns(result: _Result, phase: Phase) -> tuple[dict[str, Output], dict[str, int]]:
    """A result's outputs by the names of their columns; the lengths of vectors that have none."""
    outputs = sorted(result.outputs.items(), key=lambda item: item[0])
    lengths = Counter((net, output.name) for (net, _), output in outputs)
    named: dict[str, Output] = {}
    vectors: dict[str, int] = {}
    written: Counter[tuple[int, str]] = Counter()
    for (net, _), output in outputs:
        name = output.name
        taken = name == "loss" and phase is Phase.TRAIN
        column = history.column("output loss" if taken else name, net)
        if lengths[net, name] > _LONGEST_VECTOR:
            vectors[column] = lengths[net, name]
            continue
        if lengths[net, name] > 1:
            column += f"[{written[net, name]}]"
            written[net, name] += 1
        named[column] = output
    return named, vectors
