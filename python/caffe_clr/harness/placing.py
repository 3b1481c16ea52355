"""Places a patch on Caffes that `git apply` does not fit: forks, and older and newer releases.

Each run of changed lines goes where it belongs, not where its line number says:
where all stands around it that the patch shows, there; else a field to the end
of SolverParameter, with a number that is free; a policy before the last `else`
of GetLearningRate; a check to the head of its function; functions before the
one that calls them; a declaration behind its neighbour; a line for the one that
does the same in the same function; and other lines beside those that they stand
beside in the patch. Comments, documentation, tests and what is logged are left
out where they have no place. Nothing is written here.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caffe_clr.harness import code
from caffe_clr.harness.code import Text
from caffe_clr.harness.diffs import FileDiff, Name, Run

# What becomes of a part of a patch, or of all of it
FITS = "fits"
APPLIED = "is already applied"
PARTLY = "is partly applied"
OWN = "collides with what this Caffe has of its own"
LOST = "has no place"
NO_FILE = "there is no such file"

# Files that Caffe trains without.
_OPTIONAL = ("docs/", "src/caffe/test/", "python/", "matlab/", "examples/", "tools/extra/")
_BINDING, _TESTS_OF_BINDING = "python/caffe/_caffe.cpp", "python/caffe/test/"
_SEARCHED = {"src/caffe": (".cpp", ".cc"), "include/caffe": (".hpp", ".h")}

_MESSAGE = "SolverParameter"
_FIELD = re.compile(r"\s*(optional \S+|repeated \S+) (\w+) = (\d+)")
_NEXT_ID = re.compile(rf"({_MESSAGE} next available ID:\s*)\d+(\s*\(last added:\s*)\w+")
_POLICY = re.compile(r"\blr_policy(?:\(\))?\s*==\s*\"(\w+)\"")
_BRANCH = re.compile(r"^ *(?:} else )?if \((.*)\) {\n((?:(?! *}).*(?:\n|$))+)", re.MULTILINE)
_DECLARED = re.compile(r"\s+[\w:<>&* ]*[ &*](\w+)\([^;{}]*\)[^;{}]*;$")
_INCLUDED = re.compile(r'#include "(caffe/.+)"')
_NET = re.compile(r'net: "(.+)"')  # in an example solver
_DEFINED = re.compile(r"^(?!\s)[\w:<>&* ]*[ &*:](\w+)\([^;{}]*\) {$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """What becomes of a run of changed lines, or of a whole file.

    Args:
        state: FITS, APPLIED, PARTLY, OWN or LOST.
        place: which lines, and where they go or are, in words.
        lines: those to put there.
        needed: whether the policies work only with it.
    """

    state: str
    place: str
    lines: tuple[str, ...] = ()
    needed: bool = True

    @property
    def is_code(self) -> bool:
        return self.needed or any(line.startswith("#include") for line in self.lines)


@dataclass
class FilePlacement:
    """What a patch does to one file, as the tree names it; None as content leaves it alone."""

    file: str
    parts: list[Part] = field(default_factory=list)
    content: bytes | None = None

    @property
    def is_needed(self) -> bool:
        return any(part.needed for part in self.parts)


@dataclass(frozen=True)
class Placement:
    """A patch placed on a tree.

    Args:
        state: FITS, or why nothing of it is to be written.
        files: what it does, file by file.
        numbers: of the fields that it adds, by name.
        taken: the patch's own numbers that other fields of the tree have, with their names.
        elsewhere: functions that the patch does not know, but has to change as well.
    """

    state: str
    files: list[FilePlacement]
    numbers: dict[str, int]
    taken: dict[int, str]
    elsewhere: list[str]

    @property
    def reason(self) -> str:
        """Why the fields have these numbers."""
        if not self.taken:
            return "these numbers are the patch's own, and free here"
        taken = ", ".join(f"{number} is {name}" for number, name in self.taken.items())
        return (
            f"the next numbers that are free: of the patch's own, {taken} here (a number matters"
            " only to binary solver files, which nobody writes)"
        )


def is_placeable(diffs: Iterable[FileDiff]) -> bool:
    """Whether a patch adds policies or fields of the solvers: it is placed, as others are not."""
    added = (line for diff in diffs for run in diff.runs for line in run.added)
    return any(_NEXT_ID.search(line) or _POLICY.search(line) for line in added)


def sources(tree: Path) -> set[str]:
    """The files of a tree in which a patch may find its place, relative to it."""
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
        reason = f"{_BINDING} has not what it tests"
        for name in [name for name in files if name.startswith(_TESTS_OF_BINDING)]:
            files[name] = FilePlacement(name, [Part(LOST, reason, (), needed=False)])
    parts = [part for done in files.values() for part in done.parts if part.needed]
    placed = [*files.values()]
    return Placement(_overall(parts), placed, placer.numbers, placer.taken, placer.elsewhere)


def _overall(parts: list[Part]) -> str:
    states = {part.state for part in parts}
    if OWN in states:
        return OWN
    if states <= {APPLIED}:
        return APPLIED
    if states & {APPLIED, PARTLY}:
        return PARTLY
    return LOST if LOST in states else FITS


class _Placer:
    """Places the files of one patch, one after another, on copies of the tree's."""

    def __init__(self, tree: Path, diffs: list[FileDiff]) -> None:
        self.tree = tree
        self.texts: dict[str, Text] = {}
        self.numbers: dict[str, int] = {}
        self.taken: dict[int, str] = {}
        changed = [run for diff in diffs if not diff.is_new for run in diff.runs]
        self.functions = [name for run in changed for name in _definitions(run)]
        self.policies = {name for run in changed for name in _POLICY.findall("\n".join(run.added))}
        self.policies -= {n for run in changed for n in _POLICY.findall("\n".join(run.removed))}
        self.context = {line for diff in diffs for line in diff.context}
        self.declared_otherwise: str | None = None
        self.elsewhere: list[str] = []

    def file(self, diff: FileDiff) -> FilePlacement:
        needed = not diff.path.startswith(_OPTIONAL)
        if diff.is_new:
            return self._new_file(diff, needed)
        file = self._find(diff)
        owners = {*diff.classes, *(owner for owner, _ in diff.functions)}
        if file is None and owners and not any(map(self._has_class, owners)):
            place = f"{NO_FILE}, and no {min(owners)} here"
            return FilePlacement(diff.path, [Part(LOST, place, (), needed=False)])
        if file is None:
            lines = tuple(line for run in diff.runs for line in run.added)
            return FilePlacement(diff.path, [Part(LOST, NO_FILE, lines, needed)])
        text = self.texts.setdefault(file, Text.read(self.tree / file))
        before = text.encoded()
        if file.endswith(".proto"):
            parts = self._message(text, diff)
        else:
            parts = [self._run(text, diff, run, needed) for run in diff.runs]
        after = text.encoded()
        return FilePlacement(file, parts, after if after != before else None)

    def _has_class(self, name: str) -> bool:
        files = sorted(sources(self.tree))
        return any(code.class_((self.tree / f).read_text("latin-1"), name) for f in files)

    def _find(self, diff: FileDiff) -> str | None:
        """The tree's file that holds what the patch changes in `diff`."""
        is_there = (self.tree / diff.path).is_file()
        for file in (*([diff.path] if is_there else []), *sorted(sources(self.tree))):
            if _holds(self.tree / file, diff):
                return file
        if is_there:
            return diff.path
        named = _DEFINED.findall("\n".join(diff.context))
        for file in sorted(sources(self.tree)):
            blind = code.masked((self.tree / file).read_text("latin-1"))
            if any(_defines(blind, name) for name in named):
                return file
        return None

    def _new_file(self, diff: FileDiff, needed: bool) -> FilePlacement:
        lines = diff.runs[0].added
        eol = next((text.eol for text in self.texts.values()), "\n")
        content = "".join(line + eol for line in lines).encode("latin-1")
        path = self.tree / diff.path
        lacking = self._lacking(lines)
        if path.is_file():
            same = path.read_bytes().split() == content.split()
            state = APPLIED if same else OWN if needed else LOST
            part = Part(state, "a file of this name is there", (), needed)
        elif lacking:
            part = Part(LOST, f"there is no {lacking} here, which it uses", (), needed)
        elif self.declared_otherwise and not needed:
            part = Part(LOST, f"{self.declared_otherwise} is declared otherwise here", (), needed)
        else:
            return FilePlacement(diff.path, [Part(FITS, "a new file", (), needed)], content)
        return FilePlacement(diff.path, [part])

    def _lacking(self, lines: Iterable[str]) -> str | None:
        """The first header or net that a new file names and the tree does not have."""
        for line in lines:
            header, net = _INCLUDED.match(line), _NET.match(line)
            if header and not self._has_header(header[1]):
                return header[1]
            if net and not (self.tree / net[1]).is_file():
                return net[1]
        return None

    def _has_header(self, name: str) -> bool:
        return name.endswith(".pb.h") or (self.tree / "include" / name).is_file()

    # caffe.proto

    def _message(self, text: Text, diff: FileDiff) -> list[Part]:
        message = code.message(text.joined, _MESSAGE)
        if message is None:
            lines = tuple(line for run in diff.runs for line in run.added)
            return [Part(LOST, f"message {_MESSAGE}", lines)]
        present = {f.name: f for f in message.fields}
        wanted = {m[2]: int(m[3]) for run in diff.runs for m in _fields(run)}
        self._choose({n: number for n, number in wanted.items() if n not in present}, message)
        parts = []
        for run in diff.runs:
            if any(map(_NEXT_ID.search, run.added)):
                parts += self._next_id(text, message)
            elif _fields(run):
                parts.append(self._add_fields(text, run, present))
            else:
                parts.append(self._beside(text, run, needed=False))
        return parts

    def _choose(self, wanted: dict[str, int], message: code.Message) -> None:
        """Keep the patch's numbers if all are free; else take those above the highest."""
        names = {f.number: f.name for f in message.fields}
        self.taken = {n: names.get(n, "reserved") for n in wanted.values() if message.takes(n)}
        number = max(names, default=0)
        for name, own in sorted(wanted.items(), key=lambda item: item[1]):
            number += 1
            while message.takes(number):
                number += 1
            self.numbers[name] = number if self.taken else own

    def _add_fields(self, text: Text, run: Run, present: dict[str, code.Field]) -> Part:
        fields = {m[2]: m[1] for m in _fields(run)}
        lines = tuple(map(self._numbered, run.added))
        there = [present[name] for name in fields if name in present]
        own = [f for f in there if fields[f.name] != f.type]
        if own:
            kept = ", ".join(f"{f.type} {f.name} = {f.number}" for f in own)
            return Part(OWN, f"{_MESSAGE} has {kept}", lines)
        if there:
            shown = ", ".join(f"{f.name} = {f.number}" for f in there)
            state = APPLIED if len(there) == len(fields) else PARTLY
            return Part(state, f"{shown} in {_MESSAGE}", lines)
        shown = ", ".join(f"{name} = {self.numbers[name]}" for name in fields)
        at = text.find_exactly(run)
        if at is not None:
            text.replace(at, 0, lines)
            return Part(FITS, f"{shown} in {_MESSAGE}", lines)
        message = code.message(text.joined, _MESSAGE)
        assert message
        text.replace(text.line_of(message.end), 0, ("", *lines))
        return Part(FITS, f"{shown} at the end of {_MESSAGE}", lines)

    def _numbered(self, line: str) -> str:
        match = _FIELD.match(line)
        number = match and self.numbers.get(match[2])
        return (
            f"{line[: match.start(3)]}{number}{line[match.end(3) :]}" if match and number else line
        )

    def _next_id(self, text: Text, message: code.Message) -> list[Part]:
        numbers = {**{f.name: f.number for f in message.fields}, **self.numbers}
        last = max(numbers, key=numbers.__getitem__)
        for at, line in enumerate(text.lines):
            if _NEXT_ID.search(line) and self.numbers:
                fresh = _NEXT_ID.sub(rf"\g<1>{numbers[last] + 1}\g<2>{last}", line)
                text.replace(at, 1, [fresh])
                return [Part(FITS, f'the comment "{fresh.strip("/ ")}"', (), needed=False)]
        return []

    # C++ and prose

    def _run(self, text: Text, diff: FileDiff, run: Run, needed: bool) -> Part:
        if run.owner and not self._has_class(run.owner):
            return Part(LOST, f"there is no {run.owner} here", (), needed=False)
        if run.is_comment or not needed:
            return self._beside(text, run, needed=False)
        if not run.removed and all(line.startswith("#include") for line in run.added):
            return self._includes(text, run)
        defined = _definitions(run)
        if defined:
            return self._define(text, diff, run, defined)
        branch = _BRANCH.search("\n".join(run.added))
        if branch and run.function and any("else if (" in line for line in run.added):
            return self._branch(text, run, branch[1], branch[2].rstrip("\n").split("\n"))
        if run.function and run.opens:
            return self._head(text, run)
        if run.owner and _declared(run.added) and _declared(run.before[-1:]):
            return self._declare(text, run)
        return self._beside(text, run, needed=not run.is_printed)

    def _includes(self, text: Text, run: Run) -> Part:
        lacking = [line for line in run.added if line not in text.lines]
        place = f"{', '.join(line.split()[1] for line in lacking)} among the includes"
        if lacking:
            at = text.find_exactly(run) if len(lacking) == len(run.added) else None
            first = code.first_include(text.lines)
            blank = [""] if '"' in text.lines[first] else []
            text.replace(*((at, 0, lacking) if at is not None else (first, 0, lacking + blank)))
        return Part(FITS if lacking else APPLIED, place, run.added, needed=False)

    def _define(self, text: Text, diff: FileDiff, run: Run, names: list[str]) -> Part:
        caller = next((name for name in _behind(diff, run) if name), None)
        place = f"the functions {', '.join(names)} before {_called(caller)}"
        own = [n for n in names if self._is_own_member(text, run, n)]
        if own:
            return self._begin_own(text, run, own)
        blind = code.masked(text.joined)
        there = [name for name in names if _defines(blind, name)]
        if there:
            return Part(APPLIED if there == names else PARTLY, place, run.added)
        at = text.find_exactly(run)
        if at is None:
            function = code.function(text.joined, caller) if caller else None
            if function is None:
                return Part(LOST, place, run.added)
            at = text.line_of(function.start)
            lines = text.lines
            while at and lines[at - 1].lstrip().startswith(("//", "template")):
                at -= 1
        text.replace(at, 0, run.added)
        return Part(FITS, place, run.added)

    def _is_own_member(self, text: Text, run: Run, name: str) -> bool:
        """Whether a class here has a member function of this name that is not the patch's."""
        function = _member(text, run, name)
        return function is not None and not self._calls(function.code, run.added)

    def _begin_own(self, text: Text, run: Run, names: list[str]) -> Part:
        """Let a member function of the tree begin as the patch's does, up to its last line."""
        function = _member(text, run, names[0])
        ends = len(run.added) - 1 - run.added[::-1].index("}")
        head = next(at for at, line in enumerate(run.added) if _DEFINED.match(line))
        begun = run.added[head + 1 : ends - 1]
        at = text.line_of(function.brace) if function else 0
        is_alike = function and re.match(r"[^()]*\(\s*\)", function.code)
        if len(names) > 1 or not is_alike or not begun or not text.lines[at].endswith("{"):
            return Part(OWN, f"there is a function {', '.join(names)} here", run.added)
        text.replace(at + 1, 0, begun)
        return Part(FITS, f"what the patch's {names[0]} does at the head of the one here", begun)

    def _declare(self, text: Text, run: Run) -> Part:
        """Declare a member function behind the one that it stands behind in the patch."""
        assert run.owner
        name, neighbour = _declared(run.added), _declared(run.before[-1:])
        place = f"the declaration of {name} behind {neighbour} in {run.owner}"
        offsets = code.class_(text.joined, run.owner)
        if offsets is None:
            return Part(LOST, place, run.added)
        if text.find(run.added, _lines_of(text, *offsets)):
            return Part(APPLIED, place, run.added)
        body = code.masked(text.joined)[slice(*offsets)]
        if re.search(rf"\b{name}\s*\(", body):
            return Part(FITS, f"{name} is declared in {run.owner}", needed=False)
        found = [*re.finditer(rf"\b{neighbour}\s*\([^;{{}}]*\)[^;{{}}]*;", body)]
        if len(found) != 1:
            return Part(LOST, place, run.added)
        text.replace(text.line_of(offsets[0] + found[0].end()) + 1, 0, run.added)
        return Part(FITS, place, run.added)

    def _branch(self, text: Text, run: Run, condition: str, body: list[str]) -> Part:
        assert run.function
        function = self._function(text, run.function)
        called = _called(run.function)
        place = f"the branch for them before the last `else` of {called}"
        lines = (f"  }} else if ({condition}) {{", *body)
        if function is None:
            return Part(LOST, f"{place}, which is not found", lines)
        if self._calls(function.code, body):
            return Part(APPLIED, place, lines)
        own = self.policies & set(_POLICY.findall(code.uncommented(function.code)))
        if own:
            listed = ", ".join(f'"{name}"' for name in sorted(own))
            return Part(OWN, f"{called} has the policies {listed}", lines)
        for pattern, lack in (
            (
                r"\blr_policy = this->param_\.lr_policy\(\)",
                "`lr_policy = this->param_.lr_policy()`",
            ),
            (r"\brate\b", "`rate`"),
        ):
            if not re.search(pattern, function.code):
                return Part(LOST, f"{place}, which has no {lack}", lines)
        at = text.find_exactly(run)
        if at is not None:
            text.replace(at, len(run.removed), run.added)
            return Part(FITS, f"the branch for them in {called}", run.added)
        offset = code.last_else(function.code)
        at = offset and text.line_of(function.start + offset)
        if not at or not text.lines[at].lstrip().startswith(("}", "else")):
            return Part(LOST, f"{place}, which is not found", lines)
        text.replace(at, 0, _branch_before(text.lines[at], condition, body))
        return Part(FITS, place, lines)

    def _function(self, text: Text, name: Name | None) -> code.Function | None:
        """A function of the tree; one that is declared otherwise than in the patch is noted."""
        function = code.function(text.joined, name) if name else None
        if function:
            at = text.line_of(function.start)
            is_same = set(text.lines[at - 1 : at + 1]) <= self.context
            if not is_same and not self.declared_otherwise:
                self.declared_otherwise = _called(name)
        return function

    def _head(self, text: Text, run: Run) -> Part:
        assert run.function
        place = f"the checks at the head of {_called(run.function)}"
        function = self._function(text, run.function)
        if function is None:
            return Part(LOST, f"{place}, which is not found", run.added)
        if self._calls(function.code, run.added):
            return Part(APPLIED, place, run.added)
        at = text.line_of(function.brace)
        if not text.lines[at].endswith("{"):
            return Part(LOST, f"{place}, which has code beside its brace", run.added)
        text.replace(at + 1, 0, run.added)
        return Part(FITS, place, run.added)

    def _calls(self, there: str, lines: Iterable[str]) -> bool:
        """Whether code calls the functions of the patch that `lines` call, or holds the lines."""
        ours = "\n".join(lines)
        called = [name for name in self.functions if f"{name}(" in ours]
        if called:
            return all(f"{name}(" in there for name in called)
        return "".join(ours.split()) in "".join(there.split())

    def _beside(self, text: Text, run: Run, needed: bool = True) -> Part:
        first = next((line.strip("/ #") for line in run.added if line.strip("/ #")), "")
        is_code = needed or run.is_printed
        place = f'"{first}"' + (f" in {_called(run.function)}" if run.function and is_code else "")
        scope = self._scope(text, run) if is_code else range(len(text.lines))
        if scope is None:
            return Part(LOST, f"{place}, which is not found", run.added, needed)
        context = ((), ()) if is_code else (run.before[-1:], run.after[:1])
        if run.added and text.find((*context[0], *run.added, *context[1]), scope):
            return Part(APPLIED, place, run.added, needed)
        at = text.find_exactly(run, scope)
        if at is None:
            at = text.find_nearly(run, scope)
        if at is not None:
            text.replace(at, len(run.removed), run.added)
        elif run.added and text.find(run.added, scope):
            return Part(APPLIED, place, run.added, needed)
        elif run.exchanged is None:
            return Part(LOST, place, run.added, needed)
        elif len(text.ending(run.exchanged[0], scope)) == 1:
            _exchange(text, run.exchanged, scope)
        else:
            is_there = text.ending(run.exchanged[1], scope)
            return Part(FITS if is_there else LOST, place, run.added, needed and not is_there)
        if needed and run.function and run.exchanged:
            for name, lines in _siblings(text, run.function, run.exchanged[1]):
                if _exchange(text, run.exchanged, lines):
                    self.elsewhere.append(name)
                    place += f", and in {name}"
        return Part(FITS, place, run.added, needed)

    def _scope(self, text: Text, run: Run) -> range | None:
        """The lines of the function or class that a run is in; None where that is not here."""
        if run.function:
            function = self._function(text, run.function)
            offsets = (function.start, function.end) if function else None
        elif run.owner:
            offsets = code.class_(text.joined, run.owner)
        else:
            return range(len(text.lines))
        return offsets and _lines_of(text, *offsets)


def _fields(run: Run) -> list[re.Match[str]]:
    return [match for match in map(_FIELD.match, run.added) if match]


def _definitions(run: Run) -> list[str]:
    """The functions that a run of added lines defines."""
    return [] if run.removed else _DEFINED.findall("\n".join(run.added))


def _defines(blind: str, name: str) -> bool:
    """Whether masked code defines a function of this name."""
    return bool(re.search(rf"\b{name}\([^;{{}}]*\)[^;{{}}]*{{", blind))


def _declared(lines: tuple[str, ...]) -> str | None:
    """The member function that a line declares."""
    match = _DECLARED.fullmatch(lines[0]) if len(lines) == 1 else None
    return match and match[1]


def _member(text: Text, run: Run, name: str) -> code.Function | None:
    """The tree's function of the name and class of one that a run defines."""
    owner = re.search(rf"(\w+)<\w+>::{name}\(", "\n".join(run.added))
    return code.function(text.joined, (owner[1], name)) if owner else None


def _exchange(text: Text, exchanged: tuple[str, str], scope: range) -> bool:
    """Exchange what lines end with, whatever they begin with; returns whether there is one."""
    old, new = exchanged
    found = text.ending(old, scope)
    for at in found:
        text.replace(at, 1, [text.lines[at].removesuffix(old) + new])
    return bool(found)


def _siblings(text: Text, name: Name, code_there: str) -> Iterator[tuple[str, range]]:
    """The other member functions of a class that the code does not call, and their lines."""
    for function in code.members(text.joined, name[0]):
        member = re.split(r"\W+", function.code[: function.code.index("(")].rstrip())[-1]
        if member != name[1] and f"{member}(" not in code_there:
            yield f"{name[0]}::{member}", _lines_of(text, function.start, function.end)


def _lines_of(text: Text, start: int, end: int) -> range:
    return range(text.line_of(start), text.line_of(end) + 1)


def _behind(diff: FileDiff, run: Run) -> list[Name | None]:
    return [other.function for other in diff.runs[diff.runs.index(run) + 1 :]]


def _holds(path: Path, diff: FileDiff) -> bool:
    """Whether a file has one of the functions or classes that a patch changes in another."""
    text = path.read_text("latin-1")
    return any(code.function(text, name) for name in diff.functions) or any(
        code.class_(text, name) for name in diff.classes
    )


def _called(name: Name | None) -> str:
    return "::".join(name) if name else "what calls them"


def _branch_before(line: str, condition: str, body: list[str]) -> list[str]:
    """The branch that goes before the line of an `else`, with braces as that one has them."""
    indent = line[: len(line) - len(line.lstrip())]
    if line.lstrip().startswith("}"):
        return [f"{indent}}} else if ({condition}) {{", *body]
    return [f"{indent}else if ({condition})", f"{indent}{{", *body, f"{indent}}}"]
