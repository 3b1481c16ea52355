"""The nets of the paper's Table 4, and the padded data that they crop."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr import prototxt
from caffe_clr.cli.commands import data as data_commands
from caffe_clr.errors import ClrError
from caffe_clr.experiments import cifar, datasets, nets
from caffe_clr.experiments.datasets import Split
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import solvers

Run = Callable[..., subprocess.CompletedProcess[str]]
NOWHERE = Path("none")
BATCH = 8
SMALLEST: dict[str, Callable[[Path], Any]] = {
    "resnet": lambda data: nets.resnet(8, 10, data),
    "stochastic_depth": lambda data: nets.stochastic_depth(8, 0.5, 10, data),
    "densenet": lambda data: nets.densenet(7, 12, 10, data),
}
COMMANDS = ["resnet", "stochastic-depth", "densenet"]

pytestmark = pytest.mark.usefixtures("tree")


@pytest.fixture(scope="module")
def data(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of images, each of its class's colour but for noise; the training images padded."""
    folder = tmp_path_factory.mktemp("data") / "cifar10"
    generator = np.random.default_rng(0)
    colours = generator.integers(50, 206, (BATCH, 3, 1, 1))
    noise = generator.integers(-50, 50, (BATCH, 3, 32, 32))
    split = Split((colours + noise).astype(np.uint8), np.arange(BATCH))
    datasets.write(datasets.padded({"train": split, "test": split}, 4), folder)
    return folder


def in_batches(net: Any, size: int = BATCH) -> Any:
    for layer in net.layer[:2]:
        layer.data_param.batch_size = size
    return net


def load(net: Any, phase: str, folder: Path, batch_size: int = BATCH) -> Any:
    nets.write(in_batches(net, batch_size), folder / "net.prototxt")
    caffe = solvers.import_caffe()
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    return caffe.Net(str(folder / "net.prototxt"), getattr(caffe, phase))


@pytest.mark.parametrize(
    ("net", "millions"),
    [
        (lambda: nets.resnet(20, 10, NOWHERE), "0.27"),
        (lambda: nets.resnet(56, 10, NOWHERE), "0.85"),
        (lambda: nets.resnet(110, 10, NOWHERE), "1.7"),
        (lambda: nets.stochastic_depth(110, 0.5, 10, NOWHERE), "1.7"),
        (lambda: nets.densenet(40, 12, 10, NOWHERE), "1.0"),
        (lambda: nets.densenet(100, 12, 10, NOWHERE), "7.0"),
    ],
)
def test_the_published_numbers_of_parameters(net: Callable[[], Any], millions: str) -> None:
    decimals = len(millions.partition(".")[2])
    assert f"{nets.count_parameters(net()) / 1e6:.{decimals}f}" == millions


def test_a_class_more_is_an_output_more() -> None:
    ten, hundred = (nets.resnet(8, classes, NOWHERE) for classes in (10, 100))
    assert nets.count_parameters(hundred) - nets.count_parameters(ten) == 90 * (64 + 1)


def test_the_depth_is_that_of_the_layers_with_weights() -> None:
    for depth, net in (
        (20, nets.resnet(20, 10, NOWHERE)),
        (20, nets.stochastic_depth(20, 0.5, 10, NOWHERE)),
        (22, nets.densenet(22, 12, 10, NOWHERE)),
    ):
        kinds = [layer.type for layer in net.layer]
        assert kinds.count("Convolution") + kinds.count("InnerProduct") == depth


@pytest.mark.parametrize("name", SMALLEST)
def test_data_and_outputs(name: str) -> None:
    net = SMALLEST[name](Path("data/mine"))
    train, test = (layer for layer in net.layer if layer.type == "Data")
    assert (list(train.top), list(test.top)) == (["data", "label"], ["data", "label"])
    assert train.data_param.source == "data/mine/train_lmdb"
    assert test.data_param.source == "data/mine/test_lmdb"
    batches = {"resnet": 128, "stochastic_depth": 128, "densenet": 64}
    assert (train.data_param.batch_size, test.data_param.batch_size) == (batches[name], 100)
    assert (train.transform_param.crop_size, train.transform_param.mirror) == (32, True)
    assert (test.transform_param.crop_size, test.transform_param.mirror) == (0, False)
    for layer in (train, test):
        assert layer.transform_param.mean_value == pytest.approx([125.3, 123.0, 113.9])
        assert layer.transform_param.scale == 1 / 64
    solver = prototxt.caffe_pb2().SolverParameter(net_param=net, test_iter=[1])
    file = prototxt.SolverFile(solver, name)
    (test_net,) = file.test_nets
    for state, outputs in (
        (file.train_net, ["loss"]),
        (test_net, ["loss", "accuracy"]),
    ):
        assert [layer.type for layer in state.parameter.layer].count("Data") == 1
        assert [layer.top[0] for layer in state.parameter.layer][-len(outputs) :] == outputs


@pytest.mark.parametrize("name", SMALLEST)
def test_batch_normalization_does_not_learn_its_statistics(name: str) -> None:
    for layer in SMALLEST[name](NOWHERE).layer:
        if layer.type == "BatchNorm":
            assert [(param.lr_mult, param.decay_mult) for param in layer.param] == [(0, 0)] * 3
        elif layer.type == "Convolution":
            assert not layer.convolution_param.bias_term
            assert layer.convolution_param.weight_filler.type == "msra"


@pytest.mark.parametrize("name", SMALLEST)
def test_a_net_learns_a_batch(name: str, data: Path) -> None:
    solver = prototxt.caffe_pb2().SolverParameter(
        **{"type": "Nesterov", "lr_policy": "fixed", "base_lr": 0.01, "momentum": 0.9},
        **{"weight_decay": 0.0001, "random_seed": 1, "test_iter": [1], "test_interval": 1000},
        **{"test_initialization": False, "net_param": in_batches(SMALLEST[name](data))},
    )
    live = solvers.load_solver(solver)
    losses = []
    for _ in range(40):
        live.step(1)
        losses.append(solvers.loss(live.net))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    (tested,) = solvers.test(live, [1])
    assert np.isfinite(tested["loss"])
    assert tested["accuracy"] > 0.5


def test_a_halving_shortcut_is_every_second_pixel_and_zeros(data: Path, tmp_path: Path) -> None:
    net = load(nets.resnet(8, 10, data), "TRAIN", tmp_path)
    net.forward()
    for before, name, shape in (
        ("block1_1", "block2_1", (BATCH, 32, 16, 16)),
        ("block2_1", "block3_1", (BATCH, 64, 8, 8)),
    ):
        shortcut = net.blobs[f"{name}_shortcut"].data
        subsampled = net.blobs[before].data[:, :, ::2, ::2]
        assert shortcut.shape == net.blobs[f"{name}_conv2"].data.shape == shape
        assert np.array_equal(shortcut, np.hstack([subsampled, np.zeros_like(subsampled)]))


def test_a_layer_of_densenet_appends_to_what_it_reads(data: Path, tmp_path: Path) -> None:
    net = load(nets.densenet(10, 12, 10, data), "TRAIN", tmp_path)
    net.forward()
    shapes = {name: blob.data.shape[1:] for name, blob in net.blobs.items()}
    assert shapes["block1_2"] == (16 + 2 * 12, 32, 32)
    assert shapes["transition1"] == (40, 16, 16)
    assert shapes["block3_2"] == (16 + 6 * 12, 8, 8)
    assert np.array_equal(net.blobs["block1_1"].data[:, :16], net.blobs["conv1"].data)


def test_blocks_survive_a_training_batch_or_not(data: Path, tmp_path: Path) -> None:
    net = load(nets.stochastic_depth(8, 0.5, 10, data), "TRAIN", tmp_path, batch_size=1)
    expected = {"block1_1": 1 - 1 / 6, "block2_1": 1 - 2 / 6, "block3_1": 0.5}
    drawn: dict[str, list[float]] = {name: [] for name in expected}
    for _ in range(300):
        net.forward()
        for name, factors in drawn.items():
            factors.append(float(net.blobs[f"{name}_survives"].data))
            residual = net.blobs[f"{name}_conv2"].data
            assert np.array_equal(
                net.blobs[f"{name}_residual"].data, residual * np.float32(factors[-1])
            )
    for name, probability in expected.items():
        assert np.isclose(drawn[name], 0, atol=1e-6).sum() + np.isclose(drawn[name], 1).sum() == 300
        assert np.mean(drawn[name]) == pytest.approx(probability, abs=0.1)
    assert len({tuple(factors) for factors in drawn.values()}) == 3


def test_a_block_that_does_not_survive_learns_nothing(data: Path, tmp_path: Path) -> None:
    net = load(nets.stochastic_depth(8, 0.5, 10, data), "TRAIN", tmp_path)
    seen: set[bool] = set()
    while len(seen) < 2:
        net.clear_param_diffs()
        net.forward()
        net.backward()
        survives = float(net.blobs["block3_1_survives"].data) > 0.5
        assert net.params["block3_1_conv1"][0].diff.any() == survives
        assert net.params["scores"][0].diff.any()
        seen.add(survives)


def test_a_test_multiplies_by_the_probability(data: Path, tmp_path: Path) -> None:
    net = load(nets.stochastic_depth(8, 0.4, 10, data), "TEST", tmp_path)
    net.forward()
    for name, probability in (("block1_1", 0.8), ("block2_1", 0.6), ("block3_1", 0.4)):
        factor = net.blobs[f"{name}_survives"].data
        assert factor == pytest.approx(probability)
        residual, scaled = net.blobs[f"{name}_conv2"].data, net.blobs[f"{name}_residual"].data
        assert np.array_equal(scaled, residual * factor)


def test_blocks_that_all_survive_are_a_resnet() -> None:
    assert nets.stochastic_depth(20, 1, 10, NOWHERE).layer == nets.resnet(20, 10, NOWHERE).layer


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_shows_an_example(command: str, run_cli: Run) -> None:
    done = run_cli("net", command, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"Example: caffe-clr net {command}" in done.stdout


@pytest.mark.parametrize(
    ("command", "options", "net"),
    [
        ("resnet", [], lambda: nets.resnet(110, 10, Path("data/cifar10_padded"))),
        (
            "stochastic-depth",
            ["--depth", "8", "--survival", "0.8", "--classes", "100", "--data", "mine"],
            lambda: nets.stochastic_depth(8, 0.8, 100, Path("mine")),
        ),
        (
            "densenet",
            ["--growth-rate", "4"],
            lambda: nets.densenet(40, 4, 10, Path("data/cifar10_padded")),
        ),
    ],
)
def test_the_command_writes_the_net(
    command: str, options: list[str], net: Callable[[], Any], run_cli: Run, tmp_path: Path
) -> None:
    expected, file = net(), "models/mine/train_test.prototxt"
    done = run_cli("net", command, file, *options)
    assert (done.returncode, done.stderr) == (0, "")
    parameters = nets.count_parameters(expected)
    counts = f"{len(expected.layer):,} layers, {parameters:,} parameters"
    assert done.stdout == f"Net: {file} ({counts})\n"
    assert prototxt.read_net(tmp_path / file) == expected
    assert [path.name for path in (tmp_path / file).parent.iterdir()] == ["train_test.prototxt"]


def test_the_command_writes_over_a_file_only_when_told(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text("mine")
    refused = run_cli("net", "resnet", "net.prototxt", "--depth", "8")
    assert refused.returncode == 2
    assert "error: net.prototxt exists; overwrite it with --force" in refused.stderr
    assert (tmp_path / "net.prototxt").read_text() == "mine"
    assert run_cli("net", "resnet", "net.prototxt", "--depth", "8", "--force").returncode == 0
    assert prototxt.read_net(tmp_path / "net.prototxt").name == "resnet_8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "resnet --depth 111",
            "depth is 111; it must be 6n + 2 with n of 1 or more: the nearest is",
        ),
        ("resnet --depth 2", "it must be 6n + 2 with n of 1 or more: the nearest is 8"),
        ("stochastic-depth --depth -4", "with n of 1 or more: the nearest is 8"),
        (
            "densenet --depth 41",
            "depth is 41; it must be 3n + 4 with n of 1 or more: the nearest is",
        ),
        (
            "stochastic-depth --survival 0",
            "survival is 0; give a probability above 0 and at most 1",
        ),
        ("stochastic-depth --survival 1.5", "survival is 1.5; give a probability"),
        ("stochastic-depth --survival nan", "survival is nan; give a probability"),
        ("densenet --growth-rate 0", "growth rate is 0; give 1 channel or more"),
        ("resnet --classes 1", "classes is 1; give 2 or more"),
    ],
)
def test_what_is_refused(arguments: str, message: str, run_cli: Run, tmp_path: Path) -> None:
    command, *options = arguments.split()
    done = run_cli("net", command, "net.prototxt", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_padding_is_of_the_mean_colour() -> None:
    generator = np.random.default_rng(2)
    images = generator.integers(0, 256, (5, 3, 4, 6), np.uint8)
    splits = {"train": Split(images, np.arange(5)), "test": Split(images, np.arange(5))}
    padded = datasets.padded(splits, 2)
    assert padded["test"] is splits["test"]
    assert padded["train"].labels is splits["train"].labels
    found = padded["train"].images
    assert found.shape == (5, 3, 8, 10)
    assert found.dtype == np.uint8
    assert np.array_equal(found[:, :, 2:-2, 2:-2], images)
    border = np.ones((8, 10), bool)
    border[2:-2, 2:-2] = False
    for channel in range(3):
        assert set(found[:, channel, border].flat) == {round(images[:, channel].mean())}


def test_the_data_command_pads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(cifar.CIFAR10, images={"train": 50, "test": 10})
    monkeypatch.setattr(cifar, "CIFAR10", small)
    pixels = np.random.default_rng(3).integers(0, 256, (10, 3072), np.uint8)
    batch = np.hstack([np.arange(10, dtype=np.uint8)[:, np.newaxis], pixels]).tobytes()
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in (*small.batches["train"], *small.batches["test"]):
        (source / f"{name}.bin").write_bytes(batch)
    data_commands.cifar10(source, out)
    assert "No mean.binaryproto" not in capsys.readouterr().out
    assert (out / "mean.binaryproto").is_file()

    data_commands.cifar10(source, out, pad=4, force=True)
    shown = capsys.readouterr().out
    assert f"Data: {out}/train_lmdb, {out}/test_lmdb\n" in shown
    assert (
        "No mean.binaryproto: the padded training images and the test images differ in size"
        in shown
    )
    assert sorted(path.name for path in out.iterdir()) == ["test_lmdb", "train_lmdb"]
    net = load(nets.resnet(8, 10, out), "TRAIN", tmp_path)
    assert net.blobs["data"].data.shape == (BATCH, 3, 32, 32)


def test_a_padding_that_is_refused(run_cli: Run, tmp_path: Path) -> None:
    for pad in ("-1", "17"):
        done = run_cli("data", "cifar10", "source", "out", "--pad", pad)
        assert done.returncode == 2
        assert "--pad" in done.stderr
    with pytest.raises(ClrError, match="no such file"):
        data_commands.cifar10(tmp_path / "source", tmp_path / "out", pad=4)
