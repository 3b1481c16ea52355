"""The command line of caffe-clr: parses arguments, calls the package and prints the results.

Each command imports the slow modules that it needs.
"""

import signal
import sys
import traceback
from errno import ENOSPC
from io import TextIOWrapper
from types import FrameType

from rich.console import Console

from caffe_clr.cli.app import app
from caffe_clr.cli.commands import building as building
from caffe_clr.cli.commands import data as data
from caffe_clr.cli.commands import demo as demo
from caffe_clr.cli.commands import nets as nets
from caffe_clr.cli.commands import paper as paper
from caffe_clr.cli.commands import training as training
from caffe_clr.errors import ClrError, Interrupted

errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def main() -> None:
    """Run the command line; every error is one message and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app()
    except BaseException as error:
        _fail(error)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _fail(error: BaseException) -> None:
    """Tell what ended the command, and end."""
    exit_status: int | str = 1
    match error:
        case ClrError():
            message, exit_status = str(error), error.exit_status
        case Interrupted():
            message = error.remedy and f"interrupted; {error.remedy}"
            exit_status = error.exit_status
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            full = "; free some space and run the same command again"
            message = f"{place}{error.strerror or error}{full if error.errno == ENOSPC else ''}"
        case SystemExit():
            message, exit_status = "", error.code or 0
        case _:
            message = ""
            traceback.print_exception(error)
    if message:
        errors.print("error:", end=" ", style="bold red")
        errors.print(message, soft_wrap=True)
    if "--mpi" in sys.argv and not getattr(error, "is_shared", exit_status == 0):
        # mpirun then ends the other ranks, which the one of MPICH does not after an exit status
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    sys.exit(exit_status)
