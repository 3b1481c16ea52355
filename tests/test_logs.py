"""What is read of logs that `caffe train` wrote, whole, cut, resumed and of other versions."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from caffe_clr import policies, prototxt
from caffe_clr.caffe_log import reader
from caffe_clr.caffe_log.reader import Log
from caffe_clr.cli.log_summary import default_folder, show_log
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import plots
from caffe_clr.runs import output_kinds
from caffe_clr.runs.history import History
from caffe_clr.system import installed_caffe

NET = """
layer {
  name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 8 dim: 4 } shape { dim: 8 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 }
  }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
layer {
  name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label"
  top: "accuracy" top: "of_class" include { phase: TEST }
}
"""
# displays at 0, 10, …, 60, tests at 0, 15, …, 60
SOLVER = """
net: "net.prototxt" lr_policy: "triangular2" base_lr: 0.001 max_lr: 0.016 stepsize: 7
max_iter: 60 display: 10 average_loss: 3 test_iter: 2 test_iter: 1 test_interval: 15
snapshot: 25 snapshot_prefix: "run" snapshot_after_train: false random_seed: 3 solver_mode: CPU
"""
DIVERGING_NET = """
layer {
  name: "data" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 2 dim: 2 } data_filler { type: "gaussian" } }
}
layer {
  name: "product" type: "InnerProduct" bottom: "data" top: "product"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "product" bottom: "data" top: "loss" }
"""
OTHER_LINES = "\nI am no line of glog's\nIteration 7, loss = 7\nI9999 Iteration 8, lr = 1\n"


def caffe_train(tree: Tree, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [tree.caffe, "train", "--solver=solver.prototxt", *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def folder(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the solver, its net, the snapshot of iteration 25, and train.log."""
    folder = tmp_path_factory.mktemp("logged")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "train.log").write_text(caffe_train(tree, folder))
    return folder


@pytest.fixture(scope="module")
def log(folder: Path) -> str:
    return (folder / "train.log").read_text()


@pytest.fixture(scope="module")
def whole(folder: Path) -> Log:
    return reader.read_log(folder / "train.log")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Log]:
    """Reads a text as a log."""

    def read(text: str) -> Log:
        (tmp_path / "a.log").write_text(text)
        return reader.read_log(tmp_path / "a.log")

    return read


def column(rows: list[dict[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows]


def without_seconds(history: History) -> tuple[list[dict[str, float]], ...]:
    return tuple(
        [{name: row[name] for name in row if name != "seconds"} for row in rows]
        for rows in (history.train, history.test)
    )


def as_logged(folder: Path, iterations: list[float]) -> list[float]:
    solver = prototxt.read_solver(folder / "solver.prototxt")
    return [float(f"{rate:.6g}") for rate in policies.learning_rate(solver, iterations)]


def results_alone(log: str) -> str:
    return "".join(re.findall(r"(?m)^I.*(?:\] Iteration|net output|\] Optim).*\n", log))


def test_every_value_that_caffe_logged_is_in_its_row(log: str, whole: History) -> None:
    assert column(whole.train, "iteration") == list(range(0, 61, 10))
    assert column(whole.test, "iteration") == list(range(0, 61, 15))
    losses = re.findall(r"Iteration \d+.*, loss = (\S+)", log)
    assert column(whole.train, "loss") == [float(loss) for loss in losses]
    raw = re.findall(r"Train net output #0: loss = (\S+)", log)
    # where training has ended, there is a loss and no output
    assert column(whole.train[:-1], "output loss") == [float(loss) for loss in raw]
    assert column(whole.train[3:-1], "output loss") != column(whole.train[3:-1], "loss")
    for number, text in enumerate(log.split("Testing net")[1:]):
        suffix = "#1" if number % 2 else ""
        names = [f"{name}{suffix}" for name in ("accuracy", "loss", "of_class")]
        names[2:] = [f"{names[2]}[{element}]" for element in range(3)]
        values = re.findall(r"Test net output #\d: \w+ = (\S+)", text)
        row = whole.test[number // 2]
        assert [(name, row[name]) for name in names] == [
            (name, float(value)) for name, value in zip(names, values, strict=True)
        ]
    assert list(whole.test[0])[:4] == ["iteration", "lr", "lr_computed", "accuracy"]
    names = ["iteration", "lr", "lr_computed", "loss", "output loss", "seconds"]
    assert list(whole.train[0]) == names


def test_every_rate_is_that_of_its_iteration(folder: Path, log: str, whole: History) -> None:
    logged = {int(i): float(lr) for i, lr in re.findall(r"Iteration (\d+), lr = (\S+)", log)}
    assert reader.read_rates(folder / "train.log") == logged
    for rows in (whole.train, whole.test):
        iterations = column(rows, "iteration")
        assert column(rows, "lr") == as_logged(folder, iterations)
        assert column(rows, "lr_computed") == [iteration not in logged for iteration in iterations]


def test_a_rate_that_is_not_logged_and_not_certain_is_nan(
    folder: Path, log: str, read: Callable[[str], Log]
) -> None:
    unlogged = [15, 45, 60]
    for text in (
        log.replace("Initializing solver from parameters", "Starting"),
        log.replace("max_lr: 0.016", "max_lr: 0.017"),
        log.replace('lr_policy: "triangular2"', 'lr_policy: "of my own"'),
        log.replace('lr_policy: "triangular2"', "lr_policy: triang"),
    ):
        assert text != log
        rows = read(text).test
        assert [row["iteration"] for row in rows if math.isnan(row["lr"])] == unlogged
        assert [row["lr"] for row in rows if row["iteration"] == 30] == as_logged(folder, [30])


def test_a_rate_that_is_not_known_is_no_divergence(log: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(log.replace("Initializing solver", "Starting"))
    told = shown(tmp_path / "a.log", tmp_path / "out")
    assert "First lost" not in told
    assert "warning: rows without a rate (not logged, and the log has no" in told


FORK = """\
eval_type: "detection"
solver_mode: XPU
ratios: 0.5
ratios: 2
meter {
  name: "lr }"
  inner { base_lr: 9 }
}
net_param: 7
"""


def test_a_solver_of_another_caffe_gives_the_rates_that_the_logged_ones_vouch_for(
    log: str, whole: Log, read: Callable[[str], Log]
) -> None:
    forked = log.replace("max_lr: 0.016\n", f"max_lr: 0.016\n{FORK}")
    history = read(forked)
    assert without_seconds(history) == without_seconds(whole)
    assert history.warnings() == []
    names = "eval_type, solver_mode, ratios, meter, net_param"
    for other in (
        forked.replace("Iteration 0, lr = 0.001", "Iteration 0, lr = 0.0002"),  # it ramps up
        re.sub(r"Iteration (\d+), lr = ", r"Iteration \1, rate ", forked),
        re.sub(r"Iteration ([1-9]\d+), lr = ", r"Iteration \1, rate ", forked),
    ):
        history = read(other)
        assert all(math.isnan(history.test[number]["lr"]) for number in (1, 3, 4))
        assert f"its fields {names} are unknown here" in "".join(history.warnings())
        assert history.computed == 0
    history = read(re.sub(r"Iteration ([45]0), lr = ", r"Iteration \1, rate ", forked))
    # logged up to 30, 40 is as far on as 20 is back
    assert list(map(math.isnan, column(history.test, "lr"))) == [False] * 3 + [True] * 2
    assert list(map(math.isnan, column(history.train, "lr"))) == [False] * 5 + [True] * 2
    assert f"does not determine it; its fields {names} are unknown" in history.warnings()[0]


PIPED: dict[str, Callable[[int, str], str]] = {
    "docker": lambda second, line: json.dumps(
        {"log": f"{line}\n", "stream": "stderr", "time": f"2024-06-27T13:02:{second:02}.12Z"}
    ),
    "fluentd": lambda second, line: (
        f"2024-06-27T13:02:{second:02}+00:00\tcaffe\t"
        + json.dumps({"container_name": "/caffe", "source": "stderr", "log": line})
    ),
    "kubectl": lambda second, line: f"2024-06-27T13:02:{second:02}.{7**second}Z {line}",
    "CRI": lambda second, line: f"2024-06-27T13:02:{second:02}.{7**second}+02:00 stderr F {line}",
    "mpirun": lambda second, line: f"[1,0]<stderr>:{line}",
    "syslog": lambda second, line: f"Jun 27 13:02:{second:02} host caffe[4107]: {line}",
}


@pytest.mark.parametrize("pipe", PIPED)
def test_a_log_says_the_same_through_any_pipe(
    pipe: str, log: str, whole: Log, read: Callable[[str], Log]
) -> None:
    text = log.replace('snapshot_prefix: "run"', 'snapshot_prefix: "a \\"b\\" \\321\\320"')
    assert text != log
    lines = enumerate(text.splitlines())
    piped = read("".join(f"{PIPED[pipe](number % 60, line)}\n" for number, line in lines))
    assert piped == whole
    assert piped.warnings() == []
    assert piped.nets == whole.nets
    assert piped.solver is not None
    assert piped.solver.snapshot_prefix == 'a "b" \ufffd\ufffd'
    assert list(piped.solver.test_iter) == [2, 1]


def test_the_parameters_are_those_of_the_rank_that_is_read(
    log: str, whole: Log, read: Callable[[str], Log]
) -> None:
    both = "".join(
        f"[1,0]<stderr>:{line}\n"
        + ("" if re.match(r"[IWEF]\d", line) else f"[1,1]<stderr>:{line}\n")
        for line in log.splitlines()
    )
    found = read(both)
    assert found == whole
    assert found.nets == whole.nets
    assert found.solver == whole.solver


def test_the_solver_and_the_nets_are_those_that_caffe_printed(
    folder: Path, whole: Log, log: str, read: Callable[[str], Log]
) -> None:
    solver = prototxt.read_solver(folder / "solver.prototxt")
    assert whole.solver is not None
    for name in ("lr_policy", "stepsize", "average_loss", "test_interval"):
        assert getattr(whole.solver, name) == getattr(solver, name)
    test = prototxt.caffe_pb2().TEST
    assert [net.state.phase == test for net in whole.nets] == [False, True, True]
    layers = ["data", "scores", "loss"]
    assert [[layer.name for layer in net.layer] for net in whole.nets] == [
        layers,
        [*layers, "accuracy"],
        [*layers, "accuracy"],
    ]
    assert whole.nets[1].layer[3].accuracy_param.top_k == 1
    # a second run takes the place of the first
    for text in (log + log, log.replace("  phase: TEST", '  phase: TEST\n  device: "a { b"')):
        assert read(text).nets == whole.nets
    without = read(results_alone(log))
    assert (without.solver, without.nets) == (None, [])


def test_a_net_of_2014_is_upgraded(log: str, read: Callable[[str], Log]) -> None:
    old = re.sub(
        r"(?s)Initializing net from parameters: \n.*?(?=^I)",
        "Initializing net from parameters: \n"
        'layers {\n  top: "top-1"\n  name: "top-1"\n  type: ACCURACY\n'
        "  accuracy_param {\n    top_k: 5\n  }\n}\nstate {\n  phase: TEST\n}\n",
        log,
        flags=re.MULTILINE,
    )
    (layer,) = read(old).nets[0].layer
    assert (layer.type, layer.top, layer.accuracy_param.top_k) == ("Accuracy", ["top-1"], 5)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"(Iteration \d+) \(.*\), loss", r"\1, loss"),
        (r"(?m)^([IW])20\d\d", r"\1"),
        (r"(\.\d{6}) +\d+ \S+:", r"\1 0x7fff src/caffe/some file.cc:"),
        (r"\n", "\r\n"),
        (r"(?m)^(?=I)", "trainer_1  | "),
        (r"(?m)(?<=of_class = 0\n)(?=I)", OTHER_LINES),
    ],
)
def test_other_formats_of_a_log_say_the_same(
    pattern: str, replacement: str, log: str, whole: History, read: Callable[[str], Log]
) -> None:
    other = re.sub(pattern, replacement, log)
    assert other != log
    assert read(other) == whole


def test_lines_that_are_logged_several_times_make_no_row_more(
    log: str, whole: History, read: Callable[[str], Log]
) -> None:
    twice = re.sub(r"(?m)^(I.*\n)", r"\1\1", log)
    assert read(twice) == whole

    def with_another_gpu(line: re.Match[str]) -> str:
        other = re.sub(r"(\.\d{6}) +\d+ ", r"\1 7 ", line[0])
        if "output" in other:  # its values differ, and some come before those of the first
            return re.sub(r" = ", " = 9", other) + line[0]
        return line[0] + re.sub(r"loss = ", "loss = 9", other)

    assert read(re.sub(r"(?m)^I.*\n", with_another_gpu, log)) == whole


@pytest.mark.parametrize("cut", ["Iteration 40", "Iteration 50, lr", "Iteration 30, Testing"])
def test_a_resumed_log_is_one_run(
    cut: str, tree: Tree, folder: Path, log: str, whole: History, read: Callable[[str], Log]
) -> None:
    resumed = caffe_train(tree, folder, "--snapshot=run_iter_25.solverstate")
    later = read(resumed)
    assert column(later.train, "iteration") == list(range(30, 61, 10))
    for first in (log[: log.index(cut)], log[: log.index(cut) + 5], log):
        both = read(first + resumed)
        assert column(both.train, "iteration") == list(range(0, 61, 10))
        assert column(both.test, "iteration") == list(range(0, 61, 15))
        train, test = without_seconds(both)
        assert train[:3] == without_seconds(whole)[0][:3]
        assert test[:2] == without_seconds(whole)[1][:2]
        assert (train[3:], test[2:]) == without_seconds(later)
        for rows in (both.train, both.test):
            assert column(rows, "lr") == as_logged(folder, column(rows, "iteration"))
            assert column(rows, "seconds") == sorted(column(rows, "seconds"))
    assert without_seconds(later)[1] != without_seconds(whole)[1][2:]


def test_what_was_logged_after_the_point_of_resumption_is_no_part_of_the_run(
    tree: Tree, folder: Path, log: str, read: Callable[[str], Log]
) -> None:
    resumed = caffe_train(tree, folder, "--snapshot=run_iter_25.solverstate")
    only_lines = "\n".join(line for line in resumed.splitlines() if "Iteration 60" not in line)
    short = only_lines[: only_lines.index("Iteration 50 (")]
    both = read(log + short)
    assert column(both.train, "iteration") == [0, 10, 20, 30, 40]
    assert column(both.test, "iteration") == [0, 15, 30, 45]


def test_rows_of_a_log_that_is_being_written_are_whole(
    log: str, whole: History, read: Callable[[str], Log]
) -> None:
    begun = log.index("Iteration 0")
    counts = set()
    for end in range(log.index("Iteration 0, lr") + 20, len(log), 37):
        history = read(log[:end])
        for rows, all_rows in ((history.train, whole.train), (history.test, whole.test)):
            # a rate that is computed at first may be logged later
            assert [row | {"lr_computed": 0} for row in rows] == [
                row | {"lr_computed": 0} for row in all_rows[: len(rows)]
            ]
        counts.add((len(history.train), len(history.test)))
    assert len(counts) > 8
    for text in ("", log[:begun], log[: log.index("Test net output")]):
        with pytest.raises(ClrError, match="has no result of an iteration"):
            read(text)


def test_a_test_that_nothing_follows_is_read(
    log: str, whole: History, read: Callable[[str], Log]
) -> None:
    *_, last = re.finditer("Test net output.*\n", log[: log.index("Iteration 50")])
    assert read(log[: last.end()]).test == whole.test[:4]


def test_a_log_reduced_to_results_says_the_same(
    log: str, whole: History, read: Callable[[str], Log]
) -> None:
    history = read(results_alone(log))
    assert column(history.train, "loss") == column(whole.train, "loss")
    assert column(history.test, "accuracy#1") == column(whole.test, "accuracy#1")


def test_a_resumed_log_reduced_to_results_is_one_run(
    tree: Tree, folder: Path, log: str, read: Callable[[str], Log]
) -> None:
    resumed = results_alone(caffe_train(tree, folder, "--snapshot=run_iter_25.solverstate"))
    results = results_alone(log)
    for first in (results, results[: results.index("Iteration 50, lr") + 5]):
        both = read(first + resumed)
        assert column(both.train, "iteration") == list(range(0, 61, 10))
        assert column(both.test, "iteration") == list(range(0, 61, 15))
        assert column(both.train, "loss")[3:] == column(read(resumed).train, "loss")
        for name in ("loss", "loss#1"):
            assert column(both.test, name)[2:] == column(read(resumed).test, name)
    test = read(log + resumed).test
    assert column(test, "lr") == as_logged(folder, column(test, "iteration"))


def test_an_interrupted_test_makes_no_row(
    log: str, whole: History, read: Callable[[str], Log]
) -> None:
    begun = log.index("Iteration 45, Testing net (#0)\n")
    prefix = log[log.rindex("\n", 0, begun) + 1 : begun]
    stopped = (
        "Iteration 45, Testing net (#0)\n"
        f"{prefix}Test interrupted.\n{prefix}Optimization stopped early.\n"
    )
    assert read(log[:begun] + stopped).test == whole.test[:3]


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        ("I20231231 23:59:59.000000", "I20240101 00:00:01.000000", 2),
        ("I1231 23:59:59.000000", "I0101 00:00:01.000000", 2),
        ("I0228 23:59:59.000000", "I0301 00:00:01.000000", 2),
        ("I0228 23:59:59.000000", "I0229 00:00:01.000000", 2),
        ("I0229 23:59:59.000000", "I0301 00:00:01.000000", 2),
        ("I20240228 23:59:59.000000", "I20240301 00:00:01.000000", 86402),
        ("I20241027 02:59:59.000000", "I20241027 02:00:00.000000", 0),
    ],
)
def test_seconds_run_on_over_midnights_and_clock_changes(
    before: str, after: str, passed: float, log: str, read: Callable[[str], Log]
) -> None:
    middle = log.index("Iteration 30, Testing")
    middle = log.rindex("\n", 0, middle) + 1
    prefix = r"(?m)^I\d+ [\d:.]+"
    text = re.sub(prefix, before, log[:middle]) + re.sub(prefix, after, log[middle:])
    history = read(text)
    assert column(history.test, "seconds") == [0, 0, passed, passed, passed]
    assert column(history.train, "seconds") == [0] * 3 + [passed] * 4


def test_seconds_run_on_through_a_leap_year(log: str, read: Callable[[str], Log]) -> None:
    days = ("0228", "0228", "0229", "1231", "0101", "0102")
    parts = re.split(r"(?m)^(?=I.*Testing net \(#0\))", log)  # what precedes, and five tests
    text = "".join(
        re.sub(r"(?m)^I\d+ [\d:.]+", f"I{day} 12:00:00.000000", part)
        for day, part in zip(days, parts, strict=True)
    )
    passed = [seconds / 86_400 for seconds in column(read(text).test, "seconds")]
    assert passed == [0, 1, 307, 308, 309]


def test_nan_and_inf_are_kept_and_told(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DIVERGING_NET)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" lr_policy: "fixed" base_lr: 1e9 max_iter: 40 display: 1'
        " random_seed: 1 solver_mode: CPU snapshot_after_train: false"
    )
    text = caffe_train(tree, tmp_path)
    logged = [float(loss) for loss in re.findall(r"Iteration .*, loss = (\S+)", text)]
    assert {"inf", "nan"} <= set(map(str, logged))
    (tmp_path / "train.log").write_text(text.replace("loss = nan", "loss = -nan", 1))
    history = reader.read_log(tmp_path / "train.log")
    assert list(map(str, column(history.train, "loss"))) == list(map(str, logged))
    assert history.test == []
    told = shown(tmp_path / "train.log", tmp_path / "out")
    first = next(i for i, loss in enumerate(logged) if not math.isfinite(loss))
    assert f"First lost value at iteration {first}: loss {logged[first]}" in told


def shown(log: Path, out: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    show_log(log, out, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_show_writes_the_rows_and_a_plot_and_tells_the_best(
    folder: Path, whole: History, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    told = shown(folder / "train.log", out)
    for name, rows in (("train", whole.train), ("test", whole.test)):
        with (out / f"{name}.csv").open(newline="") as file:
            written = list(csv.DictReader(file))
        assert [{key: float(row[key]) for key in row if row[key]} for row in written] == rows
        assert list(written[0]) == list(rows[0])
    assert (out / "log.png").read_bytes().startswith(b"\x89PNG")
    assert "Iterations 0 to 60" in told
    assert f"Last loss {whole.train[-1]['loss']:g}, at iteration 60" in told
    assert "nan" not in told
    for name, choose in (("accuracy#1", max), ("loss", min)):
        best = choose(column(whole.test, name))
        iteration = next(row["iteration"] for row in whole.test if row[name] == best)
        row = next(line for line in told.splitlines() if line.startswith(f"│ {name} "))
        final = whole.test[-1][name]
        assert [cell.strip() for cell in row.split("│")[2:-1]] == [
            *(f"{final:g}", f"{best:g}", "highest" if choose is max else "lowest"),
            str(iteration),
        ]


def test_an_accuracy_of_nan_is_not_the_best(tree: Tree, tmp_path: Path) -> None:
    # as in a deep ResNet, each multiplies by 300 until it has seen a batch
    normalization = "".join(
        f'layer {{ name: "bn{depth}" type: "BatchNorm" bottom: "data" top: "data" }}'
        for depth in range(20)
    )
    (tmp_path / "net.prototxt").write_text(f"""
        layer {{
          name: "data" type: "DummyData" top: "data" top: "label"
          dummy_data_param {{
            shape {{ dim: 50 dim: 4 }} shape {{ dim: 50 }}
            data_filler {{ type: "gaussian" }} data_filler {{ type: "uniform" max: 9 }}
          }}
        }}
        {normalization}
        layer {{
          name: "product" type: "InnerProduct" bottom: "data" top: "product"
          inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }}
        }}
        layer {{
          name: "loss" type: "SoftmaxWithLoss" bottom: "product" bottom: "label" top: "loss"
        }}
        layer {{
          name: "accuracy" type: "Accuracy" bottom: "product" bottom: "label" top: "accuracy"
          include {{ phase: TEST }}
        }}""")
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" lr_policy: "fixed" base_lr: 0.01 max_iter: 40 display: 10'
        " test_iter: 2 test_interval: 10 random_seed: 1 solver_mode: CPU"
        " snapshot_after_train: false"
    )
    (tmp_path / "train.log").write_text(caffe_train(tree, tmp_path))
    untrained, *others = column(reader.read_log(tmp_path / "train.log").test, "accuracy")
    assert untrained > max(others)
    told = shown(tmp_path / "train.log", tmp_path / "out")
    assert best(told, "accuracy") == f"{max(others):g}"
    assert "First lost value at iteration 0: loss nan" in told


def best(told: str, output: str) -> str:
    row = next(line for line in told.splitlines() if line.startswith(f"│ {output} "))
    return row.split("│")[3].strip()


@pytest.mark.usefixtures("tree")
def test_where_no_test_has_scores_nothing_is_best(
    read: Callable[[str], Log], tmp_path: Path
) -> None:
    lost = """\
I0627 13:02:45.000000 100 solver.cpp:347] Iteration 0, Testing net (#0)
I0627 13:02:46.000000 100 solver.cpp:404]     Test net output #0: right = 1
I0627 13:02:46.000000 100 solver.cpp:404]     Test net output #1: xent = 87.3365 (* 1 = 87.3 loss)
"""
    last = LINES.index("I0627 13:03:46")
    text = LINES[:last] + "I0627 13:03:48.000000 100 solver.cpp:337] Optimization Done.\n"
    read(text.replace("I0627 13:02:47.000000", lost + "I0627 13:02:47.000000", 1))
    told = shown(tmp_path / "a.log", tmp_path / "out")
    assert best(told, "right") == "none"
    assert "First lost value at iteration 0: xent 87.3365" in told


def displays(*displays: dict[str, str]) -> str:
    """A log of the training loss and train outputs at 0, 10, and so on, losses with a weight."""
    lines = []
    for number, outputs in enumerate(displays):
        lines.append(f"Iteration {10 * number}, loss = {outputs['loss']}")
        for output, (name, value) in enumerate(outputs.items()):
            weight = f" (* 1 = {value} loss)" if name == "loss" else ""
            name = name.rstrip("'")  # of a vector's elements
            lines.append(f"    Train net output #{output}: {name} = {value}{weight}")
        lines.append(f"Iteration {10 * number}, lr = 0.1")
    return "".join(f"I0627 13:02:40.000000 100 solver.cpp:48] {line}\n" for line in lines)


def test_the_first_lost_loss_is_told_first(tmp_path: Path) -> None:
    # a class that is in no batch has no accuracy, and iou none before there is a positive
    start = {"loss": "2", "accuracy": "0.5", "of_class": "1", "of_class'": "-nan", "iou": "nan"}
    middle = {**start, "of_class": "-nan", "of_class'": "1", "iou": "0.1"}
    (tmp_path / "a.log").write_text(displays(start, middle, {**middle, "loss": "nan"}))
    assert told_of_lost(tmp_path) == ["First lost value at iteration 20: loss nan, output loss nan"]
    (tmp_path / "a.log").write_text(
        displays(start, {**middle, "accuracy": "nan"}, {**middle, "loss": "inf", "iou": "nan"})
    )
    assert told_of_lost(tmp_path) == [
        "First lost value at iteration 20: loss inf, output loss inf",
        "First lost value at iteration 10: accuracy nan",
    ]
    (tmp_path / "a.log").write_text(displays(start, middle, middle))
    assert told_of_lost(tmp_path) == []


def told_of_lost(folder: Path) -> list[str]:
    lines = shown(folder / "a.log", folder / "out").splitlines()
    return [line for line in lines if line.startswith("First")]


def test_a_long_vector_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(
        displays(
            {"loss": "2", **{"label" + "'" * at: "7" for at in range(101)}},
            {"loss": "2", **{"of_class" + "'" * at: "7" for at in range(100)}},
        )
    )
    log = reader.read_log(tmp_path / "a.log")
    assert [len(row) for row in log.train] == [5, 105]
    assert log.warnings() == ["skipped outputs of more than 100 elements: label (101)"]
    told = shown(tmp_path / "a.log", tmp_path / "out")
    assert "warning: skipped outputs of more than 100 elements: label (101)" in told
    assert "label" not in (tmp_path / "out" / "train.csv").read_text()


LINES = """\
I0627 13:02:40.000000 100 solver.cpp:48] Initializing solver from parameters:
base_lr: 0 max_lr: 3 stepsize: 20000 lr_policy: "triangular" display: 400 max_iter: 500
I0627 13:02:41.000000 100 solver.cpp:91] Creating training net
I0627 13:02:47.000000 100 solver.cpp:237] Iteration 0, loss = 14.1
I0627 13:02:47.100000 100 sgd_solver.cpp:106] Iteration 0, lr = 0
I0627 13:03:45.000000 100 solver.cpp:237] Iteration 400, loss = 2.8
I0627 13:03:45.100000 100 sgd_solver.cpp:106] Iteration 400, lr = 0.0599999
I0627 13:03:46.000000 100 solver.cpp:347] Iteration 500, Testing net (#0)
I0627 13:03:47.000000 100 solver.cpp:404]     Test net output #0: l2 = 1.5 (* 0.1 = 0.15 loss)
I0627 13:03:48.000000 100 solver.cpp:337] Optimization Done.
"""


@pytest.mark.usefixtures("tree")
def test_rates_of_appendix_a_give_the_last_one(read: Callable[[str], Log]) -> None:
    """It rounds the position in the cycle to float: 0.0599999 is 0.06."""
    log = read(LINES)
    assert column(log.test, "lr") == [0.075]
    assert (column(log.test, "lr_computed"), column(log.train, "lr_computed")) == ([1], [0, 0])
    assert log.computed == 1
    log = read(LINES.replace("0.0599999", "0.0601"))
    assert math.isnan(log.test[0]["lr"])
    assert log.warnings() == [
        "rows without a rate (not logged, and the logged ones differ from the solver in the log): 1"
    ]


def test_a_log_with_its_solver_is_read_without_a_caffe(
    read: Callable[[str], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "caffe.proto.caffe_pb2", raising=False)
    monkeypatch.setattr(installed_caffe, "package", lambda: None)
    found = read(LINES)
    assert column(found.train, "lr") == [0, 0.0599999]
    assert column(found.test, "lr") == [0.075]
    assert found.warnings() == []


@pytest.mark.usefixtures("tree")
def test_the_momentum_is_recorded_with_the_rate(read: Callable[[str], Log], tmp_path: Path) -> None:
    for more in (
        ", momentum = 0.95, weight decay = 0.0001",
        ", m = 0.95, wd = 0.0004, gs = 1",
        ", m = 0.95, lrm = 0.1, wd = 0.0004, gs = 1",
    ):
        log = read(re.sub(r"(?m)(lr = .*)$", rf"\1{more}", LINES))
        assert column(log.train, "lr") == [0, 0.0599999]
        assert column(log.train, "momentum") == [0.95, 0.95]
        assert reader.read_rates(tmp_path / "a.log") == {0: 0, 400: 0.0599999}
    shown(tmp_path / "a.log", tmp_path / "out")
    assert (tmp_path / "out" / "train.csv").read_text().startswith("iteration,lr,lr_computed,mom")


def test_a_log_of_1cycle_gives_every_rate_and_momentum(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    text = SOLVER.replace("triangular2", "1cycle").replace("stepsize: 7", "stepsize: 27")
    text += "momentum: 0.95 cyclical_momentum: 0.85 cyclical_momentum: 27"
    (tmp_path / "solver.prototxt").write_text(text)
    (tmp_path / "train.log").write_text(caffe_train(tree, tmp_path))
    log = reader.read_log(tmp_path / "train.log")
    assert column(log.train, "lr") == as_logged(tmp_path, column(log.train, "iteration"))
    assert column(log.test, "lr") == as_logged(tmp_path, column(log.test, "iteration"))
    assert log.warnings() == []
    # the last row is of iteration 60, behind the last update
    assert [list(range(0, 60, 10)), column(log.train[:-1], "momentum")] == [
        column(log.train[:-1], "iteration"),
        [0.95, 0.912963, 0.875926, 0.861111, 0.898148, 0.935185],
    ]
    assert column([log.test[0], log.test[2]], "momentum") == [0.95, 0.861111]
    shown(tmp_path / "train.log", tmp_path / "out")
    assert (tmp_path / "out" / "train.csv").read_text().startswith("iteration,lr,lr_computed,mom")


@pytest.mark.usefixtures("tree")
def test_an_output_with_a_name_of_our_own_is_called_as_in_a_run(read: Callable[[str], Log]) -> None:
    names = ("lr", "momentum", "seconds", "epoch")
    outputs = "".join(
        f"I0627 13:03:47.000000 100 solver.cpp:404]     Test net output #{number}: {name} = 7\n"
        for number, name in enumerate(names, start=1)
    )
    row = read(LINES.replace("I0627 13:03:48", outputs + "I0627 13:03:48")).test[0]
    assert [row[f"{name}#0"] for name in names] == [7] * 4
    assert (row["lr"], row["seconds"], "momentum" in row) == (0.075, 66, False)


@pytest.mark.usefixtures("tree")
def test_rates_that_another_thread_logs_are_those_of_the_results(
    read: Callable[[str], Log],
) -> None:
    log = read(re.sub("100 (sgd_solver.*)", r"141 \1, m = 0.9", LINES))
    assert column(log.train, "lr") == [0, 0.0599999]
    assert column(log.train, "momentum") == [0.9, 0.9]
    assert (log.computed, log.beside) == (1, 0)


@pytest.mark.usefixtures("tree")
def test_an_output_with_a_weight_is_a_loss(read: Callable[[str], Log], tmp_path: Path) -> None:
    log = read(LINES)
    assert log.losses == {"l2"}
    assert re.search(r"l2 .*1.5 .*lowest", shown(tmp_path / "a.log", tmp_path / "out"))
    heights = []
    for losses in (set(), {"l2"}):
        plots.plot_log(History([], log.test, losses), "a log", tmp_path / "log.png")
        with Image.open(tmp_path / "log.png") as image:
            heights.append(image.height)
    assert heights[0] < heights[1]  # it has a panel


@pytest.mark.usefixtures("tree")
def test_results_that_are_left_out_are_told(read: Callable[[str], Log]) -> None:
    test = LINES[LINES.index("I0627 13:03:46") :]
    log = read(LINES + LINES.replace(" 100 ", " 200 "))
    assert (log.replaced, len(log.train), len(log.test)) == (3, 2, 1)
    assert log.warnings() == [
        "skipped results that a later run in the log repeats: 3; to read an earlier run, give"
        " only its lines, up to the next Initializing solver from parameters"
    ]
    log = read(LINES[: LINES.index(test) + test.index("loss)")])
    assert log.test == []
    assert log.warnings() == ["skipped truncated results: 1"]


def test_each_log_has_a_folder_of_its_own() -> None:
    for name, folder in (
        ("a.log", "a-results"),
        ("a.log.gz", "a-results"),
        ("run.lr0.1", "run.lr0.1-results"),
        ("run.lr0.2", "run.lr0.2-results"),
        ("log", "log-results"),
    ):
        assert default_folder(Path("of") / name) == Path("of") / folder


def test_what_is_no_log_is_refused(folder: Path, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.log", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (folder / "run_iter_25.caffemodel", "is binary, not a log"),
        (folder / "solver.prototxt", "has no result of an iteration"),
    ):
        for read in (reader.read_log, lambda path: show_log(path, tmp_path / "out", Console())):
            with pytest.raises(ClrError, match=re.escape(str(path))) as raised:
                read(path)
            assert message in str(raised.value)
            assert "give the file with the standard error of `caffe train`" in str(raised.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ClrError, match="has no learning rate"):
        reader.read_rates(folder / "solver.prototxt")


def test_a_plot_is_drawn_of_any_log(tmp_path: Path) -> None:
    row = {"iteration": 10, "lr": math.nan, "seconds": 1}
    many = {f"of_class[{k}]": k / 1000 for k in range(1000)}
    for history in (
        History([row | {"loss": math.nan}], []),
        History([], [row | many]),
        History([], [row | {"distance": 70}]),
        History([row | {"loss": -1}, row | {"iteration": 20, "loss": math.inf}], [row | {"x": 1}]),
    ):
        plots.plot_log(history, "a log", tmp_path / "log.png")
        assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "log.png").unlink()


@pytest.mark.parametrize(
    ("output", "loss"),
    [("loss", True), ("loss3/loss3#1", True), ("loss3/top-1", False), ("accuracy", False)],
)
def test_losses_are_told_by_their_name(output: str, loss: bool) -> None:
    assert output_kinds.is_loss(output) == loss


def test_six_digits_agree_with_the_float_that_caffe_printed() -> None:
    rates = np.array([0.0123456789, 1e-30, 0, np.nan, 0.1], np.float32)
    assert reader.agree([float(f"{rate:.6g}") for rate in rates], rates) == [True] * 5
    assert reader.agree([0.0123458, 1.00001e-30, 0, np.nan, 0.0999999], rates) == [True] * 5
    assert reader.agree([0.0123459, 2e-30, 1e-7, 0, 0.100003], rates) == [False] * 5
    # Appendix A rounds the position in a cycle up to 3 to float
    assert reader.agree([0.00059998], [0.0006], max_lr=3) == [True]
    assert reader.agree([0.00119905], [0.0011991], max_lr=0.8) == [True]  # so does his 1cycle
