"""The commands of the method, run as a user runs them."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from caffe_clr.cli import run_display
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import run_folder
from caffe_clr.runs.options import TrainingOptions

RATES = ["--min-lr", "0.001", "--max-lr", "0.3", "--iterations", "100000"]
Run = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = [
    "train",
    "plot",
    "range-test",
    "suggest",
    "stepsize",
    "schedule",
    "compare",
    "log",
    "demo",
]
COMMANDS += [
    "build",
    "doctor",
    "parity",
    "test",
    "wheel",
    "data cifar10",
    "data cifar100",
    "data digits",
]


@pytest.fixture
def digits(tree: Tree, root: Path, tmp_path: Path) -> Path:
    """models/digits in the folder that run_cli works in, its runs made short."""
    folder = tmp_path / "models" / "digits"
    folder.mkdir(parents=True)
    for file in (root / "models" / "digits").glob("*.prototxt"):
        text = file.read_text().replace("max_iter: 1200", "max_iter: 240")
        (folder / file.name).write_text(text.replace("stepsize: 120", "stepsize: 40"))
    datasets.write_digits(folder)
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_shows_an_example(command: str, run_cli: Run) -> None:
    done = run_cli(*command.split(), "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"Example: caffe-clr {command}" in done.stdout


@pytest.mark.usefixtures("digits")
def test_train_and_plot(run_cli: Run, tmp_path: Path) -> None:
    solver = "models/digits/triangular2_solver.prototxt"
    done = run_cli("train", solver, "--out", "run", "--snapshot-cycles")
    assert (done.returncode, done.stderr) == (0, "")
    final = float(rows(tmp_path / "run" / "test.csv")[-1]["accuracy"])
    assert f"accuracy {final:.2%} at iteration 240, best " in done.stdout
    snapshots = {path.name for path in (tmp_path / "run" / "snapshots").glob("*.solverstate")}
    assert snapshots == {f"triangular2_iter_{i}.solverstate" for i in (80, 160, 240)}
    assert "Initializing solver from parameters" in (tmp_path / "run" / "caffe.log").read_text()
    plot = tmp_path / "run" / "training.png"
    assert imread(plot).size
    plot.unlink()
    assert run_cli("plot", "run").stdout == "Plot: run/training.png\n"
    assert imread(plot).size
    assert run_cli("plot", "run", "--plot-format", "svg").stdout == "Plot: run/training.svg\n"
    assert "<svg" in (tmp_path / "run" / "training.svg").read_text()
    again = run_cli("train", solver, "--out", "run")
    assert again.returncode == 2
    assert "error: run already has a run; continue it with --resume" in again.stderr


@pytest.mark.usefixtures("digits")
def test_runs_in_one_plot(run_cli: Run, digits: Path, tmp_path: Path) -> None:
    for name in ("fixed", "triangular2"):
        solver = f"models/digits/{name}_solver.prototxt"
        assert run_cli("train", solver, "--out", f"runs/{name}").returncode == 0
    (digits / "train_test.prototxt").rename(digits / "moved.prototxt")
    done = run_cli("plot", "runs/fixed", "runs/triangular2", "--together", "both.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Plot: both.png\n", "")
    assert imread(tmp_path / "both.png").size
    text = run_cli("plot", "runs/fixed", "--together", "both.txt")
    assert text.returncode == 2
    assert "--together both.txt: name a file that ends in .png, .svg or .pdf" in text.stderr
    assert run_cli("plot", "runs/fixed", "--together", "one.svg").returncode == 0
    assert "<svg" in (tmp_path / "one.svg").read_text()
    same = run_cli("plot", "runs/fixed", "runs/fixed", "--together", "same.png")
    assert same.returncode == 2
    assert "a run is given twice; give each one once" in same.stderr
    (tmp_path / "runs" / "fixed" / "run.json").unlink()
    (digits / "moved.prototxt").rename(digits / "train_test.prototxt")
    done = run_cli("plot", "runs/fixed", "runs/triangular2", "--together", "again.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert imread(tmp_path / "again.png").size
    (tmp_path / "runs" / "fixed" / "solver_1.prototxt").unlink()
    done = run_cli("plot", "runs/fixed", "--together", "again.png")
    assert done.returncode == 1
    assert (
        "runs/fixed/solver_1.prototxt: is missing; plot this run without --together" in done.stderr
    )
    assert run_cli("plot", "runs/fixed").returncode == 0
    shutil.copy(digits / "fixed_solver.prototxt", tmp_path / "runs/fixed/solver_1.prototxt")
    (tmp_path / "runs" / "fixed" / "test.csv").unlink()
    empty = run_cli("plot", "runs/fixed", "runs/triangular2", "--together", "both.png")
    assert empty.returncode == 1
    assert "runs/fixed: no test accuracy (%) is recorded yet" in empty.stderr


def test_the_size_of_the_data_may_be_given_to_train_and_compare(
    write_solver: Callable[..., Path], run_cli: Run, tmp_path: Path
) -> None:
    file = write_solver(max_iter=4)
    assert run_cli("train", file, "--images", "16", "--out", "one").returncode == 0
    done = run_cli("compare", file, "--seeds", "1", "--images", "16", "--out", "all")
    assert done.returncode == 0, done.stderr
    for folder in (tmp_path / "one", tmp_path / "all" / "solver" / "seed_1"):
        assert [row["epoch"] for row in run_folder.read_history(folder).train] == [0, 0.5, 1, 1.5]


@pytest.mark.usefixtures("digits")
def test_without_a_terminal_the_training_is_told_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_display, "_TOLD_SECONDS", 0)
    output = StringIO()
    run_display.show_training(
        [Path("models/digits/triangular2_solver.prototxt")],
        tmp_path / "run",
        TrainingOptions(),
        Console(file=output, width=80),
    )
    line = r"iteration \d+: cycle [123]/3 lr [\d.]+ loss [\d.]+ test [\d.]+% [\d.]+ it/s"
    lines = output.getvalue().splitlines()
    assert re.fullmatch(line, lines[1]), lines


@pytest.mark.usefixtures("digits")
def test_the_default_run_folder_is_found_again(run_cli: Run, tmp_path: Path) -> None:
    solver = "models/digits/fixed_solver.prototxt"
    assert run_cli("train", solver).returncode == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"fixed-\d{8}-\d{6}-\d{6}", folder.name)
    assert run_cli("train", solver, "--resume").returncode == 0
    assert list((tmp_path / "runs").iterdir()) == [folder]
    assert run_folder.default_folder(Path(solver)) != run_folder.default_folder(Path(solver))
    other = run_cli("train", "models/digits/triangular2_solver.prototxt", "--resume")
    assert other.returncode == 2
    assert "--resume: no run of these solvers under runs/" in other.stderr


def test_a_run_of_any_name_is_found_again(
    write_solver: Callable[..., Path], run_cli: Run, tmp_path: Path
) -> None:
    solver = write_solver("net[1]*_solver", max_iter=2)
    assert run_cli("train", solver).returncode == 0
    assert run_cli("train", solver, "--resume").returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.usefixtures("digits")
def test_warnings_are_of_what_the_paper_advises_against(run_cli: Run, digits: Path) -> None:
    solver = digits / "triangular2_solver.prototxt"
    solver.write_text(solver.read_text().replace("stepsize: 40", "stepsize: 35"))
    done = run_cli("train", "models/digits/triangular2_solver.prototxt", "--out", "run")
    assert done.returncode == 0
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert any("210 or 280" in line for line in warnings)  # ends within one
    assert all("section 3" in line for line in warnings)


@pytest.mark.usefixtures("digits")
def test_diverging_is_a_failure_that_keeps_what_there_is(
    run_cli: Run, digits: Path, tmp_path: Path
) -> None:
    solver = digits / "fixed_solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.01", "base_lr: 1e9"))
    done = run_cli("train", "models/digits/fixed_solver.prototxt", "--out", "run")
    assert done.returncode == 1
    assert re.search(r"error: diverged at iteration \d+, rate 1e\+09: the loss is", done.stderr)
    assert rows(tmp_path / "run" / "train.csv")
    assert imread(tmp_path / "run" / "training.png").size


@pytest.mark.usefixtures("digits")
def test_range_test_prints_what_it_writes(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli(
        *("range-test", "models/digits/fixed_solver.prototxt", "--out", "found"),
        *("--min-lr", "0.001", "--max-lr", "0.3", "--epochs", "8"),
        COLUMNS="80",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "Judged by: training loss (lower is better), 120 values; not judged: accuracy, loss\n"
        in done.stdout
    )
    suggested = r"max_lr 0\.\d+: 0\.5 of 0\.\d+, where the training loss is lowest; "
    assert re.search(suggested, done.stdout)
    assert re.search(r"base_lr 0\.0\d+: 1/6 of max_lr, as in the paper's bounds", done.stdout)
    max_lr = float(re.findall(r"^max_lr (0\.\d+):", done.stdout, re.MULTILINE)[0])
    told = re.findall(
        "\nSolver: found/1cycle_solver.prototxt\n"
        r"1cycle starts below base_lr, at a tenth of max_lr: (0\.\d+)\n",
        done.stdout,
    )
    assert float(told[0]) == pytest.approx(max_lr / 10, rel=0.1)
    text = (tmp_path / "found" / "1cycle_solver.prototxt").read_text()
    assert f"\nbase_lr: {told[0]}" in text
    assert imread(tmp_path / "found" / "range_test.png").size
    trained = run_cli("train", "found/1cycle_solver.prototxt", "--out", "run")
    assert trained.returncode == 0, trained.stderr


@pytest.mark.usefixtures("digits")
def test_range_test_finds_its_range(run_cli: Run, tmp_path: Path) -> None:
    solver = ("range-test", "models/digits/fixed_solver.prototxt", "--out", "found")
    done = run_cli(*solver, "--max-iter", "1200", "--policy", "triangular2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Range found in 1\d\d iterations +\n", done.stdout)
    assert re.search(r"sweep_1 +0\.0001 +1e\+02 +\d+ +trains up to \d", done.stdout)
    assert re.search(r"sweep_2 +\S+ +\S+ +\d+ +0\.\d+ to \d", done.stdout)
    assert "Judged by: training loss (lower is better), " in done.stdout
    bounds = re.findall(r"(?:base|max)_lr 0\.\d+: .*", done.stdout)
    assert re.search(r": 0\.\d+ of 0\.\d+, in the middle of 0\.\d+ to \S+, where the", bounds[1])
    assert imread(tmp_path / "found" / "range_test.png").size
    stages = [f"found/triangular2_{stage}_solver.prototxt" for stage in (1, 2)]
    assert f"Solvers, stages of one run: {' '.join(stages)}\n" in done.stdout
    assert "a tenth of max_lr" not in done.stdout

    again = run_cli("suggest", "found", "--plot", "found.png")
    assert again.returncode == 0, again.stderr
    assert re.findall(r"(?:base|max)_lr 0\.\d+: .*", again.stdout) == bounds
    assert imread(tmp_path / "found.png").size
    refused = run_cli(*solver)
    assert refused.returncode == 2
    assert "error: found already has a range test; continue it with --resume" in refused.stderr
    drawn = run_cli("schedule", *stages, "--out", "drawn")
    assert drawn.returncode == 0, drawn.stderr
    assert float(rows(tmp_path / "drawn" / "schedule.csv")[-1]["iteration"]) == 1199


@pytest.mark.usefixtures("digits")
def test_range_test_says_first_that_it_diverged(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli(
        *("range-test", "models/digits/fixed_solver.prototxt", "--out", "found"),
        *("--min-lr", "0.001", "--max-lr", "5000", "--iterations", "400"),
    )
    assert done.returncode == 1
    first = next(line for line in done.stdout.splitlines() if "range test" not in line)
    stopped = re.fullmatch(r"Stopped early: diverged at iteration \d+, rate ([\d.]+): .*", first)
    assert stopped
    remedy = r"end the range below ([\d.]+) \(--max-lr\), where the training diverges"
    failed = re.fullmatch(rf"error: no bounds: .*: {remedy}\n", done.stderr)
    assert failed
    assert float(failed[1]) == pytest.approx(float(stopped[1]), rel=0.01)
    assert imread(tmp_path / "found" / "range_test.png").size
    again = run_cli("suggest", "found")
    assert again.returncode == 1
    assert "error: no bounds: " in again.stderr


def test_suggest_judges_by_what_it_is_told_to(run_cli: Run, tmp_path: Path) -> None:
    rates = [0.001 * number for number in range(40)]
    lines = [f"{rate},{abs(rate - 0.015) + max(0, 0.01 - rate)},0.5" for rate in rates]
    (tmp_path / "curve.csv").write_text("\n".join(["lr,gap,gate", *lines, ""]))
    done = run_cli("suggest", "curve.csv", "--output", "gap", "--lower-is-better")
    assert done.returncode == 0, done.stderr
    assert "Judged by: gap (lower is better), 40 values; not judged: gate\n" in done.stdout
    for arguments, reason in (
        (
            ["curve.csv"],
            "outputs (gap, gate) do not tell whether higher or lower is better; choose one with",
        ),
        (["curve.csv", "--output", "gaps"], "has no output gaps; use one of gap, gate"),
        (["curve.csv", "--lower-is-better"], "needs --output with the name of an output"),
    ):
        refused = run_cli("suggest", *arguments)
        assert refused.returncode == 2
        assert reason in refused.stderr


@pytest.mark.usefixtures("digits")
def test_suggest_writes_the_solver_that_range_test_would(run_cli: Run, tmp_path: Path) -> None:
    given = "models/digits/fixed_solver.prototxt"
    options = ("--max-iter", "1200")
    done = run_cli("range-test", given, *options, "--out", "found")
    assert done.returncode == 0, done.stderr
    made = run_cli("suggest", "found", "--solver", given, *options)
    assert (made.returncode, made.stderr) == (0, "")
    assert "\nSolver: 1cycle_solver.prototxt\n1cycle starts below base_lr" in made.stdout
    mine = tmp_path / "1cycle_solver.prototxt"
    assert mine.read_text() == (tmp_path / "found" / "1cycle_solver.prototxt").read_text()
    mine.write_text("mine")
    again = run_cli("suggest", "found", "--solver", given, *options)
    assert "warning: 1cycle_solver.prototxt is kept, but differs" in again.stdout
    assert mine.read_text() == "mine"
    stages = run_cli(
        *("suggest", "found", "--solver", given, "--policy", "triangular2", "--out", "new/folder")
    )
    assert stages.returncode == 0, stages.stderr
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {
        *("triangular2_1_solver.prototxt", "triangular2_2_solver.prototxt")
    }
    for option in ("--policy", "--max-iter", "--out"):
        refused = run_cli("suggest", "found", option, "9")
        assert refused.returncode == 2
        assert f"{option} is for a new solver; name the given one with --solver" in refused.stderr
    refused = run_cli("suggest", "found", "--solver", given, "--policy", "fixed")
    assert "--policy fixed: give one of" in refused.stderr


def test_suggest_says_that_few_tests_are_not_judged(run_cli: Run, tmp_path: Path) -> None:
    lines = [
        f"{0.001 * n},{abs(n - 20) + 5 * max(0, 10 - n)},{0.1 if n % 10 == 0 else ''}"
        for n in range(50)
    ]
    (tmp_path / "curve.csv").write_text("\n".join(["lr,loss,accuracy", *lines, ""]))
    done = run_cli("suggest", "curve.csv")
    judged = "Judged by: training loss (lower is better), 50 values"
    assert f"{judged}; not judged: accuracy\n" in done.stdout


@pytest.mark.usefixtures("digits")
def test_a_range_test_that_says_nothing_fails(run_cli: Run) -> None:
    done = run_cli(
        *("range-test", "models/digits/fixed_solver.prototxt", "--out", "found"),
        *("--min-lr", "0", "--max-lr", "1e-9", "--iterations", "100"),
    )
    assert done.returncode == 1
    assert re.search(r"error: no bounds: .*: test higher or lower rates", done.stderr)


def test_suggest_prints_bounds_and_draws_them(run_cli: Run, root: Path, tmp_path: Path) -> None:
    curve = root / "tests" / "recorded" / "cifar10_range_test.csv"
    done = run_cli("suggest", curve, "--plot", "curve.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Judged by: training loss (lower is better), 200 values; not judged: accuracy",
        "base_lr 0.00071: 1/6 of max_lr, as in the paper's bounds for CIFAR-10",
        "max_lr 0.0043: 0.5 of 0.00856, where the training loss is lowest; it rises after that",
        "Plot: curve.png",
    ]
    assert imread(tmp_path / "curve.png").size
    assert run_cli("suggest", curve, "--plot", "curve.pdf").returncode == 0
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")
    refused = run_cli("suggest", curve, "--plot", "curve.jpg")
    assert refused.returncode == 2
    assert "name a file that ends in .png, .svg or .pdf" in refused.stderr
    nowhere = run_cli("suggest", curve, "--plot", "none/curve.png")
    assert nowhere.returncode == 1
    assert nowhere.stderr == "error: none/curve.png: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-lr", "0.1", "--max-lr", "0.01", "--iterations", "50"], "first below the second"),
        (["--min-lr", "0.01", "--max-lr", "0.1"], "is missing; give --epochs or --iterations"),
        (["--epochs", "8", "--iterations", "50"], "as either --epochs or --iterations"),
        (["--min-lr", "0.01", "--max-lr", "0.1", "--iterations", "3"], "too few for a curve"),
        (["--max-lr", "0.1", "--iterations", "50"], "or neither to have the range found"),
        (["--max-iter", "0"], "--max-iter 0: give the length of the training that the bounds"),
    ],
)
@pytest.mark.usefixtures("digits")
def test_a_range_that_is_none(arguments: list[str], message: str, run_cli: Run) -> None:
    done = run_cli("range-test", "models/digits/fixed_solver.prototxt", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.usefixtures("digits")
def test_stepsize_schedule_and_log(run_cli: Run, tmp_path: Path, tree: Tree) -> None:
    solver = "models/digits/triangular2_solver.prototxt"
    assert "stepsize: 150 " in run_cli("stepsize", solver, "--epochs", "5").stdout
    logged = subprocess.run(
        [tree.caffe, "train", f"--solver={solver}"], cwd=tmp_path, capture_output=True, text=True
    )
    (tmp_path / "train.log").write_text(logged.stderr)
    done = run_cli("schedule", solver, "--log", "train.log", "--out", "preview")
    assert done.returncode == 0, done.stderr
    assert imread(tmp_path / "preview" / "schedule.png").size
    done = run_cli("schedule", solver, "--out", "preview", "--plot-format", "pdf")
    assert (tmp_path / "preview" / "schedule.pdf").read_bytes().startswith(b"%PDF")
    done = run_cli("log", "train.log", "--plot-format", "svg")
    assert "<svg" in (tmp_path / "train-results" / "log.svg").read_text()
    assert done.returncode == 0, done.stderr
    rates = {row["iteration"]: row["lr"] for row in rows(tmp_path / "train-results" / "train.csv")}
    assert float(rates["40"]) == pytest.approx(0.1)
    assert float(rates["80"]) == pytest.approx(0.001)


@pytest.mark.usefixtures("digits")
def test_compare_prints_a_table_and_does_not_repeat(run_cli: Run, tmp_path: Path) -> None:
    solvers = [f"models/digits/{name}_solver.prototxt" for name in ("fixed", "triangular2")]
    done = run_cli("compare", *solvers, "--seeds", "2", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"fixed +240 +\d+\.\d\d ± \d+\.\d\d +\d+\.\d\d ± \d+\.\d\d ", done.stdout)
    folder = tmp_path / "runs" / "compare-fixed-triangular2"
    assert imread(folder / "comparison.png").size
    assert run_cli("compare", *solvers, "--seeds", "2", "--plot-format", "svg").returncode == 0
    drawn = (folder / "comparison.svg").read_text()
    assert "digits: fixed and triangular2" in drawn
    assert "mean of 2 seeds, band: lowest to highest" in drawn
    record = folder / "triangular2" / "seed_2" / "train.csv"
    before = record.stat().st_mtime_ns
    assert run_cli("compare", *solvers, "--seeds", "2").returncode == 0
    assert record.stat().st_mtime_ns == before


@pytest.mark.parametrize("command", ["train", "compare", "schedule", "stepsize", "range-test"])
def test_a_missing_solver(command: str, tree: Tree, run_cli: Run) -> None:
    rates = ["--min-lr", "0.1", "--max-lr", "1", "--iterations", "9"]
    done = run_cli(command, "none.prototxt", *(rates if command == "range-test" else []))
    assert done.returncode == 1
    assert done.stderr.startswith("error: none.prototxt: cannot be read: No such file")


@pytest.mark.usefixtures("digits")
def test_an_out_that_cannot_be_written(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in ("train", "compare", "schedule"):
        done = run_cli(command, "models/digits/fixed_solver.prototxt", "--out", "file/run")
        assert "Run:" not in done.stdout
        assert done.returncode == 1
        assert "file/run" in done.stderr
        assert "cannot be written: Not a directory; name another --out" in done.stderr


@pytest.mark.usefixtures("digits")
def test_a_gpu_asked_of_a_cpu_build(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("train", "models/digits/fixed_solver.prototxt", "--gpu", "0")
    assert done.returncode == 1
    assert "GPU 0: this Caffe is built for the CPU only" in done.stderr
    assert not any(map(run_folder.is_run, (tmp_path / "runs").iterdir()))


def test_plot_of_what_is_no_run(tree: Tree, run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("plot", str(tmp_path))
    assert done.returncode == 1
    assert f"error: {tmp_path} is not a run folder" in done.stderr
    (tmp_path / "train.csv").write_text("iteration,lr\n")
    for arguments in ((), ("--together", "runs.png")):
        done = run_cli("plot", "train.csv", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: train.csv is not a run folder; it has no run.json\n"


def test_data_is_written_into_the_current_folder(tree: Tree, run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "train_test.prototxt").touch()
    done = run_cli("data", "digits", ".")
    assert done.returncode == 0, done.stderr
    names = {"train_lmdb", "test_lmdb", "mean.binaryproto", "train_test.prototxt"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_data_is_written_into_no_file(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = run_cli("data", "digits", "notes.txt", "--force")
    assert done.returncode == 2
    assert done.stderr == "error: notes.txt is not a folder; name another OUT\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "nan"], "--epochs nan: give a number above 0"),
        (["--epochs", "inf"], "--epochs inf: give a number above 0"),
        (["--epochs", "1e300"], "exceeds 2,147,483,647 iterations, the highest max_iter"),
        (
            ["--iterations", "99999999999999999999"],
            "exceeds 2,147,483,647 iterations, the highest max_iter",
        ),
        (["--iterations", "0"], "0 iterations are too few"),
        (["--iterations", "50", "--seed", "4294967296"], "less than or equal to 4294967295"),
        (["--iterations", "50", "--seed", "4294967295", "--seeds", "2"], "give a smaller --seed"),
        (["--iterations", "50", "--gpu", "2147483648"], "give the number of a GPU"),
        (["--iterations", "50", "--gpu", "-1"], "give the number of a GPU"),
        (["--gpu", "0,1"], "to train on 2, start as many by MPI: mpirun -n 2 … --gpu 0 --mpi"),
        (["--gpu", "2,5"], "by MPI: CUDA_VISIBLE_DEVICES=2,5 mpirun -n 2 … --gpu 0 --mpi"),
    ],
)
def test_an_option_beyond_its_type_is_refused(
    options: list[str], message: str, digits: Path, run_cli: Run
) -> None:
    solver = "models/digits/fixed_solver.prototxt"
    done = run_cli("range-test", solver, "--min-lr", "0.1", "--max-lr", "1", *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("prefix", ["..", "a/..", "a\\000b", "long" * 60])
def test_a_snapshot_prefix_that_is_no_name_is_refused_before_the_training(
    prefix: str, write_solver: Callable[..., Path], run_cli: Run, tmp_path: Path
) -> None:
    file = write_solver()
    file.write_text(file.read_text().replace("elsewhere/mine", prefix))
    done = run_cli("train", file, "--out", "run")
    assert done.returncode == 1
    assert "cannot be a file name; give a shorter, plain one" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("name", ["[red]a", "[/b]", "a:100:b", "a$\\b$c"])
def test_names_are_shown_as_they_are(name: str, run_cli: Run, tmp_path: Path) -> None:
    solver = tmp_path / "models" / "digits" / f"{Path(name).name}.prototxt"
    solver.write_text((solver.parent / "fixed_solver.prototxt").read_text())
    out = f"out {name}"
    done = run_cli("compare", solver, "--seeds", "1", "--out", out, COLUMNS="200")
    assert done.returncode == 0
    assert f"Plot: {out}/comparison.png" in done.stdout
    assert solver.stem in done.stdout.partition("Plot:")[0].rpartition("final")[2]
    run = tmp_path / out / solver.stem / "seed_1"
    assert f"Plot: {run}/training.png" in run_cli("plot", run).stdout
    again = run_cli("train", solver, "--out", run)
    assert f"error: {run} already has a run" in again.stderr


LAYERS = """
import caffe
import numpy as np


class Noise(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(8, 4)
        top[1].reshape(8)

    def forward(self, bottom, top):
        top[0].data[...] = np.random.normal(size=(8, 4))
        top[1].data[...] = 1

    def backward(self, top, propagate_down, bottom):
        pass
"""
READ_BY_PYTHON = """
layer {
  name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "own_layers" layer: "Noise" }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""


def test_the_remedy_for_a_data_layer_without_a_batch_size_is_one(
    write_solver: Callable[..., Path], run_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "own_layers.py").write_text(LAYERS)
    (tmp_path / "net.prototxt").write_text(READ_BY_PYTHON)
    file = write_solver(net="net.prototxt", solver_mode=1)
    on_cpu = f"warning: {file}: solver_mode is GPU, but this run is on the CPU"
    problem = (
        'net.prototxt: layer "data": no batch size in the prototxt of this layer of type Python'
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_cli(arguments[0], file, *arguments[1:], PYTHONPATH="layers")

    for images in ([], ["--images", "300"]):
        done = run("stepsize", *images)
        compute = "compute the stepsize as epochs * images / batch size"
        assert (done.returncode, done.stderr) == (1, f"error: {problem}; {compute}\n")
        done = run("range-test", "--epochs", "8", *images)
        remedy = "give --iterations instead of --epochs"
        assert (done.returncode, done.stderr.strip()) == (1, f"error: {problem}; {remedy}")
    for options in ([], ["--min-lr", "0", "--max-lr", "1"]):
        done = run("range-test", "--iterations", "100", *options)
        assert "\nJudged by: training loss (lower is better), 1" in done.stdout  # it is trained
        assert on_cpu in done.stdout
    for command, *options in (["train"], ["compare", "--seeds", "1"]):
        done = run(command, *options)
        assert (done.returncode, problem in done.stdout) == (0, False), done.stderr
        assert on_cpu in done.stdout
        done = run(command, *options, "--images", "300", "--out", command)
        assert done.returncode == 0, done.stderr
        assert f"warning: {problem}; so --images has no effect\n" in done.stdout


@pytest.mark.usefixtures("digits")
def test_names_that_are_no_utf_8_are_no_traceback(run_cli: Run, tmp_path: Path) -> None:
    solver = Path("models/digits") / os.fsdecode(b"a\xff.prototxt")
    (tmp_path / solver).write_text((tmp_path / "models/digits/fixed_solver.prototxt").read_text())
    refused = run_cli("train", solver)
    assert refused.returncode == 1
    assert "a\\udcff-" in refused.stderr
    assert "Caffe needs a path in UTF-8; name another --out" in refused.stderr
    rates = ("--min-lr", "0.001", "--max-lr", "0.3", "--iterations", "100")
    done = run_cli("range-test", solver, *rates, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    written = (tmp_path / "run" / "1cycle_solver.prototxt").read_bytes()
    assert written.startswith(b"# models/digits/a\xff.prototxt with")


@pytest.mark.usefixtures("digits")
def test_names_that_a_terminal_cannot_show_are_no_traceback(run_cli: Run) -> None:
    solver = "models/digits/fixed_solver.prototxt"
    done = run_cli("schedule", solver, "--out", "\xe9", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Wrote \\xe9/schedule.csv" in done.stdout


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("command", "named", "added"),
    [
        ("train", True, r" --resume"),
        ("train", False, r" --out \S+/runs/fixed-\S+ --resume"),
        ("range-test", True, r" --resume"),
        ("range-test", False, r" --out runs/fixed-\S+ --resume"),
        ("compare", True, ""),
        ("compare", False, ""),
    ],
)
def test_the_command_to_continue_with_can_be_pasted(
    command: str, named: bool, added: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLR_COMMAND", raising=False)  # which ./clr test sets
    monkeypatch.setenv("PYTHONPATH", "a folder")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    solver = tmp_path / "models" / "digits" / "fixed_solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 240", "max_iter: 100000"))
    words = [command, "models/digits/fixed_solver.prototxt"]
    words += {"train": [], "range-test": RATES, "compare": ["--seeds", "1"]}[command]
    words += ["--out", "a; b"] if named else []
    out = tmp_path / ("a; b" if named else "runs")

    def interrupted(*command: str, shell: bool) -> str:
        before = len(recorded(out))
        process = subprocess.Popen(
            command[0] if shell else command,
            shell=shell,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and len(recorded(out)) <= before:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        return process.communicate()[1]

    first = interrupted("caffe-clr", *words, shell=False)
    same = rf"(?:[A-Z_]+=\S+ )*PYTHONPATH='a folder' caffe-clr {shlex.join(words)}{added}"
    told = re.fullmatch(rf"error: interrupted; .*; continue with: ({same})\n", first)
    assert told, first
    monkeypatch.delenv("PYTHONPATH")
    again = interrupted(told[1], shell=True)
    assert again.endswith(f"; continue with: {told[1]}\n")


def recorded(out: Path) -> str:
    """What all trainings in a folder have recorded."""
    return "".join(file.read_text() for file in sorted(out.rglob("train.csv")))


def test_the_bar_of_a_range_test_without_tests_is_full(
    write_solver: Callable[..., Path], run_cli: Run
) -> None:
    rates = ("--min-lr", "0.001", "--max-lr", "0.3", "--iterations", "300")
    done = run_cli("range-test", write_solver(), *rates, "--out", "run")
    assert "300/300" in done.stdout
