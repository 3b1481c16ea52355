"""Reads the lines of a log of `caffe train`, from any build and through any pipe.

Builds add text before, between and after what BVLC's solver.cpp and sgd_solver.cpp print;
pipes, containers and terminals add more:

    I0627 13:02:47.1 100 solver.cpp:340] [0.0] Iteration 9 (6 iter/s), 4/12ep, loss = 1.3, 2 h left
    2020-06-27T13:02:47Z [3] I20200627 … sgd_solver.cpp:180] Iteration 9, lr = 0.1, momentum = 0.9

A number at the end of a truncated line does not count: 0.12 may be the rest of 0.125.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from caffe_clr.runs.history import Phase

_DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)  # it was cut off, or is none

_LONGEST_MESSAGE = 2000  # of those that tell a result
_LONGEST_HEAD = 200
CUT = "\0"  # ends a message that was cut off
_PARAMETERS = re.compile(r"(?:\[[\d.]{1,9}\] )?Initializing (solver|net) from parameters:")

# All repetitions are bounded: a line may be of any length.
_RANK = r"(\[\d{1,4}(?:,\d{1,4})?\])"  # of mpirun
_GLOG = re.compile(
    r"(?P<rank>\[\d{1,4}(?:,\d{1,4})?\](?:<std\w{3}>:? ?| ))?"  # of mpirun -l and --tag-output
    r"(?P<level>[IWEF])(?P<year>2\d{3})?(?P<month>0[1-9]|1[0-2])(?P<day>\d\d) {1,9}"
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d\.\d{1,9}) {1,9}"
    r"(?P<thread>\S{1,40}) [^\]]{1,300}:\d{1,9}\]"
)
# of Linux, and of Windows: 1.#QNAN, -1.#IND, 1.#INF, -nan(ind)
_NUMBER = (
    r"((?i:[-+]?(?:nan(?:\(\w{0,9}\))?|inf(?:inity)?|1\.#\w{1,9}|"
    r"\d{1,60}\.?\d{0,60}(?:e[-+]?\d{1,9})?)))"
    r"""(?=\Z|[,;)\]\\"']|\s{1,99}(?![\s\d.=]))"""
)
_ITERATION = re.compile(r"\bIteration (\d{1,18})(?: ?\([^()]{0,300}\))?,")
_TESTING = re.compile(r" ?Testing net(?: \(#(\d{1,9})\)|\Z)")
_LOSS = re.compile(rf"(?:\A|[,;]) ?loss ?[=:] ?{_NUMBER}")
_RATE = re.compile(rf"(?:\A|[,;]) ?lr ?[=:] ?{_NUMBER}")
_MOMENTUM = re.compile(rf"[,;] ?(?:momentum|m) ?[=:] ?{_NUMBER}")
_OUTPUT = re.compile(
    rf"\b(Train|Test) net output #(\d{{1,9}}): (.{{1,500}}?) = {_NUMBER}(\s{{0,9}}\(\\?\*)?"
)
_SCORE = re.compile(rf"\bTest score #(\d{{1,9}}): {_NUMBER}")  # early in 2014
_CLOSING = re.compile(r"\b(?:Snapshotting |Optimization )")
_RESULT = re.compile(
    r"\bIteration \d.{0,400}\b(?:loss|lr|learning rate)\b"
    r"|\bnet output #|\bTest score #|\bTesting net\b",
    re.IGNORECASE,
)
_TEXT_KEYS = ("log", "message", "MESSAGE")  # of docker, fluentd, journald
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]{0,99}[ -/]{0,9}[@-~]|\][^\x07\x1b]{0,999}(?:\x07|\x1b\\)|[@-Z\\^_])"
)


@dataclass(frozen=True)
class Message:
    """What glog wrote at once.

    Attributes:
        head: what a pipe put before it.
        stamp: glog's prefix, with month, day, hour, minute, second, and perhaps year.
        thread: the thread that logged it, and of which process if mpirun says so.
        text: the message, with CUT at its end if it was cut off.
    """

    head: str
    stamp: re.Match[str]
    thread: str
    text: str


@dataclass(frozen=True)
class Start:
    """A solver begins; its parameters follow."""


@dataclass(frozen=True)
class NetStart:
    """A net of the solver is made; its parameters follow."""


@dataclass(frozen=True)
class Closing:
    """Whatever shows that the solver went on after a result."""


@dataclass(frozen=True)
class Iteration:
    """What is said of an iteration: a loss, a rate, that a test begins, or several of them."""

    iteration: int
    net: int | None
    loss: float | None
    lr: float | None
    momentum: float | None


@dataclass(frozen=True)
class Output:
    """The value of an output of a net; whether it is known to be a loss, since it has a weight."""

    phase: Phase
    number: int
    name: str
    value: float
    is_loss: bool


Line = Start | NetStart | Closing | Iteration | Output


def read(path: Path) -> Iterator[str]:
    """The lines of a log: compressed by gzip or not, in UTF-8 or UTF-16, without escapes or JSON.

    Each but the last ends with a newline; the last may have been cut off.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        is_compressed = file.peek(2)[:2] == b"\x1f\x8b"
        binary = gzip.GzipFile(fileobj=file) if is_compressed else file
        try:
            is_utf_16 = binary.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
            encoding = "utf-16" if is_utf_16 else "utf-8-sig"
            with io.TextIOWrapper(binary, encoding, errors="replace") as text:
                for line in _unwrapped(list(text)) if is_utf_16 else text:
                    line = _unpacked(line)
                    yield _ESCAPES.sub("", line) if "\x1b" in line else line
        except _DAMAGED_GZIP:
            return


def split(line: str) -> list[Message]:
    """The messages in a line; several where one was cut off and the next follows on it."""
    stamps = list(_GLOG.finditer(line))
    ends = [stamp.start() for stamp in stamps[1:]] + [len(line)] * bool(stamps)
    messages = []
    for stamp, end in zip(stamps, ends, strict=True):
        text = line[stamp.end() : min(end, stamp.end() + _LONGEST_MESSAGE)]
        begin = stamp.start("level")
        messages.append(
            Message(
                head=line[max(0, begin - _LONGEST_HEAD) : begin],
                stamp=stamp,
                thread=(stamp["rank"] or "") + stamp["thread"],
                text=text.strip() if text.endswith("\n") else text.strip() + CUT,
            )
        )
    return messages


def recognise(text: str) -> Line | None:
    """What a message says of the training; None if nothing, or nothing that is understood."""
    if begun := _PARAMETERS.match(text):
        return Start() if begun[1] == "solver" else NetStart()
    if output := _OUTPUT.search(text):
        if text.endswith(CUT) and not output[5]:
            return None
        phase = Phase(output[1].lower())
        return Output(phase, int(output[2]), output[3], _value(output[4]), bool(output[5]))
    if score := _SCORE.search(text):
        return Output(Phase.TEST, int(score[1]), "score", _value(score[2]), False)
    if begin := _ITERATION.search(text):
        rest = text[begin.end() :]
        testing = _TESTING.match(rest)
        loss, lr, momentum = (
            _value(found[1]) if (found := pattern.search(rest)) else None
            for pattern in (_LOSS, _RATE, _MOMENTUM)
        )
        net = int(testing[1] or 0) if testing else None
        if lr is not None and text.endswith(CUT):
            return None  # the momentum may be what was cut off
        if (net, loss, lr) != (None, None, None):
            return Iteration(int(begin[1]), net, loss, lr, momentum)
    return Closing() if _CLOSING.search(text) else None


def looks_like_result(text: str) -> bool:
    """Whether a line that is not understood may hold a result."""
    return bool(_RESULT.search(text[:_LONGEST_MESSAGE]))


def parameters_line(line: str, head: str) -> str:
    """A line of a solver's or net's parameters, without what a pipe put before it.

    It is empty where another process of mpirun wrote it.

    Args:
        head: what it put before the line at which the parameters start; a time
            stamp has other digits here.
    """
    pattern, ranks = _head(head)
    begin = pattern.match(line)
    if begin is None:
        return line
    return line[begin.end() :] if list(begin.groups()) == ranks else ""


@lru_cache
def _head(head: str) -> tuple[re.Pattern[str], list[str]]:
    """What a pipe puts before a line, with any digits; and the ranks in it, which are groups."""
    others, ranks = (re.split(_RANK, head)[begin::2] for begin in (0, 1))
    patterns = (re.sub(r"\d+", r"\\d+", re.escape(other)) for other in others)
    return re.compile(_RANK.join(patterns)), ranks


def _unpacked(line: str) -> str:
    """What a container's logger packed into a line of JSON; any other line as it is."""
    begin = line.find("{")
    if begin < 0 or not any(f'"{key}"' in line for key in _TEXT_KEYS):
        return line
    try:
        entry = json.loads(line[begin:])
    except (ValueError, RecursionError):
        return line  # it is cut off
    texts = (entry[key] for key in _TEXT_KEYS if isinstance(entry.get(key), str))
    text = next(texts, line).removesuffix("\n").encode(errors="replace").decode()
    return text + "\n" * line.endswith("\n")


def _unwrapped(lines: list[str]) -> Iterator[str]:
    """The lines of what PowerShell wrote, which wraps errors at the width of its window."""
    width = max(map(len, lines), default=0)
    whole = ""
    was_full = False
    for line in lines:
        if whole and (not was_full or _GLOG.search(line)):
            yield whole
            whole = ""
        whole = whole.removesuffix("\n") + line
        was_full = len(line) == width
    if whole:
        yield whole


def _value(number: str) -> float:
    """The value of a number as C++ prints it, on Windows as well."""
    lower = number.lower()
    if "inf" in lower:
        return float("-inf") if lower.startswith("-") else float("inf")
    return float("nan") if "nan" in lower or "#" in lower else float(lower)
