"""Finds the files of a tree that a patch may change, whatever their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from caffe_clr.harness import code, diffs
from caffe_clr.harness.diffs import FileDiff

_SEARCHED = {"src/caffe": (".cpp", ".cc"), "include/caffe": (".hpp", ".h")}
_INCLUDED = re.compile(r'#include "(caffe/.+)"')
_NET = re.compile(r'net: "(.+)"')  # in an example solver


def sources(tree: Path) -> set[str]:
    """The files of a tree that a patch may change, relative to it."""
    return {
        path.relative_to(tree).as_posix()
        for folder, suffixes in _SEARCHED.items()
        for path in (tree / folder).rglob("*")
        if path.suffix in suffixes
    }


def nets(diffs: Iterable[FileDiff]) -> set[str]:
    """The nets that the new files of a patch name."""
    added = (line for diff in diffs if diff.is_new for line in diff.runs[0].added)
    return {match[1] for match in map(_NET.match, added) if match}


def find_file(tree: Path, diff: FileDiff) -> str | None:
    """The tree's file that holds what the patch changes in `diff`."""
    is_there = (tree / diff.path).is_file()
    searched = sorted(sources(tree))
    for path in (*([diff.path] if is_there else []), *searched):
        if _holds(tree / path, diff):
            return path
    if is_there:
        return diff.path
    named = diffs.defined(diff.context)
    for path in searched:
        blind = code.masked((tree / path).read_text("latin-1"))
        if any(code.defines(blind, name) for name in named):
            return path
    return None


def has_class(tree: Path, name: str) -> bool:
    """Whether a file of the tree defines a class."""
    files = sorted(sources(tree))
    return any(code.class_((tree / f).read_text("latin-1"), name) for f in files)


def first_lacking(tree: Path, lines: Iterable[str]) -> str | None:
    """The first header or net that lines of a new file name and the tree does not have."""
    for line in lines:
        header, net = _INCLUDED.match(line), _NET.match(line)
        if header and not _has_header(tree, header[1]):
            return header[1]
        if net and not (tree / net[1]).is_file():
            return net[1]
    return None


def _has_header(tree: Path, name: str) -> bool:
    return name.endswith(".pb.h") or (tree / "include" / name).is_file()


def _holds(path: Path, diff: FileDiff) -> bool:
    """Whether a file has one of the functions or classes that a patch changes in another."""
    text = path.read_text("latin-1")
    return any(code.function(text, name) for name in diff.functions) or any(
        code.class_(text, name) for name in diff.classes
    )
