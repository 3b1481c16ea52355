"""The state that the parts of a patch share while it is placed on a tree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_POLICY = re.compile(r"\blr_policy(?:\(\))?\s*==\s*\"(\w+)\"")


@dataclass
class Work:
    """The facts of a patch, and the findings so far.

    Args:
        functions: the functions that the patch defines.
        policies: the policies that it adds.
        context: the lines that it leaves unchanged.
        numbers: the numbers of the fields that it adds, by name.
        taken: the patch's numbers that other fields of the tree use, with their names.
        elsewhere: functions that the patch does not know, but that got its change as well.
        declared_otherwise: the first function that the tree declares differently.
    """

    functions: list[str]
    policies: set[str]
    context: set[str]
    numbers: dict[str, int] = field(default_factory=dict)
    taken: dict[int, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    declared_otherwise: str | None = None

    def is_called(self, code: str, lines: Iterable[str]) -> bool:
        """Whether code calls the functions of the patch that `lines` call, or holds the lines."""
        ours = "\n".join(lines)
        called = [name for name in self.functions if f"{name}(" in ours]
        if called:
            return all(f"{name}(" in code for name in called)
        return "".join(ours.split()) in "".join(code.split())


def policies(lines: Iterable[str]) -> set[str]:
    """The policies that lines of code compare lr_policy with."""
    return {*_POLICY.findall("\n".join(lines))}


def shown(name: tuple[str, str]) -> str:
    """A member function as messages name it."""
    return "::".join(name)
