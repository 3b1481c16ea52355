"""Places lines in functions: branches, checks, added lines and replaced lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caffe_clr.harness import code
from caffe_clr.harness.code import Text
from caffe_clr.harness.diffs import Name, Run
from caffe_clr.harness.placing.parts import APPLIED, FITS, LOST, OWN, Part
from caffe_clr.harness.placing.work import Work, policies, shown

_BRANCH = re.compile(r"^ *(?:} else )?if \((.*)\) {\n((?:(?! *}).*(?:\n|$))+)", re.MULTILINE)
_USED_BY_BRANCH = {
    r"\blr_policy = this->param_\.lr_policy\(\)": "`lr_policy = this->param_.lr_policy()`",
    r"\brate\b": "`rate`",
}


@dataclass(frozen=True)
class Branch:
    """An `if` of a patch that follows others."""

    condition: str
    body: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        return f"  }} else if ({self.condition}) {{", *self.body

    def before(self, line: str) -> tuple[str, ...]:
        """The branch to put before the line of an `else`, with braces in its style."""
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith("}"):
            return f"{indent}}} else if ({self.condition}) {{", *self.body
        return f"{indent}else if ({self.condition})", f"{indent}{{", *self.body, f"{indent}}}"


def branch_of(run: Run) -> Branch | None:
    """The branch that a run adds to a function."""
    found = _BRANCH.search("\n".join(run.added))
    if not found or not run.function or not any("else if (" in line for line in run.added):
        return None
    return Branch(found[1], tuple(found[2].rstrip("\n").split("\n")))


def add_branch(work: Work, text: Text, run: Run, branch: Branch) -> Part:
    """Add a branch for policies before the last `else` of the function that compares them."""
    assert run.function
    function = _function(work, text, run.function)
    called = shown(run.function)
    place = f"the branch for the policies before the last `else` of {called}"
    if function is None:
        return Part(LOST, place, branch.lines, reason=f"{called} was not found")
    if work.is_called(function.code, branch.body):
        return Part(APPLIED, place, branch.lines)
    own = work.policies & policies([code.uncommented(function.code)])
    if own:
        listed = ", ".join(f'"{name}"' for name in sorted(own))
        return Part(OWN, f"{called} already has the policies {listed}", branch.lines)
    for pattern, lack in _USED_BY_BRANCH.items():
        if not re.search(pattern, function.code):
            return Part(LOST, place, branch.lines, reason=f"{called} has no {lack}")
    at = text.find_exactly(run.sought)
    if at is not None:
        text.replace(at, len(run.removed), run.added)
        return Part(FITS, f"the branch for the policies in {called}", run.added)
    offset = code.last_else(function.code)
    at = offset and text.line_of(function.start + offset)
    if not at or not text.lines[at].lstrip().startswith(("}", "else")):
        reason = f"{called} has no `else` after its policies"
        return Part(LOST, place, branch.lines, reason=reason)
    text.replace(at, 0, branch.before(text.lines[at]))
    return Part(FITS, place, branch.lines)


def add_check(work: Work, text: Text, run: Run) -> Part:
    """Add checks to the head of a function."""
    assert run.function
    called = shown(run.function)
    place = f"the checks at the head of {called}"
    function = _function(work, text, run.function)
    if function is None:
        return Part(LOST, place, run.added, reason=f"{called} was not found")
    if work.is_called(function.code, run.added):
        return Part(APPLIED, place, run.added)
    at = text.line_of(function.brace)
    if not text.lines[at].endswith("{"):
        reason = f"{called} has code on the line of its opening brace"
        return Part(LOST, place, run.added, reason=reason)
    text.replace(at + 1, 0, run.added)
    return Part(FITS, place, run.added)


def put_beside(work: Work, text: Text, run: Run, needed: bool = True) -> Part:
    """Put lines beside their neighbours in the patch, or in place of the line they replace.

    Code goes only into its function or class; comments may go anywhere.
    """
    is_code = needed or run.is_printed
    place = _place(run, is_code)
    scope = _scope(work, text, run) if is_code else range(len(text.lines))
    if scope is None:
        owner = shown(run.function) if run.function else run.owner
        return Part(LOST, place, run.added, needed, f"{owner} was not found")
    if _is_there(text, run, scope, is_code):
        return Part(APPLIED, place, run.added, needed)
    at = text.find_exactly(run.sought, scope)
    if at is None:
        at = text.find_nearly(run.sought, scope)
    if at is not None:
        text.replace(at, len(run.removed), run.added)
    elif run.added and text.find(run.added, scope):
        return Part(APPLIED, place, run.added, needed)
    elif run.exchanged and len(text.ending(run.exchanged[0], scope)) == 1:
        _exchange(text, run.exchanged, scope)
    elif run.exchanged and text.ending(run.exchanged[1], scope):
        return Part(FITS, place, run.added, needed=False)
    else:
        reason = "the lines around it are not in this Caffe"
        return Part(LOST, place, run.added, needed, reason)
    elsewhere = _exchange_elsewhere(text, run) if needed else []
    work.elsewhere += elsewhere
    return Part(FITS, ", and in ".join([place, *elsewhere]), run.added, needed)


def _place(run: Run, is_code: bool) -> str:
    first = next((line.strip("/ #") for line in run.added if line.strip("/ #")), "")
    return f'"{first}"' + (f" in {shown(run.function)}" if run.function and is_code else "")


def _scope(work: Work, text: Text, run: Run) -> range | None:
    """The lines of the function or class that a run is in; None if it was not found."""
    if run.function:
        function = _function(work, text, run.function)
        return text.span(function.start, function.end) if function else None
    if run.owner:
        offsets = code.class_(text.joined, run.owner)
        return text.span(*offsets) if offsets else None
    return range(len(text.lines))


def _function(work: Work, text: Text, name: Name) -> code.Function | None:
    """A function of the tree; notes whether the tree declares it differently from the patch."""
    function = code.function(text.joined, name)
    if function:
        at = text.line_of(function.start)
        is_same = set(text.lines[at - 1 : at + 1]) <= work.context
        if not is_same and not work.declared_otherwise:
            work.declared_otherwise = shown(name)
    return function


def _is_there(text: Text, run: Run, scope: range, is_code: bool) -> bool:
    """Whether a text has the lines of a run and, unless they are code, their neighbours."""
    around: Sequence[tuple[str, ...]] = ((), ()) if is_code else (run.before[-1:], run.after[:1])
    return bool(run.added and text.find((*around[0], *run.added, *around[1]), scope))


def _exchange(text: Text, exchanged: tuple[str, str], scope: range) -> bool:
    """Exchange the ends of lines, whatever they begin with; returns whether there are any."""
    old, new = exchanged
    found = text.ending(old, scope)
    for at in found:
        text.replace(at, 1, [text.lines[at][: -len(old)] + new])
    return bool(found)


def _exchange_elsewhere(text: Text, run: Run) -> list[str]:
    """Exchange a line in other functions of its class as well; returns which."""
    if not run.function or not run.exchanged:
        return []
    siblings = _siblings(text, run.function, run.exchanged[1])
    return [name for name, scope in siblings if _exchange(text, run.exchanged, scope)]


def _siblings(text: Text, name: Name, code_there: str) -> Iterator[tuple[str, range]]:
    """The other member functions of a class that the code does not call, and their lines."""
    for function in code.members(text.joined, name[0]):
        member = re.split(r"\W+", function.code[: function.code.index("(")].rstrip())[-1]
        if member != name[1] and f"{member}(" not in code_there:
            yield f"{name[0]}::{member}", text.span(function.start, function.end)
