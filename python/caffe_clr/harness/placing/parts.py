"""The result of placing a patch on a tree, part by part."""

from __future__ import annotations

from dataclasses import dataclass, field

# the states of a part, and of a patch
FITS = "fits"
APPLIED = "is already applied"
PARTLY = "is partly applied"
OWN = "conflicts with code of this Caffe"
LOST = "cannot be placed"
NO_FILE = "does not exist"


@dataclass(frozen=True)
class Part:
    """The result for a run of changed lines, or for a whole file.

    Args:
        state: FITS, APPLIED, PARTLY, OWN or LOST.
        place: a description of the lines and where they go or already are.
        lines: the lines to add there.
        needed: whether the policies need it.
        reason: why it cannot be placed, where `place` does not say so.
    """

    state: str
    place: str
    lines: tuple[str, ...] = ()
    needed: bool = True
    reason: str = ""

    @property
    def problem(self) -> str:
        """The place, and why the lines cannot go there."""
        return f"{self.place}: {self.reason}" if self.reason else self.place

    @property
    def is_code(self) -> bool:
        return self.needed or any(line.startswith("#include") for line in self.lines)


@dataclass
class FilePlacement:
    """The result for one file, by its name in the tree; content None leaves the file alone."""

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
        files: the result for each file.
        numbers: the numbers of the fields that it adds, by name.
        taken: the patch's numbers that other fields of the tree use, with their names.
        elsewhere: functions that the patch does not know, but that need its change as well.
    """

    files: list[FilePlacement]
    numbers: dict[str, int]
    taken: dict[int, str]
    elsewhere: list[str]

    @property
    def state(self) -> str:
        """FITS, or the reason to write none of it."""
        states = {part.state for file in self.files for part in file.parts if part.needed}
        if OWN in states:
            return OWN
        if states <= {APPLIED}:
            return APPLIED
        if states & {APPLIED, PARTLY}:
            return PARTLY
        return LOST if LOST in states else FITS

    @property
    def reason(self) -> str:
        """Why the fields have these numbers."""
        if not self.taken:
            return "numbered as in the patch"
        taken = ", ".join(f"{number} ({name})" for number, name in self.taken.items())
        return (
            f"numbered after the highest field, because this Caffe uses {taken}; field numbers"
            " matter only in binary solver files, which Caffe never writes"
        )
