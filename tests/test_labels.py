"""Labels that no output is for, and accuracies of scores that are no numbers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import labels, prototxt, runs, solvers, training
from caffe_clr.errors import ClrError
from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree
from caffe_clr.history import History
from caffe_clr.metrics import Metric
from caffe_clr.prototxt import Net
from caffe_clr.results import Entry

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
    labels.check(net(write(tmp_path, [0, 1, 2, 2, 1, 0])), SHAPES)
    data = write(tmp_path, [0, 1, 2, wrong, 1, 0])
    told = f'layer "loss": {tmp_path}/[a-z.]+ has the label {wrong}, and "scores" 3 outputs'
    with pytest.raises(ClrError, match=told):
        labels.check(net(data), SHAPES)
    labels.check(net(data, f"loss_param {{ ignore_label: {wrong} }}"), SHAPES)


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
    few = Net("net", net("").parameter)
    few.parameter.layer.append(layer)
    labels.check(few, {"scores": (2, 301)})
    with pytest.raises(ClrError, match="has the label 300"):
        labels.check(few, {"scores": (2, 300)})


def test_a_training_is_refused_before_it_begins(
    write_solver: Callable[..., Path], moving_net: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer.prototxt"
    fewer.write_text(moving_net.read_text().replace("num_output: 3", "num_output: 2"))
    with pytest.raises(ClrError, match='has the label 2, and "scores" 2 outputs'):
        training.train(write_solver(net=str(fewer)), tmp_path / "run")
    assert runs.read_history(tmp_path / "run") == History([], [])


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
    assert entry.reached(0.75) == [20]
    assert [row["iteration"] for row in entry.curve()] == [0]
