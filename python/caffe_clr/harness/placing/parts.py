"""What becomes of a patch on a tree, part by part."""

from dataclasses import dataclass, field

# What becomes of a part of a patch, or of all of it
FITS = "fits"
APPLIED = "is already applied"
PARTLY = "is partly applied"
OWN = "collides with what this Caffe has of its own"
LOST = "has no place"
NO_FILE = "there is no such file"


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
        files: what it does, file by file.
        numbers: of the fields that it adds, by name.
        taken: the patch's own numbers that other fields of the tree have, with their names.
        elsewhere: functions that the patch does not know, but has to change as well.
    """

    files: list[FilePlacement]
    numbers: dict[str, int]
    taken: dict[int, str]
    elsewhere: list[str]

    @property
    def state(self) -> str:
        """FITS, or why nothing of it is to be written."""
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
            return "these numbers are the patch's own, and free here"
        taken = ", ".join(f"{number} is {name}" for number, name in self.taken.items())
        return (
            f"the next numbers that are free: of the patch's own, {taken} here (a number matters"
            " only to binary solver files, which nobody writes)"
        )
