"""The interface through which a build reports its steps."""

from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """A running step; `note` is shown when it has ended."""

    note: str

    def advance(self, done: int, total: int) -> None:
        """Report that `done` of `total` parts are done."""


class Report(Protocol):
    """Shows the progress of a build."""

    def line(self, name: str, text: str) -> None:
        """Show a named fact."""

    def step(self, name: str) -> AbstractContextManager[Step]:
        """Show the start of a step and, on exit, its end or failure."""
