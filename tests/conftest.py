"""What tests share: the built Caffe, upstream's source, and solvers to try on it.

A Caffe that is not built, or not up to date, is built first; nothing is skipped.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from fork_server import Server
from google.protobuf import text_format
from matplotlib.figure import Figure
from releases import release_1_0_to_build
from rich.console import Console

from benchmarks import builds
from caffe_clr import locations, prototxt
from caffe_clr.cli.report import ConsoleReport
from caffe_clr.experiments import datasets
from caffe_clr.harness import pipeline, series, source
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.report import Report

NET = """
layer {
  name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00390625 }
  data_param { source: "SOURCE" batch_size: 8 backend: LMDB }
}
layer {
  name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } }
}
layer {
  name: "sigmoid" type: "Sigmoid" bottom: "hidden" top: "hidden"
  sigmoid_param { engine: CAFFE }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "hidden" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
ROOT = Path(__file__).resolve().parent.parent
_CAFFE = {
    "tree",
    "stock",
    "first_patch",
    "gtests_tree",
    "tarball",
}  # the fixtures that the mark is for


def pytest_configure() -> None:
    """Have nobody print colours, which Rich and Typer do where one of these is set."""
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _CAFFE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("caffe")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's checkout."""
    return ROOT


@pytest.fixture(scope="session")
def patch_folder(root: Path) -> Path:
    return root / "caffe_patch"


@pytest.fixture(scope="session")
def patches(patch_folder: Path) -> list[series.Patch]:
    return series.load(patch_folder)


@pytest.fixture(scope="session")
def upstream(patch_folder: Path) -> source.Upstream:
    return source.load_upstream(patch_folder)


@pytest.fixture(scope="session")
def tarball(upstream: source.Upstream) -> Path:
    """The pinned revision's tarball, fetched if it is not in the cache."""
    return source.fetch(upstream, locations.cache() / "downloads")[0]


@pytest.fixture(scope="session")
def pristine(
    tarball: Path, upstream: source.Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Upstream's source, unpatched. Not to be written to; see `checkout`."""
    folder = tmp_path_factory.mktemp("upstream") / "caffe"
    source.unpack(tarball, upstream, [], folder)
    return folder


@pytest.fixture
def checkout(pristine: Path, tmp_path: Path) -> Path:
    """A copy of upstream's source for one test to change."""
    subprocess.run(["cp", "-r", pristine, tmp_path / "caffe"], check=True)
    return tmp_path / "caffe"


@pytest.fixture(scope="session")
def build_report() -> Report:
    """Where a build that a test needs is shown."""
    return ConsoleReport(Console(file=sys.__stderr__))


@pytest.fixture(scope="session")
def tree(build_report: Report) -> Tree:
    """The built and installed Caffe."""
    return _build(build_report, gtests=False)


@pytest.fixture(scope="session")
def stock(build_report: Report) -> Tree:
    """Caffe with the toolchain patches alone."""
    with _one_at_a_time("stock"):
        return builds.stock(build_report)


@pytest.fixture(scope="session")
def first_patch(
    pristine: Path, build_report: Report, tmp_path_factory: pytest.TempPathFactory
) -> Tree:
    """Caffe as of 1.0 with the first patch alone, and what it takes to compile it."""
    work = locations.build() / "first_patch"
    source = tmp_path_factory.mktemp("release") / "caffe"
    shutil.copytree(pristine, source)
    release_1_0_to_build(source)
    options = pipeline.Options(
        prefix=work / "caffe",
        source=source,
        work=work,
        without=builds.without(series.FEATURE),
        onednn=False,
        import_here=False,
    )
    with _one_at_a_time("first_patch"):
        return pipeline.build(options, build_report)


@pytest.fixture(scope="session")
def gtests_tree(build_report: Report) -> Tree:
    """The same with Caffe's C++ tests."""
    return _build(build_report, gtests=True)


@pytest.fixture(scope="session")
def net(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net whose every batch is the whole data set."""
    folder = tmp_path_factory.mktemp("full_batch")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (8, 1, 3, 3), np.uint8)
    datasets.write_lmdb(folder / "lmdb", images, generator.integers(0, 3, 8))
    file = folder / "net.prototxt"
    file.write_text(NET.replace("SOURCE", str(folder / "lmdb")))
    return file


@pytest.fixture(scope="session")
def moving_net(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net whose batches are others in each iteration, and in each test."""
    folder = tmp_path_factory.mktemp("moving")
    generator = np.random.default_rng(0)
    for name, images in (("lmdb", 30), ("tested", 21)):
        pixels = generator.integers(0, 256, (images, 1, 3, 3), np.uint8)
        datasets.write_lmdb(folder / name, pixels, generator.integers(0, 3, images))
    data, layers = NET.replace("SOURCE", str(folder / "lmdb")).split("}\nlayer {", 1)
    trained = data.replace("layer {", "layer { include { phase: TRAIN }")
    tested = data.replace("layer {", "layer { include { phase: TEST }").replace("/lmdb", "/tested")
    accuracy = (
        'layer { name: "right" type: "Accuracy" bottom: "scores" bottom: "label" top: "right" }'
    )
    file = folder / "net.prototxt"
    file.write_text(f"{trained}}}\n{tested}}}\nlayer {{{layers}{accuracy}\n")
    return file


def _build(report: Report, gtests: bool) -> Tree:
    options = pipeline.Options(prefix=locations.build() / "caffe", gtests=gtests)
    with _one_at_a_time("build"):
        return pipeline.build(options, report)


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """For what the processes of pytest-xdist share: the two builds, and the digits' data."""
    locations.build().mkdir(parents=True, exist_ok=True)
    with FileLock(locations.build() / f"tests-{name}.lock"):
        yield


@pytest.fixture
def solver(tree: Tree) -> Callable[..., Any]:
    """Makes a SolverParameter: the paper's CIFAR-10 cycle, changed by keyword."""

    def make(**fields: Any) -> Any:
        cycle: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
        chosen = {"lr_policy": "triangular", **cycle, **fields}
        return prototxt.caffe_pb2().SolverParameter(
            **{name: value for name, value in chosen.items() if value is not None}
        )

    return make


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[dict[str, str]], Server]]:
    """Makes what runs the command, one for each set of variables."""
    started: dict[tuple[tuple[str, str], ...], Server] = {}

    def server(variables: dict[str, str]) -> Server:
        key = tuple(sorted(variables.items()))
        if key not in started:
            started[key] = Server(variables)
        return started[key]

    yield server
    for each in started.values():
        each.close()


@pytest.fixture
def run_cli(
    servers: Callable[[dict[str, str]], Server], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command in an empty folder, with variables added to the environment."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        done = servers(variables).run(list(map(str, arguments)), tmp_path)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def digits_root(tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in the checkout, where the paths of models/digits begin, with its data there."""
    monkeypatch.chdir(root)
    with _one_at_a_time("digits"):
        datasets.write_digits(Path("models/digits"))


@pytest.fixture
def write_solver(solver: Callable[..., Any], net: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a solver file over the net whose every batch is the whole data set."""

    def write(name: str = "solver", **fields: Any) -> Path:
        chosen: dict[str, Any] = {
            **{"net": str(net), "lr_policy": "triangular2", "momentum": 0.9, "random_seed": 5},
            **{"display": 1, "max_iter": 80, "stepsize": 10, "snapshot_prefix": "elsewhere/mine"},
            **fields,
        }
        file = tmp_path / f"{name}.prototxt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text_format.MessageToString(solver(**chosen)))
        return file

    return write


@pytest.fixture(autouse=True)
def _keep_the_environment() -> Iterator[None]:
    """Dask sets OMP_NUM_THREADS where it starts a worker, and leaves it set.

    Later tests would train with one thread in a child, and with more in this process.
    """
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the test draws."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *to: Any, **how: Any) -> None:
        drawn.append(self)
        save(self, *to, **how)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn
