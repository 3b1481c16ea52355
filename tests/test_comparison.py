"""Comparing solvers: the runs, what is read out of them, and Dask workers."""

import csv
import functools
import itertools
import math
import re
import shutil
import socket
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from matplotlib.figure import Figure

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import comparison, plots, sweeps
from caffe_clr.method.comparison import Options
from caffe_clr.method.range_test import range_test
from caffe_clr.method.results import Entry
from caffe_clr.runs import run_folder, training
from caffe_clr.runs.history import History, read_table
from caffe_clr.runs.metrics import Metric

pytestmark = pytest.mark.usefixtures("digits_root")
Cli = Callable[..., subprocess.CompletedProcess[str]]
SEEDS = (1, 2)
NAMES = ("fixed", "triangular2")
DAY = "20261129-042710"


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    """The solvers of models/digits, five epochs of them."""
    return [shortened(name, tmp_path) for name in NAMES]


@pytest.fixture
def write_solver(write_solver: Callable[..., Path]) -> Callable[..., Path]:
    """The same with bounds that the net learns fast with."""
    return functools.partial(write_solver, base_lr=0.01, max_lr=0.5)


def shortened(name: str, folder: Path, **fields: Any) -> Path:
    parameter = prototxt.read_solver(Path(f"models/digits/{name}_solver.prototxt"))
    parameter.max_iter = 150
    parameter.snapshot = 60
    for field, value in fields.items():
        setattr(parameter, field, value)
    file = folder / f"{name}_solver.prototxt"
    file.write_text(text_format.MessageToString(parameter))
    return file


def table_of(folder: Path, name: str = "test.csv") -> list[dict[str, str]]:
    """The rows of a run, without what differs from one time to the next."""
    with (folder / name).open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


def times(folder: Path) -> dict[Path, int]:
    files = (file for file in folder.rglob("*") if file.suffix in (".csv", ".caffemodel", ".json"))
    return {file: file.stat().st_mtime_ns for file in files}


def accuracies(out: Path, name: str, seed: int) -> dict[int, float]:
    rows = table_of(out / name / f"seed_{seed}")
    return {int(row["iteration"]): float(row["accuracy"]) for row in rows}


def test_the_table_says_what_the_runs_recorded(digits: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown: list[dict[str, int]] = []
    entries = comparison.compare(digits, out, Options(seeds=2, jobs=2), shown.append)
    lines = comparison.table(entries)
    recorded = {name: [accuracies(out, name, seed) for seed in SEEDS] for name in NAMES}
    assert recorded["fixed"][0] != recorded["fixed"][1]
    goal = sum(run[150] for run in recorded["fixed"]) / 2
    own = lines[0].reached
    assert own
    for name, line in zip(NAMES, lines, strict=True):
        finals = [run[150] for run in recorded[name]]
        bests = [max(run.values()) for run in recorded[name]]
        assert line.final == pytest.approx((statistics.mean(finals), statistics.stdev(finals)))
        assert line.best == pytest.approx((statistics.mean(bests), statistics.stdev(bests)))
        assert (line.name, line.seeds, line.diverged, line.iterations) == (name, 2, 0, 150)
        means = {i: sum(run[i] for run in recorded[name]) / 2 for i in recorded[name][0]}
        good = [i for i in means if means[i] >= goal <= means.get(i + 30, goal)]
        assert line.reached == (good[0] if good else None)
        assert line.ratio == (line.reached / own if line.reached is not None else None)
    assert lines[0].ratio == 1
    for entry in entries:
        both = recorded[entry.name]
        curve = entry.curve()
        assert [row["iteration"] for row in curve] == list(range(0, 151, 30))
        for row in curve:
            values = [run[int(row["iteration"])] for run in both]
            assert (row["low"], row["high"]) == (min(values), max(values))
            assert row["mean"] == pytest.approx(sum(values) / 2)
    assert set(shown[-1]) == set(NAMES)
    assert all(done <= 300 for done in shown[-1].values())
    comparison.write(entries, lines, out)
    assert [row["name"] for row in table_of(out, "comparison.csv")] == list(NAMES)
    assert read_table(out / "fixed.csv") == (entries[0].curve(), 0)


def test_rates_are_known_between_tests(tmp_path: Path) -> None:
    solver = shortened("triangular2", tmp_path, display=10, test_interval=60)
    (entry,) = comparison.compare([solver], tmp_path / "out", Options(seeds=1))
    rates = entry.rates()
    assert list(rates) == list(range(150))
    parameter = prototxt.read_solver(solver)
    fields = {field: getattr(parameter, field) for field in ("base_lr", "max_lr", "stepsize")}
    expected = policies.triangular2(np.array(list(rates)), **fields)
    assert list(rates.values()) == pytest.approx(expected)


def test_momenta_are_drawn_where_one_cycles(tmp_path: Path, figures: list[Figure]) -> None:
    fields: dict[str, Any] = {"cyclical_momentum": [0.85, 60], "momentum": 0.95}
    file = shortened("1cycle_momentum", tmp_path)
    parameter = prototxt.read_solver(file)
    parameter.cyclical_momentum[1] = fields["cyclical_momentum"][1]
    file.write_text(text_format.MessageToString(parameter))
    entries = comparison.compare(
        [file, shortened("fixed", tmp_path)], tmp_path / "out", Options(seeds=1)
    )
    momenta = entries[0].momenta()
    expected = policies.momentum(np.array(list(momenta)), **fields)
    assert list(momenta.values()) == expected.astype(float).tolist()
    assert entries[1].momenta() == {}
    recorded = [row["momentum"] for row in entries[0].curve()][:-1]
    assert recorded == [momenta[at] for at in range(0, 150, 30)]
    plots.plot_comparison(entries, "", tmp_path / "plot.png")
    plots.plot_comparison(entries[1:], "", tmp_path / "plot.png")
    plots.plot_log(entries[0].histories[1], "a run", tmp_path / "plot.png")
    plots.plot_log(entries[1].histories[1], "a run", tmp_path / "plot.png")
    labels = [[axes.get_ylabel() for axes in figure.axes] for figure in figures]
    assert labels == [
        ["test accuracy (%)", "learning rate", "momentum"],
        ["test accuracy (%)", "learning rate"],
        ["loss", "accuracy (%)", "learning rate", "momentum"],
        ["loss", "accuracy (%)", "learning rate"],
    ]


def test_what_little_is_recorded_is_in_the_plot(tmp_path: Path, figures: list[Figure]) -> None:
    row = {"iteration": 500, "lr": 0.001}
    history = History([], [{**row, "iteration": 0, "accuracy": 0.1}, {**row, "accuracy": 0.4}])
    metric = Metric("accuracy", of_test=True, is_accuracy=True)
    entry = Entry("long", metric, 70_000, {1: history}, {}, [row])
    plots.plot_comparison([entry], "", tmp_path / "plot.png")
    low, high = figures[0].axes[0].get_ylim()
    assert 30 < low < 40 < high < 50


def test_what_is_trained_is_not_trained_again(digits: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    entries = comparison.compare(digits, out, Options(seeds=2, jobs=2))
    before = times(out)
    assert comparison.compare(digits, out, Options(seeds=2)) == entries
    assert times(out) == before
    # a run that is lost, and one that was killed after its last snapshot but one
    shutil.rmtree(out / "fixed" / "seed_1")
    killed = out / "triangular2" / "seed_2"
    status = killed / "run.json"
    status.write_text(status.read_text().replace('"finished"', '"running"'))
    for file in (killed / "snapshots").glob("*_iter_150.*"):
        file.unlink()
    snapshot = (killed / "snapshots" / "triangular2_iter_120.caffemodel").stat().st_mtime_ns
    again = comparison.compare(digits, out, Options(seeds=2, jobs=2))
    rest = {file: time for file, time in times(out).items() if before[file] != time}
    assert {file.relative_to(out).parts[:2] for file in rest} == {
        ("fixed", "seed_1"),
        ("triangular2", "seed_2"),
    }
    after = (killed / "snapshots" / "triangular2_iter_120.caffemodel").stat().st_mtime_ns
    assert after == snapshot
    assert again[0].finals() == entries[0].finals()
    assert [row["iteration"] for row in again[1].curve()] == list(range(0, 151, 30))
    # another seed is trained beside those that are there
    before = times(out)
    more = comparison.compare(digits, out, Options(seeds=3))
    assert times(out).items() >= before.items()
    assert more[0].finals()[:2] == entries[0].finals()


def test_a_changed_solver_is_refused_before_anything_is_trained(
    digits: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    comparison.compare(digits, out, Options(seeds=1))
    before = times(out)
    digits[1].write_text(digits[1].read_text().replace("max_lr: 0.1", "max_lr: 0.2"))
    with pytest.raises(UsageError, match="started with another max_lr"):
        comparison.compare(digits, out, Options(seeds=2))
    assert times(out) == before


def test_a_solver_that_diverges_does_not_stop_the_others(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    good = write_solver("good")
    lost = write_solver("lost", lr_policy="fixed", base_lr=3e38)
    for files in ([good, lost], [lost, good]):
        entries = comparison.compare(files, tmp_path / files[0].stem, Options(seeds=2))
        lines = {line.name: line for line in comparison.table(entries)}
        assert (lines["lost"].seeds, lines["lost"].diverged) == (2, 2)
        assert (lines["lost"].final, lines["lost"].best) == (None, None)
        assert lines["lost"].ratio is None
        assert (lines["good"].diverged, lines["good"].final is not None) == (0, True)
        diverged = next(entry.diverged for entry in entries if entry.name == "lost")
        assert list(diverged) == [1, 2]
        assert "diverged at iteration" in diverged[1]
        comparison.write(entries, list(lines.values()), tmp_path)


def test_solvers_of_which_nothing_is_recorded_are_compared(
    write_solver: Callable[..., Path], run_cli: Cli
) -> None:
    silent = {"display": 0, "test_initialization": False, "test_iter": [1], "test_interval": 10}
    file = write_solver("lost", lr_policy="fixed", base_lr=3e38, max_iter=20, **silent)
    done = run_cli("compare", file, "--seeds", "2", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ *lost +20 +diverged +diverged +never", done.stdout, re.MULTILINE)


def test_a_loss_without_an_end_has_no_deviation() -> None:
    metric = Metric("loss", of_test=True, is_accuracy=False)
    finite, infinite = (
        History([], [{"iteration": 9, "lr": 1, "loss": loss}]) for loss in (1, math.inf)
    )
    (line,) = comparison.table([Entry("one", metric, 9, {1: finite, 2: infinite}, {}, [])])
    assert line.final
    assert line.final[0] == math.inf
    assert math.isnan(line.final[1])


ACCURACY = Metric("accuracy", of_test=True, is_accuracy=True)


def entry_of(name: str, *seeds: list[float], diverged: tuple[int, ...] = ()) -> Entry:
    """An entry with the accuracies of each seed, with 10 iterations from one test to the next."""
    histories = {
        seed: History(
            [],
            [
                {"iteration": 10 * number, "lr": 1, "accuracy": accuracy}
                for number, accuracy in enumerate(accuracies)
            ],
        )
        for seed, accuracies in enumerate(seeds, 1)
    }
    return Entry(name, ACCURACY, 40, histories, dict.fromkeys(diverged, "diverged"), [])


@pytest.mark.parametrize(
    ("entry", "reached"),
    [
        (entry_of("a lucky test", [0.1, 0.8, 0.3, 0.4, 0.5]), None),
        (entry_of("two in a row", [0.1, 0.8, 0.3, 0.7, 0.8]), 30),
        (entry_of("later worse", [0.1, 0.7, 0.7, 0.3, 0.4]), 10),
        (entry_of("the last", [0.1, 0.2, 0.3, 0.4, 0.7]), 40),
        (entry_of("the mean", [0.1, 0.9, 0.9, 0.9, 0.9], [0.1, 0.4, 0.5, 0.6, 0.5]), 20),
        (entry_of("one diverged", [0.1, 0.2, 0.7, 0.7, 0.7], [0.1], diverged=(2,)), 20),
        (entry_of("all diverged", [0.9, 0.9], diverged=(1,)), None),
        (entry_of("nothing recorded", []), None),
    ],
    ids=lambda value: value.name if isinstance(value, Entry) else "",
)
def test_a_value_is_reached_in_two_tests_in_a_row(entry: Entry, reached: int | None) -> None:
    baseline = entry_of("baseline", [0.1, 0.7, 0.6, 0.6, 0.7])
    _, line = comparison.table([baseline, entry])
    assert line.reached == reached
    assert line.ratio == (reached and reached / 40)


def test_the_baseline_reaches_its_own_final_accuracy_at_its_end_at_the_latest() -> None:
    seeds = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.9], [0.1])
    (line,) = comparison.table([entry_of("baseline", *seeds, diverged=(3,))])
    assert (line.reached, line.ratio) == (40, 1)


def test_a_solver_that_cannot_be_trained_is_refused_before_the_others_are(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.prototxt"  # fewer outputs than labels, which only the shapes tell
    few.write_text(net.read_text().replace("num_output: 3", "num_output: 2"))
    good = write_solver("good")
    for name, message in (("none.prototxt", r"none\.prototxt"), (str(few), "has the label 2")):
        with pytest.raises(ClrError, match=message):
            comparison.compare(
                [good, write_solver("refused", net=name)], tmp_path / "out", Options(seeds=1)
            )
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_a_run_that_fails_does_not_stop_the_others(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    files = [write_solver("refused"), write_solver("good")]
    comparison.compare(files, out, Options(seeds=1))
    (out / "refused" / "seed_1" / "train.csv").unlink()
    for seed in (1, 2):
        (out / "refused" / f"seed_{seed}").mkdir(exist_ok=True)
        (out / "refused" / f"seed_{seed}" / "train.csv").mkdir()
    with pytest.raises(ClrError):
        comparison.compare(files, out, Options(seeds=2))
    assert run_folder.read_status(out / "good" / "seed_2")["status"] == "finished"


def test_of_a_loss_the_lowest_is_best(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    files = [write_solver("slow", max_lr=0.02), write_solver("fast")]
    entries = comparison.compare(files, tmp_path / "out", Options(seeds=1))
    slow, fast = comparison.table(entries)
    losses = {
        name: [
            float(row["loss"]) for row in table_of(tmp_path / "out" / name / "seed_1", "train.csv")
        ]
        for name in ("slow", "fast")
    }
    assert slow.final == (losses["slow"][-1], 0)
    assert fast.best == (min(losses["fast"]), 0)
    good = [loss <= losses["slow"][-1] for loss in losses["fast"]]
    reached = next(i for i, both in enumerate(itertools.pairwise(good)) if all(both))
    assert 0 < reached == fast.reached
    assert slow.reached is not None
    assert fast.ratio == reached / slow.reached < 1


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("here/a_solver b_solver", "a b"),
        ("here/a_solver there/a_solver b_solver", "here-a there-a b"),
        ("here/solver there/solver", "here there"),
        ("solver found/1cycle_solver", "solver 1cycle"),
        ("one/of/solver two/of/solver three/solver", "one-of two-of three"),
        ("a/solver_1 a/solver_2", "solver_1 solver_2"),  # of no run
        (
            "step_solver runs/step-TIME-588355/1cycle_solver runs/adam-TIME-000061/1cycle_solver",
            "step step-1cycle adam-1cycle",
        ),
        (
            "runs/a-20261129-042710-588355/1cycle runs/a-20261130-090000-000001/1cycle",
            "a-042710-1cycle a-090000-1cycle",
        ),
        (
            "runs/a-20261129-042710-588355/1cycle runs/a-20261129-042710-000001/1cycle",
            "a-20261129-042710-588355-1cycle a-20261129-042710-000001-1cycle",
        ),
    ],
)
def test_names_tell_the_solvers_apart(files: str, names: str) -> None:
    given = [Path(f"{file}.prototxt") for file in files.replace("TIME", DAY).split()]
    assert comparison.names(given) == names.split()
    folders = {folder for _, folder, _ in comparison.run_folders(given, Path("out"), 2)}
    seeds = (1, 2)
    assert folders == {
        Path("out", name, f"seed_{seed}") for name in names.split() for seed in seeds
    }


@pytest.mark.parametrize("files", [["a_solver", "a_solver"], ["a_solver", "a"]])
def test_what_nothing_tells_apart_is_refused(files: list[str]) -> None:
    with pytest.raises(UsageError, match="the same name; rename one, or give each one once"):
        comparison.names([Path(f"{file}.prototxt") for file in files])


def test_the_solver_of_a_run_is_called_as_the_run_is(tmp_path: Path) -> None:
    runs = [tmp_path / f"{name}-{DAY}-000001" for name in ("fixed", "1cycle")]
    for run in runs:
        run.mkdir()
        (run / "run.json").write_text("{}")
    files = [run / "solver_1.prototxt" for run in runs]
    assert comparison.names([*files, Path("triangular2_solver.prototxt")]) == [
        *("fixed", "1cycle", "triangular2")
    ]


def test_the_default_folder_is_short_and_the_same_for_the_same_solvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = [Path(f"{name}.prototxt") for name in NAMES]
    assert comparison.default_folder(few) == Path("runs/compare-fixed-triangular2")
    many = [Path(f"a_solver_of_{name}.prototxt") for name in ("mine", "yours", "ours")]
    folder = comparison.default_folder(many)
    assert re.fullmatch(r"runs/compare-a_solver_of_mine-and-2-more-[0-9a-f]{6}", str(folder))
    assert comparison.default_folder(many) == folder
    assert comparison.default_folder([*many[:2], Path("a_solver_of_theirs.prototxt")]) != folder
    one = Path(f"{'o' * 100}.prototxt")
    assert re.fullmatch(r"runs/compare-o{24}-[0-9a-f]{6}", str(comparison.default_folder([one])))
    before = Path("runs/compare-a_solver_of_mine-a_solver_of_yours-a_solver_of_ours")
    before.mkdir(parents=True)  # by an earlier version
    assert comparison.default_folder(many) == before


def test_runs_of_one_name_are_told_apart_by_the_folders_above(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(max_iter=4, test_iter=[1], test_interval=2)
    folders = [tmp_path / name / "seed_1" for name in ("fixed", "triangular2")]
    for folder in folders:
        training.train(file, folder)
    found = [entry.name for entry in comparison.of_runs(folders)]
    assert found == ["fixed/seed_1", "triangular2/seed_1"]
    assert [entry.name for entry in comparison.of_runs(folders[:1])] == ["seed_1"]


def test_without_seeds_there_is_nothing_to_compare(digits: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seeds 0: give 1 or more"):
        comparison.compare(digits, tmp_path / "out", Options(seeds=0))
    assert not (tmp_path / "out").exists()


def test_what_is_not_recorded_is_not_compared(
    write_solver: Callable[..., Path], digits: list[Path], tmp_path: Path
) -> None:
    silent = write_solver("silent", display=0)
    with pytest.raises(
        ClrError, match=r"silent\.prototxt: nothing is recorded to compare, .*; set display"
    ):
        comparison.compare([silent], tmp_path / "out", Options())
    with pytest.raises(UsageError, match=r"test accuracy .* training loss"):
        comparison.compare([*digits, write_solver("loss")], tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_dask_workers_train_as_this_process_does(digits: list[Path], tmp_path: Path) -> None:
    from distributed import LocalCluster

    workers: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=True, **workers) as cluster:  # type: ignore[no-untyped-call]
        address = cluster.scheduler_address
        theirs = comparison.compare(
            digits, tmp_path / "theirs", Options(seeds=2, scheduler=address)
        )
    ours = comparison.compare(digits, tmp_path / "ours", Options(seeds=2))
    for name in NAMES:
        for seed in SEEDS:
            for kind in ("train.csv", "test.csv"):
                run = Path(name) / f"seed_{seed}" / kind
                folders = [tmp_path / place / run.parent for place in ("theirs", "ours")]
                assert table_of(folders[0], kind) == table_of(folders[1], kind)
    assert comparison.table(theirs) == comparison.table(ours)


def test_dask_workers_train_the_seeds_of_a_range_test(digits: list[Path], tmp_path: Path) -> None:
    from distributed import LocalCluster

    outs = [tmp_path / "theirs", tmp_path / "ours"]
    workers: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=True, **workers) as cluster:  # type: ignore[no-untyped-call]
        address = cluster.scheduler_address
        options = sweeps.Options(seeds=2, iterations=40, scheduler=address)
        range_test(digits[0], outs[0], options)
    range_test(digits[0], outs[1], sweeps.Options(seeds=2, iterations=40))
    theirs, ours = ((out / "range_test.csv").read_text() for out in outs)
    assert theirs == ours


def test_a_failure_on_a_dask_worker_is_this_process_own(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    from distributed import LocalCluster

    files = [
        *(write_solver("lost", lr_policy="fixed", base_lr=3e38), write_solver("good")),
        write_solver("refused", net="none.prototxt"),
    ]
    workers: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=True, **workers) as cluster:  # type: ignore[no-untyped-call]
        address = cluster.scheduler_address
        entries = comparison.compare(
            files[:2], tmp_path / "out", Options(seeds=1, scheduler=address)
        )
        with pytest.raises(ClrError, match=r"none\.prototxt"):
            comparison.compare(files, tmp_path / "out", Options(seeds=1, scheduler=address))
    assert list(entries[0].diverged) == [1]
    assert len(entries[1].finals()) == 1


def test_a_scheduler_that_is_not_there_is_an_error(digits: list[Path], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    for address in (free, "nonsense://here"):
        with pytest.raises(ClrError, match=rf"--scheduler {address}: no Dask scheduler answers"):
            comparison.compare(digits, tmp_path / "out", Options(seeds=1, scheduler=address))
