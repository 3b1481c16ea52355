"""README.md: a page, and each command in it runs as printed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from caffe_clr.experiments import datasets
from caffe_clr.harness.compilation import Tree

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "README.md").read_text()
# these build for minutes, or need Docker; where they are tried
TRIED = {
    "~/caffe-clr/clr build": "tests/test_build.py",
    "~/caffe-clr/clr demo": "tests/test_demo.py",
    "docker build": "docker/verify",
    "docker run": "docker/verify",
}


def typed() -> list[str]:
    """The commands of the page in their order, those in sentences too."""
    found = re.finditer(r"^    (?=~/|docker )(.*)|`(~/caffe-clr/clr [^`]*)`", PAGE, re.MULTILINE)
    return [match[1] or match[2] for match in found]


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) <= 700


def test_the_commands_are_found() -> None:
    words = {line.split()[1] for line in typed()}
    assert {"range-test", "train", "compare", "patch", "build", "demo", "run"} <= words
    for file in TRIED.values():
        assert (ROOT / file).exists()


@pytest.fixture
def home(tree: Tree, checkout: Path, tmp_path: Path) -> Path:
    """Where the page's reader works: this project, a Caffe, and a net with its data."""
    home = tmp_path / "home"
    (home / "src").mkdir(parents=True)
    (home / "caffe-clr").symlink_to(ROOT)
    checkout.rename(home / "src" / "caffe")
    shutil.copy(ROOT / "models/digits/fixed_solver.prototxt", home / "solver.prototxt")
    (home / "models/digits").mkdir(parents=True)
    shutil.copy(ROOT / "models/digits/train_test.prototxt", home / "models/digits")
    datasets.write_digits(home / "models/digits")
    return home


def test_each_command_runs_as_printed(home: Path) -> None:
    for line in typed():
        if any(map(line.startswith, TRIED)):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if "triangular.prototxt" in line:
            rates = re.findall(r"lr = (\S+)", done.stdout)
            assert rates == ["1", "2", "3", "4", "5", "4", "3", "2", "1"]
    text = (home / "src/caffe/src/caffe/solvers/sgd_solver.cpp").read_text()
    assert "triangular2" in text
    assert "1cycle" in text
    assert (home / "runs/bounds/range_test.png").exists()
