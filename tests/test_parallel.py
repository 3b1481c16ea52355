"""The layers on the CPU: stock Caffe's results, and the same bits in every run."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr import locations
from caffe_clr.harness import compilation, pipeline
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.report import Report

pytestmark = pytest.mark.alone


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
# the name of the parameter message, and its fields
OTHERS = {
    "AbsVal": ("", ""),
    "BNLL": ("", ""),
    "BatchNorm": ("batch_norm_param", ""),
    "Bias": ("bias_param", "filler { type: 'gaussian' }"),
    "Clip": ("clip_param", "min: -0.5 max: 0.7"),
    "Dropout": ("", ""),
    "ELU": ("elu_param", "alpha: 0.3"),
    "Exp": ("exp_param", "base: 2 scale: 0.5"),
    "InnerProduct": ("inner_product_param", f"num_output: 70 {FILLER}"),
    "LRN": ("lrn_param", "local_size: 5 alpha: 0.1 beta: 0.75"),
    "MVN": ("", ""),
    "PReLU": ("", ""),
    "ReLU": ("relu_param", "negative_slope: 0.1"),
    "Scale": ("scale_param", "bias_term: true filler { type: 'gaussian' }"),
    "Sigmoid": ("sigmoid_param", ""),
    "Softmax": ("", ""),
    "Swish": ("", ""),
    "TanH": ("tanh_param", ""),
}
WITHIN = "local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL"
# Those that have an engine; stock Caffe's BatchNorm and Scale have none. The engine besides
# CAFFE is ONEDNN, or for these two FUSED.
ENGINES = ("convolution", "pooling", "lrn", "sigmoid", "tanh", "batch_norm", "scale")
FUSED = ("batch_norm", "scale")

Arrays = dict[str, np.ndarray]
Run = Callable[..., Arrays]
RunAll = Callable[..., list[Arrays]]


def layer(
    type_: str, name: str, bottom: str, message: str = "", fields: str = "", tops: str = ""
) -> str:
    bottoms = "".join(f" bottom: '{each}'" for each in bottom.split())
    tops = "".join(f" top: '{each}'" for each in (tops or name).split())
    parameter = f"{message} {{ {fields} }}" if message else ""
    return f"layer {{ type: '{type_}' name: '{name}'{bottoms}{tops} {parameter} }}\n"


def net(layers: str, engine: str = "") -> str:
    """A net of layers over two inputs; `engine` is theirs, where they have one."""
    dims = "".join(f" dim: {size}" for size in SHAPE)
    shape = f"shape {{{dims} }}"
    inputs = "".join(layer("Input", name, "", "input_param", shape) for name in ("data", "other"))
    if engine:
        layers = with_engines(layers, lambda: engine)
    return f"force_backward: true\n{inputs}{layers}"


def with_engines(layers: str, choose: Callable[[], str]) -> str:
    """Gives each layer that has an engine the one that is chosen for it.

    Where ONEDNN is chosen, layers that do not have it get FUSED.
    """

    def with_engine(found: re.Match[str]) -> str:
        engine = choose()
        if engine == "ONEDNN" and found[1] in FUSED:
            engine = "FUSED"
        return f"{found[0]} engine: {engine}"

    return re.sub(rf"({'|'.join(ENGINES)})_param {{", with_engine, layers)


def all_layers() -> str:
    text = ""
    for name, fields in CONVOLUTIONS.items():
        fields = f"num_output: 6 {FILLER} {fields}"
        text += layer("Convolution", name, "data", "convolution_param", fields)
        text += layer("Deconvolution", f"{name}_back", "data", "convolution_param", fields)
    for name, fields in POOLINGS.items():
        text += layer("Pooling", name, "data", "pooling_param", fields)
    text += layer(
        *("Pooling", "masked", "data", "pooling_param"),
        *(POOLINGS["max_padded"], "masked mask"),
    )
    for name, (message, fields) in OTHERS.items():
        text += layer(name, name, "data", message, fields)
    text += layer("LRN", "within", "data", "lrn_param", WITHIN)
    text += layer("ReLU", "plain", "data")
    text += layer("Log", "Log", "Exp", "log_param", "shift: 1")
    text += layer("Power", "Power", "Sigmoid", "power_param", "power: 1.7 scale: 3 shift: 0.5")
    text += layer("BatchNorm", "in_place", "other", "batch_norm_param", "", "in_place")
    for name, message in (("BatchNorm", "batch_norm_param"), ("Scale", "scale_param")):
        text += layer(name, f"{name}_in_place", "in_place", message, "", "in_place")
    for operation in ("SUM", "PROD", "MAX"):
        fields = f"operation: {operation}"
        text += layer("Eltwise", operation, "data other plain", "eltwise_param", fields)
    text += layer("Eltwise", "pair", "data plain", "eltwise_param", "operation: SUM")
    return text


@pytest.fixture(scope="module")
def run_all(tmp_path_factory: pytest.TempPathFactory) -> RunAll:
    """Computes nets forward and backward in a process of their own."""

    def run_all(tree: Tree, texts: Sequence[str], threads: int, *options: str) -> list[Arrays]:
        folder = tmp_path_factory.mktemp("layers")
        files = [folder / f"{i}.prototxt" for i in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        subprocess.run(
            [sys.executable, Path(__file__).with_name("run_layers.py"), folder, *options],
            env={
                **os.environ,
                "PYTHONPATH": str(tree.python),
                "GLOG_minloglevel": "2",
                "OMP_NUM_THREADS": str(threads),
            },
            check=True,
        )
        return [dict(np.load(f"{file}.npz")) for file in files]

    return run_all


@pytest.fixture(scope="module")
def run(run_all: RunAll) -> Run:
    """Computes a net forward and backward in a process of its own."""

    def run(tree: Tree, text: str, threads: int) -> Arrays:
        return run_all(tree, [text], threads)[0]

    return run


@pytest.fixture(scope="session")
def without_onednn(build_report: Report) -> Tree:
    work = locations.build() / "without_onednn"
    options = pipeline.Options(
        prefix=work / "caffe", work=work, onednn=False, opencv=False, import_here=False
    )
    return pipeline.build(options, build_report)


@pytest.fixture(scope="module")
def stock_bits(run: Run, stock: Tree) -> Arrays:
    return run(stock, net(all_layers()), threads=1)


def differing(found: Arrays, expected: Arrays) -> list[str]:
    assert found.keys() == expected.keys()
    return [name for name in expected if found[name].tobytes() != expected[name].tobytes()]


def assert_close(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[name], array, 1e-5, 1e-5 * scale, err_msg=name)


def test_the_engine_caffe_computes_stock_caffes_bits_on_one_thread(
    run: Run, tree: Tree, stock_bits: Arrays
) -> None:
    assert not differing(run(tree, net(all_layers(), "CAFFE"), threads=1), stock_bits)


def test_a_build_without_onednn_computes_stock_caffes_bits_on_one_thread(
    run: Run, without_onednn: Tree, stock_bits: Arrays
) -> None:
    assert not differing(run(without_onednn, net(all_layers()), threads=1), stock_bits)


def test_onednn_computes_what_stock_caffe_does(run: Run, tree: Tree, stock_bits: Arrays) -> None:
    assert_close(run(tree, net(all_layers(), "ONEDNN"), threads=1), stock_bits)


def test_onednn_is_the_default(run: Run, tree: Tree, stock_bits: Arrays) -> None:
    default, named = (run(tree, net(all_layers(), engine), 1) for engine in ("", "ONEDNN"))
    assert not differing(default, named)
    assert "Sigmoid data" in differing(default, stock_bits)


def test_fused_is_the_same_without_onednn(run: Run, tree: Tree, without_onednn: Tree) -> None:
    layers = "".join(layer(each, each, "data", *OTHERS[each]) for each in ("BatchNorm", "Scale"))
    default, fused = (net(layers, engine) for engine in ("", "ONEDNN"))
    assert not differing(run(without_onednn, fused, 1), run(tree, default, 1))
    assert differing(run(without_onednn, default, 1), run(tree, default, 1))


@pytest.mark.parametrize("engine", ["CAFFE", "ONEDNN"])
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_compute_the_same_bits_every_time(
    threads: int, engine: str, run: Run, tree: Tree, stock_bits: Arrays
) -> None:
    text = net(all_layers(), engine)
    first, second = (run(tree, text, threads) for _ in range(2))
    assert not differing(first, second)
    assert_close(first, stock_bits)


@pytest.mark.parametrize("engine", ["CAFFE", "ONEDNN"])
def test_threads_share_the_work(engine: str, run: Run, tree: Tree) -> None:
    """With five threads a gradient is summed in parts, and not at once."""
    fields = f"num_output: 6 kernel_size: 3 {FILLER}"
    text = net(layer("Convolution", "convolution", "data", "convolution_param", fields), engine)
    one, five = run(tree, text, threads=1), run(tree, text, threads=5)
    assert any("gradient" in name for name in differing(one, five))
    assert_close(five, one)


# Of random nets, whose blobs all have one count. They may be in place:
NEURONS = ("BatchNorm", "Bias", "Dropout", "ELU", "Power", "Scale", "Sigmoid", "TanH")
# with gradients that jump where the last bits of an input are others
BENT = ("Clip", "PReLU", "ReLU")
SHARING = ("Concat", "Flatten", "Reshape", "Slice")
IMAGES = ("Convolution", "Deconvolution", "LRN", "Pooling")
FIELDS = OTHERS | {
    "Convolution": ("convolution_param", f"num_output: 16 kernel_size: 3 pad: 1 {FILLER}"),
    "Deconvolution": ("convolution_param", f"num_output: 16 kernel_size: 3 pad: 1 {FILLER}"),
    "Eltwise": ("eltwise_param", "operation: SUM"),
    "Pooling": ("pooling_param", "pool: AVE kernel_size: 3 stride: 1 pad: 1"),
    "Power": ("power_param", "scale: 1.5 shift: 0.1"),
    "Reshape": ("reshape_param", "shape { dim: 0 dim: 16 dim: 5 dim: 6 }"),
}


def random_net(seed: int, bent: bool) -> str:
    """Layers that share blobs, and overwrite what others have read, in any order."""
    draw = random.Random(seed)
    text = layer("Input", "data", "", "input_param", "shape { dim: 3 dim: 16 dim: 5 dim: 6 }")
    blobs = ["data"]
    flat: set[str] = set()
    memory = {"data": "data"}  # whose data each blob has
    # Caffe refuses to overwrite a blob that is read under its own name; its LRN goes wrong where
    # either blob is overwritten, and not always in the same way
    read, kept = {"data"}, set[str]()
    for number in range(draw.randint(6, 12)):
        bottom = draw.choice(blobs[-4:])
        overwriting = bottom not in read and memory[bottom] not in kept and draw.random() < 0.7
        types = [*NEURONS, *(BENT if bent else ())]
        if not overwriting:
            types += SHARING * 3
            if bottom not in flat:
                types += [*IMAGES, "BatchNorm", "Eltwise"]
        type_ = draw.choice(types)
        bottoms = [bottom]
        if type_ == "BatchNorm":
            followers = draw.choice(([], ["Scale"], ["Scale", "ReLU"] if bent else ["Scale"]))
        if type_ == "Eltwise":
            bottoms.append(draw.choice([each for each in blobs if each not in flat]))
        top = f"{type_}_{number}"
        if overwriting:
            top = bottom
        else:
            blobs.append(top)
            read.update(bottoms)
            memory[top] = memory[bottom] if type_ in SHARING else top
        if type_ == "LRN":
            kept |= {memory[bottom], memory[top]}
        if type_ == "Flatten" or (bottom in flat and type_ != "Reshape"):
            flat.add(top)
        text += layer(
            type_, f"{type_}_{number}", " ".join(bottoms), *FIELDS.get(type_, ("", "")), top
        )
        for follower in followers if type_ == "BatchNorm" else ():
            text += layer(follower, f"{follower}_of_{number}", top, *FIELDS[follower], top)
    return f"force_backward: true\n{text}"


def test_random_nets_compute_stock_caffes_bits(run_all: RunAll, tree: Tree, stock: Tree) -> None:
    """Also where a layer behind has overwritten what one needs in its backward pass."""
    texts = [random_net(seed, bent=True) for seed in range(200)]
    caffe = [with_engines(text, lambda: "CAFFE") for text in texts]
    pairs = zip(run_all(tree, caffe, 1), run_all(stock, texts, 1), strict=True)
    wrong = {seed: differing(found, expected) for seed, (found, expected) in enumerate(pairs)}
    assert not {seed: names for seed, names in wrong.items() if names}


@pytest.mark.parametrize("threads", [1, 2])
def test_random_nets_have_the_same_gradients_with_any_engines(
    threads: int, run_all: RunAll, tree: Tree
) -> None:
    texts = [random_net(seed, bent=False) for seed in range(200)]
    draw = random.Random(0)
    mixed = [with_engines(text, lambda: draw.choice(["ONEDNN", "CAFFE"])) for text in texts]
    caffe = [with_engines(text, lambda: "CAFFE") for text in texts]
    pairs = zip(run_all(tree, mixed, threads), run_all(tree, caffe, threads), strict=True)
    for seed, (found, expected) in enumerate(pairs):
        assert found.keys() == expected.keys()
        # some gradients are 0 but for rounding, as a bias's that BatchNorm subtracts again
        rounding = 1e-5 * max(np.abs(array).max() for array in expected.values())
        for name, array in expected.items():
            off = np.abs(found[name] - array).max()
            assert off <= rounding + 1e-3 * np.abs(array).max(), f"{name} of net {seed}"


def test_the_order_of_blobs_changes_no_bit(run_all: RunAll, tree: Tree) -> None:
    """A user who has read a blob has it in Caffe's order from then on."""
    texts = [random_net(seed, bent=True) for seed in range(200)]
    pairs = zip(run_all(tree, texts, 1), run_all(tree, texts, 1, "look"), strict=True)
    wrong = {seed: differing(found, expected) for seed, (found, expected) in enumerate(pairs)}
    assert not {seed: names for seed, names in wrong.items() if names}


@pytest.mark.parametrize(
    ("threads", "elements"),
    [(1, None), (5, None), (2, 1), (5, 1)],
    ids=["1", "5", "2-smallest", "5-smallest"],
)
def test_caffes_own_tests_pass(
    threads: int, elements: int | None, gtests_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient checks among them, also where a thread is woken for a single element."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    if elements:
        monkeypatch.setenv("CAFFE_ELEMENTS_PER_THREAD", str(elements))
    assert compilation.run_gtests(gtests_tree, lambda done, total: None) > 1058


FORK = """
import os, signal, sys
import caffe

solver = caffe.get_solver(sys.argv[1])
solver.step(2)
child = os.fork()
if child == 0:
    signal.alarm(60)
    solver.step(2)
    os._exit(0 if solver.iter == 4 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
solver.step(2)
"""


def python(tree: Tree, program: str, *arguments: str, **variables: str) -> Any:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(tree.python), **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def dummy_solver(tmp_path: Path) -> str:
    """A solver of a convolution over data that no thread reads."""
    dims = "".join(f"dim: {size} " for size in SHAPE)
    layers = layer(
        *("DummyData", "data", "", "dummy_data_param"),
        f"shape {{ {dims} }} data_filler {{ type: 'gaussian' }}"
        f" shape {{ dim: {SHAPE[0]} }} data_filler {{ type: 'constant' }}",
        "data label",
    )
    layers += layer(
        *("Convolution", "convolution", "data", "convolution_param"),
        f"num_output: 6 kernel_size: 3 {FILLER}",
    )
    # each channel by itself: oneDNN reads its weights in the layout of Caffe
    layers += layer(
        *("Convolution", "depthwise", "convolution", "convolution_param"),
        f"num_output: 6 group: 6 kernel_size: 3 {FILLER}",
    )
    layers += layer(
        *("InnerProduct", "scores", "depthwise", "inner_product_param"),
        f"num_output: 3 {FILLER}",
    )
    layers += layer("SoftmaxWithLoss", "loss", "scores label")
    file = tmp_path / "solver.prototxt"
    file.write_text(
        f"net_param {{ {layers} }} lr_policy: 'fixed' base_lr: 0.001 snapshot_after_train: false"
    )
    return str(file)


def test_a_forked_child_trains(tree: Tree, dummy_solver: str) -> None:
    done = python(tree, FORK, dummy_solver, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "2 3", "99999999999"])
def test_a_number_of_threads_that_is_none_is_ignored_with_a_word(
    wrong: str, tree: Tree, dummy_solver: str
) -> None:
    done = python(tree, FORK, dummy_solver, OMP_NUM_THREADS=wrong)
    assert done.returncode == 0, done.stderr
    assert f'OMP_NUM_THREADS is "{wrong}"' in done.stderr


def test_a_list_of_numbers_of_threads_is_openmps(tree: Tree, dummy_solver: str) -> None:
    done = python(tree, FORK, dummy_solver, OMP_NUM_THREADS="2,1")
    assert done.returncode == 0, done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr


COUNT = """
import os, sys
import caffe

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
solver = caffe.get_solver(sys.argv[1])
solver.step(2)
print(len(os.listdir("/proc/self/task")))
"""


def test_threads_are_no_more_than_the_processors_of_the_process(
    tree: Tree, dummy_solver: str
) -> None:
    variables = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}

    def threads(**more: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", COUNT, dummy_solver],
            env={**variables, "PYTHONPATH": str(tree.python), **more},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert threads(OMP_NUM_THREADS="3") == threads() + 2


MEMORY = """
import resource, sys
import caffe

net = caffe.Net(sys.argv[1], caffe.TEST)
size = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = int(size.split()[1]) * 1024 + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
net.forward()
"""


@pytest.mark.parametrize(("engine", "megabytes"), [("CAFFE", 100), ("ONEDNN", 64)])
def test_memory_that_cannot_be_had_ends_in_caffes_message(
    engine: str, megabytes: int, tree: Tree, tmp_path: Path
) -> None:
    """The blobs take 52 MB, and what a thread computes in more than the rest."""
    text = layer("Input", "data", "", "input_param", "shape { dim: 2 dim: 64 dim: 224 dim: 224 }")
    fields = "num_output: 64 kernel_size: 7 pad: 3"
    text += layer("Convolution", "convolution", "data", "convolution_param", fields)
    file = tmp_path / "net.prototxt"
    file.write_text(text.replace("convolution_param {", f"convolution_param {{ engine: {engine}"))
    done = python(tree, MEMORY, str(file), str(megabytes * 10**6), OMP_NUM_THREADS="1")
    assert done.returncode != 0
    assert "host allocation of size" in done.stderr
    assert "bad_alloc" not in done.stderr
