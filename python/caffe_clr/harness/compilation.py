"""Configures, compiles and installs Caffe: the only module that knows CMake."""

import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caffe_clr.harness import commands

TEST_PROGRAM = "test/test.testbin"

# A CPU-only build aborts on one test that asks for gpu_data without saying so in capitals.
# In a build for GPUs the types 2 and 3 of a typed test are GPUDevice.
_CPU_TESTS = "-*GPU*:*gpu*"
_CPU_TESTS_OF_CUDA = f"{_CPU_TESTS}:*/2.*:*/3.*:CuDNN*:Im2colKernelTest*:CommonTest.TestBrewMode"


@dataclass(frozen=True)
class Tree:
    """The folders of a build."""

    source: Path
    binary: Path
    prefix: Path
    logs: Path

    @property
    def caffe(self) -> Path:
        """The installed caffe program."""
        return self.prefix / "bin" / "caffe"

    @property
    def python(self) -> Path:
        """The folder that holds the installed package caffe."""
        return self.prefix / "python"

    @property
    def is_installed(self) -> bool:
        """Whether every file that the last install wrote is there."""
        manifest = self.binary / "install_manifest.txt"
        return manifest.is_file() and all(map(os.path.exists, manifest.read_text().splitlines()))

    @property
    def products(self) -> tuple[Path, ...]:
        """What a compile makes and an install copies."""
        return tuple(self.binary / name for name in ("lib/libcaffe.so", "lib/_caffe.so"))


@dataclass(frozen=True)
class Cuda:
    """What a build for NVIDIA's GPUs is made with.

    Args:
        version: of the toolkit, as in 12.4.
        architectures: the GPUs, as CMake writes them; where None, one of each
            generation that the toolkit knows.
        cudnn: the folder of cuDNN; where None, without.
        nccl: the folder of NCCL; where None, without.
    """

    version: str
    architectures: str | None
    cudnn: Path | None
    nccl: Path | None

    def __str__(self) -> str:
        parts = {"cuDNN": self.cudnn, "NCCL": self.nccl}
        words = [f"{'with' if path else 'no'} {name}" for name, path in parts.items()]
        gpus = f" for {self.architectures}" if self.architectures else ""
        return ", ".join([f"CUDA {self.version}{gpus}", *words])


def definitions(
    prefix: Path, opencv: bool, onednn: bool, cuda: Cuda | None = None, unity: bool = True
) -> dict[str, str]:
    """The CMake cache entries of a build; each option of Caffe is spelled out.

    Args:
        unity: compile sources in batches, which takes names that are unique over files.
    """
    linking = "-Wl,--as-needed"  # a library that is not called need not be there
    return {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": str(prefix),
        "CMAKE_INSTALL_LIBDIR": "lib",
        # The sanitizers' test compiles with the same options.
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        # Sources in batches, with a header compiled once, take a third of the time.
        "CMAKE_UNITY_BUILD": "ON" if unity else "OFF",
        "CMAKE_UNITY_BUILD_BATCH_SIZE": "16",
        "CMAKE_PROJECT_INCLUDE": str(Path(__file__).with_name("precompile.cmake")),
        # A fused multiply-add, where the machine has one, would change a rate's last bit.
        "CMAKE_CXX_FLAGS_INIT": "-ffp-contract=off",
        "CMAKE_EXE_LINKER_FLAGS_INIT": linking,
        "CMAKE_MODULE_LINKER_FLAGS_INIT": linking,
        "CMAKE_SHARED_LINKER_FLAGS_INIT": linking,
        "CPU_ONLY": "OFF" if cuda else "ON",
        **(_of_cuda(cuda) if cuda else {}),
        "BLAS": "Open",
        "USE_OPENCV": "ON" if opencv else "OFF",
        "USE_ONEDNN": "ON" if onednn else "OFF",
        "USE_OPENMP": "OFF",
        "USE_LMDB": "ON",
        "USE_LEVELDB": "ON",
        "USE_HDF5": "ON",
        "BUILD_SHARED_LIBS": "ON",
        "BUILD_python": "ON",
        "BUILD_python_layer": "ON",
        "BUILD_docs": "OFF",
        "BUILD_matlab": "OFF",
        "python_version": "3",
        "Python3_EXECUTABLE": sys.executable,
    }


def _of_cuda(cuda: Cuda) -> dict[str, str]:
    entries = {
        "USE_CUDNN": "ON" if cuda.cudnn else "OFF",
        "CUDNN_ROOT": str(cuda.cudnn or ""),
        "USE_NCCL": "ON" if cuda.nccl else "OFF",
        "NCCL_ROOT": str(cuda.nccl or ""),
    }
    if cuda.architectures:
        entries["CMAKE_CUDA_ARCHITECTURES"] = cuda.architectures.replace(",", ";")
    return entries


def configure(tree: Tree, cache_entries: dict[str, str]) -> None:
    """Run CMake from a fresh cache, so that no earlier choice survives."""
    (tree.binary / "CMakeCache.txt").unlink(missing_ok=True)
    command = ["cmake", "-G", "Ninja", "-Wno-dev", "-S", str(tree.source), "-B", str(tree.binary)]
    command += [f"-D{name}={value}" for name, value in cache_entries.items()]
    commands.run(command, tree.logs / "configure.log")


def build(tree: Tree, jobs: int, gtests: bool, advance: Callable[[int, int], None]) -> None:
    """Compile what has changed; `advance` is told how many of how many commands are done."""

    def on_line(line: str) -> None:
        counts = re.match(r"\[(\d+)/(\d+)\]", line)
        if counts:
            advance(int(counts[1]), int(counts[2]))

    targets = ["all", *(["test.testbin"] if gtests else [])]
    commands.run(
        ["ninja", "-C", str(tree.binary), "-j", str(jobs), *targets],
        tree.logs / "compile.log",
        env={"NINJA_STATUS": "[%f/%t] "},
        on_line=on_line,
    )


def install(tree: Tree) -> None:
    commands.run(["cmake", "--install", str(tree.binary)], tree.logs / "install.log")


def run_gtests(
    tree: Tree, advance: Callable[[int, int], None], tests: str = "*", cuda: bool = False
) -> int:
    """Run Caffe's C++ tests for the CPU, those that the series adds among them.

    Args:
        tests: a gtest filter.
        cuda: whether the build is one for GPUs.

    Returns:
        How many passed.

    Raises:
        ClrError: a test fails or the test program aborts.
    """
    passed = 0
    total = 0

    def on_line(line: str) -> None:
        nonlocal passed, total
        if line.startswith("[==========] Running"):
            total = int(line.split()[2])
        elif line.startswith("[       OK ]"):
            passed += 1
            advance(passed, total)

    # the tests leave folders behind, and glog logs
    excluded = _CPU_TESTS_OF_CUDA if cuda else _CPU_TESTS
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        commands.run(
            [str(tree.binary / TEST_PROGRAM), f"--gtest_filter={tests}{excluded}"],
            tree.logs / "gtests.log",
            cwd=tree.source,
            env={"TMPDIR": folder},
            on_line=on_line,
        )
    return passed
