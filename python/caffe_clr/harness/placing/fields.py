"""Places fields in SolverParameter, each with a free number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from caffe_clr.harness import code
from caffe_clr.harness.code import Text
from caffe_clr.harness.diffs import FileDiff, Run
from caffe_clr.harness.placing.parts import APPLIED, FITS, LOST, OWN, PARTLY, Part
from caffe_clr.harness.placing.work import Work

_MESSAGE = "SolverParameter"
_FIELD = re.compile(r"\s*(optional \S+|repeated \S+) (\w+) = (\d+)")
_NEXT_ID = re.compile(rf"({_MESSAGE} next available ID:\s*)\d+(\s*\(last added:\s*)(\w+)")


def is_next_id(lines: Iterable[str]) -> bool:
    """Whether lines contain the comment with the next free number of SolverParameter."""
    return any(map(_NEXT_ID.search, lines))


def solver_message(text: Text) -> code.Message | None:
    return code.message(text.joined, _MESSAGE)


def without_message(diff: FileDiff) -> Part:
    """The result for a file that does not define SolverParameter."""
    lines = tuple(line for run in diff.runs for line in run.added)
    reason = f"message {_MESSAGE} was not found"
    return Part(LOST, f"the fields of message {_MESSAGE}", lines, reason=reason)


def choose_numbers(work: Work, message: code.Message, diff: FileDiff) -> None:
    """Keep the patch's numbers if all are free; otherwise number after the highest field."""
    names = {f.number: f.name for f in message.fields}
    found = [match for run in diff.runs for match in _fields(run)]
    wanted = {m[2]: int(m[3]) for m in found if m[2] not in names.values()}
    work.taken = {n: names.get(n, "reserved") for n in wanted.values() if message.takes(n)}
    number = max(names, default=0)
    for name, own in sorted(wanted.items(), key=lambda item: item[1]):
        number += 1
        while message.takes(number):
            number += 1
        work.numbers[name] = number if work.taken else own


def place_fields(work: Work, text: Text, run: Run, before: code.Message) -> list[Part] | None:
    """Place a run of the patch.

    Args:
        before: the message as it was before the patch.

    Returns:
        The results for the run; None if it adds no field.
    """
    if is_next_id(run.added):
        return _next_id(work, text, before)
    return [_add(work, text, run, before)] if _fields(run) else None


def with_true_next_id(proto: bytes) -> bytes:
    """A caffe.proto whose comment with the next free number names a field that is there."""
    text = Text(proto)
    message = solver_message(text)
    numbers = {f.name: f.number for f in message.fields} if message else {}
    for at, line in enumerate(text.lines):
        named = _NEXT_ID.search(line)
        if named and numbers and named[3] not in numbers:
            text.replace(at, 1, [_with_next_id(line, numbers)])
    return text.encoded()


def _add(work: Work, text: Text, run: Run, before: code.Message) -> Part:
    fields = {m[2]: m[1] for m in _fields(run)}
    lines = tuple(_numbered(work, line) for line in run.added)
    present = {f.name: f for f in before.fields}
    there = [present[name] for name in fields if name in present]
    own = [f for f in there if fields[f.name] != f.type]
    if own:
        kept = ", ".join(f"{f.type} {f.name} = {f.number}" for f in own)
        return Part(OWN, f"{_MESSAGE} already has {kept}", lines)
    if there:
        shown = ", ".join(f"{f.name} = {f.number}" for f in there)
        state = APPLIED if len(there) == len(fields) else PARTLY
        return Part(state, f"{shown} in {_MESSAGE}", lines)
    shown = ", ".join(f"{name} = {work.numbers[name]}" for name in fields)
    at = text.find_exactly(run.sought)
    if at is not None:
        text.replace(at, 0, lines)
        return Part(FITS, f"{shown} in {_MESSAGE}", lines)
    now = solver_message(text)
    assert now
    text.replace(text.line_of(now.end), 0, ("", *lines))
    return Part(FITS, f"{shown} at the end of {_MESSAGE}", lines)


def _numbered(work: Work, line: str) -> str:
    """A line of the patch with the number that its field gets."""
    match = _FIELD.match(line)
    number = match and work.numbers.get(match[2])
    return f"{line[: match.start(3)]}{number}{line[match.end(3) :]}" if match and number else line


def _next_id(work: Work, text: Text, before: code.Message) -> list[Part]:
    numbers = {**{f.name: f.number for f in before.fields}, **work.numbers}
    for at, line in enumerate(text.lines):
        if _NEXT_ID.search(line) and work.numbers:
            fresh = _with_next_id(line, numbers)
            text.replace(at, 1, [fresh])
            return [Part(FITS, f'the comment "{fresh.strip("/ ")}"', (), needed=False)]
    return []


def _with_next_id(line: str, numbers: dict[str, int]) -> str:
    last = max(numbers, key=numbers.__getitem__)
    return _NEXT_ID.sub(rf"\g<1>{numbers[last] + 1}\g<2>{last}", line)


def _fields(run: Run) -> list[re.Match[str]]:
    return [match for match in map(_FIELD.match, run.added) if match]
