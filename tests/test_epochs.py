"""Epochs: what is counted is what Caffe reads, and iterations and cycles follow from it."""

import math
import os
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import plyvel
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from caffe_clr import policies, prototxt
from caffe_clr.cli.stepsizes import show_stepsize
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.method.stepsize import stepsize
from caffe_clr.preflight import data_layers, epochs
from caffe_clr.preflight.epochs import Epoch
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import solvers

IMAGES = 12
SOURCES = {
    "LMDB": 'type: "Data" data_param { source: "lmdb" batch_size: 4 backend: LMDB }',
    "LEVELDB": 'type: "Data" data_param { source: "leveldb" batch_size: 4 }',
    "HDF5": 'type: "HDF5Data" hdf5_data_param { source: "files.txt" batch_size: 4 }',
}
LEARNING = """
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 12 }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
DUMMY = 'layer { name: "data" type: "DummyData" top: "data" RULES dummy_data_param { SHAPE } }'

PARAMETER = 'layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 3 } } }'


@pytest.fixture
def folder(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with IMAGES images of each kind; the label is the image's number."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.zeros((IMAGES, 1, 3, 3), np.uint8)
    labels = np.arange(IMAGES)
    datasets.write_lmdb(tmp_path / "lmdb", images, labels)
    write_leveldb(tmp_path / "leveldb", labels)
    for file, part in (("a.h5", slice(0, 5)), ("b.h5", slice(5, None))):
        with h5py.File(tmp_path / file, "w") as datasets_of_file:
            datasets_of_file["data"] = images[part].astype(np.float32)
            datasets_of_file["label"] = labels[part].astype(np.float32)
    (tmp_path / "files.txt").write_text("a.h5\nb.h5\n")
    (tmp_path / "images.txt").write_text("".join(f"{i}.png {i}\n" for i in labels))
    return tmp_path


def write_leveldb(folder: Path, labels: Any) -> None:
    datum_type = prototxt.caffe_pb2().Datum
    with plyvel.DB(str(folder), create_if_missing=True) as database:
        for label in labels:
            datum = datum_type(channels=1, height=3, width=3, data=bytes(9), label=label)
            database.put(f"{label:08}".encode(), datum.SerializeToString())


def read(message: str, text: str) -> Any:
    return text_format.Parse(text, getattr(prototxt.caffe_pb2(), message)())


def solver_of(net: str, fields: str = "") -> SolverFile:
    text = f'lr_policy: "fixed" base_lr: 0 {fields} net_param {{ {net} }}'
    return SolverFile(read("SolverParameter", text))


def layer_of(source: str) -> Any:
    return read("LayerParameter", f'name: "digits" top: "data" top: "label" {source}')


def dummy(size: int, rules: str = "") -> str:
    return DUMMY.replace("RULES", rules).replace("SHAPE", f"shape {{ dim: {size} dim: 1 }}")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("source", SOURCES)
def test_caffe_reads_every_image_once_in_an_epoch(source: str, folder: Path) -> None:
    data = f'layer {{ name: "data" top: "data" top: "label" {SOURCES[source]} }}'
    solver = solver_of(data + LEARNING)
    found = epochs.epoch(solver)
    assert found == Epoch(images=IMAGES, batch_size=4)
    live = solvers.load_solver(solver.parameter)
    labels: list[float] = []
    for _ in range(found.iterations):
        live.step(1)
        labels += live.net.blobs["label"].data.tolist()
    assert sorted(labels) == list(range(IMAGES))


@pytest.mark.parametrize("source", SOURCES)
def test_caffe_begins_again_after_an_epoch_of_several_batches_an_iteration(
    source: str, folder: Path
) -> None:
    data = f'layer {{ name: "data" top: "data" top: "label" {SOURCES[source]} }}'
    solver = solver_of((data + LEARNING).replace("batch_size: 4", "batch_size: 2"))
    solver.parameter.iter_size = 3
    found = epochs.epoch(solver)
    assert (found, found.iterations) == (Epoch(IMAGES, batch_size=2, iter_size=3), 2)
    live = solvers.load_solver(solver.parameter)
    ends = []
    for _ in range(2 * found.iterations):
        live.step(1)
        ends.append(live.net.blobs["label"].data.tolist())
    assert ends == [[4, 5], [10, 11], [4, 5], [10, 11]]


@pytest.mark.parametrize(
    ("images", "batch_size", "iterations"),
    [(1_281_167, 256, 5_005), (1_281_167, 128, 10_009), (50_000, 100, 500)],
)
def test_the_papers_epochs(images: int, batch_size: int, iterations: int) -> None:
    assert Epoch(images, batch_size).iterations == iterations


@given(*[st.integers(1, 10**9)] * 2, *[st.integers(1, 16)] * 2)
def test_an_epoch_is_the_nearest_whole_number_of_iterations(
    images: int, batch_size: int, iter_size: int, ranks: int
) -> None:
    iterations = Epoch(images, batch_size, iter_size, ranks).iterations
    exact = Fraction(images, batch_size * iter_size * ranks)
    assert iterations == max(1, math.floor(exact + Fraction(1, 2)))


def test_the_half_of_an_iteration_is_rounded_up_and_an_epoch_is_at_least_one() -> None:
    assert [Epoch(images, 4).iterations for images in (1, 5, 6, 9, 10, 14)] == [1, 1, 2, 2, 3, 4]
    assert Epoch(1000, batch_size=10, iter_size=2, ranks=4).iterations == 13


@pytest.mark.parametrize(
    ("text", "lines"), [("a 1\n", 1), ("a 1\nb c 2\n", 2), ("a 1\nb 2", 2), ("a 1\n\nb 2\n", 3)]
)
def test_an_image_list_has_the_lines_that_caffe_reads(text: str, lines: int, folder: Path) -> None:
    (folder / "images.txt").write_text(text)
    layer = layer_of('type: "ImageData" image_data_param { source: "images.txt" }')
    assert data_layers.count_images(layer) == lines


def test_a_leveldb_is_counted_without_changing_it(folder: Path) -> None:
    """One with tables, a log, keys written twice, deleted keys, and tables that others write."""
    path = folder / "leveldb"
    with plyvel.DB(str(path), write_buffer_size=1 << 16) as database:
        for key in range(2000):
            database.put(f"{key:08}".encode(), np.random.default_rng(key).bytes(200))
        for key in range(1000, 1500):
            database.delete(f"{key:08}".encode())
        database.put(b"00000000", b"again")
    taken = {int(file.stem) for file in path.iterdir() if file.stem.isdigit()}
    assert any(path.glob("*.ldb"))
    for number in set(range(1, max(taken) + 50)) - taken:
        (path / f"{number:06}.ldb").write_bytes(b"not yet whole")
    before = contents(path)
    assert data_layers.count_images(layer_of(SOURCES["LEVELDB"])) == 1500
    assert contents(path) == before


def test_a_leveldb_with_tables_of_the_old_suffix_is_counted(folder: Path) -> None:
    with plyvel.DB(str(folder / "leveldb")) as database:
        database.compact_range()
    tables = list((folder / "leveldb").glob("*.ldb"))
    assert tables
    for table in tables:
        table.rename(table.with_suffix(".sst"))
    assert data_layers.count_images(layer_of(SOURCES["LEVELDB"])) == IMAGES


def test_a_leveldb_without_plyvel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(ClrError, match=r"LevelDB leveldb cannot be .* -m pip install plyvel-ci"):
        data_layers.count_images(layer_of(SOURCES["LEVELDB"]))


def test_a_leveldb_is_read_once_until_it_changes(folder: Path) -> None:
    path, layer = folder / "leveldb", layer_of(SOURCES["LEVELDB"])
    with plyvel.DB(str(path)) as database:
        database.compact_range()
    assert data_layers.count_images(layer) == IMAGES
    (table,) = path.glob("*.ldb")
    before, content = table.stat(), table.read_bytes()
    table.write_bytes(bytes(len(content)))  # not readable, and as good as unchanged
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data_layers.count_images(layer) == IMAGES
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(ClrError, match="cannot be read"):
        data_layers.count_images(layer)
    table.write_bytes(content)
    live = solvers.load_solver(
        solver_of(f'layer {{ name: "d" top: "data" top: "label" {SOURCES["LEVELDB"]} }}').parameter
    )
    del live  # which has opened it
    assert data_layers.count_images(layer) == IMAGES
    counted = set((folder / "cache" / "caffe-clr" / "counts").iterdir())
    with plyvel.DB(str(path)) as database:
        database.put(b"00000012", database.get(b"00000011"))
    assert data_layers.count_images(layer) == IMAGES + 1
    assert counted < set((folder / "cache" / "caffe-clr" / "counts").iterdir())


def test_a_leveldb_is_counted_where_the_count_cannot_be_kept(folder: Path) -> None:
    (folder / "cache").write_text("a file in the way")
    assert data_layers.count_images(layer_of(SOURCES["LEVELDB"])) == IMAGES


@pytest.mark.parametrize("source", ["LMDB", "LEVELDB"])
def test_a_database_is_counted_while_caffe_trains_on_it(source: str, folder: Path) -> None:
    data = f'layer {{ name: "data" top: "data" top: "label" {SOURCES[source]} }}'
    live = solvers.load_solver(solver_of(data + LEARNING).parameter)
    live.step(1)
    before = contents(folder / source.lower())
    assert data_layers.count_images(layer_of(SOURCES[source])) == IMAGES
    assert contents(folder / source.lower()) == before
    live.step(1)
    assert live.net.blobs["label"].data.tolist() == [4, 5, 6, 7]


def break_leveldb(folder: Path) -> None:
    shutil.rmtree(folder / "leveldb")
    write_leveldb(folder / "leveldb", range(IMAGES))
    with plyvel.DB(str(folder / "leveldb")) as database:
        database.compact_range()
    (table,) = (folder / "leveldb").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[20] ^= 255
    table.write_bytes(content)


def lose_the_current_manifest(folder: Path) -> None:
    for file in (folder / "leveldb").glob("MANIFEST-*"):
        file.unlink()


def empty_leveldb(folder: Path) -> None:
    shutil.rmtree(folder / "leveldb")
    write_leveldb(folder / "leveldb", [])


def empty_lmdb(folder: Path) -> None:
    shutil.rmtree(folder / "lmdb")
    lmdb.open(str(folder / "lmdb")).close()


def write_file(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def nothing(folder: Path) -> None:
    pass


IMAGE_LIST = 'type: "ImageData" image_data_param { source: "images.txt" }'
UNUSABLE = [
    (SOURCES["LMDB"], lambda folder: shutil.rmtree(folder / "lmdb"), "no data at lmdb .looked for"),
    (SOURCES["LMDB"], empty_lmdb, "lmdb is empty; create it again"),
    (
        SOURCES["LMDB"],
        write_file("lmdb/data.mdb", "x" * 9000),
        "lmdb: MDB_INVALID.*; create it again",
    ),
    (SOURCES["LMDB"], write_file("lmdb/data.mdb", ""), "LMDB lmdb cannot be read: "),
    (SOURCES["LEVELDB"], empty_leveldb, "leveldb is empty; create it again"),
    (SOURCES["LEVELDB"], break_leveldb, "LevelDB leveldb cannot be read: Corruption: .*checksum"),
    (
        SOURCES["LEVELDB"],
        lose_the_current_manifest,
        "cannot be read: .*leveldb/MANIFEST-.*; create it again",
    ),
    (
        SOURCES["LMDB"].replace(" backend: LMDB", ""),
        nothing,
        "the backend is LEVELDB, the default, but lmdb is LMDB; write backend: LMDB",
    ),
    (
        SOURCES["LEVELDB"].replace("}", "backend: LMDB }"),
        nothing,
        "the backend is LMDB, but leveldb is LEVELDB; write backend: LEVELDB",
    ),
    (
        SOURCES["LMDB"].replace('"lmdb"', '"lmdb/data.mdb"'),
        nothing,
        "lmdb/data.mdb is not a valid LMDB",
    ),
    (
        SOURCES["LMDB"].replace('"lmdb"', '"."'),
        nothing,
        ". is not a valid LMDB: it has no data.mdb",
    ),
    (SOURCES["LMDB"].replace('source: "lmdb"', ""), nothing, "no source; set it in its data_param"),
    (SOURCES["HDF5"], write_file("files.txt", " \n"), "files.txt is empty"),
    (
        SOURCES["HDF5"],
        write_file("files.txt", "a.h5 c.h5"),
        "'c.h5', which files.txt lists, does not",
    ),
    (
        SOURCES["HDF5"],
        write_file("files.txt", "lmdb"),
        "'lmdb', which files.txt lists, does not exist",
    ),
    (
        SOURCES["HDF5"],
        write_file("b.h5", "no HDF5"),
        "'b.h5', .* cannot be read as HDF5: .*; create it again",
    ),
    (SOURCES["HDF5"].replace("files.txt", "a.h5"), nothing, "a.h5 is an HDF5 file; name a text"),
    (SOURCES["HDF5"].replace("files.txt", "lmdb"), nothing, "lmdb cannot be read: Is a directory"),
    (SOURCES["HDF5"].replace("files.txt", "."), nothing, ". cannot be read: Is a directory"),
    (IMAGE_LIST, write_file("images.txt", ""), "images.txt is empty"),
    (IMAGE_LIST.replace("images.txt", "lmdb"), nothing, "lmdb cannot be read: Is a directory"),
    (IMAGE_LIST.replace("images.txt", "x" * 300), nothing, "cannot be read: File name too long"),
]


@pytest.mark.parametrize(("source", "change", "message"), UNUSABLE)
def test_data_that_cannot_be_counted_is_named(
    source: str, change: Callable[[Path], None], message: str, folder: Path
) -> None:
    change(folder)
    with pytest.raises(ClrError, match=f'^net.prototxt: layer "digits": .*{message}'):
        data_layers.count_images(layer_of(source), "net.prototxt")


def test_an_hdf5_file_without_the_tops_rows_is_named(folder: Path) -> None:
    message = "'a.h5', which files.txt lists, has no rows in a dataset \"data\"; name the top"
    for content in (None, 3.0, "group"):
        with h5py.File(folder / "a.h5", "w") as file:
            if content == "group":
                file.create_group("data")
            elif content:
                file["data"] = content
        with pytest.raises(ClrError, match=message):
            data_layers.count_images(layer_of(SOURCES["HDF5"]))
    with pytest.raises(ClrError, match='layer "": no top; name the tops as the datasets'):
        data_layers.count_images(read("LayerParameter", SOURCES["HDF5"]))


@pytest.mark.parametrize("kind", ["DummyData", "MemoryData", "Input", "Python", "WindowData"])
def test_layers_that_tell_no_number_of_images_ask_for_it(kind: str, tree: Tree) -> None:
    with pytest.raises(ClrError, match=f'net: layer "digits": .*{kind} cannot be counted; give'):
        data_layers.count_images(layer_of(f'type: "{kind}"'))


@pytest.mark.parametrize(
    "layer",
    [
        dummy(6),
        DUMMY.replace("RULES", "").replace("SHAPE", "num: 6 channels: 1 height: 1 width: 2"),
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 6 dim: 1 } } }',
        'layer { name: "data" type: "MemoryData" top: "data" top: "label"'
        " memory_data_param { batch_size: 6 channels: 1 height: 1 width: 1 } }",
        PARAMETER + dummy(6),
        dummy(5, "include { phase: TEST }") + dummy(6, "include { phase: TRAIN }"),
        dummy(5, "exclude { phase: TRAIN }") + dummy(6, "exclude { phase: TEST }"),
        dummy(5, 'include { stage: "small" }') + dummy(6, 'include { not_stage: "small" }'),
        dummy(5, 'exclude { stage: "big" }') + dummy(6, 'include { stage: "big" }'),
        dummy(5, "include { max_level: 1 }") + dummy(6, "include { min_level: 2 }"),
    ],
)
def test_the_batch_size_is_that_of_the_layer_caffe_takes(layer: str, tree: Tree) -> None:
    solver = solver_of(layer, 'train_state { level: 2 stage: "big" }')
    assert epochs.epoch(solver, images=60) == Epoch(60, 6)
    assert solvers.load_solver(solver.parameter).net.blobs["data"].data.shape[0] == 6


def test_of_several_data_layers_the_first_counted_one_with_labels_decides(folder: Path) -> None:
    state = dummy(3).replace('top: "data"', 'top: "cont" top: "state"')
    plain = f'layer {{ name: "plain" top: "data" {SOURCES["HDF5"]} }}'.replace("4", "5")
    labelled = f'layer {{ name: "labelled" top: "data" top: "label" {SOURCES["LMDB"]} }}'
    decided = [
        epochs.epoch(solver_of(net)).batch_size
        for net in (state + plain + labelled, state + labelled + plain, state + plain)
    ]
    assert decided == [4, 4, 5]
    assert epochs.epoch(solver_of(state + dummy(2)), images=6).batch_size == 3


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ('layer { name: "d" type: "Python" top: "x" }', 'layer "d": no batch size.* type Python'),
        ('layer { name: "d" type: "Input" top: "x" }', "no batch size.*; set it in its input_par"),
        (dummy(0), "no batch size .* type DummyData; set it in its dummy_data_param"),
        ('layer { name: "d" type: "Data" top: "x" }', "no batch size .*; set it in its data_param"),
        (
            dummy(2, "include { phase: TEST }") + LEARNING,
            "net_param: no data layer in phase TRAIN; add one",
        ),
        (
            'layers { name: "d" type: DATA top: "x" }',
            "net_param: .* `layers` only from files; write",
        ),
    ],
)
def test_a_net_that_does_not_tell_its_batch_size_is_refused(
    net: str, message: str, tree: Tree
) -> None:
    with pytest.raises(ClrError, match=message):
        epochs.epoch(solver_of(net), images=60)


def test_test_nets_are_told_in_caffes_order(folder: Path) -> None:
    data = f'layer {{ name: "data" top: "data" top: "label" {SOURCES["LMDB"]} }}'
    (folder / "own.prototxt").write_text(data.replace("batch_size: 4", "batch_size: 3"))
    solver = solver_of(
        data + LEARNING,
        'test_interval: 1 test_net: "own.prototxt" test_iter: [1, 1, 1]'
        f" test_net_param {{ {dummy(2)} }}",
    )
    assert epochs.test_images(solver) == [(None, 2), (IMAGES, 3), (IMAGES, 4)]
    nets = solvers.load_solver(solver.parameter).test_nets
    assert [net.blobs["data"].data.shape[0] for net in nets] == [2, 3, 4]


def test_test_nets_that_do_not_tell_are_unknown(folder: Path) -> None:
    net = 'layer { name: "d" type: "Python" top: "x" }'
    assert epochs.test_images(solver_of(net, "test_iter: 1")) == [(None, None)]
    source = SOURCES["LMDB"].replace(" backend: LMDB", "")
    solver = solver_of(f'layer {{ name: "data" {source} }}', "test_iter: 1")
    with pytest.raises(ClrError, match='net_param: layer "data": the backend is LEVELDB, '):
        epochs.test_images(solver)


@pytest.fixture
def solver_file(folder: Path) -> Path:
    """A triangular solver that has no stepsize yet; an epoch is three iterations."""
    data = f'layer {{ name: "data" top: "data" top: "label" {SOURCES["LMDB"]} }}'
    (folder / "net.prototxt").write_text(data + LEARNING)
    file = folder / "solver.prototxt"
    file.write_text('net: "net.prototxt" lr_policy: "triangular" base_lr: 0.001 max_lr: 0.006\n')
    return file


def test_the_epoch_of_a_net_of_v1_is_counted(solver_file: Path) -> None:
    (solver_file.parent / "net.prototxt").write_text(
        'layers { name: "d" type: DATA top: "data" top: "label" include: { phase: 0 }'
        ' data_param { source: "lmdb" batch_size: 4 backend: LMDB } }'
        ' layers { name: "s" type: INNER_PRODUCT bottom: "data" top: "s" }'
    )
    assert stepsize(solver_file)["epoch"] == IMAGES // 4


def test_a_stepsize_of_epochs(solver_file: Path) -> None:
    assert stepsize(solver_file) == {
        "images": IMAGES,
        "batch_size": 4,
        "iter_size": 1,
        "ranks": 1,
        "start_lr_policy": 0,
        "epochs": 4,
        "epoch": 3,
        "stepsize": 12,
        "cycle": 24,
        "max_iter": {3: 72, 4: 96, 6: 144},
    }
    of_cifar = stepsize(solver_file, images=50_000, ranks=25)
    assert (of_cifar["epoch"], of_cifar["stepsize"]) == (500, 2000)


@pytest.mark.parametrize(
    ("given_epochs", "iterations"), [(0.5, 2), (2.5, 8), (0.1, 1), (1 / 3, 1), (2.4, 7), (10, 30)]
)
def test_a_stepsize_of_a_fraction_of_epochs_is_the_nearest(
    given_epochs: float, iterations: int, solver_file: Path
) -> None:
    assert stepsize(solver_file, given_epochs)["stepsize"] == iterations


def test_a_stepsize_is_of_the_epochs_as_written(solver_file: Path) -> None:
    """The double that is nearest to 2.3 is below it."""
    assert stepsize(solver_file, 2.3, images=20)["stepsize"] == 12


def test_the_longest_run_that_caffe_counts_is_the_limit(solver_file: Path) -> None:
    longest = (2**31 - 1) // 12
    found = stepsize(solver_file, 1, images=4 * longest)
    assert found["max_iter"][6] == 12 * longest
    with pytest.raises(UsageError, match=r"6 cycles exceed 2,147,483,647"):
        stepsize(solver_file, 1, images=4 * (longest + 1))


def shown(solver_file: Path, given_epochs: float, images: int | None = None, ranks: int = 1) -> str:
    output = StringIO()
    console = Console(file=output, width=20)
    show_stepsize(solver_file, given_epochs, images, ranks, console)
    return output.getvalue()


def test_what_is_shown_is_for_a_solver_prototxt(solver_file: Path) -> None:
    assert shown(solver_file, 4, 50_000, 25) == (
        "# iterations per epoch: 500 (50,000 images, batches of 4, 25 ranks)\n"
        "stepsize: 2000   # 4 epochs of 500 iterations\n"
        "max_iter: 12000   # 3 cycles of 4000; 16000 for 4, 24000 for 6\n"
    )


@pytest.mark.parametrize("start", [0, 7])
def test_the_cycles_that_are_shown_end_at_base_lr(start: int, solver_file: Path) -> None:
    text = solver_file.read_text() + f"start_lr_policy: {start} iter_size: 2\n"
    solver_file.write_text(text)
    output = shown(solver_file, 2.5)
    assert "batches of 4, iter_size 2)" in output
    assert ("from iteration 7;" in output) == bool(start)
    solver_file.write_text(text + output)
    parameter = prototxt.read_solver(solver_file)
    ends = [parameter.max_iter, *stepsize(solver_file, 2.5)["max_iter"].values()]
    middle = start + parameter.stepsize
    rates = policies.learning_rate(parameter, [start, middle, *ends])
    assert rates.tolist() == np.array([0.001, 0.006, *[0.001] * 4], np.float32).tolist()
    assert (ends[0] - start) / parameter.stepsize == 6


@pytest.mark.parametrize(
    ("given_epochs", "remarked"), [(1.9, True), (2, False), (10, False), (10.5, True), (1, True)]
)
def test_epochs_that_the_paper_does_not_advise_are_remarked(
    given_epochs: float, remarked: bool, solver_file: Path
) -> None:
    output = shown(solver_file, given_epochs)
    assert ("# the paper advises a stepsize of 2 to 10 epochs" in output) == remarked
    assert f"# {given_epochs:g} epoch{'' if given_epochs == 1 else 's'} of 3" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "--epochs 0: give a number above 0"),
        ({"epochs": -1}, "--epochs -1: give"),
        ({"epochs": math.nan}, "--epochs nan: give"),
        ({"epochs": math.inf}, "--epochs inf: give"),
        ({"epochs": 1e308}, r"--epochs 1e\+308: .* 6 cycles exceed 2,147,483,647"),
        ({"images": 2**31}, "536,870,912 iterations per epoch, 6 cycles exceed 2,147,483,647"),
        ({"images": 10**400}, "iterations per epoch, 6 cycles exceed 2,147,483,647"),
        ({"images": 0}, "--images 0: give 1 or more"),
        ({"images": -5}, "--images -5: give 1 or more"),
        ({"ranks": 0}, "--ranks 0: give 1 or more"),
    ],
)
def test_arguments_that_make_no_stepsize_are_refused(
    arguments: dict[str, Any], message: str, solver_file: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        stepsize(solver_file, **arguments)


def test_a_solver_that_makes_no_epoch_is_refused_by_name(solver_file: Path) -> None:
    text = solver_file.read_text()
    solver_file.write_text(text + "iter_size: 0")
    with pytest.raises(ClrError, match=f"{solver_file}: iter_size is 0; set it to 1 or more"):
        stepsize(solver_file)
    solver_file.write_text(text.replace('net: "net.prototxt"', ""))
    with pytest.raises(ClrError, match=f"{solver_file}: no net to train"):
        stepsize(solver_file)
    with pytest.raises(ClrError, match=r"none\.prototxt: cannot be read"):
        stepsize(Path("none.prototxt"))


def test_a_solver_that_no_training_takes_gets_no_stepsize(solver_file: Path) -> None:
    solver_file.write_text(solver_file.read_text() + 'type: "SDG"')
    with pytest.raises(ClrError, match=f'{solver_file}: type "SDG" is unknown'):
        stepsize(solver_file)
