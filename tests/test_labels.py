"""Labels that no output is for, and accuracies of scores that are no numbers."""

import math
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import plyvel
import pytest
from google.protobuf import text_format
from PIL import Image

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.method.results import Entry
from caffe_clr.preflight import label_range, label_readers
from caffe_clr.prototxt import Net
from caffe_clr.runs import run_folder, solvers, training
from caffe_clr.runs.history import History
from caffe_clr.runs.metrics import Metric

IMAGES = np.zeros((6, 1, 3, 3), np.uint8)
SHAPES = {"scores": (2, 3)}


def net(data: str, loss: str = "") -> Net:
    parameter = prototxt.caffe_pb2().NetParameter()
    text = data + (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label"'
        f' top: "loss" {loss} }}'
    )
    return Net("net.prototxt", text_format.Parse(text, parameter))


def of_lmdb(folder: Path, values: list[int]) -> str:
    datasets.write_lmdb(folder / "lmdb", IMAGES, np.array(values))
    data = f'data_param {{ source: "{folder}/lmdb" batch_size: 2 backend: LMDB }}'
    return f'layer {{ name: "data" type: "Data" top: "data" top: "label" {data} }}'


def of_hdf5(folder: Path, values: list[int]) -> str:
    with h5py.File(folder / "rows.h5", "w") as file:
        file["data"], file["label"] = IMAGES, np.array(values, np.float32)
    (folder / "list.txt").write_text(f"{folder}/rows.h5\n")
    data = f'hdf5_data_param {{ source: "{folder}/list.txt" batch_size: 2 }}'
    return f'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" {data} }}'


def of_list(folder: Path, values: list[int]) -> str:
    lines = [f"an image {number}.png {value}\n" for number, value in enumerate(values)]
    (folder / "list.txt").write_text("".join(lines))
    data = f'image_data_param {{ source: "{folder}/list.txt" batch_size: 2 }}'
    return f'layer {{ name: "data" type: "ImageData" top: "data" top: "label" {data} }}'


@pytest.mark.parametrize("write", [of_lmdb, of_hdf5, of_list])
@pytest.mark.parametrize("wrong", [3, 255, 10**6, -1])
def test_a_label_without_an_output_is_refused(
    wrong: int, write: Callable[[Path, list[int]], str], tree: Tree, tmp_path: Path
) -> None:
    folders = good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in folders:
        folder.mkdir()
    assert label_range.check(net(write(good, [0, 1, 2, 2, 1, 0])), SHAPES) == []
    data = write(bad, [0, 1, 2, wrong, 1, 0])
    told = f'layer "loss": {bad}/[a-z5.]+ has the label {wrong}, but "scores" has 3 outputs'
    with pytest.raises(ClrError, match=told):
        label_range.check(net(data), SHAPES)
    label_range.check(net(data, f"loss_param {{ ignore_label: {wrong} }}"), SHAPES)


def test_the_label_is_read_of_every_kind_of_datum(tree: Tree, tmp_path: Path) -> None:
    datum = prototxt.caffe_pb2().Datum
    kinds = [
        datum(channels=1, height=300, width=300, data=bytes(90_000), label=300),
        datum(channels=1, height=1, width=2, float_data=[1, 2], label=7),
        datum(data=b"\x28\x09", label=2, encoded=True),
        datum(channels=3, data=b"xyz"),
    ]
    with lmdb.open(str(tmp_path / "lmdb")) as database, database.begin(write=True) as transaction:
        for number, kind in enumerate(kinds):
            transaction.put(b"%d" % number, kind.SerializeToString())
        transaction.put(b"9", b"no datum")
    layer = prototxt.caffe_pb2().LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.data_param.source, layer.data_param.backend = str(tmp_path / "lmdb"), 1
    few = Net("net", type(net("").parameter)(layer=[layer, *net("").parameter.layer]))
    label_range.check(few, {"scores": (2, 301)})
    with pytest.raises(ClrError, match="has the label 300"):
        label_range.check(few, {"scores": (2, 300)})


def maps(folder: Path, images: Any, **transformation: Any) -> str:
    """A net's Data layer whose images are label maps, N x channels x height x width."""
    datasets.write_lmdb(folder / "maps", images, np.zeros(len(images), np.int64))
    return of_maps(folder, **transformation)


def of_maps(folder: Path, backend: str = "LMDB", **transformation: Any) -> str:
    fields = " ".join(f"{name}: {value}" for name, value in transformation.items())
    return (
        f'layer {{ name: "maps" type: "Data" top: "label" transform_param {{ {fields} }}'
        f' data_param {{ source: "{folder}/maps" batch_size: 2 backend: {backend} }} }}'
    )


def put(folder: Path, *datums: Any) -> None:
    with lmdb.open(str(folder / "maps")) as database, database.begin(write=True) as transaction:
        for number, datum in enumerate(datums):
            transaction.put(b"%d" % number, datum.SerializeToString())


def refusal(checked: Net, shapes: dict[str, tuple[int, ...]] | None = None) -> str:
    with pytest.raises(ClrError) as refused:
        label_range.check(checked, shapes or SHAPES)
    return str(refused.value)


MAPS = np.array([0, 1, 2, 255], np.uint8).reshape(1, 1, 2, 2)


def test_label_maps_are_checked(tree: Tree, tmp_path: Path) -> None:
    data = maps(tmp_path, np.repeat(MAPS, 3, axis=0))
    assert refusal(net(data)) == (
        f'net.prototxt: layer "loss": {tmp_path}/maps has the label 255, but "scores" has 3'
        " outputs, for labels from 0 to 2; set ignore_label: 255 in its loss_param, or fix the"
        " labels"
    )
    assert "has the label 255" in refusal(net(data, "loss_param { ignore_label: 254 }"))
    label_range.check(net(data, "loss_param { ignore_label: 255 }"), SHAPES)
    label_range.check(net(data), {"scores": (2, 256)})
    accuracy = (
        'layer { name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "a"'
        " accuracy_param { ignore_label: 255 } }"
    )
    assert 'layer "loss"' in refusal(net(data + accuracy))


def test_label_maps_are_those_that_are_transformed(tree: Tree, tmp_path: Path) -> None:
    images = np.array([10, 20, 30, 30], np.uint8).reshape(1, 1, 2, 2)
    data = maps(tmp_path, images, scale=0.1, mean_value=10)
    label_range.check(net(data), SHAPES)
    assert "has the label 30" in refusal(net(of_maps(tmp_path)))
    assert "has the label 2," in refusal(net(data), {"scores": (2, 2)})
    label_range.check(net(of_maps(tmp_path, mean_file='"unknown"')), SHAPES)


def test_label_maps_of_floats_and_of_compressed_images(tree: Tree, tmp_path: Path) -> None:
    datum = prototxt.caffe_pb2().Datum
    one = {"channels": 1, "height": 1, "width": 2}
    grey, palette, colour = (BytesIO() for _ in range(3))
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(grey, "PNG")
    Image.fromarray(np.array([[0, 9]], np.uint8)).convert("P").save(palette, "PNG")
    Image.fromarray(np.full((1, 2, 3), 9, np.uint8)).save(colour, "PNG")
    unknown = [
        datum(data=image.getvalue(), encoded=True) for image in (palette, colour, BytesIO(b"x"))
    ]
    put(tmp_path, datum(float_data=[0, 2], **one), *unknown, datum(data=b"\0", **one))
    label_range.check(net(of_maps(tmp_path)), SHAPES)
    put(tmp_path, datum(float_data=[0, 1.5], **one))
    assert label_range.check(net(of_maps(tmp_path)), SHAPES) == [
        f'net.prototxt: layer "loss": {tmp_path}/maps has the label 1.5, which Caffe truncates'
        " to 1; class labels must be whole numbers"
    ]
    put(tmp_path, datum(float_data=[0, 7], **one))
    assert "has the label 7" in refusal(net(of_maps(tmp_path)))
    put(tmp_path, datum(data=grey.getvalue(), encoded=True))
    assert "has the label 9" in refusal(net(of_maps(tmp_path)))
    put(tmp_path, datum(float_data=[math.nan, 7], **one))
    assert f"{tmp_path}/maps has the label NaN; fix" in refusal(net(of_maps(tmp_path)))


def test_labels_of_a_leveldb_are_read_from_both_ends(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, *values: int) -> str:
        folder.mkdir()
        with closing(plyvel.DB(str(folder / "maps"), create_if_missing=True)) as database:
            for number, value in enumerate(values):
                datum = prototxt.caffe_pb2().Datum(
                    channels=1, height=1, width=1, data=bytes([value]), label=value
                )
                database.put(b"%05d" % number, datum.SerializeToString())
        return of_maps(folder, "LEVELDB")

    good = write(tmp_path / "good", *[0] * 50)
    bad = write(tmp_path / "bad", *[0] * 50, 4)
    within = write(tmp_path / "within", *[0] * 25, 4, *[0] * 25)
    for data in (good, bad, within):
        for name in ("_BYTES", "_BYTES_OF_IMAGES"):
            monkeypatch.setattr(label_readers, name, 100)
        for checked in (data, data.replace('top: "label"', 'top: "data" top: "label"')):
            if data is bad:
                assert "has the label 4" in refusal(net(checked))
            else:
                label_range.check(net(checked), SHAPES)
        monkeypatch.undo()
    assert "has the label 4" in refusal(net(within))


def test_label_maps_of_a_list_of_images(tree: Tree, tmp_path: Path) -> None:
    for name, value in (("good", 2), ("bad", 255)):
        Image.fromarray(np.full((2, 2), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "list.txt").write_text("good.png 0\nbad.png 0\ngone.png 0\n")

    def listed(fields: str) -> Net:
        return net(
            'layer { name: "maps" type: "ImageData" top: "label" top: "none" image_data_param {'
            f' source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" {fields} }} }}'
        )

    assert f"{tmp_path}/bad.png has the label 255" in refusal(listed("is_color: false"))
    label_range.check(listed(""), SHAPES)
    label_range.check(listed("is_color: false new_height: 1 new_width: 1"), SHAPES)


@pytest.mark.parametrize(
    ("text", "label"),
    [("11.0", 11), ("11", 11), ("+11", 11), ("11\r", 11), ("11px", 11), ("3.6", 3), ("-1", -1)],
)
def test_labels_of_an_image_list_are_those_that_atoi_makes(
    text: str, label: int, tree: Tree, tmp_path: Path
) -> None:
    data = of_list(tmp_path, [0, 1])
    for zero in ("x", "", "--5", "0x9"):
        (tmp_path / "list.txt").write_text(f"an image.png {zero}\nan image.png {text}\n")
        assert f"{tmp_path}/list.txt has the label {label}," in refusal(net(data))


def test_fractions_that_an_image_list_cuts_off_are_warned_of(tree: Tree, tmp_path: Path) -> None:
    data = of_list(tmp_path, [0, 1])
    (tmp_path / "list.txt").write_text("a.png 1\nb.png 2.25\nc.png 2.0\n")
    regression = net(data)
    regression.parameter.layer[-1].type = "EuclideanLoss"
    assert label_range.check(regression, SHAPES) == [
        f'net.prototxt: layer "loss": {tmp_path}/list.txt has the label 2.25, which Caffe truncates'
        " to 2; for such labels, use HDF5Data"
    ]
    (tmp_path / "list.txt").write_text("a.png 1\nb.png 2.0\n")
    assert label_range.check(regression, SHAPES) == []
    regression = net(of_hdf5(tmp_path, [1, 2]))
    regression.parameter.layer[-1].type = "EuclideanLoss"
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file["label"][:] = [0.5, math.nan]
    assert label_range.check(regression, SHAPES) == []


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "NaN"), (math.inf, "inf")])
def test_a_label_that_is_no_number_is_refused(
    value: float, shown: str, tree: Tree, tmp_path: Path
) -> None:
    data = of_hdf5(tmp_path, [0, 1, 2, 1])
    with h5py.File(tmp_path / "more.h5", "w") as file:
        file["data"], file["label"] = IMAGES, np.array([0, 1, value], np.float32)
    with (tmp_path / "list.txt").open("a") as listed:
        listed.write(f"{tmp_path}/more.h5\n")
    assert f"{tmp_path}/more.h5 has the label {shown}; fix the labels" in refusal(net(data))


def test_large_hdf5_labels_are_read_at_both_ends(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = of_hdf5(tmp_path, [0] * 500 + [3] + [0] * 500)
    assert "has the label 3" in refusal(net(data))
    monkeypatch.setattr(label_readers, "_BYTES", 1000)
    label_range.check(net(data), SHAPES)
    for place in (0, -1):
        with h5py.File(tmp_path / "rows.h5", "a") as file:
            file["label"][place] = 4
        assert "has the label 4" in refusal(net(data))
        with h5py.File(tmp_path / "rows.h5", "a") as file:
            file["label"][place] = 0


def through(*layers: str) -> str:
    return "".join(f"layer {{ {layer} }}" for layer in layers)


@pytest.mark.parametrize(
    "layers",
    [
        ['type: "Flatten" bottom: "all" top: "label"'],
        ['type: "Split" bottom: "all" top: "label" top: "other"'],
        [
            'type: "Reshape" bottom: "all" top: "a"',
            'type: "Concat" bottom: "a" bottom: "all" top: "label"',
        ],
        ['type: "Silence" bottom: "all"', 'type: "Flatten" bottom: "all" top: "label"'],
    ],
)
def test_labels_are_followed_through_layers(layers: list[str], tree: Tree, tmp_path: Path) -> None:
    data = of_hdf5(tmp_path, [0, 1, 3]).replace('"label"', '"all"')
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file["all"] = file["label"][:]
    assert "has the label 3" in refusal(net(data + through(*layers)))


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Power" bottom: "all" top: "label" power_param { scale: 0.1 }',
        'type: "Threshold" bottom: "all" top: "label"',
        'type: "Slice" bottom: "all" top: "label" top: "b" slice_param { axis: 0 }',
        'type: "Concat" bottom: "all" bottom: "scores" top: "label"',
    ],
)
def test_labels_that_layers_change_are_not_judged(layer: str, tree: Tree, tmp_path: Path) -> None:
    data = of_hdf5(tmp_path, [0, 1, 3]).replace('"label"', '"all"')
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file["all"] = file["label"][:]
    shapes = {**SHAPES, "label": (1,), "b": (1,)}
    assert label_range.check(net(data + through(layer)), shapes) == []


def test_each_slice_of_labels_has_outputs_of_its_own(tree: Tree, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["labels"] = np.array([[0, 9, 1], [1, 8, 2]], np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/rows.h5\n")
    data = (
        'layer { name: "data" type: "HDF5Data" top: "labels" hdf5_data_param {'
        f' source: "{tmp_path}/list.txt" batch_size: 2 }} }}'
        'layer { name: "slice" type: "Slice" bottom: "labels" top: "a" top: "b" top: "label"'
        " slice_param { slice_point: 1 slice_point: 2 } }"
    )
    shapes = {"labels": (2, 3), "a": (2, 1), "b": (2, 1), "label": (2, 1)}
    label_range.check(net(data), {**shapes, "scores": (2, 3)})
    assert "has the label 2," in refusal(net(data), {**shapes, "scores": (2, 2)})
    other = net(data.replace('top: "b" top: "label"', 'top: "label" top: "b"'))
    assert "has the label 9," in refusal(other, {**shapes, "scores": (2, 3)})


@pytest.mark.parametrize(
    ("kind", "parameter", "shape"),
    [
        ("SoftmaxWithLoss", "softmax_param { axis: 2 }", (2, 5, 3)),
        ("SoftmaxWithLoss", "softmax_param { axis: -1 }", (2, 5, 3)),
        ("Accuracy", "accuracy_param { axis: 2 }", (2, 5, 3)),
        ("InfogainLoss", "infogain_loss_param { axis: 2 }", (2, 5, 3)),
        ("MultinomialLogisticLoss", "", (2, 1, 3)),
        ("HingeLoss", "", (2, 3, 1, 1)),
    ],
)
def test_outputs_are_along_the_axis_of_the_layer(
    kind: str, parameter: str, shape: tuple[int, ...], tree: Tree, tmp_path: Path
) -> None:
    checked = net(of_hdf5(tmp_path, [0, 1, 3]), parameter)
    checked.parameter.layer[-1].type = kind
    assert '"scores" has 3 outputs' in refusal(checked, {"scores": shape})
    label_range.check(checked, {"scores": tuple(4 if size == 3 else size for size in shape)})


def test_a_training_is_refused_before_it_begins(
    write_solver: Callable[..., Path], moving_net: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer.prototxt"
    fewer.write_text(moving_net.read_text().replace("num_output: 3", "num_output: 2"))
    with pytest.raises(ClrError, match='has the label 2, but "scores" has 2 outputs'):
        training.train(write_solver(net=str(fewer)), tmp_path / "run")
    assert run_folder.read_history(tmp_path / "run") == History([], [])


def test_the_accuracy_of_nan_is_nan(
    write_solver: Callable[..., Path], moving_net: Path, tmp_path: Path
) -> None:
    file = write_solver(net=str(moving_net), test_iter=[2], test_interval=10)
    solver = solvers.load_solver(prototxt.read_solver(file))
    (*_, means) = solvers.test(solver, [2])
    assert 0 <= means["right"] <= 1
    solver.net.params["scores"][0].data[:] = math.nan
    (*_, means) = solvers.test(solver, [2])
    assert math.isnan(means["right"])


def test_nan_is_no_result() -> None:
    metric = Metric("right", of_test=True, is_accuracy=True)

    def rows(*results: tuple[float, float]) -> list[dict[str, Any]]:
        return [
            {"iteration": 10 * number, "lr": 0.1, "right": right, "loss": loss}
            for number, (right, loss) in enumerate(results)
        ]

    good = History([], rows((0.1, 2), (0.5, 1), (0.6, 1)))
    ends = History([], rows((0.1, 2), (0.7, 1), (1.0, math.nan)))
    within = History([], rows((0.1, 2), (1.0, math.nan), (0.8, 1)))
    entry = Entry("one", metric, 20, {1: good, 2: ends, 3: within}, {}, [])
    assert entry.finals() == [0.6, 0.8]
    assert entry.bests() == [0.6, 0.8]
    assert entry.reached(0.7) == 20
    assert [row["iteration"] for row in entry.curve()] == [0]
