"""The package as it is installed: what a wheel carries, and where it looks for it."""

import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from caffe_clr import locations
from caffe_clr.errors import ClrError
from caffe_clr.harness import series


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, root], check=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_checkout_uses_its_own_folders(root: Path) -> None:
    assert locations.checkout() == root
    assert locations.shipped("caffe_patch") == root / "caffe_patch"
    assert locations.build() == root / "build"


def test_the_conda_recipe_requires_what_pip_does(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    recipe = (root / "python/recipe.yaml").read_text()
    others = {"lmdb": "python-lmdb", "matplotlib": "matplotlib-base"}
    wanted = [f"python {project['requires-python']}"]
    for requirement in project["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(>=[\d.]+).*", requirement).groups()  # type: ignore[union-attr]
        if name != "plyvel-ci":
            wanted.append(f"{others.get(name, name)} {bound}")
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    listed = [line.removeprefix("    - ") for line in run.splitlines()]
    assert [line for line in listed if not line.startswith("plyvel ")] == wanted
    assert f'version: "{project["version"]}"' in recipe


def test_a_wheel_carries_the_series_and_the_models(wheel: Path, root: Path) -> None:
    for folder in ("caffe_patch", "models/digits"):
        names = {path.name for path in (root / folder).iterdir() if path.is_file()}
        carried = {path.name for path in (wheel / "caffe_clr/data" / folder).iterdir()}
        assert {name for name in names if name.endswith(("patch", "prototxt", "series"))} <= carried
        assert not any(name.endswith(("_lmdb", "caffemodel", "solverstate")) for name in carried)


def test_the_citation_is_of_this_version(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()


def test_a_wheel_finds_what_it_carries(
    wheel: Path, patches: list[series.Patch], tmp_path: Path
) -> None:
    code = (
        "from caffe_clr import locations; from caffe_clr.harness import series;"
        "assert locations.checkout() is None; print(locations.build());"
        "print(len(series.load(locations.shipped('caffe_patch'))), locations.shipped('models'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(wheel), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{tmp_path}/caffe-clr/build",
        f"{len(patches)} {wheel}/caffe_clr/data/models",
    ]


def test_an_incomplete_package_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locations, "checkout", lambda: None)
    monkeypatch.setattr(locations, "PACKAGE", tmp_path)
    with pytest.raises(ClrError, match=r"data/models is missing: .* reinstall it"):
        locations.shipped("models")


def test_it_is_tried_with_each_python_that_it_names(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    listed = ", ".join(f'"{version}"' for version in named)
    assert f"python: [{listed}]" in (root / ".github/workflows/test.yml").read_text()


@pytest.mark.parametrize("command", ["", "build", "doctor", "demo", "test", "patch", "patch apply"])
def test_help_is_at_most_80_columns_wide(
    command: str, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_cli(*command.split(), "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    if command and command != "patch":
        assert "Example: caffe-clr" in done.stdout


def test_ctrl_c_while_it_starts_is_no_traceback() -> None:
    code = """if True:
        import os, signal, sys
        from caffe_clr.cli import main

        class Finder:
            def find_spec(self, name, *_):
                if name == "caffe_clr.cli.entry":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Finder())
        main()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
