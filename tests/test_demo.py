"""The demo, run as a user runs it."""

import csv
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from matplotlib.image import imread

from caffe_clr import prototxt
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree

pytestmark = pytest.mark.alone


def test_the_demo(
    tree: Tree, run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_cli("demo", "--out", "demo")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r" (fixed|1cycle) +1,200 +(\d+\.\d+) ± \d+\.\d+ ", done.stdout))
    assert set(rows) == {"fixed", "1cycle"}
    assert float(rows["1cycle"]) >= 95
    for name in ("range_test", "comparison"):
        plot = tmp_path / "demo" / name / f"{name}.png"
        assert f"Plot: {plot}" in done.stdout
        assert imread(plot).shape[1] == 1200
    suggested = prototxt.read_solver(tmp_path / "demo" / "range_test" / "1cycle_solver.prototxt")
    assert f"max_lr {suggested.max_lr:.2g}: 0." in done.stdout
    assert (suggested.stepsize, suggested.max_iter) == (540, 1200)
    with (tmp_path / "demo" / "comparison" / "1cycle.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in curve] == list(range(0, 1201, 30))
    assert f"{100 * float(curve[-1]['mean']):.2f}" == rows["1cycle"]
    assert trained_again(run_cli, tmp_path / "demo") == []


def trained_again(
    run_cli: Callable[..., subprocess.CompletedProcess[str]], folder: Path
) -> list[str]:
    """The records of runs that a second demo, which a user's file is put into, changes."""
    mine = folder / "comparison" / "notes.txt"
    mine.write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("seed_*/*.csv")}
    assert before
    done = run_cli("demo", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert mine.read_text() == "mine"
    return [str(path) for path, content in before.items() if path.read_bytes() != content]


@pytest.mark.usefixtures("tree")
def test_the_demo_begins_over_nothing(
    run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    mine = tmp_path / "demo" / "range_test" / "range_test.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = run_cli("demo", "--out", "demo")
    assert (done.returncode, mine.read_text()) == (2, "mine")
    assert f"{mine} already exists and would be overwritten" in done.stderr


def test_digits_are_split_and_stored_as_caffe_reads_them(tree: Tree, tmp_path: Path) -> None:
    stored = []
    for path in datasets.write_digits(tmp_path):
        with lmdb.open(str(path), readonly=True) as database, database.begin() as transaction:
            values = [value for _, value in transaction.cursor()]
        stored.append([prototxt.caffe_pb2().Datum.FromString(value) for value in values])
    train, test = stored
    assert (len(train), len(test)) == (1500, 297)
    assert {(d.channels, d.height, d.width, len(d.data)) for d in train + test} == {(1, 8, 8, 64)}
    assert {d.label for d in test} == set(range(10))
    assert not {d.data for d in train} & {d.data for d in test}
    assert max(max(d.data) for d in train) == 16


def test_digits_are_written_once(tree: Tree, tmp_path: Path) -> None:
    train, test = datasets.write_digits(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_lmdb", "train_lmdb"]
    before = (train / "data.mdb").stat().st_mtime_ns
    assert datasets.write_digits(tmp_path) == (train, test)
    assert (train / "data.mdb").stat().st_mtime_ns == before


@pytest.mark.usefixtures("tree")
def test_an_out_folder_that_cannot_be_written(
    run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("demo", "--out", "file/demo")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/file/demo: Not a directory\n"


@pytest.mark.usefixtures("tree")
def test_the_demo_keeps_the_caffe_that_is_there(
    run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("demo", "--out", "file/demo", PATH="/nowhere")  # without a compiler
    assert done.stderr == f"error: {tmp_path}/file/demo: Not a directory\n"
