"""The name of the program in the command that continues a run."""

import sys
from pathlib import Path

import pytest

from caffe_clr.cli.resume_command import continuation


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CLR_COMMAND", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
    for name in (*names, "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("called", "clr", "shown"),
    [
        ("BIN/caffe-clr", None, "caffe-clr"),
        (".venv/bin/caffe-clr", None, ".venv/bin/caffe-clr"),
        ("/else where/caffe-clr", None, "'/else where/caffe-clr'"),
        ("/the checkout/.venv/bin/caffe-clr", "./clr", "./clr"),
        ("/the checkout/.venv/bin/caffe-clr", "../caffe-clr/clr", "../caffe-clr/clr"),
        ("/lib/caffe_clr/__main__.py", "./clr", f"{sys.executable} -m caffe_clr"),
    ],
)
def test_the_program_is_named_as_it_was_called(
    called: str, clr: str | None, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "caffe-clr"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if clr:
        monkeypatch.setenv("CLR_COMMAND", clr)
    monkeypatch.setattr(sys, "argv", [called.replace("BIN", str(tmp_path)), "train", "a b"])
    assert continuation() == f"continue with: {shown} train 'a b'"


def test_options_are_added_before_what_follows_a_double_dash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["./caffe-clr", "train", "--", "-a.prototxt"])
    found = continuation(Path("runs/a"), resume=True)
    assert found == "continue with: ./caffe-clr train --out runs/a --resume -- -a.prototxt"


def test_variables_that_the_run_needs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["./caffe-clr", "compare", "a", "b"])
    monkeypatch.setenv("PYTHONPATH", "~/my caffe/python")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert continuation() == (
        "continue with: CUDA_VISIBLE_DEVICES=1 PYTHONPATH='~/my caffe/python'"
        " ./caffe-clr compare a b"
    )
