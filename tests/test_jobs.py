"""Trainings in subprocesses: what they report, and how they end."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe_clr.errors import ClrError, DivergedError, UsageError
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import jobs, run_folder, training
from caffe_clr.runs.jobs import Job
from caffe_clr.runs.options import TrainingOptions

LONG = {"max_iter": 20000, "display": 100, "stepsize": 1000, "iter_size": 6}
VARIABLES = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "my layers:more"}
PYTHON_LAYER = """
layer {{
  name: "python" type: "Python" bottom: "scores" top: "python"
  python_param {{ module: "{0}" layer: "Layer" }}
}}
layer {{ name: "silence" type: "Silence" bottom: "python" }}
"""
LAYER = """
import pathlib
import signal
import time

import caffe


class Layer(caffe.Layer):
    def setup(self, bottom, top):
        self.forwards = 0

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.forwards += 1
        if self.forwards == 5:
            DO

    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.fixture(autouse=True)
def from_tmp_path(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def change_net(net: Path, tmp_path: Path) -> Callable[[str, str], str]:
    """Writes the net with a text replaced, and more at its end."""

    def change(old: str, new: str, more: str = "") -> str:
        file = tmp_path / "changed.prototxt"
        file.write_text(net.read_text().replace(old, new) + more)
        return str(file)

    return change


@pytest.fixture
def with_layer(
    tmp_path: Path, change_net: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Writes the net with a Python layer that does something in its fifth forward pass."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(do: str) -> str:
        (tmp_path / "own_layer.py").write_text(LAYER.replace("DO", do))
        return change_net("", "", PYTHON_LAYER.format("own_layer"))

    return write


def job(file: Path, out: Path, *, threads: int | None = None, **options: Any) -> Job:
    return Job((str(file),), str(out), TrainingOptions(**options), threads=threads)


def weights(folder: Path, iteration: int) -> bytes:
    (file,) = (folder / "snapshots").glob(f"*_iter_{iteration}.caffemodel")
    return file.read_bytes()


def command(file: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "caffe_clr", "train", str(file), "--out", str(out), *options]


def begin(file: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(file, out, *options), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_until(holds: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 600  # a machine may have other work
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the training did not get that far"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_job_trains_as_train_does(
    write_solver: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_solver()
    jobs.run(job(file, tmp_path / "run", seed=3))
    assert capfd.readouterr() == ("", "")
    assert "Iteration" in (tmp_path / "run" / jobs.LOG).read_text()
    training.train(file, tmp_path / "here", TrainingOptions(seed=3))
    assert weights(tmp_path / "run", 80) == weights(tmp_path / "here", 80)
    job_history, history = (run_folder.read_history(tmp_path / name) for name in ("run", "here"))
    for rows in (*vars(job_history).values(), *vars(history).values()):
        for row in rows:
            del row["seconds"]
    assert job_history == history
    assert len(history.train) == 80


def test_reports_say_where_the_training_is(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_solver(**LONG, test_iter=[1], test_interval=5000)
    reports: list[jobs.WorkerReport] = []
    jobs.run(job(file, tmp_path / "run"), reports.append)
    history = run_folder.read_history(tmp_path / "run")
    rates = {row["iteration"]: row["lr"] for row in history.train}
    assert len(reports) > 2
    iterations = [report["iteration"] for report in reports]
    assert iterations == sorted(set(iterations))
    for report in reports:
        assert report["train"] in history.train
        assert report["test"] in history.test
        assert report["train"]["iteration"] == (report["iteration"] - 1) // 100 * 100
        if (report["iteration"] - 1) % 100 == 0:
            assert report["lr"] == rates[report["iteration"] - 1]
    assert reports[-1]["test"]["iteration"] >= 5000


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('bottom: "scores" bottom', 'bottom: "none" bottom', "Unknown bottom blob 'none'"),
        ('bottom: "label" top', 'bottom: "hidden" top', "Number of labels must match"),
    ],
)
def test_an_abort_of_caffe_is_an_error_here(
    old: str,
    new: str,
    reason: str,
    write_solver: Callable[..., Path],
    change_net: Callable[..., str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "run" / jobs.LOG
    with pytest.raises(ClrError, match=f"{reason}.*\\nfull log: {re.escape(str(log))}$"):
        jobs.run(job(write_solver(net=change_net(old, new)), tmp_path / "run"))
    assert reason in log.read_text()
    assert capfd.readouterr() == ("", "")
    # what is said is of this run, not of an earlier one in the same log
    with pytest.raises(ClrError) as raised:
        jobs.run(job(tmp_path / "none.prototxt", tmp_path / "run"))
    assert reason not in str(raised.value)


def test_nothing_of_the_current_folder_is_run(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the json.py of the current folder')")
    jobs.run(job(write_solver(), tmp_path / "run"))
    assert run_folder.read_status(tmp_path / "run")["status"] == "finished"


def test_a_python_layer_is_looked_for_where_caffe_train_looks(
    write_solver: Callable[..., Path],
    with_layer: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write_solver(net=with_layer("pass"))
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(
        ClrError, match='no Python module "own_layer"; add its folder to PYTHONPATH'
    ):
        jobs.run(job(file, tmp_path / "run"))


def test_a_python_layers_exception_is_an_error_here(
    write_solver: Callable[..., Path], with_layer: Callable[[str], str], tmp_path: Path
) -> None:
    file = write_solver(net=with_layer("raise KeyError('no such image')"))
    with pytest.raises(ClrError, match=r"KeyError: 'no such image'\nfull log: .*/run/caffe.log$"):
        jobs.run(job(file, tmp_path / "run"))
    assert "own_layer.py" in (tmp_path / "run" / jobs.LOG).read_text()
    assert len(run_folder.read_history(tmp_path / "run").train) == 4


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            'type: "Poling"',
            'layer "odd": this Caffe has no layer type "Poling"; it may belong to another version'
            ' of Caffe; did you mean "Pooling"',
        ),
        (
            'type: "AnnotatedData"',
            'layer "odd": this Caffe has no layer type "AnnotatedData"; it may',
        ),
        (
            'type: "Python" python_param { module: "none.here" layer: "Here" }',
            'layer "odd": there is no Python module "none.here"; add its folder to PYTHONPATH',
        ),
    ],
)
def test_a_layer_that_there_is_not_is_named(
    layer: str, message: str, write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.prototxt"
    odd.write_text(f'{net.read_text()} layer {{ name: "odd" {layer} bottom: "scores" top: "x" }}')
    with pytest.raises(ClrError, match=re.escape(f"{odd}: {message}")):
        jobs.run(job(write_solver(net=str(odd)), tmp_path / "run"))


def test_a_diverging_job_says_where(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    file = write_solver(lr_policy="fixed", base_lr=3e38)
    with pytest.raises(DivergedError, match="diverged at iteration") as raised:
        jobs.run(job(file, tmp_path / "run"))
    status = run_folder.read_status(tmp_path / "run")
    assert (status["status"], status["iteration"]) == ("diverged", raised.value.iteration)


def test_a_gpu_is_refused_by_a_caffe_without(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ClrError, match="GPU 0: this Caffe is built for the CPU only"):
        jobs.run(job(write_solver(), tmp_path / "run", gpu=0))


def test_a_folder_with_a_run_is_a_usage_error(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    jobs.run(job(write_solver(), tmp_path / "run"))
    with pytest.raises(UsageError, match="run already has a run; continue it with --resume"):
        jobs.run(job(write_solver(), tmp_path / "run"))


@pytest.mark.parametrize(
    ("outputs", "fields", "message"),
    [
        (20000, {"display": 50, "max_iter": 1500, "snapshot": 60}, "is the disk full?"),
        (5, {"max_iter": 8000, "snapshot": 1000}, "run: File too large; earlier snapshots"),
    ],
    ids=["snapshot", "record"],
)
def test_a_full_disk_keeps_what_was_there(
    outputs: int,
    fields: dict[str, int],
    message: str,
    write_solver: Callable[..., Path],
    change_net: Callable[..., str],
    tmp_path: Path,
) -> None:
    """A limit on the size of files, from the first snapshot on, stands in for the disk."""
    out = tmp_path / "run"
    file = write_solver(net=change_net("num_output: 5", f"num_output: {outputs}"), **fields)
    process = begin(file, out)
    listed = out / "snapshots.csv"
    wait_until(lambda: listed.exists() and listed.read_text(), process)
    (child,) = children(process.pid)
    resource.prlimit(child, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, error = process.communicate()
    assert process.returncode == 1
    assert message in error
    assert "Traceback" not in error
    recorded = [row["iteration"] for row in run_folder.read_history(out).train]
    assert recorded == list(range(0, fields["max_iter"], fields.get("display", 1)))[: len(recorded)]
    subprocess.run(command(file, out, "--resume"), check=True, capture_output=True)
    training.train(file, tmp_path / "whole")
    assert weights(out, fields["max_iter"]) == weights(tmp_path / "whole", fields["max_iter"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_how_to_go_on(
    number: int,
    status: int,
    write_solver: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, out = write_solver("a solver", **LONG), tmp_path / "a run; of it"
    options = ["--seed", "3", "--snapshot-cycles"]
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    process = begin(file, out, *options)
    wait_until(lambda: run_folder.last_iteration(out), process)
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == status
    set_for_it = shlex.join(f"{name}={value}" for name, value in VARIABLES.items())
    went_on = f"{set_for_it} {shlex.join([*command(file, out, *options), '--resume'])}"
    found = re.fullmatch(
        r"error: interrupted; iteration (\d+) is saved in a snapshot; continue with: (.*)\n",
        message,
    )
    assert found, message
    assert found[2].replace("'", "") == went_on.replace("'", "")
    assert weights(out, int(found[1]))
    assert 0 < int(found[1]) < LONG["max_iter"]
    for name in VARIABLES:
        monkeypatch.delenv(name)
    done = subprocess.run(found[2], shell=True, check=True, capture_output=True, text=True)
    assert "the run was started with" not in done.stdout
    jobs.run(job(file, tmp_path / "whole", seed=3))
    assert weights(out, LONG["max_iter"]) == weights(tmp_path / "whole", LONG["max_iter"])


def test_an_interruption_before_the_training_begins_is_none_of_caffe(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    process = begin(write_solver(**LONG), tmp_path / "run")
    wait_until(lambda: children(process.pid), process)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130
    assert message.startswith("error: interrupted; ")
    assert "--resume" in message


def test_a_death_by_a_signal_is_named(write_solver: Callable[..., Path], tmp_path: Path) -> None:
    file, out = write_solver(**LONG), tmp_path / "run"
    process = begin(file, out)
    wait_until(lambda: run_folder.last_iteration(out), process)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGKILL)
    _, message = process.communicate()
    assert process.returncode == 1
    told, log, go_on = message.splitlines()
    assert told.startswith("error: the training process was killed by SIGKILL; the system does")
    assert "; Caffe's last output: " in told
    assert log == f"full log: {out / jobs.LOG}"
    assert go_on.endswith(f"-m caffe_clr train {file} --out {out} --resume")


def call_interrupted(run: Path, **fields: Any) -> None:
    """Let the run.json of a finished run say that it was interrupted, and give it other fields."""
    status = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**status, "status": "interrupted", **fields}))


def test_another_gpu_or_number_of_threads_is_said(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file, out = write_solver(max_iter=20), tmp_path / "run"
    training.train(file, out)
    call_interrupted(out, gpu=1, threads="7")
    said: list[str] = []
    jobs.run(job(file, out, resume=True, threads=3), on_warning=said.append)
    unequal = "; the result will not be bit-identical to an uninterrupted run"
    assert said == [
        f"{out}: the run was started with --gpu 1 and continues with the CPU{unequal}",
        f"{out}: the run was started with OMP_NUM_THREADS=7 and continues with"
        f" OMP_NUM_THREADS=3{unequal}",
    ]


def test_a_net_that_was_changed_is_said(
    write_solver: Callable[..., Path], net: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "net.prototxt", tmp_path / "run"
    mine.write_text(net.read_text())
    file = write_solver(max_iter=20, net=str(mine))
    training.train(file, out)
    call_interrupted(out)
    said: list[str] = []
    mine.write_text("# a comment changes nothing\n" + net.read_text())
    jobs.run(job(file, out, resume=True), on_warning=said.append)
    assert said == []
    call_interrupted(out)
    mine.write_text(net.read_text().replace("scale: 0.00390625", "scale: 0.5"))
    jobs.run(job(file, out, resume=True), on_warning=said.append)
    assert said == [
        f"{out}: the net of stage 1 has changed since the run started; the result will differ from"
        " an uninterrupted run"
    ]


@pytest.mark.parametrize("phase", ["train", "test"])
def test_data_that_was_exchanged_is_said(
    phase: str, write_solver: Callable[..., Path], tmp_path: Path, digits_root: None
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    datasets.write_digits(data)
    mine = tmp_path / "net.prototxt"
    mine.write_text(
        Path("models/digits/train_test.prototxt").read_text().replace("models/digits", str(data))
    )
    file = write_solver(max_iter=20, net=str(mine), test_iter=[1], test_interval=10)
    training.train(file, out)
    call_interrupted(out)
    said: list[str] = []
    split = datasets.digits()[phase]

    def exchange(chosen: slice) -> None:
        shutil.rmtree(data / f"{phase}_lmdb")
        datasets.write_lmdb(data / f"{phase}_lmdb", split.images[chosen], split.labels[chosen])

    exchange(slice(None))
    jobs.run(job(file, out, resume=True), on_warning=said.append)
    assert said == []
    for chosen in (slice(None, None, -1), slice(100)):
        exchange(chosen)
        call_interrupted(out)
        jobs.run(job(file, out, resume=True), on_warning=said.append)
    change = (
        f"{out}: the data of stage 1 has changed since the run started; the result will differ"
        " from an uninterrupted run"
    )
    assert said == [change, change]


def test_an_hdf5_file_that_was_exchanged_is_said(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = np.arange(12, dtype=np.float32).reshape(6, 2), tmp_path / "run"

    def write(rows: np.ndarray[Any, Any]) -> None:
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["data"] = rows

    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    (tmp_path / "net.prototxt").write_text(f"""
        layer {{ name: "data" type: "HDF5Data" top: "data"
          hdf5_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 2 }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
          inner_product_param {{ num_output: 2 }} }}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "data" top: "loss" }}""")
    file = write_solver(max_iter=20, net=str(tmp_path / "net.prototxt"), max_lr=0.001)
    write(rows)
    training.train(file, out)
    said: list[str] = []
    for now in (rows, rows[::-1]):
        assert said == []
        write(now)
        call_interrupted(out)
        jobs.run(job(file, out, resume=True), on_warning=said.append)
    assert [line for line in said if "the data of stage 1 has changed" in line]


def test_a_training_without_a_parent_is_ended_in_an_endless_iteration(
    write_solver: Callable[..., Path], with_layer: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import caffe_clr.runs.watch\ncaffe_clr.runs.watch.GRACE_SECONDS = 0.5\n"
    )
    # nothing of Python runs in this one
    do = "pathlib.Path('deaf').touch(); import ctypes; ctypes.PyDLL(None).sleep(10**6)"
    process = begin(write_solver(net=with_layer(do)), tmp_path / "run")
    wait_until((tmp_path / "deaf").exists, process)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 120
    while is_running(child):
        assert time.monotonic() < deadline, "the training outlives its parent"
        time.sleep(0.05)


def test_a_second_interruption_ends_it_at_once(
    write_solver: Callable[..., Path], with_layer: Callable[[str], str], tmp_path: Path
) -> None:
    """The training is one that does not listen."""
    asked = "lambda *_: pathlib.Path('asked').touch()"
    do = f"signal.signal(signal.SIGINT, {asked}); pathlib.Path('deaf').touch(); time.sleep(10**6)"
    process = begin(write_solver(net=with_layer(do)), tmp_path / "run")
    wait_until((tmp_path / "deaf").exists, process)
    (child,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    wait_until((tmp_path / "asked").exists, process)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130
    assert message.startswith("error: interrupted; records and snapshots are kept; continue")
    assert not is_running(child)


def test_a_training_ends_with_a_snapshot_when_its_parent_is_killed(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    file, out = write_solver(**LONG), tmp_path / "run"
    process = begin(file, out)
    wait_until(lambda: run_folder.last_iteration(out), process)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    done: list[int] = []
    training.train(
        file, out, TrainingOptions(resume=True), on_iteration=lambda p: done.append(p.iteration)
    )
    assert not is_running(child)
    assert 1 < done[0] < LONG["max_iter"]
    training.train(file, tmp_path / "whole")
    assert weights(out, LONG["max_iter"]) == weights(tmp_path / "whole", LONG["max_iter"])


def test_of_several_each_says_how_it_ended(
    write_solver: Callable[..., Path], tmp_path: Path
) -> None:
    good = write_solver("good")
    diverging = write_solver("diverging", lr_policy="fixed", base_lr=3e38)
    refused = write_solver("refused", net="none.prototxt")
    tasks = [
        job(file, tmp_path / name, seed=seed)
        for name, file, seed in (
            *(("a", diverging, 1), ("b", refused, 1), ("c", good, 1), ("d", good, 2)),
        )
    ]
    waits: list[None] = []
    ends = jobs.run_all(tasks, jobs=2, on_wait=lambda: waits.append(None))
    assert waits
    assert isinstance(ends[0], DivergedError)
    assert isinstance(ends[1], ClrError)
    assert not isinstance(ends[1], DivergedError)
    assert "none.prototxt" in str(ends[1])
    assert ends[2:] == [None, None]
    training.train(good, tmp_path / "alone", TrainingOptions(seed=1))
    assert weights(tmp_path / "c", 80) == weights(tmp_path / "alone", 80)
    assert weights(tmp_path / "d", 80) != weights(tmp_path / "alone", 80)
