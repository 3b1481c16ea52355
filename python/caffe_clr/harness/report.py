"""What a build reports of its steps."""

from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """A step under way; `note` is told when it has ended."""

    note: str

    def advance(self, done: int, total: int) -> None:
        """Tell how many of how many parts of it are done."""


class Report(Protocol):
    """Is told what a build does."""

    def line(self, name: str, text: str) -> None:
        """Tell a fact."""

    def step(self, name: str) -> AbstractContextManager[Step]:
        """Tell that a step begins and, when it is left, that it has ended, well or not."""
