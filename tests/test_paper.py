"""The paper's tables: what is recorded, the rules, and the trainings."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from rich.console import Console

from benchmarks import readmes
from caffe_clr.cli import papers
from caffe_clr.errors import UsageError
from caffe_clr.experiments import cifar, nets, paper, paper_data, paper_runs, verdicts
from caffe_clr.experiments.verdicts import Result
from caffe_clr.harness.compilation import Tree

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("tree")


def test_the_tables_of_the_readmes_are_what_the_files_give() -> None:
    for file, text in readmes.texts(ROOT).items():
        assert file.read_text() == text, f"run `.venv/bin/python -m benchmarks figures` for {file}"


def test_a_changed_record_changes_the_table(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    file = tmp_path / "models/cifar10_full/results/h200/exp_3.csv"
    lines = file.read_text().splitlines()
    iteration, lr, _, loss = lines[-1].split(",")
    file.write_text("\n".join([*lines[:-1], f"{iteration},{lr},0.9,{loss}\n"]))
    readme = tmp_path / "models/cifar10_full/README.md"
    before, after = readme.read_text(), readmes.texts(tmp_path)[readme]
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.split("|")[1].strip() for line in changed] == ["exp"]
    assert "83.3 ± 5.8" in changed[0]


def test_every_recorded_run_reached_the_end_of_its_row() -> None:
    for table in paper.tables().values():
        for row in table.rows.values():
            for file in row.recorded:
                last = file.read_text().splitlines()[-1]
                assert int(last.split(",")[0]) == row.iterations, file


@pytest.mark.parametrize(
    ("figure", "finals", "agrees"),
    [
        (81.4, [80.9], True),
        (81.4, [80.8], False),
        (78.5, [77.7, 75.2, 75.6], True),  # within two standard deviations
        (78.5, [77.7, 75.2], False),  # which two seeds do not give
    ],
)
def test_what_agrees(figure: float, finals: list[float], agrees: bool) -> None:
    assert verdicts.agrees(figure, finals) == agrees


@pytest.mark.parametrize(
    ("row", "other", "relation"),
    [
        ([81.0], [80.5], "as good as"),
        ([81.1], [80.5], "better than"),
        ([80.5], [81.1], "behind"),
        ([83.0, 80.0], [80.5, 80.4], "undecided"),
    ],
)
def test_how_rows_compare(row: list[float], other: list[float], relation: str) -> None:
    assert verdicts.relation(row, other) == relation


def test_a_claim_is_about_the_best_of_the_rows_that_it_names() -> None:
    table = paper.chosen("table-4-tenth")
    claim = table.claims[0]
    results = {
        name: {1: Result({6400: final})}
        for name, final in {"fixed_0.1": 87.0, "fixed_0.2": 88.0, "fixed_0.3": 86.0}.items()
    }
    assert verdicts.claim_cells(claim, results)[2:] == ["not yet run", ""]
    results["clr"] = {1: Result({6400: 88.6})}
    assert verdicts.claim_cells(claim, results)[2:] == ["+0.60", "holds; one seed"]
    results["clr"] = {1: Result({6400: 88.4})}
    told = verdicts.claim_cells(claim, results)
    assert told[2:] == ["+0.40", "does not hold: as good as; one seed"]


def test_a_claim_may_be_about_an_earlier_iteration_or_an_accuracy() -> None:
    early = paper.chosen("figure-4").claims[0]
    results = {
        "exp": {1: Result({40000: 70.0, 70000: 80.0})},
        "exp_range": {1: Result({40000: 81.0, 42000: 60.0})},
    }
    assert verdicts.claim_cells(early, results) == [
        *("exp_range (40,000) is better than exp (70,000)", "", "+1.00", "holds; one seed")
    ]
    sooner = paper.chosen("figure-1").claims[0]
    results = {
        "fixed": {1: Result({500: 79.9, 60500: 80.0}), 2: Result({500: 70.0, 70000: 79.0})},
        "triangular2": {1: Result({500: 80.0, 1000: 70.0}), 2: Result({500: 79.0, 1000: 81.0})},
    }
    sentence, _, measured, verdict = verdicts.claim_cells(sooner, results)
    assert sentence == "triangular2 (25,000) is at 80 % sooner than fixed (70,000)"
    assert measured == "at 500 to 1,000; at 60,500, 1 seed never"
    assert verdict == "holds"
    results["fixed"][2] = Result({1000: 80.0})
    assert verdicts.claim_cells(sooner, results)[3] == "does not hold"


@pytest.mark.parametrize(
    ("measured", "agrees"), [([0.0009, 0.0009], True), ([0.0006], False), ([0.0016], False)]
)
def test_which_bounds_agree(measured: list[float], agrees: bool) -> None:
    assert verdicts.bound_agrees(0.001, measured) == agrees


def test_what_is_recorded_is_printed(run_cli: Run) -> None:
    listed = run_cli("paper")
    assert listed.returncode == 0
    assert set(paper.tables()) <= set(listed.stdout.split())
    done = run_cli("paper", "table-1", "--recorded")
    assert (done.returncode, done.stderr) == (0, "")
    line = next(line for line in done.stdout.splitlines() if "triangular2 " in line)
    assert line.split() == [
        *("triangular2", "25,000", "81.4", "80.9", "±", "0.2", "0.55", "below", "80.9"),
    ]
    assert "does not hold: behind" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("table-2 --recorded", "the paper has no table-2; choose from table-1, "),
        ("table-1 --recorded --rows fixed,none", "table-1 has no row none; choose from fixed, "),
        ("--recorded", "name the table"),
        ("table-1", "--cifar10 is missing: name the archive of https://"),
        ("table-1 --cifar10 none.tar.gz", "none.tar.gz: no such file or folder"),
        ("section-4.2-alexnet", "--imagenet is missing: name a folder with ilsvrc12_train_lmdb, "),
        ("section-4.2-alexnet --imagenet .", "ilsvrc12_train_lmdb is missing; Caffe's examples/"),
    ],
)
def test_what_cannot_be_shown_or_trained(
    arguments: str, message: str, run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("paper", *arguments.split())
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_table_is_trained_interrupted_and_continued(
    run_cli: Run, tree: Tree, tmp_path: Path
) -> None:
    arguments = ["paper", "digits", "--rows", "fixed,1cycle", "--seeds", "2"]
    whole = run_cli(*arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "4 runs of 4,800 iterations, about " in whole.stdout
    assert "s an iteration on this machine" in whole.stdout
    table = whole.stdout[whole.stdout.index("The digits") :].replace("whole", "parts")
    assert "Plot: parts/digits/1cycle.png\nRuns: parts\n" in table
    assert (tmp_path / "whole/digits/1cycle.png").is_file()

    command = [str(Path(sys.executable).with_name("caffe-clr")), *arguments, "--out", "parts"]
    variables = {**os.environ, "PYTHONPATH": str(tree.python)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    )
    rows = tmp_path / "parts/digits/1cycle/seed_1/train.csv"
    while not rows.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "run the same command again" in errors
    again = run_cli(*arguments, "--out", "parts")
    assert "2 runs of 2,400 iterations" in again.stdout
    assert again.stdout.endswith(table)
    assert run_cli(*arguments, "--out", "parts").stdout == table


def test_a_range_test_of_a_table_is_trained_and_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    shutil.copytree(ROOT / "models/digits", tmp_path / "models/digits")
    (tmp_path / "models/paper.toml").write_text(
        """
        [test]
        title = "A test"
        folder = "digits"
        data = "digits"
        [test.rows.range_test]
        solvers = ["fixed"]
        iterations = 150
        [test.rows.range_test.sweep]
        min_lr = 0.001
        max_lr = 0.4
        paper = { base_lr = 0.02, max_lr = 0.12 }
        """
    )
    found = paper.tables(tmp_path / "models")
    monkeypatch.setattr(paper, "tables", lambda: found)
    monkeypatch.chdir(tmp_path)
    console = Console(file=io.StringIO(), width=80)
    for _ in range(2):
        options = paper_runs.Options(seeds=1)
        papers.show_training("test", [], {}, Path("out"), options, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("1 run of 150 iterations") == 1
    assert printed.count("A test, bounds") == 2
    assert re.search(r"max_lr +0\.12 +0\.\d+ +agrees", printed)


def test_the_times_of_rows_need_no_data(run_cli: Run) -> None:
    done = run_cli("paper", "digits", "--rows", "fixed,1cycle", "--times")
    assert done.returncode == 0, done.stderr
    assert re.search(r"fixed +1,200 +\d+ seconds?", done.stdout)
    assert re.search(r"0\.\d+ s an iteration on this machine", done.stdout)
    assert "triangular2" not in done.stdout


@pytest.mark.parametrize("data", ["cifar10", "cifar100_padded", "imagenet"])
def test_a_net_trains_on_random_images(data: str, tmp_path: Path) -> None:
    """In place of the data, to measure the time of an iteration."""
    table = next(table for table in paper.tables().values() if table.data == data)
    paper_data.prepare_random(table, tmp_path)
    folder = table.root(1, tmp_path)
    net = next((folder / "models" / table.folder.name).glob("train_test.prototxt"), None)
    net = net or folder / f"models/bvlc_{table.folder.name}/train_val.prototxt"
    read = re.findall(r'(?:source|mean_file): "(.*?)"', net.read_text())
    assert read
    assert all((folder / path).exists() for path in read)


def test_imagenet_is_read_where_it_is(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for name in ("ilsvrc12_train_lmdb", "ilsvrc12_val_lmdb"):
        (given / name).mkdir(parents=True)
    table = paper.chosen("section-4.2-googlenet")  # which needs no mean image
    paper_data.prepare(table, 2, {"imagenet": given}, tmp_path / "out")
    folder = tmp_path / "out/imagenet_1"
    link = folder / "examples/imagenet/ilsvrc12_val_lmdb"
    assert link.resolve() == given / "ilsvrc12_val_lmdb"
    assert (folder / "models/bvlc_googlenet/train_val.prototxt").is_file()


def test_each_seed_has_its_own_order_of_the_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = replace(cifar.CIFAR10, images={"train": 50, "test": 10})
    monkeypatch.setitem(paper_data.CIFAR, "cifar10", small)
    pixels = np.random.default_rng(3).integers(0, 256, (10, 3072), np.uint8)
    labels = np.arange(10, dtype=np.uint8)[:, np.newaxis]
    (tmp_path / "source").mkdir()
    for number, name in enumerate((*small.batches["train"], *small.batches["test"])):
        batch = np.hstack([labels, np.roll(pixels, number, axis=1)])
        (tmp_path / f"source/{name}.bin").write_bytes(batch.tobytes())
    table = paper.chosen("table-1")
    runs = paper_runs.missing([table.rows["exp"]], 2, tmp_path)
    assert [seed for _, seed in runs] == [1, 2]
    with pytest.raises(UsageError, match="--cifar10 is missing"):
        paper_data.prepare(table, 1, {"cifar10": None}, tmp_path)
    told: list[Path] = []
    for seed in (1, 2):
        paper_data.prepare(table, seed, {"cifar10": tmp_path / "source"}, tmp_path, told.append)
    assert len(told) == 2
    first, second = (records(tmp_path / f"cifar10_{seed}") for seed in (1, 2))
    assert first != second
    assert sorted(first) == sorted(second)
    paper_data.prepare(table, 2, {"cifar10": None}, tmp_path, told.append)
    assert len(told) == 2  # the data is there


@pytest.mark.parametrize(
    ("table", "millions", "classes"),
    [
        ("table-4-resnet-cifar10", "1.7", 10),
        ("table-4-stochastic-depth-cifar10", "1.7", 10),
        ("table-4-densenet-cifar100", "1.1", 100),
        ("table-4-tenth", "0.3", 10),
    ],
)
def test_the_nets_of_table_4(table: str, millions: str, classes: int) -> None:
    net = paper_data.net(paper.chosen(table))
    assert f"{nets.count_parameters(net) / 1e6:.1f}" == millions
    scores = next(layer for layer in net.layer if layer.type == "InnerProduct")
    assert scores.inner_product_param.num_output == classes


def records(root: Path) -> list[bytes]:
    with lmdb.open(str(root / "data/cifar10/train_lmdb"), lock=False) as data, data.begin() as all_:
        return [bytes(value) for _, value in all_.cursor()]
