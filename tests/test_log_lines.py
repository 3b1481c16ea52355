"""That the lines of every build are understood: made-up logs, of which the rows are known."""

import gzip
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_clr.caffe_log import log_lines, reader
from caffe_clr.errors import ClrError

Row = dict[str, float]
Key = tuple[str, int]  # train or test, and the iteration

STAMP = "I0627 13:02:47.000000   100 solver.cpp:237] "


@dataclass(frozen=True)
class Build:
    """How a build of Caffe writes: {i} is the iteration, {v} a value, {n} a number."""

    loss: str = "Iteration {i}, loss = {v}"
    rate: str = "Iteration {i}, lr = {v}"
    testing: str = "Iteration {i}, Testing net (#0)"
    output: str = "    {phase} net output #{n}: {name} = {v}"
    is_rate_first: bool = False
    has_momentum: bool = False
    nan: str = "nan"
    infinity: str = "inf"
    field: str = ""  # of the solver, that Caffe does not have
    stamp: str = "I0627 13:{m:02}:{s:02}.123456 {t:5} solver.cpp:237] "


NVCAFFE = "[0.0] Iteration {i}, lr = {v}, m = {m}, lrm = 0.1, wd = 0.0004, gs = 1"
BUILDS = (
    Build(),
    Build(
        testing="Iteration {i}, Testing net",
        output="Test score #{n}: {v}",
        is_rate_first=True,
    ),
    Build(loss="Iteration {i} (6.01 iter/s, 16.6s/100 iters), loss = {v}"),
    Build(rate="Iteration {i} (241.076/s), lr = {v}"),
    Build(rate="Iteration {i}, lr = {v}, momentum = {m}, weight decay = 0.0001", has_momentum=True),
    Build(
        loss="Iteration {i} (0.805844 s), loss = {v}",
        rate="Iteration {i}, lr = {v}, m = {m}, wd = 0.0005, gs = 1",
        has_momentum=True,
        field="rampup_lr: 0.1",
    ),
    Build(
        loss="    [0.0] Iteration {i} (16.6 iter/s, 5.9s/100 iter), 4.1/12ep, loss = {v}",
        rate=NVCAFFE,
        output="    [0.0]     {phase} net output #{n}: {name} = {v}",
        has_momentum=True,
        field="min_lr: 0.001",
    ),
    Build(
        loss="Iteration {i} (0.1 iter/s, 6s/9 iter), loss = {v}, remaining 2 hours and 14 minutes"
    ),
    Build(nan="1.#QNAN", infinity="1.#INF"),
    Build(nan="-1.#IND", infinity="-1.#INF"),
    Build(nan="-nan(ind)"),
    Build(stamp="I20230627 13:{m:02}:{s:02}.123456 {t} solver.cpp:237] "),
    Build(stamp="[5] I0627 13:{m:02}:{s:02}.123456 {t:5} solver.cpp:237] "),
    Build(stamp="[1,0]<stderr>:I0627 13:{m:02}:{s:02}.123456 {t:5} solver.cpp:237] "),
    Build(stamp="I0627 13:{m:02}:{s:02}.123456 0x7fff{t} D:\\a b\\solver.cpp:237] "),
)
# what a pipe puts before each line
PIPES: tuple[Callable[[int], str], ...] = (
    lambda line: "",
    lambda line: f"2024-06-27T13:02:{line % 60:02}.{line % 7}Z ",
    lambda line: f"Jun 27 13:02:{line % 60:02} ",
    lambda line: f"[{1_498_568_560 + line}] ",
    lambda line: "trainer_1  | ",
    lambda line: "\x1b[36mtrainer_1 |\x1b[0m ",
    lambda line: "Jun 27 13:02:40 host caffe[4107]: ",
)
NOISE = (
    "Restarting data prefetching from start.",
    "Ignoring source layer accuracy",
    "MultiStep Status: Iteration 20000, step = 1",
    "Test loss: 0.3",
    "iter 22, forward_backward_update_time: 126 ms",
    "Gradient clipping: scaling down gradients (L2 norm 40 > 35) by scale factor 0.875",
)
CODECS: tuple[Callable[[str], bytes], ...] = (
    lambda text: text.encode(),
    lambda text: text.encode("utf-8-sig"),
    lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    lambda text: text.encode("utf-16-le"),
    lambda text: gzip.compress(text.encode(), mtime=0),
)


@dataclass
class Written:
    """A row that is in a log.

    Attributes:
        end: how long the log is when a line has shown that the row is whole.
        replaced: how long it is when a run begins that goes back before the row.
    """

    row: Row
    end: float = math.inf
    replaced: float = math.inf


@dataclass
class Made:
    """A log, and what is in it."""

    text: str = ""
    rows: dict[Key, list[Written]] = field(default_factory=dict)

    def valid(self) -> dict[Key, Row]:
        """The rows that no later run replaces."""
        return {
            key: rows[-1].row for key, rows in self.rows.items() if rows[-1].replaced == math.inf
        }


class Maker:
    """Writes made-up runs, one after the other, with random values."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.made = Made()
        self.lines = 0
        self.pipe = chance.choice(PIPES)
        self.newline = chance.choice(("\n", "\r\n"))
        self.open: list[Written] = []  # the results that the next line of the solver closes

    def write(self, text: str) -> None:
        self.lines += 1
        self.made.text += self.pipe(self.lines) + text + self.newline

    def log(self, build: Build, thread: int, text: str) -> None:
        stamp = build.stamp.format(m=self.lines // 60 % 60, s=self.lines % 60, t=thread)
        self.write(stamp + text)

    def solver(self, build: Build, thread: int, text: str) -> None:
        """A line that shows that the results before it are whole."""
        while self.chance.random() < 0.15:
            self.log(build, thread + self.chance.choice((0, 1)), self.chance.choice(NOISE))
        while self.chance.random() < 0.05:
            self.write(self.chance.choice(("", "a line of a script's own")))
        self.log(build, thread, text)
        for written in self.open:
            written.end = len(self.made.text)
        self.open = []

    def value(self, build: Build) -> tuple[str, float]:
        """A number as it is printed, and its value."""
        if self.chance.random() < 0.1:
            return build.nan, math.nan
        if self.chance.random() < 0.05:
            return build.infinity, -math.inf if build.infinity.startswith("-") else math.inf
        number = f"{self.chance.uniform(-1, 9) * 10 ** self.chance.randint(-7, 7):.6g}"
        return number, float(number)

    def run(self, build: Build, first: int, count: int) -> int:
        """A run that displays and tests every 10 iterations; returns where the next would be."""
        for key, rows in self.made.rows.items():
            if key[1] >= first:
                rows[-1].replaced = min(rows[-1].replaced, len(self.made.text))
        thread = 100 + 10 * self.lines
        self.open = []
        rate = f"{self.chance.uniform(0, 1):.6g}"
        self.log(build, thread, "Initializing solver from parameters: ")
        for line in (f"base_lr: {rate}", 'lr_policy: "fixed"', build.field):
            self.write(line)
        self.log(build, thread, "Creating training net from net file: net.prototxt")
        weights = [self.chance.choice((None, "1", "0.1")) for _ in range(self.chance.randint(1, 3))]
        for iteration in range(first, first + 10 * count, 10):
            momentum = self.chance.choice(("0.9", "0.95", "0.85"))
            row: Row = {"iteration": iteration, "lr": float(rate)}
            if build.has_momentum:
                row["momentum"] = float(momentum)
            self.result(build, thread, "Test", row, weights)
            words = {"i": iteration, "v": rate, "m": momentum}
            if build.is_rate_first:
                self.solver(build, thread, build.rate.format(**words))
            self.result(build, thread, "Train", row, weights)
            if not build.is_rate_first:
                self.solver(build, thread, build.rate.format(**words))
            if self.chance.random() < 0.3:
                self.solver(build, thread, "Snapshotting to binary proto file a.caffemodel")
        self.solver(build, thread, "Optimization Done.")
        return first + 10 * count

    def result(
        self, build: Build, thread: int, phase: str, others: Row, weights: list[str | None]
    ) -> None:
        iteration = int(others["iteration"])
        key = (phase.lower(), iteration)
        row = dict(others)
        if phase == "Test":
            self.solver(build, thread, build.testing.format(i=iteration))
        else:
            text, row["loss"] = self.value(build)
            self.solver(build, thread, build.loss.format(i=iteration, v=text))
        is_score = build.output.startswith("Test score")
        for number, weight in enumerate(weights if phase == "Test" or not is_score else []):
            text, value = self.value(build)
            name = f"out/{number}"
            line = build.output.format(phase=phase, n=number, name=name, v=text)
            if weight and not is_score:
                line += f" (* {weight} = {text} loss)"
            if is_score:
                name = f"score[{number}]" if len(weights) > 1 else "score"
            row[name] = value
            self.log(build, thread, line)
        self.open.append(Written(row))
        self.made.rows.setdefault(key, []).append(self.open[-1])


def make(chance: random.Random) -> Made:
    maker = Maker(chance)
    following = 0
    for build in chance.sample(BUILDS, chance.randint(1, 4)):
        first = chance.randrange(0, following + 1, 10) if chance.random() < 0.3 else following
        following = maker.run(build, first, chance.randint(1, 4))
    return maker.made


def read(path: Path, content: bytes) -> tuple[dict[Key, Row], reader.Log]:
    path.write_bytes(content)
    try:
        log = reader.read_log(path)
    except ClrError:
        log = reader.Log()
    both = (("train", log.train), ("test", log.test))
    return {(kind, int(row["iteration"])): row for kind, rows in both for row in rows}, log


def texts(row: Row) -> dict[str, str]:
    """The values of a row, nan equal to nan, without those that a log does not print."""
    unprinted = ("seconds", "lr_computed")
    return {name: str(float(value)) for name, value in row.items() if name not in unprinted}


def is_true(row: Row, truth: Row) -> bool:
    """Whether a row is the one that was written; its rate may not have been written yet."""
    found, true = texts(row), texts(truth)
    if found == true:
        return True
    is_rate_missing = found["lr"] == "nan" or row.get("lr_computed")
    true.pop("momentum", None)
    if found["lr"] == "nan":
        true["lr"] = "nan"
    return bool(is_rate_missing) and found == true


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "a.log"


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_row_is_found_and_no_other(seed: int, path: Path) -> None:
    chance = random.Random(seed)
    made = make(chance)
    found, log = read(path, chance.choice(CODECS)(made.text))
    valid = made.valid()
    assert found.keys() == valid.keys()
    for key, row in valid.items():
        assert texts(found[key]) == texts(row)
    assert (log.not_understood, log.cut_off, log.beside) == (0, 0, 0)
    assert log.replaced == sum(map(len, made.rows.values())) - len(valid)


@pytest.mark.usefixtures("tree")
@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_log_that_is_cut_anywhere_has_its_whole_rows_and_no_false_one(
    seed: int, path: Path
) -> None:
    chance = random.Random(seed)
    made = make(chance)
    encode = chance.choice(CODECS)
    content = encode(made.text)
    cut = chance.randrange(len(content))
    found, _ = read(path, content[:cut])
    for key, row in found.items():
        assert any(is_true(row, written.row) for written in made.rows[key])
    if content[:2] == b"\x1f\x8b":
        return
    whole = made.text
    while whole and len(encode(whole)) > cut:
        whole = whole[: whole.rfind("\n", 0, -1) + 1]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        whole = whole[: whole.rfind("\n", 0, -1) + 1]  # the last line may be one that was wrapped
    for key, rows in made.rows.items():
        for written in rows:
            if written.end <= len(whole):
                is_replaced = len(encode(made.text[: _int(written.replaced)])) <= cut
                assert key in found or is_replaced


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_of_processes_at_the_same_time_one_is_read(seed: int, path: Path) -> None:
    """As of mpirun: each logs other values, and none waits for the others."""
    chance = random.Random(seed)
    build = chance.choice(BUILDS[:3])
    processes = []
    for rank in range(chance.randint(2, 4)):
        maker = Maker(chance)
        maker.pipe, maker.newline = PIPES[0], "\n"
        maker.run(build, 0, chance.randint(3, 6))
        processes.append((maker.made, [f"[{rank}] {x}\n" for x in maker.made.text.splitlines()]))
    lines: list[str] = []
    left = [list(text) for _, text in processes]
    while any(left):
        done = [1 - len(rest) / len(text) for rest, (_, text) in zip(left, processes, strict=True)]
        near = [
            rest for rest, share in zip(left, done, strict=True) if share < min(min(done) + 0.2, 1)
        ]
        lines.append(chance.choice(near).pop(0))
    found, log = read(path, "".join(lines).encode())
    most = max(len(made.rows) for made, _ in processes)
    assert any(
        len(made.rows) == most and all(is_true(found[key], made.rows[key][0].row) for key in found)
        for made, _ in processes
    )
    assert len(found) == most
    assert log.beside == sum(len(made.rows) for made, _ in processes) - most


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.3", "2.3"),
        ("-1e-05", "-1e-05"),
        ("1e-005", "1e-05"),
        ("-nan", "nan"),
        ("NaN", "nan"),
        ("nan(snan)", "nan"),
        ("-nan(ind)", "nan"),
        ("1.#QNAN", "nan"),
        ("-1.#IND00", "nan"),
        ("1.#INF", "inf"),
        ("-1.#INF", "-inf"),
        ("-inf", "-inf"),
    ],
)
@pytest.mark.parametrize("end", ["", ", 3 h left", " (best)", '\\n","stream":"stderr"}'])
def test_a_number_is_one_on_any_system_and_before_any_text(text: str, value: str, end: str) -> None:
    for line in (
        f"Iteration 7, loss = {text}{end}",
        f"[0.0] Iteration 7 (6 iter/s), 4/12ep, lr: {text}{end}",
        f"    Test net output #3: a b = {text}{end}",
        f"Test score #3: {text}{end}",
    ):
        found = log_lines.recognise(line)
        assert found is not None
        values = {str(getattr(found, name, None)) for name in ("loss", "lr", "value")}
        assert values == {value, "None"}


@pytest.mark.parametrize(
    "line",
    [
        "Iteration 120, loss = 2.302585",
        "Iteration 120 (6.01 iter/s, 16.6s/100 iters), loss = -1.5e-05",
        "Iteration 120, lr = 0.0125, momentum = 0.85, weight decay = 0.0001",
        "Test net output #12: accuracy = 0.91981",
        "Train net output #12: loss = 2.3125 (* 0.125 = 0.289 loss)",
        "Test score #12: 0.91981",
        "Iteration 120, Testing net (#12)",
    ],
)
def test_what_may_be_the_beginning_of_a_number_is_none(line: str) -> None:
    whole = log_lines.recognise(line)
    for end in range(len(line)):
        found = log_lines.recognise(line[:end] + log_lines.CUT)
        assert found in (None, whole)
    assert log_lines.recognise(line + " ") == whole


def test_lines_that_are_not_understood_are_counted_and_one_is_shown(path: Path) -> None:
    whole = f"{STAMP}Iteration 0, loss = 2\n{STAMP}Iteration 0, lr = 1\n"
    for text in (
        "Iteration 7, loss = 7\n",
        f"{STAMP}Iteration 7 of 10: loss 7\n",
        f"{STAMP}Testing net\n",
        f"{STAMP}    Test net output #0: accuracy = 0.5\n",
        f"{STAMP}    Train net output #0: accuracy = 0      .5\n",
        f"{STAMP}Iteration 7, loss = 0.2",
        f"{STAMP}Iteration 7, loss = 0.2{STAMP}Solving\n",
    ):
        found, log = read(path, (whole + text).encode())
        assert found.keys() == {("train", 0)}
        assert log.not_understood == 1
        shown = text.removesuffix(f"{STAMP}Solving\n").removeprefix(STAMP).strip()
        if "0.2" in text:
            shown += " (cut off)"
        assert log.warnings() == [
            f"lines that look like results but cannot be read: 1; the first: {shown}"
        ]
        path.write_text(text)
        with pytest.raises(ClrError, match="lines that look like results but cannot be read: 1; "):
            reader.read_log(path)


def test_lines_of_any_length_are_read(path: Path) -> None:
    length = 400_000
    whole = f"{STAMP}Iteration 0, loss = 2\n{STAMP}Iteration 0, lr = 1\n"
    pieces = (
        "a",
        "1",
        " ",
        "[",
        STAMP,
        "Iteration 1, ",
        "Iteration 1 (",
        " = 1",
        "\x1b[",
        "loss = ",
    )
    heads = ("", STAMP, f"{STAMP}Train net output #0: ", f"{STAMP}Iteration 1,")
    lines = [head + piece * (length // len(piece)) for head in heads for piece in pieces]
    found, _ = read(path, (whole + "\n".join(lines) + "\n").encode())
    assert found[("train", 0)]["loss"] == 2


@pytest.mark.parametrize("width", [60, 79, 120])
def test_what_powershell_wrapped_is_put_together(width: int, path: Path) -> None:
    made = make(random.Random(width))
    lines: list[str] = []
    for line in made.text.splitlines():
        lines += [line[i : i + width] for i in range(0, max(1, len(line)), width)]
    lines.append("-" * width)
    found, _ = read(path, ("\r\n".join(lines) + "\r\n").encode("utf-16"))
    assert {key: texts(row) for key, row in found.items()} == {
        key: texts(row) for key, row in made.valid().items()
    }


def test_a_log_of_docker_in_json_is_read(path: Path) -> None:
    text = "".join(
        f'{{"log":"{STAMP}{line}\\n","stream":"stderr","time":"2018-06-27T13:02:47.1Z"}}\n'
        for line in (
            "Iteration 0, loss = 2.5",
            "    Train net output #0: a = 3",
            "Iteration 0, lr = 1",
        )
    )
    found, _ = read(path, text.encode())
    assert texts(found["train", 0]) == {"iteration": "0.0", "lr": "1.0", "loss": "2.5", "a": "3.0"}


def _int(end: float) -> int | None:
    return None if end == math.inf else int(end)
