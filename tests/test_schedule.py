"""The rate of a whole run before training: what Caffe then logs."""

import csv
import io
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from caffe_clr import policies, prototxt
from caffe_clr.cli.schedules import show_schedule
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import schedule

CYCLE = "base_lr: 0.001 max_lr: 0.016 stepsize: 7"
FIELDS = {
    "fixed": "base_lr: 0.1",
    "step": "base_lr: 0.1 gamma: 0.5 stepsize: 9",
    "exp": "base_lr: 0.1 gamma: 0.97",
    "inv": "base_lr: 0.1 gamma: 0.3 power: 0.75",
    "multistep": "base_lr: 0.1 gamma: 0.1 stepvalue: 11 stepvalue: 25 stepvalue: 33",
    "poly": "base_lr: 0.1 power: 1.5",
    "sigmoid": "base_lr: 0.1 gamma: 0.2 stepsize: 20",
    "triangular": CYCLE,
    "triangular2": f"{CYCLE} start_lr_policy: 5",
    "exp_range": f"{CYCLE} gamma: 0.8",
    "decay": f"{CYCLE} start_lr_policy: 5",
    "1cycle": f"{CYCLE} start_lr_policy: 5",
}
# as Smith writes them
SMITHS = """
net: "none.prototxt"
lr_policy: "1cycle" # "triangular"
base_lr: 0.1
max_lr:  1
stepsize: 2246
max_iter: 4882

momentum: 0.95
# the cycle
cyclical_momentum: 0.85
#decrease_weight_decay: 1
cyclical_momentum: 2246
type:  "Nesterov" # "RMSProp"
"""
# a net that the schedule has no use for
TRAINED = """
display: 1 snapshot_prefix: "run" solver_mode: CPU net_param {
  layer {
    name: "data" type: "DummyData" top: "data"
    dummy_data_param { shape { dim: 1 dim: 1 } }
  }
}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tree: Tree, tmp_path: Path) -> Write:
    """Writes a solver file."""

    def write(policy: str, max_iter: int, fields: str = "", name: str = "solver") -> Path:
        file = tmp_path / f"{name}.prototxt"
        text = f'lr_policy: "{policy}" max_iter: {max_iter} {fields or FIELDS[policy]}'
        file.write_text(f"{text}\n{TRAINED}")
        return file

    return write


def caffe_train(tree: Tree, solver: Path, *options: str) -> str:
    done = subprocess.run(
        [tree.caffe, "train", f"--solver={solver}", *options],
        cwd=solver.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def logged(text: str) -> list[tuple[int, str]]:
    return [(int(i), rate) for i, rate in re.findall(r"Iteration (\d+), lr = (\S+)", text)]


def scheduled(files: list[Path]) -> list[tuple[int, str]]:
    return [(row["iteration"], f"{row['lr']:.6g}") for row in schedule.schedule(files)]


def shown(files: list[Path], out: Path, log: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=160)
    show_schedule(files, out, console, log)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def cells(told: str, stage: int) -> list[str]:
    row = next(line for line in told.splitlines() if line.startswith(f" {stage} "))
    cells = re.split(r" {2,}", row.strip())[1:]
    return cells if len(cells) == 7 else [*cells[:2], "", *cells[2:]]  # stock has no cycles


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_a_schedule_is_what_caffe_then_logs(policy: str, write: Write, tree: Tree) -> None:
    file = write(policy, 40)
    assert scheduled([file]) == logged(caffe_train(tree, file))


@pytest.mark.parametrize(
    "stages",
    [
        [("triangular2", 20, ""), ("fixed", 30, ""), ("triangular", 40, "")],
        # Caffe's steps go on in another policy, one an iteration
        [("step", 20, ""), ("multistep", 40, "")],
        [("fixed", 28, ""), ("multistep", 40, "")],
        [("multistep", 12, ""), ("step", 20, ""), ("fixed", 30, ""), ("multistep", 40, "")],
        [("multistep", 40, "base_lr: 1 gamma: 0.1 stepvalue: 7 stepvalue: 7 stepvalue: 3")],
    ],
)
def test_stages_are_what_caffe_logs_from_snapshot_to_snapshot(
    stages: list[tuple[str, int, str]], write: Write, tree: Tree, tmp_path: Path
) -> None:
    files = [write(*stage, name=f"stage{number}") for number, stage in enumerate(stages)]
    text = ""
    options: list[str] = []
    for (_, max_iter, _), file in zip(stages, files, strict=True):
        text += caffe_train(tree, file, *options)
        options = [f"--snapshot=run_iter_{max_iter}.solverstate"]
    assert scheduled(files) == logged(text)
    ends = [max_iter for _, max_iter, _ in stages]
    of_stage = [row["stage"] for row in schedule.schedule(files)]
    assert of_stage == [1 + int(np.searchsorted(ends, i, side="right")) for i in range(40)]

    (tmp_path / "train.log").write_text(text)
    told = shown(files, tmp_path / "out", tmp_path / "train.log")
    assert "Log: 40 rates, 0 differ from the schedule\n" in told
    firsts = [0, *ends]
    for number, (policy, max_iter, _) in enumerate(stages):
        assert cells(told, number + 1)[:2] == [policy, f"{firsts[number]} to {max_iter - 1}"]


def test_cycles_are_counted_from_start_lr_policy(write: Write, tmp_path: Path) -> None:
    file = write("triangular2", 40)
    rows = schedule.schedule([file])
    assert [row["cycle"] for row in rows] == [0] * 19 + [1] * 14 + [2] * 7
    assert cells(shown([file], tmp_path / "out"), 1) == [
        *("triangular2", "0 to 39", "2.5", "0.001", "0.016", "0.001"),
        f"{rows[-1]['lr']:.6g}",
    ]
    assert cells(shown([write("triangular", 28)], tmp_path / "out"), 1)[2] == "2"
    for policy in ("decay", "step"):
        file = write(policy, 40)
        assert {row["cycle"] for row in schedule.schedule([file])} == {None}
        assert cells(shown([file], tmp_path / "out"), 1)[2] == ""


def test_1cycle_has_one_cycle_and_what_follows_it(write: Write, tmp_path: Path) -> None:
    file = write("1cycle", 40)
    rows = schedule.schedule([file])
    assert [row["cycle"] for row in rows] == [0] * 19 + [1] * 21
    assert cells(shown([file], tmp_path / "out"), 1) == [
        *("1cycle", "0 to 39", "1", "0.001", "0.016", "1e-06", "1e-06")
    ]
    assert cells(shown([write("1cycle", 12)], tmp_path / "out"), 1)[2] == "0.5"


def test_the_momentum_is_tabulated_where_it_cycles(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SMITHS)
    told = shown([tmp_path / "solver.prototxt"], tmp_path / "out")
    assert re.search(r"1cycle +0 to 4,881 +1 +0.1 +1 +0.0001 +0.0001 +0.85-0.95 *$", told, re.M)
    with (tmp_path / "out" / "schedule.csv").open(newline="") as file:
        rows = {int(row["iteration"]): row for row in csv.DictReader(file)}
    assert list(rows[0]) == ["iteration", "lr", "momentum", "stage", "cycle"]
    found = {
        at: (f"{float(rows[at]['lr']):.6g}", f"{float(rows[at]['momentum']):.6g}")
        for at in (0, 200, 2246, 3800, 4492, 4800)
    }
    assert found == {
        **{0: ("0.1", "0.95"), 200: ("0.180142", "0.941095"), 2246: ("1", "0.85")},
        **{3800: ("0.308103", "0.91919"), 4492: ("0.0001", "0.95"), 4800: ("0.0001", "0.943143")},
    }


def test_momenta_of_stages_are_told_apart(write: Write, tmp_path: Path) -> None:
    files = [
        write("fixed", 20, "base_lr: 0.1 momentum: 0.5", "first"),
        write("fixed", 40, "base_lr: 0.1 momentum: 0.8 cyclical_momentum: [0.6, 10]", "second"),
    ]
    rows = schedule.schedule(files)
    expected = policies.momentum(np.arange(20, 40), momentum=0.8, cyclical_momentum=[0.6, 10])
    assert [row["momentum"] for row in rows] == [0.5] * 20 + expected.astype(float).tolist()
    told = shown(files, tmp_path / "out").splitlines()
    assert [line.split()[-1] for line in told if " fixed " in line] == ["0.5", "0.7-0.8"]


def test_a_long_run_keeps_where_the_momentum_turns(write: Write) -> None:
    fields = "base_lr: 0.1 momentum: 0.9 cyclical_momentum: [0.8, 1237.5] start_lr_policy: 11"
    rows = schedule.schedule([write("fixed", 100_000, fields)])
    turns = {11 + math.floor(1237.5 * n) for n in range(80)}
    turns |= {11 + math.ceil(1237.5 * n) for n in range(80)}
    assert turns <= {row["iteration"] for row in rows}
    shortest = "base_lr: 0.1 momentum: 0.9 cyclical_momentum: [0.8, 1]"
    assert len(schedule.schedule([write("fixed", 2**31 - 1, shortest)])) < 40_000


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_highest_and_lowest_are_those_of_all_iterations(
    policy: str, write: Write, tmp_path: Path
) -> None:
    slower = {
        "triangular": "base_lr: 0.001 max_lr: 0.016 stepsize: 4321 start_lr_policy: 1001",
        "exp_range": "base_lr: 0.001 max_lr: 0.016 stepsize: 4321 gamma: 0.9996",
        "step": "base_lr: 0.1 gamma: 0.5 stepsize: 4321",
        "multistep": "base_lr: 0.1 gamma: 0.1 stepvalue: 4321 stepvalue: 80000",
    }
    first = write("fixed", 3000, name="first")
    file = write(policy, 90_000, slower.get(policy, ""))
    every = policies.learning_rate(prototxt.read_solver(file), np.arange(3000, 90_000))
    table = cells(shown([first, file], tmp_path / "out"), 2)
    extremes = every[0], every.max(), every.min(), every[-1]
    assert table[3:] == [f"{rate:.6g}" for rate in extremes]


def test_highest_of_a_fast_declining_exp_range_is_told(write: Write, tmp_path: Path) -> None:
    fields = "base_lr: 0.001 max_lr: 0.016 stepsize: 150 gamma: 0.98"
    file = write("exp_range", 2_000_000, fields)
    highest = policies.learning_rate(prototxt.read_solver(file), np.arange(300)).max()
    assert cells(shown([file], tmp_path / "out"), 1)[4] == f"{highest:.6g}"


@pytest.mark.parametrize(
    ("policy", "fields", "kept"),
    [
        ("triangular", "base_lr: 1 max_lr: 2 stepsize: 1237", range(0, 100_000, 1237)),
        ("decay", "base_lr: 1 max_lr: 2 stepsize: 1237 start_lr_policy: 11", [11, 1248]),
        ("step", "base_lr: 1 gamma: 0.9 stepsize: 1237", range(1237, 100_000, 1237)),
        ("step", "base_lr: 1 gamma: 0.9 stepsize: 1237", range(1236, 100_000, 1237)),
        (
            "multistep",
            "base_lr: 1 gamma: 0.1 stepvalue: 37 stepvalue: 77777",
            [36, 37, 77776, 77777],
        ),
        ("exp", "base_lr: 1 gamma: 0.9999", []),
    ],
)
def test_a_long_run_is_thinned_but_keeps_what_matters(
    policy: str, fields: str, kept: list[int], write: Write, tmp_path: Path
) -> None:
    files = [write("fixed", 7, name="first"), write(policy, 100_000, fields)]
    rows = schedule.schedule(files)
    iterations = [row["iteration"] for row in rows]
    assert len(rows) < 10_300
    assert iterations == sorted(set(iterations))
    assert max(np.diff(iterations)) <= 10
    # the first stage is too short to be thinned out of it
    assert {0, 6, 7, 99_999} | {i for i in kept if i >= 7} <= set(iterations)
    expected = policies.learning_rate(prototxt.read_solver(files[1]), iterations[2:])
    assert [row["lr"] for row in rows[2:]] == expected.astype(float).tolist()
    assert f"{len(rows):,} of 100,000 iterations are written" in shown(files, tmp_path / "out")


def test_the_longest_run_of_the_shortest_cycles_is_thinned(write: Write) -> None:
    longest = 2**31 - 1
    rows = schedule.schedule([write("triangular", longest, "base_lr: 1 max_lr: 2 stepsize: 1")])
    assert len(rows) < 40_000
    assert (rows[0]["iteration"], rows[-1]["iteration"]) == (0, longest - 1)
    assert {row["lr"] for row in rows} == {1, 2}
    assert rows[-1]["cycle"] == (longest - 1) // 2


def test_show_writes_the_rows_and_a_plot(write: Write, tmp_path: Path) -> None:
    files = [write("triangular", 14, name="first"), write("fixed", 20, name="second")]
    out = tmp_path / "new" / "folder"
    told = shown(files, out)
    with (out / "schedule.csv").open(newline="") as file:
        written: list[Any] = list(csv.DictReader(file))
    assert list(written[0]) == ["iteration", "lr", "stage", "cycle"]
    rows = schedule.schedule(files)
    assert [(int(row["iteration"]), float(row["lr"])) for row in written] == [
        (row["iteration"], row["lr"]) for row in rows
    ]
    assert [row["cycle"] for row in written] == ["0"] * 14 + [""] * 6
    assert (out / "schedule.png").read_bytes().startswith(b"\x89PNG")
    assert f"Wrote {out / 'schedule.csv'}, {out / 'schedule.png'}" in told
    assert "are written" not in told


def test_a_log_of_another_solver_differs(write: Write, tree: Tree, tmp_path: Path) -> None:
    trained = write("triangular", 40, name="trained")
    log = tmp_path / "train.log"
    log.write_text(caffe_train(tree, trained))
    other = write("triangular", 35, CYCLE + " start_lr_policy: 14", "other")
    told = shown([other], tmp_path / "out", log)
    rate = policies.learning_rate(prototxt.read_solver(trained), 1)
    assert (
        f"Log: 40 rates, 13 differ from the schedule, first at iteration 1:"
        f" logged {rate:.6g}, scheduled 0.001; 5 are after the end of the schedule" in told
    )


def test_an_undefined_rate_is_told(write: Write, tmp_path: Path) -> None:
    told = shown([write("fixed", 20, "base_lr: nan")], tmp_path / "out")
    assert "The rate is nan at iteration 0" in told
    file = write("exp", 2000, "base_lr: 1 gamma: 2")
    told = shown([file], tmp_path / "out")
    first = next(row for row in schedule.schedule([file]) if not math.isfinite(row["lr"]))
    assert first["iteration"] == 128
    assert "The rate is inf at iteration 128" in told


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([0], "solver0.prototxt: max_iter is 0; set it to the iteration at which the run ends"),
        ([-1], "solver0.prototxt: max_iter is -1; set"),
        ([20, 10], "solver1.prototxt: max_iter is 10, but the stage before it ends at 20; set it"),
        ([20, 20], "solver1.prototxt: max_iter is 20, but the stage before it ends at 20; set it"),
    ],
)
def test_a_stage_without_iterations_is_refused(
    ends: list[int], message: str, write: Write, tmp_path: Path
) -> None:
    files = [write("fixed", end, name=f"solver{number}") for number, end in enumerate(ends)]
    with pytest.raises(ClrError, match=re.escape(message)):
        shown(files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tree")
def test_a_max_iter_that_is_left_to_a_script_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text('lr_policy: "fixed" base_lr: 0.001')
    with pytest.raises(ClrError, match="max_iter is not set; set it to the iteration at which"):
        schedule.schedule([tmp_path / "solver.prototxt"])


def test_a_solver_or_a_log_that_cannot_be_read_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ClrError, match=r"none\.prototxt: cannot be read"):
        schedule.schedule([tmp_path / "none.prototxt"])
    with pytest.raises(ClrError, match="max_lr is not set"):
        schedule.schedule([write("triangular", 20, "base_lr: 1 stepsize: 3")])
    solver = write("fixed", 20)
    with pytest.raises(ClrError, match="has no learning rate"):
        shown([solver], tmp_path / "out", solver)
    assert not (tmp_path / "out").exists()
