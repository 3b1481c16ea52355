"""The layers in parallel: stock Caffe's results, and the same bits in every run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr.harness import compilation
from caffe_clr.harness.compilation import Tree

# Large enough for each layer to be shared among threads, with rows and columns that leave a rest.
SHAPE = (6, 8, 37, 41)
FILLER = "weight_filler { type: 'gaussian' std: 0.1 } bias_filler { type: 'gaussian' std: 0.1 }"
CONVOLUTIONS = {
    "same": "kernel_size: 3 pad: 1",
    "wide": "kernel_size: 5 pad: 2",
    "strided": "kernel_size: 5 stride: 2 pad: 2 group: 2",
    "dilated": "kernel_h: 3 kernel_w: 2 dilation: 2 pad: 3",
    "pointwise": "kernel_size: 1",
    "unbiased": "kernel_size: 3 stride: 3 bias_term: false",
    "padded": "kernel_size: 2 pad: 4",
    "nd": "kernel_size: 3 pad: 1 force_nd_im2col: true",
}
POOLINGS = {
    "max": "pool: MAX kernel_size: 3 stride: 2",
    "max_padded": "pool: MAX kernel_size: 3 stride: 2 pad: 1",
    "max_apart": "pool: MAX kernel_size: 2 stride: 3",
    "max_overlapping": "pool: MAX kernel_size: 4 stride: 1 pad: 2",
    "average": "pool: AVE kernel_size: 3 stride: 2",
    "average_same": "pool: AVE kernel_size: 3 stride: 1 pad: 1",
    "average_strided": "pool: AVE kernel_size: 5 stride: 3 pad: 2",
    "average_all": "pool: AVE global_pooling: true",
    "max_all": "pool: MAX global_pooling: true",
}
ELEMENTWISE = {
    "AbsVal": "",
    "BNLL": "",
    "Clip": "clip_param { min: -0.5 max: 0.7 }",
    "Dropout": "",
    "ELU": "elu_param { alpha: 0.3 }",
    "Exp": "exp_param { base: 2 scale: 0.5 }",
    "PReLU": "",
    "ReLU": "relu_param { negative_slope: 0.1 }",
    "Sigmoid": "",
    "Swish": "",
    "TanH": "",
    "BatchNorm": "",
    "Scale": "scale_param { bias_term: true filler { type: 'gaussian' } }",
    "Bias": "bias_param { filler { type: 'gaussian' } }",
    "LRN": "lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }",
    "MVN": "",
    "Softmax": "",
    "InnerProduct": f"inner_product_param {{ num_output: 70 {FILLER} }}",
}


def layer(type_: str, name: str, bottom: str, parameters: str = "", tops: str = "") -> str:
    bottoms = "".join(f" bottom: '{each}'" for each in bottom.split())
    tops = "".join(f" top: '{each}'" for each in (tops or name).split())
    return f"layer {{ type: '{type_}' name: '{name}'{bottoms}{tops} {parameters} }}\n"


def net(layers: str) -> str:
    dims = "".join(f" dim: {size}" for size in SHAPE)
    shape = f"input_param {{ shape {{{dims} }} }}"
    inputs = layer("Input", "data", "", shape) + layer("Input", "other", "", shape)
    return f"force_backward: true\n{inputs}{layers}"


def all_layers() -> str:
    text = ""
    for name, parameters in CONVOLUTIONS.items():
        parameters = f"convolution_param {{ num_output: 6 {FILLER} {parameters} }}"
        text += layer("Convolution", name, "data", parameters)
        text += layer("Deconvolution", f"{name}_deconvolution", "data", parameters)
    for name, parameters in POOLINGS.items():
        text += layer("Pooling", name, "data", f"pooling_param {{ {parameters} }}")
    text += layer(
        "Pooling", "masked", "data", f"pooling_param {{ {POOLINGS['max_padded']} }}", "masked mask"
    )
    for name, parameters in ELEMENTWISE.items():
        text += layer(name, name, "data", parameters)
    text += layer("ReLU", "plain", "data")
    text += layer("Log", "Log", "Exp", "log_param { shift: 1 }")
    text += layer("Power", "Power", "Sigmoid", "power_param { power: 1.7 scale: 3 shift: 0.5 }")
    for operation in ("SUM", "PROD", "MAX"):
        parameters = f"eltwise_param {{ operation: {operation} }}"
        text += layer("Eltwise", operation, "data other plain", parameters)
    return text


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Any:
    def run(tree: Tree, layers: str, threads: int) -> dict[str, np.ndarray]:
        folder = tmp_path_factory.mktemp("layers")
        (folder / "net.prototxt").write_text(net(layers))
        subprocess.run(
            [
                *(sys.executable, Path(__file__).with_name("run_layers.py")),
                *(folder / "net.prototxt", folder / "out.npz"),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(tree.python),
                "GLOG_minloglevel": "2",
                "OMP_NUM_THREADS": str(threads),
            },
            check=True,
        )
        return dict(np.load(folder / "out.npz"))

    return run


@pytest.fixture(scope="module")
def one_thread(run: Any, tree: Tree) -> dict[str, np.ndarray]:
    return run(tree, all_layers(), threads=1)


def test_one_thread_computes_stock_caffes_bits(
    run: Any, stock: Tree, one_thread: dict[str, np.ndarray]
) -> None:
    expected = run(stock, all_layers(), threads=1)
    assert expected.keys() == one_thread.keys()
    differ = [name for name in expected if expected[name].tobytes() != one_thread[name].tobytes()]
    assert not differ


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_compute_the_same_bits_every_time(
    threads: int, run: Any, tree: Tree, one_thread: dict[str, np.ndarray]
) -> None:
    first, second = (run(tree, all_layers(), threads) for _ in range(2))
    for name, expected in one_thread.items():
        assert first[name].tobytes() == second[name].tobytes(), name
        scale = np.abs(expected).max()
        np.testing.assert_allclose(first[name], expected, 1e-5, 1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("threads", [1, 5])
def test_normalization_within_channels_is_stock_caffes_but_for_rounding(
    threads: int, run: Any, tree: Tree, stock: Tree
) -> None:
    parameters = "lrn_param { local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL }"
    layers = layer("LRN", "normalized", "data", parameters)
    expected, found = run(stock, layers, threads=1), run(tree, layers, threads)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=3e-7, err_msg=name)


@pytest.mark.parametrize("threads", [1, 5])
def test_caffes_own_tests_pass(
    threads: int, gtests_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient checks among them; a build runs them with a thread for each processor."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    assert compilation.run_gtests(gtests_tree, lambda done, total: None) > 1058


def test_threads_share_the_work(run: Any, tree: Tree) -> None:
    """With five threads a convolution's gradient is summed in five parts, not in one."""
    parameters = f"convolution_param {{ num_output: 6 kernel_size: 3 {FILLER} }}"
    layers = layer("Convolution", "convolution", "data", parameters)
    one, five = run(tree, layers, threads=1), run(tree, layers, threads=5)
    assert one["convolution data"].tobytes() == five["convolution data"].tobytes()
    assert one["convolution gradient 0"].tobytes() != five["convolution gradient 0"].tobytes()
