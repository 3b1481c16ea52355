"""Builds for GPUs, as far as they go without CUDA: what is asked for and missing is an error."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from caffe_clr.errors import ClrError
from caffe_clr.harness import compilation, pipeline, toolchain
from caffe_clr.harness.compilation import Cuda, Tree

Cli = Callable[..., subprocess.CompletedProcess[str]]
Nvcc = Callable[[str], None]


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nvcc:
    """Puts an nvcc on the PATH that knows its version, and the GPUs of CUDA 12.4, and no more."""

    def put(version: str) -> None:
        file = tmp_path / "bin" / "nvcc"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            "#!/bin/sh\n"
            'case "$1" in\n'
            f'--version) echo "Cuda compilation tools, release {version}, V{version}.131" ;;\n'
            "--list-gpu-code) printf 'sm_50\\nsm_70\\nsm_75\\nsm_80\\nsm_86\\nsm_90\\n' ;;\n"
            '*) echo "nvcc fatal : a stub" >&2; exit 1 ;;\n'
            "esac\n"
        )
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    return put


@pytest.fixture
def without_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with all programs of the system but nvcc."""
    (tmp_path / "programs").mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "nvcc":
            (tmp_path / "programs" / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    for variable in ("CUDACXX", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)


def configure(tree: Tree, binary: Path, **entries: str) -> str:
    """What CMake prints when it is to configure the patched source for GPUs; it must fail."""
    chosen = compilation.definitions(tree.prefix, opencv=False, onednn=True) | {
        "CPU_ONLY": "OFF",
        **entries,
    }
    command: list[str | Path] = ["cmake", "-G", "Ninja", "-S", tree.source, "-B", binary]
    command += [f"-D{name}={value}" for name, value in chosen.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


@pytest.mark.caffe
@pytest.mark.usefixtures("without_nvcc")
def test_no_nvcc(run_cli: Cli) -> None:
    done = run_cli("build", "--cuda", PATH=os.environ["PATH"])
    assert done.returncode == 1
    assert "CUDA's compiler nvcc is not on the PATH" in done.stderr
    assert "Debian package nvidia-cuda-toolkit" in done.stderr


def test_what_goes_with_cuda_alone(run_cli: Cli) -> None:
    for options in (["--cuda-arch", "75"], ["--cudnn"], ["--nccl"]):
        done = run_cli("build", *options)
        assert done.returncode == 2
        assert "need --cuda" in done.stderr


@pytest.mark.parametrize(("library", "name"), [("cudnn", "cuDNN"), ("nccl", "NCCL")])
def test_a_library_that_is_asked_for_and_missing(
    library: str, name: str, nvcc: Nvcc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvcc("12.4")
    monkeypatch.setattr(toolchain, "nvidia_library", lambda name, header: None)
    options = replace(
        pipeline.Options(prefix=tmp_path, cuda=True),
        cudnn=library == "cudnn" or None,
        nccl=library == "nccl" or None,
    )
    with pytest.raises(ClrError, match=f"--{library}: {name} was not found") as refused:
        pipeline._cuda(options)
    assert f"nvidia-{library}-cu12" in str(refused.value)
    assert f"{library.upper()}_ROOT" in str(refused.value)
    assert pipeline._cuda(pipeline.Options(prefix=tmp_path, cuda=True)) == Cuda(
        version="12.4", architectures=None, cudnn=None, nccl=None
    )


def test_where_nvidia_s_libraries_are_found(
    nvcc: Nvcc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvcc("12.4")
    # the wheels of whoever runs this are none of its business
    without = [each for each in sys.path if "site-packages" not in each]
    monkeypatch.setattr(sys, "path", without)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    (tmp_path / "include").mkdir()
    (tmp_path / "include/nccl.h").touch()
    assert toolchain.nvidia_library("nccl", "nccl.h") == tmp_path  # the toolkit's
    wheel = tmp_path / "site/nvidia/nccl"
    wheel.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *without])
    assert toolchain.nvidia_library("nccl", "nccl.h") == wheel
    monkeypatch.setenv("NCCL_ROOT", "/given")
    assert toolchain.nvidia_library("nccl", "nccl.h") == Path("/given")


def test_the_cache_entries() -> None:
    prefix = Path("/prefix")
    cpu = compilation.definitions(prefix, opencv=False, onednn=True)
    assert cpu["CPU_ONLY"] == "ON"
    assert not cpu.keys() & {"USE_CUDNN", "USE_NCCL", "CMAKE_CUDA_ARCHITECTURES"}
    cuda = Cuda(version="12.4", architectures="75,86", cudnn=Path("/cudnn"), nccl=None)
    gpu = compilation.definitions(prefix, opencv=False, onednn=True, cuda=cuda)
    assert gpu["CPU_ONLY"] == "OFF"
    assert (gpu["USE_CUDNN"], gpu["CUDNN_ROOT"], gpu["USE_NCCL"]) == ("ON", "/cudnn", "OFF")
    assert gpu["CMAKE_CUDA_ARCHITECTURES"] == "75;86"
    assert str(cuda) == "CUDA 12.4 for 75,86, with cuDNN, no NCCL"


@pytest.mark.usefixtures("without_nvcc")
def test_cmake_fails_without_nvcc_instead_of_building_for_the_cpu(
    tree: Tree, tmp_path: Path
) -> None:
    besides = "/usr/local/cuda/bin;/usr/local/bin;/usr/bin;/bin"  # where CMake looks, too
    printed = configure(tree, tmp_path / "cmake", CMAKE_IGNORE_PATH=besides)
    assert "CUDA was asked for, but its compiler nvcc is not found" in printed
    assert "or build for the CPU with -DCPU_ONLY=ON" in printed


def test_cmake_refuses_a_cuda_that_is_too_old(tree: Tree, nvcc: Nvcc, tmp_path: Path) -> None:
    nvcc("11.7")
    printed = configure(tree, tmp_path / "cmake")
    assert re.search(r"CUDA 11\.7 \(.*nvcc\) is too old: 11\.8 or later is needed", printed)


def test_cmake_refuses_a_gpu_that_nvcc_does_not_know(
    tree: Tree, nvcc: Nvcc, tmp_path: Path
) -> None:
    nvcc("12.4")
    printed = configure(tree, tmp_path / "cmake", CMAKE_CUDA_ARCHITECTURES="75-real;120")
    assert (
        "The architecture 120 is not known to CUDA 12.4, which knows: 50 70 75 80 86 90." in printed
    )


def test_one_gpu_of_each_generation_by_default(tree: Tree, nvcc: Nvcc, tmp_path: Path) -> None:
    nvcc("12.4")
    configure(tree, tmp_path / "cmake")  # the stub compiles nothing
    cache = (tmp_path / "cmake/CMakeCache.txt").read_text()
    (chosen,) = re.findall(r"^CMAKE_CUDA_ARCHITECTURES:STRING=(.*)$", cache, re.M)
    assert chosen == "70-real;75-real;80-real;90-real;90-virtual"
