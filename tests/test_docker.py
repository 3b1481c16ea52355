"""The Dockerfiles and their scripts without an engine; docker/verify does the rest."""

import difflib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from caffe_clr.harness import toolchain
from caffe_clr.harness.compilation import Tree

Programs = Callable[..., dict[str, str]]
DOCKERFILES = ("docker/cpu/Dockerfile", "docker/cuda/Dockerfile")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """An environment whose PATH has the system's programs, and stubs before or instead of them."""

    def make(alone: bool = False, **stubs: str) -> dict[str, str]:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for name, script in stubs.items():
            file = folder / name.replace("_", "-")
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(0o755)
        path = str(folder) if alone else f"{folder}:/usr/bin:/bin"
        return {**os.environ, "PATH": path}

    return make


@pytest.mark.parametrize("file", DOCKERFILES)
def test_the_version_is_the_package_s(root: Path, file: str) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in (root / file).read_text()


def copied(text: str) -> list[str]:
    """What the COPY instructions of a Dockerfile take from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.*)", text.replace("\\\n", " "), re.M)
    return [name for line in lines for name in line.split()[:-1]]


def test_the_two_differ_in_what_gpus_need_alone(root: Path) -> None:
    cpu, cuda = ((root / file).read_text().splitlines() for file in DOCKERFILES)
    own = [line[2:] for line in difflib.ndiff(cpu, cuda) if line.startswith("- ")]
    assert own == [
        "# Patched Caffe for the CPU. Build it in the root of the repository:",
        "#   docker build -f docker/cpu/Dockerfile -t caffe-clr:cpu .",
        "RUN sh docker/compile",
        "FROM ${BASE}",
        "ENV PATH=/opt/venv/bin:/opt/caffe/bin:$PATH",
        '      org.opencontainers.image.description="BVLC Caffe with cyclical learning rates,'
        ' for the CPU" \\',
        '      org.opencontainers.image.licenses="BSD-2-Clause"',
    ]


@pytest.mark.parametrize("file", DOCKERFILES)
def test_what_is_copied_is_there(root: Path, file: str) -> None:
    names = copied((root / file).read_text())
    assert "pyproject.toml" in names
    assert all((root / name).exists() for name in names)


def test_what_compiles_caffe_needs_no_other_file_of_the_package(root: Path, tmp_path: Path) -> None:
    """So that a change of any other file leaves the compiled layer as it is."""
    text = (root / DOCKERFILES[0]).read_text()
    layers = text[text.index("# Caffe is compiled again") : text.index("COPY docker/compile")]
    for name in copied(layers):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    code = "import caffe_clr.cli.commands.building, caffe_clr; print(caffe_clr)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path[1:]!r}; {code}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "python")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout


def packages(root: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(root / "docker/packages"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("section", ["opencv", "cuda"])
def test_the_packages_are_the_harness_s(
    root: Path, programs: Programs, tmp_path: Path, section: str
) -> None:
    env = programs(apt_get=f'echo "$@" >>{tmp_path}/calls', sed="", rm="")
    done = packages(root, env, str(toolchain.PACKAGES), section, "--", "more")
    assert done.returncode == 0, done.stderr
    installed = (tmp_path / "calls").read_text().splitlines()[1].split()
    expected = [requirement.package for requirement in toolchain.requirements(section)]
    assert installed[-len(expected) - 2 :] == ["--no-install-recommends", *expected, "more"]


def test_a_base_without_apt(root: Path, programs: Programs) -> None:
    done = packages(root, programs(alone=True), "--", "any")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the base image has no apt-get; use a Debian or Ubuntu image: --build-arg BASE=...\n"
    )


def test_an_archive_that_cannot_be_reached(root: Path, programs: Programs) -> None:
    done = packages(root, programs(apt_get="exit 100", sed="", rm=""), "--", "any")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is there a network?" in done.stderr


@pytest.mark.parametrize(("version", "fits"), [("11.7", False), ("9.2", False), ("11.8", True)])
def test_a_base_whose_cuda_is_too_old(
    root: Path, programs: Programs, version: str, fits: bool
) -> None:
    env = programs(nvcc=f'echo "Cuda compilation tools, release {version}, V{version}.1"')
    done = subprocess.run(
        ["/bin/sh", root / "docker/toolkit", toolchain.PACKAGES],
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == fits
    assert fits or f"the base image's CUDA {version} is too old; use 11.8 or later" in done.stderr


def runtime(root: Path, prefix: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, root / "docker/runtime", prefix, out]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_an_image_needs_to_run_caffe(root: Path, tree: Tree, tmp_path: Path) -> None:
    done = runtime(root, tree.prefix, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    packages = (tmp_path / "out/packages.txt").read_text().split()
    assert {"liblmdb0", "python3"} < set(packages)
    assert any(name.startswith("libopenblas0") for name in packages)
    assert not any(name.endswith("-dev") for name in packages)
    assert not list((tmp_path / "out/lib").iterdir())  # Debian holds all of them


def test_a_file_that_a_package_diverts(
    root: Path, tree: Tree, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian 13's libc6 does with the loader, which every library needs."""
    told = "echo 'diversion by libc6 from: /lib64/x'; echo 'diversion by libc6 to: /lib64/y'"
    script = f'[ "$1" != -S ] || {{ {told}; }}; exec /usr/bin/dpkg-query "$@"'
    monkeypatch.setenv("PATH", programs(dpkg_query=script)["PATH"])
    done = runtime(root, tree.prefix, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "liblmdb0" in (tmp_path / "out/packages.txt").read_text().split()


@pytest.mark.caffe
def test_a_library_of_no_package_is_copied_with_what_it_needs(root: Path, tmp_path: Path) -> None:
    """As cuBLAS of a toolkit of NVIDIA's, which needs cuBLASLt."""
    toolkit, prefix = tmp_path / "toolkit", tmp_path / "prefix"
    toolkit.mkdir()
    prefix.mkdir()
    linking = ["-x", "c", "-", "-x", "none", f"-L{toolkit}", f"-Wl,-rpath,{toolkit}"]

    def compile_c(code: str, *options: str) -> None:
        declared = "int deep(void); int near(void);\n" + code
        subprocess.run(["gcc", *linking, *options], input=declared, text=True, check=True)

    for name, value, needs in (("deep", "1", []), ("near", "deep()", ["-ldeep"])):
        soname = f"-Wl,-soname,lib{name}.so"
        output = f"-o{toolkit / f'lib{name}.so'}"
        compile_c(f"int {name}(void) {{ return {value}; }}", "-shared", *needs, soname, output)
    compile_c("int main(void) { return near(); }", "-lnear", f"-o{prefix / 'program'}")
    assert runtime(root, prefix, tmp_path / "out").returncode == 0
    assert {path.name for path in (tmp_path / "out/lib").iterdir()} == {"libdeep.so", "libnear.so"}
    (toolkit / "libdeep.so").unlink()
    done = runtime(root, prefix, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.endswith("libnear.so needs libdeep.so, which was not found\n")


VERIFY_FAULTS = [
    (None, "there is no docker command; on Debian: apt-get install docker.io"),
    (
        "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1",
        "permission denied by Docker's engine; join the group docker, or use sudo",
    ),
    (
        "echo 'Cannot connect to the Docker daemon at unix:///x. Is it running?' >&2; exit 1",
        "Docker's engine is not running; start dockerd",
    ),
    (
        'case $1 in build) echo "write /x: no space left on device"; exit 1 ;; esac',
        "the disk is full; `docker system prune` removes unused data",
    ),
    (
        "case $1 in build) echo '#9 0.243 error: the base image has no apt-get'; echo ------;"
        " echo 'ERROR: failed to solve'; exit 1 ;; esac",
        "docker build failed:\n  error: the base image has no apt-get\nfull log: ",
    ),
]


@pytest.mark.parametrize(("docker", "message"), VERIFY_FAULTS)
def test_verify_says_what_is_wrong(
    root: Path, programs: Programs, docker: str | None, message: str
) -> None:
    stubs = {} if docker is None else {"docker": docker}
    env = programs(alone=docker is None, **stubs)
    done = subprocess.run(
        [sys.executable, root / "docker/verify", "cpu", "--base", "any"],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
