"""Places whole functions, their declarations, and includes."""

from __future__ import annotations

import re

from caffe_clr.harness import code, diffs
from caffe_clr.harness.code import Text
from caffe_clr.harness.diffs import Name, Run
from caffe_clr.harness.placing.parts import APPLIED, FITS, LOST, OWN, PARTLY, Part
from caffe_clr.harness.placing.work import Work, shown

_DECLARED = re.compile(r"\s+[\w:<>&* ]*[ &*](\w+)\([^;{}]*\)[^;{}]*;$")


def add_includes(text: Text, run: Run) -> Part:
    """Add the includes that a file lacks."""
    lacking = [line for line in run.added if line not in text.lines]
    place = f"{', '.join(line.split()[1] for line in lacking)} among the includes"
    if lacking:
        at = text.find_exactly(run.sought) if len(lacking) == len(run.added) else None
        first = code.first_include(text.lines)
        blank = [""] if '"' in text.lines[first] else []
        text.replace(*((at, 0, lacking) if at is not None else (first, 0, lacking + blank)))
    return Part(FITS if lacking else APPLIED, place, run.added, needed=False)


def add_functions(work: Work, text: Text, run: Run, caller: Name | None) -> Part:
    """Define functions before the one that calls them."""
    names = run.defined
    before = shown(caller) if caller else "the code that calls them"
    noun = "function" if len(names) == 1 else "functions"
    place = f"the {noun} {', '.join(names)} before {before}"
    own = [name for name in names if _is_own(work, text, run, name)]
    if own:
        return _begin_own(text, run, own)
    blind = code.masked(text.joined)
    there = [name for name in names if code.defines(blind, name)]
    if there:
        return Part(APPLIED if there == names else PARTLY, place, run.added)
    at = text.find_exactly(run.sought)
    if at is None:
        at = _before(text, caller)
    if at is None:
        return Part(LOST, place, run.added, reason=f"{before} was not found")
    text.replace(at, 0, run.added)
    return Part(FITS, place, run.added)


def is_declaration(run: Run) -> bool:
    """Whether a run declares a member function after another one."""
    return bool(run.owner and _declared(run.added) and _declared(run.before[-1:]))


def add_declaration(text: Text, run: Run) -> Part:
    """Declare a member function after the one that it follows in the patch."""
    assert run.owner
    name, neighbour = _declared(run.added), _declared(run.before[-1:])
    place = f"the declaration of {name} after {neighbour} in {run.owner}"
    offsets = code.class_(text.joined, run.owner)
    if offsets is None:
        return Part(LOST, place, run.added, reason=f"class {run.owner} was not found")
    if text.find(run.added, text.span(*offsets)):
        return Part(APPLIED, place, run.added)
    body = code.masked(text.joined)[slice(*offsets)]
    if re.search(rf"\b{name}\s*\(", body):
        return Part(FITS, f"{run.owner} already declares {name}", needed=False)
    found = [*re.finditer(rf"\b{neighbour}\s*\([^;{{}}]*\)[^;{{}}]*;", body)]
    if len(found) != 1:
        reason = f"{run.owner} does not declare {neighbour} once"
        return Part(LOST, place, run.added, reason=reason)
    text.replace(text.line_of(offsets[0] + found[0].end()) + 1, 0, run.added)
    return Part(FITS, place, run.added)


def _before(text: Text, caller: Name | None) -> int | None:
    """The line before a function, and before the comment above it."""
    function = code.function(text.joined, caller) if caller else None
    if function is None:
        return None
    at, lines = text.line_of(function.start), text.lines
    while at and lines[at - 1].lstrip().startswith(("//", "template")):
        at -= 1
    return at


def _is_own(work: Work, text: Text, run: Run, name: str) -> bool:
    """Whether a class here has a member function of this name that is not the patch's."""
    function = _member(text, run, name)
    return function is not None and not work.is_called(function.code, run.added)


def _begin_own(text: Text, run: Run, names: list[str]) -> Part:
    """Put the patch's function, but for its last line, at the head of the tree's own one."""
    function = _member(text, run, names[0])
    ends = len(run.added) - 1 - run.added[::-1].index("}")
    head = next(at for at, line in enumerate(run.added) if diffs.defined([line]))
    begun = run.added[head + 1 : ends - 1]
    at = text.line_of(function.brace) if function else 0
    is_alike = function and re.match(r"[^()]*\(\s*\)", function.code)
    if len(names) > 1 or not is_alike or not begun or not text.lines[at].endswith("{"):
        return Part(OWN, f"this Caffe already has a function {', '.join(names)}", run.added)
    text.replace(at + 1, 0, begun)
    return Part(FITS, f"the code of {names[0]} at the head of the existing function", begun)


def _member(text: Text, run: Run, name: str) -> code.Function | None:
    """The tree's function of the name and class of one that a run defines."""
    owner = re.search(rf"(\w+)<\w+>::{name}\(", "\n".join(run.added))
    return code.function(text.joined, (owner[1], name)) if owner else None


def _declared(lines: tuple[str, ...]) -> str | None:
    """The member function that a line declares."""
    match = _DECLARED.fullmatch(lines[0]) if len(lines) == 1 else None
    return match and match[1]
