"""How a command ends: by itself, by an error, or by a signal."""

from __future__ import annotations

import signal
import sys
import traceback
from errno import ENOSPC
from io import TextIOWrapper
from types import FrameType

from caffe_clr.errors import ClrError, Interrupted


def prepare() -> None:
    """Have signals raise Interrupted, and any name printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def outcome(error: BaseException) -> tuple[str, int | str]:
    """What to tell of that which ended a command, and the exit status; a bug is printed here."""
    if isinstance(error, ClrError):
        return str(error), error.exit_status
    if isinstance(error, Interrupted):
        return error.remedy and f"interrupted; {error.remedy}", error.exit_status
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        full = "; free some space and run the same command again"
        return f"{place}{error.strerror or error}{full if error.errno == ENOSPC else ''}", 1
    if isinstance(error, SystemExit):
        return "", error.code or 0
    traceback.print_exception(type(error), error, error.__traceback__)
    return "", 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
