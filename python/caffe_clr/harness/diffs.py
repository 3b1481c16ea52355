"""Reads a patch as runs of changed lines, each with its context."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Tuple

Name = Tuple[str, str]  # a class and its member function

_FILE = re.compile(r"^diff --git a/\S+ b/(\S+)$", re.M)
_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@ ?(.*)$")
_OPENS_CLASS = re.compile(r"^class (\w+)\b.*\{$")
_OPENS_FUNCTION = re.compile(r"\b(\w+)<\w+>::(\w+)\(.*\{$")
_DEFINED = re.compile(r"^(?!\s)[\w:<>&* ]*[ &*:](\w+)\([^;{}]*\) {$", re.MULTILINE)
_TYPE = re.compile(r"^(?:const )?\w+ (?=\w+ = )")


@dataclass(frozen=True)
class Run:
    """Lines that a patch changes together.

    Args:
        before: the lines of the new file that stand before it in the patch.
        after: those of the old file that stand behind it.
        function: the member function that it is in; None where the patch does not show that.
        owner: the class that it is in, likewise.
        opens: whether it stands at the head of that function.
    """

    before: tuple[str, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    after: tuple[str, ...]
    function: Name | None
    owner: str | None
    opens: bool

    @property
    def sought(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """What stands before it, what it removes, and what stands behind it."""
        return self.before, self.removed, self.after

    @property
    def defined(self) -> list[str]:
        """The functions that it defines, if it only adds lines."""
        return [] if self.removed else defined(self.added)

    @property
    def is_comment(self) -> bool:
        return all(line.lstrip().startswith("//") for line in (*self.added, *self.removed))

    @property
    def exchanged(self) -> tuple[str, str] | None:
        """Of a line that stands for another: both, without the type of what they declare."""
        if len(self.removed) != 1 or len(self.added) != 1:
            return None
        old, new = (_TYPE.sub("", line.strip()) for line in (*self.removed, *self.added))
        return old, new

    @property
    def is_printed(self) -> bool:
        """Whether it changes nothing but what is logged."""
        return all(line.lstrip().startswith("<<") for line in (*self.added, *self.removed))


@dataclass(frozen=True)
class FileDiff:
    """What a patch does to one file; where it adds the file, in one run.

    Args:
        context: the lines that stay, and what git shows as the heading of each hunk.
    """

    path: str
    is_new: bool
    runs: tuple[Run, ...]
    context: tuple[str, ...]

    @property
    def functions(self) -> list[Name]:
        """The member functions that it changes."""
        return [run.function for run in self.runs if run.function]

    @property
    def classes(self) -> list[str]:
        """The classes whose definitions it changes."""
        return [run.owner for run in self.runs if run.owner]


def defined(lines: Iterable[str]) -> list[str]:
    """The functions that code defines at the left margin."""
    return _DEFINED.findall("\n".join(lines))


def parse(patch: str) -> list[FileDiff]:
    """The files that a patch in git's format changes or adds, in its order."""
    starts = [*_FILE.finditer(patch)]
    ends = [match.start() for match in starts[1:]] + [len(patch)]
    return [
        _file(match[1], patch[match.end() : end].split("\n")) for match, end in zip(starts, ends)
    ]


def _file(path: str, lines: list[str]) -> FileDiff:
    runs: list[Run] = []
    context: list[str] = []
    at = next(i for i, line in enumerate(lines) if line.startswith("@@"))
    is_new = any(line.startswith("new file") for line in lines[:at])
    while at < len(lines) and (header := _HUNK.match(lines[at])):
        old, new = (int(count or 1) for count in header.groups()[:2])
        hunk: list[tuple[str, str]] = []
        at += 1
        while old or new:
            tag, line = lines[at][:1] or " ", lines[at][1:]
            old -= tag in " -"
            new -= tag in " +"
            hunk.append((tag, line))
            at += 1
        context += [header[3], *(line for tag, line in hunk if tag == " ")]
        runs += _runs(hunk, header[3])
    return FileDiff(path, is_new, tuple(runs), tuple(context))


def _runs(hunk: list[tuple[str, str]], heading: str) -> list[Run]:
    spans = []
    at = 0
    for unchanged, group in groupby(hunk, key=lambda tagged: tagged[0] == " "):
        size = len([*group])
        if not unchanged:
            spans.append((at, at + size))
        at += size
    spans = _joined_comments(hunk, spans)
    runs = []
    for start, end in spans:
        before = [line for tag, line in hunk[:start] if tag != "-"]
        after = [line for tag, line in hunk[end:] if tag != "+"]
        opened = [m for line in (heading, *before) if (m := _OPENS_FUNCTION.search(line))]
        classes = [m[1] for line in (heading, *before) if (m := _OPENS_CLASS.match(line))]
        runs.append(
            Run(
                tuple(before),
                tuple(line for tag, line in hunk[start:end] if tag != "+"),
                tuple(line for tag, line in hunk[start:end] if tag != "-"),
                tuple(after),
                (opened[-1][1], opened[-1][2]) if opened else None,
                classes[-1] if classes else None,
                bool(before and _OPENS_FUNCTION.search(before[-1])),
            )
        )
    return runs


def _joined_comments(
    hunk: list[tuple[str, str]], spans: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The spans, with those in one comment made one, since they speak of each other."""
    joined = spans[:1]
    for (start, _), (next_start, next_end) in zip(spans, spans[1:]):
        if all(line.lstrip().startswith("//") for _, line in hunk[start:next_end]):
            joined[-1] = (joined[-1][0], next_end)
        else:
            joined.append((next_start, next_end))
    return joined
