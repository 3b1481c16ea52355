"""Runs a command, and shows what ended it."""

import signal
import sys

from rich.console import Console

from caffe_clr.cli.app import app
from caffe_clr.cli.commands import building as building
from caffe_clr.cli.commands import data as data
from caffe_clr.cli.commands import demo as demo
from caffe_clr.cli.commands import nets as nets
from caffe_clr.cli.commands import paper as paper
from caffe_clr.cli.commands import training as training
from caffe_clr.cli.ending import outcome, prepare

errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def main() -> None:
    """Run the command that the arguments of this process name."""
    prepare()
    try:
        app()
    except BaseException as error:
        _fail(error)


def _fail(error: BaseException) -> None:
    message, exit_status = outcome(error)
    if message:
        errors.print("error:", end=" ", style="bold red")
        errors.print(message, soft_wrap=True)
    if "--mpi" in sys.argv and not getattr(error, "is_shared", exit_status == 0):
        # mpirun then ends the other ranks, which the one of MPICH does not after an exit status
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    sys.exit(exit_status)
