"""Takes back an earlier change of a file that may have been edited since."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Undone:
    """A file without an earlier change.

    Args:
        content: the file; lines that were changed since are as they were.
        kept: a line of each comment of the change that was edited since, and so stays.
        lost: a line of each other part that was edited since, and cannot be taken back.
    """

    content: bytes
    kept: tuple[str, ...]
    lost: tuple[str, ...]


def undo(before: bytes, after: bytes, now: bytes) -> Undone:
    """Take back the change from `before` to `after`, and keep what was changed since.

    Lines are taken back where all of them are as the change left them.
    """
    if now == after:
        return Undone(before, (), ())
    old, new, own = _lines(before), _lines(after), _lines(now)
    here = _places(new, own)
    kept: list[str] = []
    lost: list[str] = []
    for kind, start, end, first, last in reversed(_matcher(old, new).get_opcodes()):
        if kind == "equal":
            continue
        removed, added = old[start:end], new[first:last]
        at = _place(here, first, last)
        if at is not None and first == last and _is_back(removed, own, at, new, first):
            continue
        if at is not None:
            own[at : at + len(added)] = removed
        else:
            told = kept if _is_comment(removed + added) else lost
            gone = [new[i] for i in range(first, last) if i not in here]
            told.append(next(line.strip() for line in [*gone, *added, *removed] if line.strip()))
    return Undone("".join(own).encode("latin-1"), tuple(kept[::-1]), tuple(lost[::-1]))


def _is_back(removed: list[str], own: list[str], at: int, new: list[str], first: int) -> bool:
    """Whether removed lines stand again beside their place, where the change has none such."""
    size = len(removed)

    def beside(lines: list[str], place: int) -> tuple[bool, bool]:
        behind, before = lines[place : place + size], lines[max(place - size, 0) : place]
        return behind == removed, before == removed

    return any(now and not then for now, then in zip(beside(own, at), beside(new, first)))


def _lines(content: bytes) -> list[str]:
    text = content.decode("latin-1")  # gives every byte back as it was
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [text.rpartition("\n")[2]]


def _matcher(old: list[str], new: list[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, old, new, autojunk=False)


def _places(old: list[str], new: list[str]) -> dict[int, int]:
    """The indices in `new` of the lines of `old` that are still there, by their indices."""
    blocks = _matcher(old, new).get_matching_blocks()
    return {old + i: new + i for old, new, size in blocks for i in range(size)}


def _place(here: dict[int, int], first: int, last: int) -> int | None:
    """Where lines stand in a row now; of no lines, the place behind or before their neighbour."""
    if first == last:
        return here[first - 1] + 1 if first - 1 in here else here.get(first)
    at = here.get(first)
    in_a_row = at is not None and all(here.get(i) == at + i - first for i in range(first, last))
    return at if in_a_row else None


def _is_comment(lines: list[str]) -> bool:
    return all(line.lstrip().startswith("//") or not line.strip() for line in lines)
