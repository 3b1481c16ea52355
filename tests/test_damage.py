"""Run folders that were damaged: what is lost is said, and the rest is enough to go on."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from caffe_clr.cli import run_display
from caffe_clr.errors import Interrupted, UsageError
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import run_folder, training
from caffe_clr.runs.history import Phase
from caffe_clr.runs.options import PlotFormat, TrainingOptions
from caffe_clr.runs.stage import Progress

Command = Callable[..., subprocess.CompletedProcess[str]]
Damage = Callable[[Path], object]


def _lines(change: Callable[[list[str]], list[str]]) -> Damage:
    def damage(file: Path) -> None:
        file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    return damage


def _in_its_place(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


DAMAGE: dict[str, Damage] = {
    "deleted": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "without its last byte": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "binary": lambda file: file.write_bytes(bytes(range(256)) * 9),
    "text": lambda file: file.write_text("no such thing\n" * 5),
    "an empty object": lambda file: file.write_text("{}\n"),
    "no header": _lines(lambda lines: lines[1:]),
    "the header alone": _lines(lambda lines: lines[:1]),
    "another header": _lines(lambda lines: ["a,b,c\n", *lines[1:]]),
    "a column less": _lines(lambda lines: [f"{line.rpartition(',')[0]}\n" for line in lines]),
    "a column more": _lines(lambda lines: [lines[0], *(f"1,{line}" for line in lines[1:])]),
    "twice": _lines(lambda lines: lines * 2),
    "every other line": _lines(lambda lines: lines[::2]),
    "empty lines": _lines(lambda lines: [lines[0], *("\n" for _ in lines)]),
    "a link to nothing": _in_its_place(lambda file: file.symlink_to("nothing")),
}
FILES = ("run.json", "snapshots.csv", "train.csv", "test.csv")


@pytest.fixture(scope="session")
def interrupted(tree: Tree, moving_net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a solver, a run of it that was interrupted, and one that was not."""
    folder = tmp_path_factory.mktemp("damage")
    file = folder / "solver.prototxt"
    file.write_text(
        f'net: "{moving_net}" lr_policy: "triangular2" base_lr: 0.001 max_lr: 0.006 stepsize: 10'
        " momentum: 0.9 random_seed: 5 display: 1 max_iter: 40 snapshot: 10"
        " test_iter: 2 test_interval: 8"
    )
    training.train(file, folder / "whole")
    iterations = [0]
    with pytest.raises(Interrupted):
        training.train(
            file,
            folder / "run",
            on_iteration=lambda progress: iterations.append(progress.iteration),
            stop=lambda: signal.SIGTERM if iterations[-1] == 25 else None,
        )
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "snapshots" / "solver_iter_40.caffemodel").read_bytes()


def copy(interrupted: Path, name: str, tmp_path: Path) -> Path:
    """A copy whose snapshots are under the path that they were listed under."""
    return Path(shutil.copytree(interrupted / name, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_whole_snapshots_are_enough_to_go_on(
    name: str, damage: str, interrupted: Path, tmp_path: Path
) -> None:
    folder = copy(interrupted, "run", tmp_path)
    DAMAGE[damage](folder / name)
    before, after = (run_folder.read_history(run) for run in (interrupted / "run", folder))
    was_readable = all(
        [row["iteration"] for row in before.rows(phase)]
        == [row["iteration"] for row in after.rows(phase)]
        for phase in Phase
    )
    began: list[int] = []
    said: list[str] = []
    history = training.train(
        interrupted / "solver.prototxt",
        folder,
        TrainingOptions(resume=True),
        on_iteration=lambda progress: began.append(progress.iteration),
        on_warning=said.append,
    )
    # what ends in a whole line before its time is a list as it was earlier
    assert began[0] in ({26} if name != "snapshots.csv" else {26, 21, 11, 1})
    assert weights(folder) == weights(interrupted / "whole")
    assert all(row["iteration"] >= 25 for row in history.train[-15:])
    assert [row["iteration"] for row in history.train[-15:]] == list(range(25, 40))
    assert was_readable or said
    assert all(str(folder) in line for line in said)
    for phase in Phase:
        iterations = [row["iteration"] for row in history.rows(phase)]
        assert iterations == sorted(set(iterations))
    assert run_folder.damage(folder) == []
    assert run_folder.read_status(folder)["status"] == "finished"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_drawn(
    damage: str, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(interrupted, "whole", tmp_path)
    for name in ("run.json", "snapshots.csv", "test.csv"):
        DAMAGE[damage](folder / name)
    run_display.plot_runs([folder], None, PlotFormat.PNG, Console())
    assert (folder / "training.png").is_file()
    said = capsys.readouterr().out
    assert all(problem in said for problem in run_folder.damage(folder))


def test_the_command_says_what_is_damaged(
    interrupted: Path, tmp_path: Path, run_cli: Command
) -> None:
    folder = copy(interrupted, "run", tmp_path)
    (folder / "run.json").write_text("[1, 2")
    done = run_cli("train", interrupted / "solver.prototxt", "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    said = f"warning: {folder}/run.json: cannot be read; continuing without it\n"
    assert done.stdout.count(said) == 1


def test_what_is_missing_is_said(interrupted: Path, tmp_path: Path) -> None:
    folder = copy(interrupted, "run", tmp_path)
    for name in ("train.csv", "test.csv"):
        table = folder / name
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join([lines[0], "torn,\n", *lines[3:]]))
    said: list[str] = []
    training.train(
        interrupted / "solver.prototxt",
        folder,
        TrainingOptions(resume=True),
        on_warning=said.append,
    )
    assert said == [
        f"{folder}/train.csv: skipped 1 damaged or duplicate line",
        f"{folder}/test.csv: skipped 1 damaged or duplicate line",
        f"{folder}/train.csv: 2 of the 25 rows before iteration 25 are missing",
        f"{folder}/test.csv: 2 of the 4 rows before iteration 25 are missing",
    ]


def test_a_snapshot_that_has_changed_is_passed_over_and_said(
    interrupted: Path, tmp_path: Path
) -> None:
    folder = copy(interrupted, "run", tmp_path)
    model = folder / "snapshots" / "solver_iter_25.caffemodel"
    model.write_bytes(model.read_bytes()[:-9])
    (folder / "snapshots" / "solver_iter_20.solverstate").unlink()
    said: list[str] = []
    training.train(
        interrupted / "solver.prototxt",
        folder,
        TrainingOptions(resume=True),
        on_warning=said.append,
    )
    assert said == [
        f"{model}: has changed since it was written; using an earlier snapshot",
        f"{folder}/snapshots/solver_iter_20.solverstate: is missing; using an earlier snapshot",
    ]
    assert weights(folder) == weights(interrupted / "whole")


def test_without_a_list_a_torn_snapshot_is_not_used(interrupted: Path, tmp_path: Path) -> None:
    folder = copy(interrupted, "run", tmp_path)
    (folder / "snapshots.csv").unlink()
    model = folder / "snapshots" / "solver_iter_25.caffemodel"
    model.write_bytes(model.read_bytes()[:-9])
    began: list[int] = []
    training.train(
        interrupted / "solver.prototxt",
        folder,
        TrainingOptions(resume=True),
        on_iteration=lambda progress: began.append(progress.iteration),
    )
    assert began[0] == 21
    assert weights(folder) == weights(interrupted / "whole")


def test_a_damaged_run_is_not_started_again(interrupted: Path, tmp_path: Path) -> None:
    folder = copy(interrupted, "run", tmp_path)
    for name in FILES:
        (folder / name).unlink()
    with pytest.raises(UsageError, match="run already has a run; continue it with --resume"):
        training.train(interrupted / "solver.prototxt", folder)


def test_what_is_deleted_while_a_run_is_trained_is_written_again(
    interrupted: Path, tmp_path: Path
) -> None:
    def delete(progress: Progress) -> None:
        if progress.iteration == 15:
            for name in ("train.csv", "test.csv", "snapshots.csv", "run.json"):
                (tmp_path / "run" / name).unlink()
            shutil.rmtree(tmp_path / "run" / "snapshots")

    history = training.train(interrupted / "solver.prototxt", tmp_path / "run", on_iteration=delete)
    assert run_folder.read_history(tmp_path / "run") == history
    assert [row["iteration"] for row in history.train] == list(range(40))
    assert run_folder.damage(tmp_path / "run") == []
    assert weights(tmp_path / "run") == weights(interrupted / "whole")


def test_a_list_of_an_earlier_version_is_read(interrupted: Path, tmp_path: Path) -> None:
    folder = copy(interrupted, "run", tmp_path)
    _, *rows = (folder / "snapshots.csv").read_text().splitlines()
    earlier = [",".join(row.split(",")[:6]) + "\r\n" for row in rows]
    (folder / "snapshots.csv").write_text("".join(earlier))
    status = json.loads((folder / "run.json").read_text())
    del status["threads"], status["snapshot_cycles"]
    (folder / "run.json").write_text(json.dumps(status))
    began: list[int] = []
    said: list[Any] = []
    training.train(
        interrupted / "solver.prototxt",
        folder,
        TrainingOptions(resume=True),
        on_iteration=lambda progress: began.append(progress.iteration),
        on_warning=said.append,
    )
    assert began[0] == 26
    assert said == []
