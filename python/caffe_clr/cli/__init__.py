"""The command line of caffe-clr: parses arguments, calls the package and prints the results.

Each command imports the slow modules that it needs.
"""

import signal
import sys
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
    except ClrError as error:
        _fail(str(error), error.exit_status, error.signal_number)
    except Interrupted as interrupted:
        _fail(f"interrupted; {interrupted.remedy}", interrupted.exit_status)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "; free some space and run the same command again" if error.errno == ENOSPC else ""
        _fail(f"{place}{error.strerror or error}{remedy}", 1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _fail(message: str, exit_status: int, signal_number: int | None = None) -> None:
    errors.print("error:", end=" ", style="bold red")
    errors.print(message, soft_wrap=True)
    if signal_number:
        signal.signal(signal_number, signal.SIG_DFL)
        signal.raise_signal(signal_number)
    sys.exit(exit_status)
