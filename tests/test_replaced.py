"""What commands find where they are about to write: nothing that is not theirs is lost."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffe_clr.errors import ClrError, Interrupted, UsageError
from caffe_clr.experiments import datasets
from caffe_clr.harness import build_record
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import comparison, sweeps
from caffe_clr.method.range_test import range_test
from caffe_clr.runs import run_folder, training
from caffe_clr.runs.options import TrainingOptions

Write = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
MINE = "a user's own\n"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def put(folder: Path, *names: str) -> dict[str, bytes]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(MINE)
    return contents(folder)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        *("train.csv", "test.csv", "training.png", "training.svg"),
        *("solver_1.prototxt", "solver_12.prototxt"),
    ],
)
def test_a_run_does_not_begin_over_files(
    name: str, resume: bool, write_solver: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = put(out, name, "notes.txt")
    with pytest.raises(UsageError, match=f"{out}/{name} already exists and would be overwritten"):
        training.train(write_solver(max_iter=2), out, TrainingOptions(resume=resume))
    assert {file: content for file, content in contents(out).items() if file in before} == before


def test_a_run_begins_beside_other_files(write_solver: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = put(out, "notes.txt", "lists/train.csv", "solver.prototxt")
    training.train(write_solver(max_iter=2), out)
    assert before.items() <= contents(out).items()


def test_a_run_that_ended_before_its_first_row_is_begun_again(
    write_solver: Write, tmp_path: Path
) -> None:
    file, out = write_solver(max_iter=2), tmp_path / "out"
    with pytest.raises(Interrupted):
        training.train(file, out, stop=lambda: 2)
    for snapshot in (out / "snapshots").iterdir():
        snapshot.unlink()
    (out / "snapshots.csv").unlink()
    training.train(file, out)
    assert run_folder.read_status(out)["status"] == "finished"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("range_test_solver.prototxt", sweeps.Options(0.001, 0.1, iterations=20)),
        ("range_test.csv", sweeps.Options(0.001, 0.1, iterations=20)),
        ("triangular2_1_solver.prototxt", sweeps.Options(0.001, 0.1, iterations=20)),
        ("1cycle_solver.prototxt", sweeps.Options(policy="1cycle")),
        ("sweep_2/range_test_solver.prototxt", sweeps.Options()),
    ],
)
def test_a_range_test_does_not_begin_over_files(
    name: str, options: sweeps.Options, write_solver: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = put(out, name)
    with pytest.raises(UsageError, match=f"{out}/{name} already exists"):
        range_test(write_solver(), out, options)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["comparison.csv", "a[1].csv", "comparison.png", "comparison.pdf"])
def test_a_comparison_does_not_begin_over_files(
    name: str, write_solver: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = put(out, name)
    with pytest.raises(UsageError, match="already exists"):
        comparison.compare([write_solver("a[1]")], out, comparison.Options(seeds=1))
    assert contents(out) == before


LOG = """\
I0101 10:00:00.000000 1 solver.cpp:218] Iteration 0 (0 iter/s, 0s/1 iters), loss = 2
I0101 10:00:00.000000 1 sgd_solver.cpp:105] Iteration 0, lr = 0.01
I0101 10:00:01.000000 1 solver.cpp:218] Iteration 1 (1 iter/s, 1s/1 iters), loss = 1
I0101 10:00:01.000000 1 sgd_solver.cpp:105] Iteration 1, lr = 0.01
"""


def test_results_of_a_log_replace_nothing_but_such(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG)
    for _ in range(2):
        assert run_cli("log", "train.log").returncode == 0
    for name in ("train.csv", "log.png", "log.svg"):
        before = put(tmp_path / name, name)
        done = run_cli("log", "train.log", "--out", name)
        assert done.returncode == 2
        assert f"{name}/{name} already exists" in done.stderr
        assert contents(tmp_path / name) == before


@pytest.mark.usefixtures("tree")
def test_results_of_a_log_do_not_replace_those_of_a_run(
    write_solver: Write, run_cli: Run, tmp_path: Path
) -> None:
    training.train(write_solver(max_iter=2), tmp_path / "run")
    (tmp_path / "train.log").write_text(LOG)
    before = contents(tmp_path / "run")
    assert run_cli("log", "train.log", "--out", "run").returncode == 2
    assert contents(tmp_path / "run") == before


def test_a_schedule_replaces_nothing_but_such(
    write_solver: Write, run_cli: Run, tmp_path: Path
) -> None:
    file = write_solver()
    for _ in range(2):
        assert run_cli("schedule", file, "--out", "drawn").returncode == 0
    before = put(tmp_path / "other", "schedule.csv")
    done = run_cli("schedule", file, "--out", "other")
    assert done.returncode == 2
    assert "other/schedule.csv already exists" in done.stderr
    assert contents(tmp_path / "other") == before


@pytest.mark.usefixtures("tree")
def test_a_data_set_replaces_nothing_but_lmdbs(tmp_path: Path) -> None:
    split = datasets.Split(np.zeros((2, 1, 3, 3), np.uint8), np.arange(2))
    splits = {"train": split, "test": split}
    out = tmp_path / "out"
    before = put(tmp_path, "out.partial/mine", "out/train_lmdb.partial/mine", "out/mine")
    for _ in range(2):
        datasets.write(splits, out)
        assert before.items() <= contents(tmp_path).items()
    before = put(out, "test_lmdb/mine") | contents(out)
    with pytest.raises(ClrError, match=f"{out}/test_lmdb/mine does not belong to an LMDB"):
        datasets.write(splits, out)
    assert contents(out) == before


@pytest.mark.usefixtures("tree")
def test_the_digits_replace_no_lmdb(tmp_path: Path) -> None:
    before = put(tmp_path, "test_lmdb/data.mdb", "train_lmdb.partial/mine")
    datasets.write_digits(tmp_path)
    assert before.items() <= contents(tmp_path).items()
    assert (tmp_path / "train_lmdb" / "data.mdb").is_file()


def test_a_caffe_of_another_origin_is_not_written_over(
    tree: Tree, run_cli: Run, tmp_path: Path
) -> None:
    before = put(tmp_path / "caffe", "python/caffe/__init__.py", "src/caffe/net.cpp")
    done = run_cli("build", "--prefix", "caffe", "--no-import")
    assert done.returncode == 2
    assert "caffe/python/caffe is a Caffe that `caffe-clr build` did not install" in done.stderr
    assert contents(tmp_path / "caffe") == before
    build_record.check_prefix(tree.prefix)
    build_record.check_prefix(tmp_path / "none")


def test_other_event_files_stay(write_solver: Write, tmp_path: Path) -> None:
    before = put(tmp_path / "run", "events.out.tfevents.1700000000.host")
    training.train(write_solver(max_iter=2), tmp_path / "run", TrainingOptions(tensorboard=True))
    assert before.items() <= contents(tmp_path / "run").items()
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 2
