"""Shows the steps of a build, each with its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from caffe_clr.errors import Interrupted
from caffe_clr.harness.report import Report


@dataclass
class ConsoleStep:
    """A step in progress; when it has ended, `note` is shown after its time."""

    progress: Progress
    task: TaskID
    note: str = ""

    def advance(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


class ConsoleReport(Report):
    """Prints the steps of a build to a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def line(self, name: str, text: str) -> None:
        self._print(name, text)

    @contextmanager
    def step(self, name: str) -> Iterator[ConsoleStep]:
        """Show `name` while the step runs, then its time and whether it failed."""
        start = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn(f"{name:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
        )
        outcome = Text("failed", "red")
        shown = self.console.is_terminal
        with Progress(
            *columns, console=self.console, transient=True, disable=not shown
        ) as progress:
            step = ConsoleStep(progress, progress.add_task(name, total=None))
            try:
                yield step
                outcome = Text(step.note)
            except Interrupted:
                outcome = Text("interrupted", "yellow")
                raise
            finally:
                progress.stop()
                seconds = f"{time.monotonic() - start:.1f} s"
                self._print(name, f"{seconds:>8}  ", outcome)

    def _print(self, name: str, *parts: str | Text) -> None:
        self.console.print(Text.assemble((f"{name:<10} ", "bold"), *parts), soft_wrap=True)
