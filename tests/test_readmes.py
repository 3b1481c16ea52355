"""The READMEs and workflows: the command line takes each command, and each file is there."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from caffe_clr.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
LISTED = subprocess.run(
    ["git", "ls-files", "*.md", ".github/*.yml"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
)
DOCUMENTS = [ROOT / name for name in LISTED.stdout.split()]
PROGRAMS = (
    "./clr",
    "caffe-clr",
    "~/caffe-clr/clr",
    ".venv/bin/caffe-clr",
    "~/clr/bin/caffe-clr",
    "~/caffe-clr.pyz",
)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)]*)?\)")
NAME = re.compile(r"`((?:caffe_patch|python|tests|docker|models|benchmarks)/[^`\s…*<{]*)`")
MADE = (  # by commands, or in Caffe's own tree
    "models/bvlc_alexnet/train_val.prototxt",
    "models/bvlc_alexnet/solver.prototxt",
    "models/bvlc_googlenet/solver.prototxt",
    "models/bvlc_googlenet/train_val.prototxt",
    "models/one_cycle/wide32_train_test.prototxt",
    "models/digits/train_lmdb",
    "models/digits/test_lmdb",
    "models/digits/mean.binaryproto",
)


def code(document: Path) -> Iterator[str]:
    """The lines of a document that are to be typed, or those that a workflow runs."""
    if document.suffix == ".yml":
        yield from re.findall(r"run: (.+)", document.read_text())
        return
    for line in document.read_text().splitlines():
        if line.startswith("    "):
            yield line.strip()
        yield from re.findall(r"`(\./clr [a-z][^`…]*)`", line)


def commands(document: Path) -> Iterator[list[str]]:
    """The words of each command of ours in a document, without what a shell does with them."""
    for line in code(document):
        line = re.sub(r"\$\{?\w+\}?", "variable", line.split(" # ")[0])
        for part in re.split(r"[;|&]|\bdo\b", line):
            try:
                words = shlex.split(part)
            except ValueError:  # prose, or output
                continue
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                del words[0]
            if words[:1] == ["python3"] and words[1:2] and words[1].endswith("caffe-clr.pyz"):
                del words[0]
            if words and words[0] in PROGRAMS:
                yield words[1:]


def parse(words: list[str]) -> None:
    """Have the command line parse a command, without running it; of a bare name, find it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, words[0]
        command, words = command.commands[words[0]], words[1:]
    if words and words[0] not in ("--help", "--version"):
        command.make_context("caffe-clr", ["1" if word == "N" else word for word in words])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_is_one(document: Path) -> None:
    for words in commands(document):
        if words and words[0] != words[0].upper():
            parse(words)


def test_commands_are_found() -> None:
    found = [words for document in DOCUMENTS for words in commands(document)]
    assert {"demo", "range-test", "compare", "patch", "wheel", "net"} <= {w[0] for w in found if w}
    assert len(found) > 60
    with pytest.raises(Exception, match="No such option"):
        parse(["train", "solver.prototxt", "--snapshot"])


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_is_there(document: Path) -> None:
    text = document.read_text()
    for target, anchor in LINK.findall(text):
        if target.startswith("http"):
            continue
        file = document.parent / target if target else document
        assert file.exists(), target
        file = file / "README.md" if file.is_dir() else file
        assert not anchor or anchor[1:] in anchors(file), target + anchor
    for name in NAME.findall(text):
        assert name in MADE or any(ROOT.glob(name.rstrip("/"))), name
