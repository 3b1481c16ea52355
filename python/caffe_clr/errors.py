"""Errors that end a command with one message instead of a traceback."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = "run the same command again"
KEPT = "records and snapshots are kept"


def counted(number: int, noun: str) -> str:
    """A number and its noun, as in 1 job and 2,000 jobs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def command(arguments: str) -> str:
    """A command of this program as its user types it, in backquotes."""
    return f"`{os.environ.get('CLR_COMMAND', 'caffe-clr')} {arguments}`"  # the script clr sets it


@contextmanager
def after_all_ranks() -> Iterator[None]:
    """Errors here come when all ranks have ended, and concern this one alone."""
    try:
        yield
    except (ClrError, Interrupted) as error:
        error.is_shared = True
        raise


class ClrError(Exception):
    """A run that failed: what was wrong, where, and what to do about it.

    Attributes:
        exit_status: that of the command.
        is_shared: whether all ranks that mpirun has started end, too.
    """

    exit_status = 1
    is_shared = False

    def saying(self, message: str) -> ClrError:
        """The same error with another message."""
        same = copy.copy(self)
        same.args = (message,)
        return same


class UsageError(ClrError):
    """An option or an argument that cannot be used."""

    exit_status = 2


class DivergedError(ClrError):
    """A training whose loss is no longer a number, or as good as none."""

    def __init__(self, message: str, iteration: int = 0) -> None:
        super().__init__(message)
        self.iteration = iteration


class DiedError(ClrError):
    """A training whose process ended by itself: Caffe gave up, or a signal killed it."""


class Interrupted(BaseException):
    """Ctrl-C or a request to end; not an Exception, so that nothing takes it for a failure."""

    is_shared = False

    def __init__(self, signal_number: int, remedy: str = AGAIN) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
        self.exit_status = 128 + signal_number
        self.remedy = remedy

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.signal_number).name}; {self.remedy}"

    def saying(self, remedy: str) -> Interrupted:
        """The same interruption with another remedy."""
        same = copy.copy(self)
        same.remedy = remedy
        return same
