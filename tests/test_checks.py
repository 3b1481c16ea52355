"""Checks before a run: what they refuse, Caffe aborts on, and what they pass, Caffe trains."""

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import lmdb
import numpy as np
import plyvel
import pytest

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.preflight import checks
from caffe_clr.prototxt import SolverFile
from caffe_clr.system import installed_caffe

SOLVER = """
net: "net.prototxt"
lr_policy: "fixed" base_lr: 0.01 momentum: 0 weight_decay: 0.001 max_iter: 3
test_iter: 2 test_interval: 2
snapshot_after_train: false
solver_mode: CPU
"""
NET = """
layer {
  name: "train_data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mean_file: "mean.binaryproto" crop_size: 4 }
  data_param { source: "train_lmdb" batch_size: 4 backend: LMDB }
}
layer {
  name: "test_data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { mean_value: 3 crop_size: 4 }
  data_param { source: "test_lmdb" batch_size: 3 backend: LMDB }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
HDF5 = """layer {
  name: "rows" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "hdf5.txt" batch_size: 2 }
}
"""
IMAGES = """layer {
  name: "images" type: "ImageData" top: "data" top: "label"
  transform_param { mean_value: 1 }
  image_data_param {
    source: "images.txt" root_folder: "images/" new_height: 6 new_width: 5 batch_size: 1
  }
}
"""
TRAIN, TEST = 'net.prototxt: layer "train_data": ', 'net.prototxt: layer "test_data": '
ROWS, PICTURES = 'net.prototxt: layer "rows": ', 'net.prototxt: layer "images": '


@pytest.fixture(scope="module")
def world(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a solver, its net, and data, good and bad. Not to be written to."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    for name, count in (("train_lmdb", 8), ("test_lmdb", 6), ("empty_lmdb", 0)):
        images = generator.integers(0, 256, (count, 3, 6, 5), np.uint8)
        datasets.write_lmdb(folder / name, images, generator.integers(0, 3, count))
    with (
        lmdb.open(str(folder / "odd_lmdb")) as database,
        database.begin(write=True) as transaction,
    ):
        transaction.put(b"0", b"not a Datum")
    (folder / "torn_lmdb").mkdir()
    (folder / "torn_lmdb" / "data.mdb").write_bytes(b"torn" * 5000)
    (folder / "leveldb").mkdir()
    with (
        lmdb.open(str(folder / "test_lmdb"), readonly=True, lock=False) as database,
        database.begin() as transaction,
        transaction.cursor() as cursor,
        plyvel.DB(str(folder / "leveldb"), create_if_missing=True) as leveldb,
    ):
        for key, value in cursor:
            leveldb.put(bytes(key), bytes(value))
    write_mean(folder / "mean.binaryproto", 6, 5)
    write_mean(folder / "cropped.binaryproto", 4, 4)
    np.save(folder / "mean.npy", np.zeros((3, 6, 5)))
    with h5py.File(folder / "rows.h5", "w") as rows:
        rows["data"] = generator.random((6, 4), np.float32)
        rows["label"] = generator.integers(0, 3, 6).astype(np.float32)
    with h5py.File(folder / "unlabelled.h5", "w") as rows:
        rows["data"] = generator.random((6, 4), np.float32)
    (folder / "images").mkdir()
    (folder / "images" / "a b.png").write_bytes(b"a check does not look into it")
    for name, text in {
        "solver.prototxt": SOLVER,
        "net.prototxt": NET,
        "hdf5.txt": "rows.h5\n",
        "missing_second.txt": "rows.h5 none.h5",
        "no_hdf5.txt": "net.prototxt",
        "no_label.txt": "unlabelled.h5",
        "images.txt": "a b.png 2\nnone.png 1\n",
        "missing_first.txt": "none.png 1\na b.png 2\n",
        "empty.txt": "",
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `world` to change, as the working directory."""
    copy = tmp_path / "run"
    shutil.copytree(world, copy)
    monkeypatch.chdir(copy)
    return copy


def write_mean(path: Path, height: int, width: int, channels: int = 3) -> None:
    values = [1.0] * (channels * height * width)
    blob = prototxt.caffe_pb2().BlobProto(
        num=1, channels=channels, height=height, width=width, data=values
    )
    path.write_bytes(blob.SerializeToString())


def change(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def use(layer: str) -> None:
    """Give the net another data layer, for both phases."""
    Path("net.prototxt").write_text(layer + NET[NET.index('layer {\n  name: "scores"') :])


def check(solver: str = "solver.prototxt") -> list[str]:
    return checks.check_run(prototxt.open_solver(Path(solver)))


def caffe_train(tree: Tree) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree.caffe, "train", "--solver=solver.prototxt"],
        capture_output=True,
        text=True,
        errors="replace",
    )


def assert_refused(message: str) -> None:
    with pytest.raises(ClrError) as refused:
        check()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def assert_aborts(tree: Tree) -> None:
    done = caffe_train(tree)
    assert done.returncode < 0, done.stderr
    assert "Check failure stack trace" in done.stderr


SOLVER_FAULTS = [
    ('net: "net.prototxt"', "", "solver.prototxt: no net to train; name its file with net"),
    (
        'net: "net.prototxt"',
        'net: "net.prototxt" train_net: "net.prototxt"',
        "solver.prototxt: net and train_net each give a net to train; keep one",
    ),
    (
        '"net.prototxt"',
        '"none.prototxt"',
        "solver.prototxt: net: none.prototxt: cannot be read: No such file or directory"
        " (looked for in ",
    ),
    (
        '"net.prototxt"',
        '"solver.prototxt"',
        'solver.prototxt:2:1: NetParameter has no field "net", but SolverParameter has: is it the'
        " wrong file?",
    ),
    (
        "test_iter: 2 test_interval: 2",
        'test_net: "net.prototxt" test_interval: 2',
        "solver.prototxt: 1 test nets, 0 test_iter; give each net one",
    ),
    (
        'net: "net.prototxt"',
        'train_net: "net.prototxt"',
        "solver.prototxt: 0 test nets, 1 test_iter; give each net one",
    ),
    (
        "test_iter: 2",
        "test_iter: 2 test_state { } test_state { }",
        "solver.prototxt: 1 test nets, 2 test_state; give each net one, or none",
    ),
    ("test_interval: 2", "", "solver.prototxt: test_interval is 0, but there are test nets"),
    ("max_iter: 3", "max_iter: 3 average_loss: 0", "average_loss is 0; set it to 1 or more"),
    (
        "max_iter: 3",
        'max_iter: 3 type: "nesterof"',
        'type "nesterof" is unknown; use one of SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam;'
        ' did you mean "Nesterov"?',
    ),
    (
        "max_iter: 3",
        'max_iter: 3 type: "SGD" solver_type: SGD',
        "both type and solver_type are set; keep type",
    ),
    (
        "momentum: 0",
        'momentum: 0.9 type: "AdaGrad"',
        "solver.prototxt: momentum is 0.9, but AdaGrad has no momentum; remove it",
    ),
    (
        "momentum: 0",
        "momentum: 0.9 solver_type: RMSPROP",
        "momentum is 0.9, but RMSProp has no momentum",
    ),
    (
        "momentum: 0",
        'type: "RMSProp" rms_decay: 1',
        "rms_decay is 1; set it to 0 or more, and below 1",
    ),
    (
        "weight_decay: 0.001",
        'weight_decay: 0.001 regularization_type: "l2"',
        'regularization_type "l2" is unknown; use one of L2, L1; did you mean "L2"?',
    ),
    (
        "max_iter: 3",
        'max_iter: 3 weights: "none.caffemodel"',
        "solver.prototxt: weights: there is no file none.caffemodel (looked for in ",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), SOLVER_FAULTS)
def test_a_solver_that_caffe_aborts_on_is_refused(
    old: str, new: str, message: str, tree: Tree, folder: Path
) -> None:
    change("solver.prototxt", old, new)
    assert_refused(message)
    assert_aborts(tree)


NET_FAULTS = [
    ('"train_lmdb"', '"none_lmdb"', TRAIN + "no data at none_lmdb (looked for in "),
    ('source: "train_lmdb"', "", TRAIN + "no source; name its data with source"),
    (
        '"test_lmdb"',
        '"test_lmdb/data.mdb"',
        TEST + "test_lmdb/data.mdb is not a valid LMDB: it has no data.mdb",
    ),
    ('"test_lmdb"', '"images"', TEST + "images is not a valid LMDB: it has no data.mdb"),
    ('"test_lmdb"', '"odd_lmdb"', TEST + "the first value of odd_lmdb is not a Datum"),
    (
        '"test_lmdb"',
        '"torn_lmdb"',
        TEST + "the LMDB torn_lmdb cannot be opened: torn_lmdb: MDB_INVALID",
    ),
    (
        "batch_size: 3 backend: LMDB",
        "batch_size: 3",
        TEST + "the backend is LEVELDB, the default, but test_lmdb is LMDB; write backend: LMDB",
    ),
    (
        "batch_size: 3 backend: LMDB",
        "batch_size: 3 backend: LEVELDB",
        TEST + "the backend is LEVELDB, but test_lmdb is LMDB; write backend: LMDB",
    ),
    (
        '"test_lmdb"',
        '"leveldb"',
        TEST + "the backend is LMDB, but leveldb is LEVELDB; write backend: LEVELDB",
    ),
    ("batch_size: 4", "batch_size: 0", TRAIN + "batch_size is 0; set it to 1 or more"),
    ("batch_size: 3", "", TEST + "batch_size is 0; set it to 1 or more"),
    (
        '"mean.binaryproto"',
        '"none.binaryproto"',
        TRAIN + "mean_file: there is no file none.binaryproto (looked for in ",
    ),
    ('"mean.binaryproto"', '"mean.npy"', TRAIN + "mean_file mean.npy is not a BlobProto"),
    ('"mean.binaryproto"', '"empty.txt"', TRAIN + "mean_file empty.txt is not a BlobProto"),
    (
        '"mean.binaryproto"',
        '"cropped.binaryproto"',
        TRAIN + "mean_file cropped.binaryproto is 3x4x4, but an image is 3x6x5 before the crop",
    ),
    (
        'mean_file: "mean.binaryproto"',
        'mean_file: "mean.binaryproto" mean_value: 1',
        TRAIN + "both mean_file and mean_value are set; keep one",
    ),
    (
        "mean_value: 3",
        "mean_value: 3 mean_value: 4",
        TEST + "2 mean_value for images of 3 channels; give one, or one for each channel",
    ),
    (
        "mean_value: 3 crop_size: 4",
        "mean_value: 3 crop_size: 6",
        TEST + "crop_size is 6, but an image is 3x6x5; set it to 5 or less",
    ),
    (
        "include { phase: TEST }",
        "include { phase: TEST } exclude { phase: TRAIN }",
        TEST + "has include and exclude; keep one",
    ),
    ("num_output", "num_outputs", 'net.prototxt:14:25: InnerProductParameter has no field "num_'),
]


@pytest.mark.parametrize(("old", "new", "message"), NET_FAULTS)
def test_a_net_that_caffe_aborts_on_is_refused(
    old: str, new: str, message: str, tree: Tree, folder: Path
) -> None:
    change("net.prototxt", old, new)
    assert_refused(message)
    assert_aborts(tree)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "field", ["momentum", "weight_decay", "momentum2", "delta", "clip_gradients", "rms_decay"]
)
def test_a_field_that_is_no_number_is_refused(
    field: str, value: str, tree: Tree, folder: Path
) -> None:
    text = Path("solver.prototxt").read_text()
    old = {"momentum": "momentum: 0 ", "weight_decay": "weight_decay: 0.001 "}.get(field, "")
    Path("solver.prototxt").write_text(text.replace(old, "") + f"{field}: {value}")
    assert_refused(f"solver.prototxt: {field} is {value}; set it to a finite number")


def test_a_layer_without_prefetch_is_refused(tree: Tree, folder: Path) -> None:
    change("net.prototxt", "batch_size: 4", "batch_size: 4 prefetch: 0")
    assert_refused(TRAIN + "prefetch is 0, so no batch is ever read")


def test_a_database_that_is_cut_off_is_named(tree: Tree, folder: Path) -> None:
    file = Path("train_lmdb/data.mdb")
    file.write_bytes(file.read_bytes()[:9000])
    assert_refused(
        TRAIN + "the LMDB train_lmdb cannot be opened: train_lmdb is truncated: it has 9,"
    )


@pytest.mark.parametrize("name", ["net.prototxt", "images.txt"])
def test_a_pipe_is_refused(name: str, tree: Tree, folder: Path) -> None:
    use(IMAGES)
    Path(name).unlink()
    os.mkfifo(name)
    assert_refused(f"{name} is a pipe, but must be read twice; name a file")


def test_an_empty_lmdb_is_refused(tree: Tree, folder: Path) -> None:
    """Caffe reads it out of bounds: it ends in a failed check, bad_alloc or a bad address."""
    change("net.prototxt", '"test_lmdb"', '"empty_lmdb"')
    assert_refused(f"{TEST}empty_lmdb is empty; write the data set again")
    done = caffe_train(tree)
    assert -done.returncode in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV), done.stderr


HDF5_FAULTS = [
    ('"hdf5.txt"', '"none.txt"', ROWS + "no list of HDF5 files at none.txt (looked for in "),
    ('"hdf5.txt"', '"empty.txt"', ROWS + "empty.txt is empty; list the HDF5 files in it"),
    ('"hdf5.txt"', '"rows.h5"', ROWS + "rows.h5 is an HDF5 file; name a text file that lists it"),
    ('"hdf5.txt"', '"missing_second.txt"', ROWS + "missing_second.txt: there is no file none.h5"),
    ('"hdf5.txt"', '"no_hdf5.txt"', ROWS + "net.prototxt is not an HDF5 file"),
    ('"hdf5.txt"', '"no_label.txt"', ROWS + 'unlabelled.h5 has no dataset for its top "label"'),
    (
        "batch_size: 2 }",
        "batch_size: 2 } transform_param { scale: 2 }",
        ROWS + "HDF5Data does not transform; remove transform_param",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), HDF5_FAULTS)
def test_hdf5_data_that_caffe_aborts_on_is_refused(
    old: str, new: str, message: str, tree: Tree, folder: Path
) -> None:
    use(HDF5)
    change("net.prototxt", old, new)
    change("solver.prototxt", "max_iter: 3", "max_iter: 9")
    assert_refused(message)
    assert_aborts(tree)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"images.txt"', '"none.txt"', "no list of images at none.txt (looked for in "),
        (
            '"images.txt"',
            '"empty.txt"',
            "empty.txt is empty; list one image and its label per line",
        ),
        ('"images.txt"', '"missing_first.txt"', "missing_first.txt:1: there is no file images/non"),
        ("batch_size: 1", "batch_size: 0", "batch_size is 0; set it to 1 or more"),
        ("mean_value: 1", "mean_value: 1 mean_value: 2", "2 mean_value for images of 3 channels"),
        (
            "mean_value: 1",
            'mean_file: "cropped.binaryproto"',
            "mean_file cropped.binaryproto is 3x4x4",
        ),
    ],
)
def test_images_that_caffe_aborts_on_are_refused(
    old: str, new: str, message: str, folder: Path
) -> None:
    use(IMAGES)
    assert_passes_with_opencv(PICTURES + "type ImageData needs")
    change("net.prototxt", old, new)
    assert_refused(PICTURES + message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_iter: 3", "", "max_iter is 0; set it to 1 or more"),
        ("max_iter: 3", "max_iter: -3", "max_iter is -3; set it to 1 or more"),
        ("max_iter: 3", "max_iter: 3 iter_size: 0", "iter_size is 0; set it to 1 or more"),
    ],
)
def test_a_run_that_would_train_nothing_is_refused(
    old: str, new: str, message: str, folder: Path
) -> None:
    change("solver.prototxt", old, new)
    assert_refused("solver.prototxt: " + message)


GOOD = [
    ("max_iter: 3", "max_iter: 3"),
    ('net: "net.prototxt"', 'train_net: "net.prototxt" test_net: "net.prototxt"'),
    ("test_iter: 2 test_interval: 2", ""),
    ("test_iter: 2", "test_iter: 2 test_iter: 2 test_state { } test_state { stage: 'deploy' }"),
    ("momentum: 0", "momentum: 0.9 solver_type: NESTEROV"),
    ("momentum: 0", 'type: "RMSProp"'),
    ("weight_decay: 0.001", 'regularization_type: "none"'),
]


@pytest.mark.parametrize(("old", "new"), GOOD)
def test_a_solver_that_passes_trains(old: str, new: str, tree: Tree, folder: Path) -> None:
    change("solver.prototxt", old, new)
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean_value: 3", "mean_value: 3 mean_value: 4 mean_value: 5"),
        ("crop_size: 4", "crop_size: 5"),
        ("mean_value: 3 crop_size: 4", 'mean_file: "mean.binaryproto" crop_size: 4'),
        ('source: "test_lmdb" batch_size: 3 backend: LMDB', 'source: "leveldb" batch_size: 3'),
        # rules of Net::StateMeetsRule; a layer that they leave out may lack its data
        ("include { phase: TEST }", "exclude { phase: TRAIN }"),
        (
            'layer {\n  name: "scores"',
            'layer { name: "left_out" type: "Data" top: "x" include { phase: TEST min_level: 1 }'
            ' include { stage: "deploy" } } layer {\n  name: "scores"',
        ),
        (
            'layer {\n  name: "scores"',
            'layer { name: "left_out" type: "Data" top: "x" exclude { max_level: 0'
            ' not_stage: "deploy" } } layer {\n  name: "scores"',
        ),
    ],
)
def test_a_net_that_passes_trains(old: str, new: str, tree: Tree, folder: Path) -> None:
    change("net.prototxt", old, new)
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr


def test_weights_that_pass_are_loaded(tree: Tree, folder: Path) -> None:
    change("solver.prototxt", "snapshot_after_train: false", 'snapshot_prefix: "digits"')
    assert caffe_train(tree).returncode == 0
    model = "digits_iter_3.caffemodel"
    change("solver.prototxt", "max_iter: 3", f'max_iter: 3 weights: "{model}, {model}"')
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr
    assert f"Finetuning from {model}" in done.stderr


@pytest.mark.parametrize("axes", [(6, 5), (3, 6, 5), (1, 3, 6, 5, 1), (1, 3, 5, 6)])
def test_a_mean_of_other_axes_is_refused(axes: tuple[int, ...], tree: Tree, folder: Path) -> None:
    blob = prototxt.caffe_pb2().BlobProto(data=[1.0] * math.prod(axes))
    blob.shape.dim.extend(axes)
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    assert_refused(TRAIN + "mean_file mean.binaryproto is ")
    assert_aborts(tree)


def test_a_mean_of_doubles_in_todays_shape_passes(tree: Tree, folder: Path) -> None:
    blob = prototxt.caffe_pb2().BlobProto(double_data=[1.0] * 90)
    blob.shape.dim.extend((1, 3, 6, 5))
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr


def assert_passes_with_opencv(needs: str) -> None:
    if installed_caffe.has_opencv():
        assert check() == []
    else:
        assert_refused(
            f"{needs} OpenCV, but this Caffe is built without it; install its development"
        )


def test_whether_caffe_has_opencv_is_known(tree: Tree) -> None:
    code = "import caffe; print('ImageData' in caffe.layer_type_list())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{installed_caffe.has_opencv()}\n"


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_encoded_images_are_left_to_a_caffe_with_opencv(backend: str, folder: Path) -> None:
    encoded = prototxt.caffe_pb2().Datum(encoded=True, data=b"an image of any size", label=1)
    with (
        lmdb.open("test_lmdb") as database,
        database.begin(write=True) as transaction,
    ):
        transaction.put(b"00000000", encoded.SerializeToString())
    with plyvel.DB("leveldb") as database:
        database.put(b"00000000", encoded.SerializeToString())
    source = "test_lmdb" if backend == "LMDB" else "leveldb"
    change(
        "net.prototxt",
        '"test_lmdb" batch_size: 3 backend: LMDB',
        f'"{source}" batch_size: 3 backend: {backend}',
    )
    assert_passes_with_opencv(f"{TEST}{source} has compressed images, which need")


def test_grey_images_and_any_file_name_pass(folder: Path) -> None:
    use(IMAGES)
    change("net.prototxt", "batch_size: 1", "batch_size: 1 is_color: false")
    change("net.prototxt", "mean_value: 1", 'mean_file: "mean.binaryproto"')
    write_mean(Path("mean.binaryproto"), 6, 5, channels=1)
    name = os.fsdecode(b"gr\xfc\xdfe.png")
    Path("images", name).write_bytes(b"")
    Path("images.txt").write_bytes(os.fsencode(f"{name} 1\n{name} 2\n"))
    assert_passes_with_opencv(PICTURES + "type ImageData needs")


def test_data_that_cannot_be_counted_passes(tree: Tree, folder: Path) -> None:
    use(
        'layer { name: "noise" type: "DummyData" top: "data" top: "label"'
        " dummy_data_param { shape { dim: 2 dim: 4 } shape { dim: 2 } } }"
    )
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr


def test_a_policy_that_caffe_would_refuse_is_refused(folder: Path) -> None:
    parameter = prototxt.read_solver(Path("solver.prototxt"))
    parameter.lr_policy = "triangular"
    with pytest.raises(ClrError, match='s: lr_policy "triangular": max_lr is not set'):
        checks.check_run(SolverFile(parameter, "s"))


def test_a_solver_mode_that_is_not_set_is_not_warned_of(folder: Path) -> None:
    change("solver.prototxt", "solver_mode: CPU", "")
    assert check() == []


def test_hdf5_data_that_passes_trains(tree: Tree, folder: Path) -> None:
    use(HDF5)
    change("solver.prototxt", "test_iter: 2", "test_iter: 3")
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr


def test_a_net_within_the_solver_is_named_by_its_field(tree: Tree, folder: Path) -> None:
    net = NET.replace("train_lmdb", "none_lmdb")
    change("solver.prototxt", 'net: "net.prototxt"', f"net_param {{ {net} }}")
    assert_refused('solver.prototxt: net_param: layer "train_data": no data at none_lmdb')
    assert_aborts(tree)


def test_an_absolute_path_is_not_said_to_be_looked_for(folder: Path) -> None:
    change("net.prototxt", '"train_lmdb"', '"/none/lmdb"')
    with pytest.raises(ClrError, match=r"no data at /none/lmdb; make it"):
        check()


WARNINGS = [
    (
        "test_iter: 2 test_interval: 2",
        "test_interval: 2",
        "solver.prototxt: test_interval is 2, but nothing is tested without test_iter; set it",
    ),
    (
        "solver_mode: CPU",
        "solver_mode: GPU",
        "solver.prototxt: solver_mode is GPU, but this run is on the CPU; to train on a GPU, give"
        " --gpu",
    ),
    (
        "test_iter: 2",
        "test_iter: 1",
        "solver.prototxt: test_iter 1 with batch_size 3 tests 3 images, fewer than the 6 in the"
        " data; set test_iter: 2",
    ),
    (
        "test_iter: 2",
        "test_iter: -2",
        "solver.prototxt: test_iter -2 with batch_size 3 tests 0 images, fewer than the 6 in"
        " the data; set test_iter: 2",
    ),
    (
        "test_iter: 2",
        "test_iter: 400",
        "solver.prototxt: test_iter 400 with batch_size 3 tests 1,200 images, more than the 6"
        " in the data; set test_iter: 2",
    ),
]


@pytest.mark.parametrize(("old", "new", "warning"), WARNINGS)
def test_a_doubtful_solver_is_warned_of(old: str, new: str, warning: str, folder: Path) -> None:
    change("solver.prototxt", old, new)
    assert check() == [warning]


def test_a_batch_size_that_does_not_divide_the_test_set_is_warned_of(folder: Path) -> None:
    change("net.prototxt", "batch_size: 3", "batch_size: 4")
    assert check() == [
        "solver.prototxt: test_iter 2 with batch_size 4 tests 8 images, more than the 6 in the"
        " data; no test_iter fits: 1 leaves out 2, 2 repeats 2"
    ]


def test_a_gpu_run_is_not_warned_of_its_mode(folder: Path) -> None:
    change("solver.prototxt", "solver_mode: CPU", "solver_mode: GPU")
    assert checks.check_run(prototxt.open_solver(Path("solver.prototxt")), gpu=0) == []


def test_a_test_net_without_outputs_is_warned_of(tree: Tree, folder: Path) -> None:
    change("net.prototxt", ' top: "loss"', "")
    assert check() == [
        "net.prototxt: the TEST phase has no output, so a test shows nothing; give the loss or"
        " an Accuracy layer a top"
    ]
    done = caffe_train(tree)
    assert done.returncode == 0
    assert "Testing net" in done.stderr
    assert "Test net output" not in done.stderr


@pytest.mark.parametrize("new", ["test_iter: 0 test_interval: 2", "test_iter: 1 test_interval: 4"])
def test_tests_that_are_switched_off_are_not_warned_of(new: str, folder: Path) -> None:
    change("net.prototxt", ' top: "loss"', "")
    change("solver.prototxt", "test_iter: 2 test_interval: 2", new)
    assert check() == []


def test_a_net_of_a_deprecated_format_is_checked_as_it_is_upgraded(
    tree: Tree, folder: Path
) -> None:
    Path("net.prototxt").write_text("""
layers {
  name: "data" type: DATA top: "data" top: "label"
  data_param { source: "test_lmdb" batch_size: 3 backend: LMDB }
}
layers {
  name: "scores" type: INNER_PRODUCT bottom: "data" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layers { name: "loss" type: SOFTMAX_LOSS bottom: "scores" bottom: "label" top: "loss" }
""")
    assert check() == []
    done = caffe_train(tree)
    assert done.returncode == 0, done.stderr
    change("net.prototxt", "batch_size: 3", "batch_size: 4")
    assert "test_iter 2 with batch_size 4 tests 8 images" in check()[0]
    change("net.prototxt", "test_lmdb", "none_lmdb")
    assert_refused('net.prototxt: layer "data": no data at none_lmdb')
    assert_aborts(tree)
