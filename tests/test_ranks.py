"""Training on several ranks by MPI, with the mpirun of MPICH's wheel."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import numpy as np
import plyvel
import pytest

from caffe_clr import prototxt
from caffe_clr.errors import UsageError
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs.ranks import Place

BIN = Path(sys.executable).parent
BATCH = 24  # of all ranks together
IMAGES = 180  # which it does not divide
DATA = {
    "LMDB": 'type: "Data" data_param { source: "data" batch_size: %d backend: LMDB }',
    "LevelDB": 'type: "Data" data_param { source: "leveldb" batch_size: %d }',
    "HDF5": 'type: "HDF5Data" hdf5_data_param { source: "data.txt" batch_size: %d }',
}
NET = """
layer { name: "data" top: "data" top: "label" %s }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
%s
layer { name: "scores" type: "InnerProduct" bottom: "conv" top: "scores"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
NORM = """
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
"""
WIDE = """
layer { name: "wide" type: "InnerProduct" bottom: "conv" top: "wide"
        inner_product_param { num_output: 3000 weight_filler { type: "xavier" } } }
layer { name: "narrow" type: "InnerProduct" bottom: "wide" top: "narrow"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "second" type: "SoftmaxWithLoss" bottom: "narrow" bottom: "label" top: "second" }
"""
SOLVER = """
net: "%s" type: "%s" base_lr: 0.002 max_lr: 0.02 lr_policy: "triangular2" stepsize: 15
momentum: 0.9 max_iter: 60 display: 5 random_seed: 3 snapshot: 20 %s
"""

Mpirun = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Works in an empty folder, with small images of three classes as LMDB and HDF5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tree.python))
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, IMAGES)
    images = random.normal(labels[:, None, None, None], 1, (IMAGES, 1, 6, 6)).astype(np.float32)
    with lmdb.open("data", map_size=2**22) as data, data.begin(write=True) as transaction:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            datum = prototxt.caffe_pb2().Datum(channels=1, height=6, width=6, label=int(label))
            datum.float_data.extend(image.ravel())
            transaction.put(b"%05d" % number, datum.SerializeToString())
    with h5py.File("data.h5", "w") as file:
        file["data"], file["label"] = images, labels.astype(np.float32)
    Path("data.txt").write_text("data.h5\n")
    return tmp_path


@pytest.fixture
def mpirun(folder: Path) -> Mpirun:
    """Starts ranks of `caffe-clr train --mpi` or another command; mpirun.log is the log of all."""

    def start(ranks: int, *arguments: str, command: str = "train") -> subprocess.Popen[str]:
        mpirun: list[str | Path] = [BIN / "mpirun", "-n", str(ranks)]
        words = [*mpirun, BIN / "caffe-clr", command, *arguments]
        with Path("mpirun.log").open("w") as log:
            return subprocess.Popen(
                [*words, "--mpi"], stdout=log, stderr=subprocess.STDOUT, text=True
            )

    return start


def write(name: str, ranks: int, data: str = "LMDB", more: str = "", **solver: str) -> str:
    """Writes a net with a rank's share of the batch, and a solver for it."""
    source = DATA[data] % (BATCH // ranks)
    Path(f"{name}_net.prototxt").write_text(NET % (source, more))
    text = SOLVER % (f"{name}_net.prototxt", solver.get("type", "SGD"), solver.get("fields", ""))
    for field, value in solver.items():
        if field not in ("type", "fields"):
            text = re.sub(rf"\b{field}: \S+", f"{field}: {value}", text)
    Path(f"{name}.prototxt").write_text(text)
    return f"{name}.prototxt"


def weights(out: str, iteration: int = 60) -> list[np.ndarray]:
    model = prototxt.caffe_pb2().NetParameter()
    (file,) = Path(out, "snapshots").glob(f"*_iter_{iteration}.caffemodel")
    model.ParseFromString(file.read_bytes())
    return [np.array(blob.data) for layer in model.layer for blob in layer.blobs]


def rows(out: str, table: str = "train.csv") -> list[dict[str, str]]:
    with Path(out, table).open() as file:
        return [{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(file)]


ONE_CYCLE = {"lr_policy": '"1cycle"', "fields": "cyclical_momentum: [0.8, 25]"}


@pytest.mark.parametrize(
    ("ranks", "data", "solver"),
    [
        (2, "LMDB", {}),
        (3, "HDF5", {}),
        (4, "LMDB", {"type": "Nesterov"}),
        (2, "HDF5", {"type": "Adam", "fields": "momentum2: 0.999"}),
        (2, "LMDB", {"fields": "iter_size: 2"}),
        (3, "LMDB", {"fields": "clip_gradients: 0.5"}),
        (2, "LMDB", ONE_CYCLE),
    ],
)
def test_ranks_train_as_one_process_does_with_all_of_their_images(
    ranks: int, data: str, solver: dict[str, str], mpirun: Mpirun, run_cli: Callable[..., object]
) -> None:
    run_cli("train", write("one", 1, data, **solver), "--out", "one")
    assert mpirun(ranks, write("many", ranks, data, **solver), "--out", "many").wait() == 0
    log = Path("mpirun.log").read_text()
    images = 2 * BATCH if "iter_size: 2" in solver.get("fields", "") else BATCH
    assert f"{ranks} ranks, each with batches of {BATCH // ranks}: {images} images" in log
    for expected, found in zip(weights("one"), weights("many"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    for one, many in zip(rows("one"), rows("many"), strict=True):
        loss, losses = float(one.pop("loss")), float(many.pop("loss"))
        assert losses == pytest.approx(loss, rel=1e-3)
        assert many == one  # iteration, epoch, rate and momentum


def test_more_gradients_than_are_sent_at_a_time(
    mpirun: Mpirun, run_cli: Callable[..., object]
) -> None:
    run_cli("train", write("one", 1, more=WIDE, max_iter="20"), "--out", "one")
    assert mpirun(3, write("many", 3, more=WIDE, max_iter="20"), "--out", "many").wait() == 0
    for expected, found in zip(weights("one", 20), weights("many", 20), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_each_rank_normalizes_its_own_batches(mpirun: Mpirun) -> None:
    assert mpirun(2, write("norm", 2, more=NORM), "--out", "norm").wait() == 0
    *_, mean, variance, factor, scale, _, _, _ = weights("norm")
    assert factor[0] > 1
    assert np.isfinite([*mean, *variance, *scale]).all()


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_ranks_resume_to_the_same_bits(killed: int, mpirun: Mpirun) -> None:
    solver = write("solver", 2, max_iter="600", snapshot="50")
    assert mpirun(2, solver, "--out", "whole").wait() == 0
    process = mpirun(2, solver, "--out", "killed")
    wait_for(lambda: any(Path("killed/snapshots").glob("*_iter_50.solverstate")), process)
    os.kill(workers()[killed], signal.SIGKILL)
    assert process.wait(60) != 0
    assert "killed by SIGKILL" in Path("mpirun.log").read_text()
    assert mpirun(2, solver, "--out", "killed", "--resume").wait() == 0
    assert rows("killed") == rows("whole")
    for killed_, whole in zip(weights("killed", 600), weights("whole", 600), strict=True):
        assert (killed_ == whole).all()


def test_a_range_test_on_ranks_is_that_of_one_process_with_all_of_their_images(
    mpirun: Mpirun, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_cli("range-test", write("one", 1, max_iter="400"), "--out", "one")
    many = mpirun(2, write("many", 2, max_iter="400"), "--out", "many", command="range-test")
    assert many.wait() == done.returncode  # whether or not there are bounds
    log = Path("mpirun.log").read_text()
    assert f"2 ranks, each with batches of {BATCH // 2}: {BATCH} images" in log
    for out, ranks in (("one", 1), ("many", 2)):
        assert json.loads(Path(out, "range_test.json").read_text())["ranks"] == ranks
    found, expected = (rows(f"{out}/sweep_1/seed_3") for out in ("many", "one"))
    for ours, theirs in zip(found[:20], expected[:20], strict=True):  # the later rates blow it up
        assert ours["lr"] == theirs["lr"]
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-3)


def test_the_epochs_of_a_range_test_are_those_of_all_ranks(mpirun: Mpirun) -> None:
    options = ["--min-lr", "0.001", "--max-lr", "0.01", "--epochs", "4", "--out", "run"]
    mpirun(3, write("solver", 3), *options, command="range-test").wait()
    recorded = json.loads(Path("run/range_test.json").read_text())
    assert recorded["iterations"] == 4 * 8  # 180 images, 24 an iteration


@pytest.mark.parametrize(("rank", "signal_number"), [(0, "KILL"), (1, "KILL"), (1, "TERM")])
def test_a_range_test_that_ended_on_one_rank_resumes_to_the_same_bits(
    rank: int, signal_number: str, mpirun: Mpirun
) -> None:
    arguments = [write("solver", 2, max_iter="2500"), "--seeds", "2"]
    mpirun(2, *arguments, "--out", "whole", command="range-test").wait()
    arguments += ["--out", "ended"]
    process = mpirun(2, *arguments, command="range-test")
    wait_for(Path("ended/sweep_2/seed_4/train.csv").exists, process)
    os.kill(workers()[rank], getattr(signal, f"SIG{signal_number}"))
    assert process.wait(60) != 0
    log = Path("mpirun.log").read_text()
    assert log.count("error:") == 1
    if rank == 0 or signal_number == "TERM":
        assert "range-test solver.prototxt --seeds 2 --out ended --mpi --resume" in log
    mpirun(2, *arguments, "--resume", command="range-test").wait()
    assert rows("ended", "range_test.csv") == rows("whole", "range_test.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.prototxt"], "missing.prototxt: cannot be read"),
        (["solver.prototxt", "--min-lr", "1"], "give both --min-lr and --max-lr"),
        (["solver.prototxt", "--seeds", "2", "--jobs", "2"], "--mpi trains one seed at a time"),
        (["solver.prototxt", "--resume"], "--resume: name the folder"),
    ],
)
def test_a_range_test_that_cannot_begin_ends_all_ranks(
    arguments: list[str], message: str, mpirun: Mpirun
) -> None:
    write("solver", 2)
    assert mpirun(2, *arguments, command="range-test").wait(60) != 0
    log = Path("mpirun.log").read_text()
    assert message in log
    assert log.count("error:") == 1


def test_one_rank_that_is_to_end_ends_all_with_a_snapshot(mpirun: Mpirun) -> None:
    solver = write("solver", 2, max_iter="100000", snapshot="100000")
    process = mpirun(2, solver, "--out", "run")
    wait_for(lambda: Path("run/train.csv").exists() and len(rows("run")) > 5, process)
    os.kill(workers()[1], signal.SIGTERM)
    assert process.wait(60) != 0
    log = Path("mpirun.log").read_text()
    assert re.search(r"error: interrupted; iteration \d+ is saved in a snapshot", log)
    assert f"continue with: PYTHONPATH={os.environ['PYTHONPATH']} mpirun -n 2 " in log
    assert log.count("error:") == 1


def test_another_number_of_ranks_is_told(mpirun: Mpirun) -> None:
    assert mpirun(2, write("solver", 2, max_iter="30"), "--out", "run").wait() == 0
    write("solver", 2)
    assert mpirun(3, "solver.prototxt", "--out", "run", "--resume").wait() == 0
    assert (
        "the run was started with 2 ranks and continues with 3 ranks; the result will not be"
        " bit-identical" in Path("mpirun.log").read_text()
    )


def test_ranks_that_differ_are_refused(folder: Path) -> None:
    command: list[str | Path] = [BIN / "caffe-clr", "train", "--mpi", "--out", "run"]
    first, other = write("first", 2), write("other", 2, base_lr="0.003")
    ranks: list[str | Path] = ["-n", "1", *command, first, ":", "-n", "1", *command, other]
    done = subprocess.run([BIN / "mpirun", *ranks], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"error: rank 1 on \S+ has another solver than rank 0\n", done.stderr)
    assert done.stderr.count("error:") == 1
    assert not Path("run/run.json").exists()


def test_a_rank_without_the_solver_is_named(folder: Path) -> None:
    Path("elsewhere").mkdir()
    solver = write("solver", 2)
    command: list[str | Path] = [BIN / "caffe-clr", "train", "--mpi", "--out", "run", solver]
    ranks: list[str | Path] = [
        "-n",
        "1",
        *command,
        ":",
        "-wdir",
        folder / "elsewhere",
        "-n",
        "1",
        *command,
    ]
    done = subprocess.run([BIN / "mpirun", *ranks], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"error: rank 1 on \S+: solver.prototxt: cannot be read: ", done.stderr)
    assert done.stderr.count("error:") == 1


def test_a_root_that_cannot_begin_ends_the_others(mpirun: Mpirun) -> None:
    assert mpirun(2, "missing.prototxt").wait(60) != 0
    log = Path("mpirun.log").read_text()
    assert "error: missing.prototxt: cannot be read: " in log
    assert log.count("error:") == 1


def test_a_run_folder_that_cannot_be_written_ends_all_ranks(mpirun: Mpirun) -> None:
    Path("file").touch()
    assert mpirun(2, write("solver", 2), "--out", "file/run").wait(60) != 0
    log = Path("mpirun.log").read_text()
    assert "cannot be written: Not a directory" in log
    assert log.count("error:") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_command_that_ends_before_the_ranks_have_joined_ends_all(
    rank: int, mpirun: Mpirun
) -> None:
    process = mpirun(2, write("solver", 2, max_iter="100000"))
    wait_for(lambda: len(commands()) == 2, process)
    os.kill(commands()[rank], signal.SIGTERM)
    assert process.wait(60) != 0


def test_leveldb_is_refused_since_one_process_can_read_it(mpirun: Mpirun) -> None:
    with lmdb.open("data") as data, data.begin() as records:
        leveldb = plyvel.DB("leveldb", create_if_missing=True)
        for key, value in records.cursor():
            leveldb.put(key, value)
        leveldb.close()
    solver = write("solver", 2, "LevelDB")
    assert mpirun(2, solver, "--out", "run").wait() == 1
    log = Path("mpirun.log").read_text()
    assert "only one process at a time can read the LevelDB leveldb; convert it to LMDB" in log
    assert log.count("error:") == 1


def test_a_loss_that_diverges_ends_all_ranks(mpirun: Mpirun) -> None:
    process = mpirun(2, write("solver", 2, base_lr="1e9", max_lr="1e10"), "--out", "run")
    assert process.wait() == 1
    log = Path("mpirun.log").read_text()
    assert "error: diverged at iteration " in log
    assert log.count("error:") == 1


def test_without_mpirun_the_command_says_how(
    folder: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_cli("train", write("solver", 1), "--mpi")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --mpi: start the command with mpirun, as in `mpirun -n 4 … --mpi`\n"
    )


@pytest.mark.parametrize(
    "variables",
    [
        {
            **{"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"},
            **{"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        },
        {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        {
            **{"SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
            **{"SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2"},
        },
    ],
)
def test_the_place_is_what_the_launcher_tells(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="mpirun"):
        Place.of(mpi=True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Place.of(mpi=True) == Place(rank=3, size=4, local_rank=1, local_size=2)
    assert Place.of(mpi=False) == Place()


def wait_for(happens: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happens():
        assert process.poll() is None, Path("mpirun.log").read_text()
        time.sleep(0.02)


def workers() -> list[int]:
    """The process that trains for each rank in this folder, by rank."""
    return _processes(b"caffe_clr.runs.worker")


def commands() -> list[int]:
    """The command of each rank in this folder, by rank."""
    return _processes(str(BIN / "caffe-clr").encode())


def _processes(word: bytes) -> list[int]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
            folder = (process / "cwd").readlink()
        except OSError:
            continue
        ranks = [each for each in environment if each.startswith(b"PMI_RANK=")]
        if word in words and ranks and folder == Path.cwd():
            found[int(ranks[0].partition(b"=")[2])] = int(process.name)
    return [found[rank] for rank in sorted(found)]
