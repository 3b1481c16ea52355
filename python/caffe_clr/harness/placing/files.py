"""Places a patch file by file on copies of a tree's files. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from caffe_clr.harness.code import Text
from caffe_clr.harness.diffs import FileDiff, Run
from caffe_clr.harness.placing.bodies import add_branch, add_check, branch_of, put_beside
from caffe_clr.harness.placing.fields import (
    choose_numbers,
    is_next_id,
    place_fields,
    solver_message,
    without_message,
)
from caffe_clr.harness.placing.finding import find_file, first_lacking, has_class
from caffe_clr.harness.placing.functions import (
    add_declaration,
    add_functions,
    add_includes,
    is_declaration,
)
from caffe_clr.harness.placing.parts import (
    APPLIED,
    FITS,
    LOST,
    NO_FILE,
    OWN,
    FilePlacement,
    Part,
    Placement,
)
from caffe_clr.harness.placing.work import Work, policies

# Files that Caffe trains without.
_OPTIONAL = ("docs/", "src/caffe/test/", "python/", "matlab/", "examples/", "tools/extra/")
_BINDING, _TESTS_OF_BINDING = "python/caffe/_caffe.cpp", "python/caffe/test/"


def is_placeable(diffs: Iterable[FileDiff]) -> bool:
    """Whether a patch adds policies or fields to the solvers. Other patches are not placed."""
    added = (run.added for diff in diffs for run in diff.runs)
    return any(is_next_id(lines) or policies(lines) for lines in added)


def place(tree: Path, diffs: list[FileDiff]) -> Placement:
    """Find a place in `tree` for every part of a patch."""
    placer = _Placer(tree, diffs)
    files: dict[str, FilePlacement] = {}
    for diff in sorted(diffs, key=lambda diff: diff.is_new):
        done = placer.file(diff)
        earlier = files.setdefault(done.file, done)
        if earlier is not done:  # the patch has two files where the tree has one
            earlier.parts += done.parts
            earlier.content = done.content or earlier.content
    binding = files.get(_BINDING)
    if binding and any(part.state == LOST for part in binding.parts):
        reason = f"{_BINDING} lacks what it tests"
        for name in [name for name in files if name.startswith(_TESTS_OF_BINDING)]:
            files[name] = FilePlacement(name, [Part(LOST, reason, (), needed=False)])
    work = placer.work
    return Placement([*files.values()], work.numbers, work.taken, work.elsewhere)


def _work(diffs: list[FileDiff]) -> Work:
    """The facts of a patch."""
    changed = [run for diff in diffs if not diff.is_new for run in diff.runs]
    added = {policy for run in changed for policy in policies(run.added)}
    removed = {policy for run in changed for policy in policies(run.removed)}
    defined = [name for run in changed for name in run.defined]
    return Work(defined, added - removed, {line for diff in diffs for line in diff.context})


class _Placer:
    """Places the files of one patch, one after another."""

    def __init__(self, tree: Path, diffs: list[FileDiff]) -> None:
        self.tree = tree
        self.texts: dict[str, Text] = {}
        self.work = _work(diffs)

    def file(self, diff: FileDiff) -> FilePlacement:
        needed = not diff.path.startswith(_OPTIONAL)
        if diff.is_new:
            return self._new_file(diff, needed)
        file = find_file(self.tree, diff)
        if file is None:
            return FilePlacement(diff.path, [self._lost(diff, needed)])
        text = self.texts.setdefault(file, Text.read(self.tree / file))
        before = text.encoded()
        if file.endswith(".proto"):
            parts = self._message(text, diff)
        else:
            parts = [self._run(text, diff, run, needed) for run in diff.runs]
        after = text.encoded()
        return FilePlacement(file, parts, after if after != before else None)

    def _lost(self, diff: FileDiff, needed: bool) -> Part:
        """The result for a file that the tree does not have."""
        owners = {*diff.classes, *(owner for owner, _ in diff.functions)}
        if owners and not any(has_class(self.tree, owner) for owner in owners):
            return Part(LOST, f"{NO_FILE}, and this Caffe has no {min(owners)}", (), needed=False)
        lines = tuple(line for run in diff.runs for line in run.added)
        return Part(LOST, NO_FILE, lines, needed)

    def _new_file(self, diff: FileDiff, needed: bool) -> FilePlacement:
        lines = diff.runs[0].added
        eol = next((text.eol for text in self.texts.values()), "\n")
        content = "".join(line + eol for line in lines).encode("latin-1")
        path = self.tree / diff.path
        lacking = first_lacking(self.tree, lines)
        otherwise = self.work.declared_otherwise
        if path.is_file():
            same = path.read_bytes().split() == content.split()
            state = APPLIED if same else OWN if needed else LOST
            part = Part(state, "a file of this name already exists", (), needed)
        elif lacking:
            part = Part(LOST, f"this Caffe has no {lacking}, which the file uses", (), needed)
        elif otherwise and not needed:
            part = Part(LOST, f"this Caffe declares {otherwise} differently", (), needed)
        else:
            return FilePlacement(diff.path, [Part(FITS, "a new file", (), needed)], content)
        return FilePlacement(diff.path, [part])

    def _message(self, text: Text, diff: FileDiff) -> list[Part]:
        message = solver_message(text)
        if message is None:
            return [without_message(diff)]
        choose_numbers(self.work, message, diff)
        parts: list[Part] = []
        for run in diff.runs:
            placed = place_fields(self.work, text, run, message)
            if placed is None:
                placed = [put_beside(self.work, text, run, needed=False)]
            parts += placed
        return parts

    def _run(self, text: Text, diff: FileDiff, run: Run, needed: bool) -> Part:
        if run.owner and not has_class(self.tree, run.owner):
            return Part(LOST, f"this Caffe has no {run.owner}", (), needed=False)
        if run.is_comment or not needed:
            return put_beside(self.work, text, run, needed=False)
        if not run.removed and all(line.startswith("#include") for line in run.added):
            return add_includes(text, run)
        if run.defined:
            behind = diff.runs[diff.runs.index(run) + 1 :]
            caller = next((other.function for other in behind if other.function), None)
            return add_functions(self.work, text, run, caller)
        branch = branch_of(run)
        if branch:
            return add_branch(self.work, text, run, branch)
        if run.function and run.opens:
            return add_check(self.work, text, run)
        if is_declaration(run):
            return add_declaration(text, run)
        return put_beside(self.work, text, run, needed=not run.is_printed)
