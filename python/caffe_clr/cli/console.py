"""The console that the commands share, with progress, warnings and a remedy at Ctrl-C."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Column, Table

from caffe_clr.errors import DiedError, Interrupted

# what is shown has names and paths of users, which may look like markup
console = Console(highlight=False, markup=False, emoji=False)


def warn(warnings: Sequence[str], console: Console) -> None:
    for warning in warnings:
        console.print("warning:", end=" ", style="yellow")
        console.print(warning, soft_wrap=True)


def table(
    title: str | None, names: Sequence[Column | str], numbers: Sequence[str], **options: Any
) -> Table:
    """A table whose first columns are words, and whose next are numbers.

    Args:
        options: of Table.
    """
    shown = Table(
        *names,
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        **options,
    )
    for heading in numbers:
        shown.add_column(heading, justify="right", no_wrap=True)
    return shown


def reading(console: Console) -> Status:
    """Show that data is being read, which may take minutes for a LevelDB."""
    return console.status("reading solver, nets and data")


@contextmanager
def resumable(remedy: str) -> Iterator[None]:
    """Add a remedy to an interruption, or to the death of a training."""
    try:
        yield
    except Interrupted as interrupted:
        raise interrupted.saying(remedy) from None
    except DiedError as error:
        raise error.saying(f"{error}\n{remedy}") from None


@contextmanager
def progress(console: Console, bar: bool = True) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        *((BarColumn(bar_width=8),) if bar else ()),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as shown:
        yield shown
