"""What Jupyter notebooks show: tables, and the progress of a training."""

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Self

_SHOWN_SECONDS = 0.25  # from one picture of the progress to the next


def table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    caption: str = "",
) -> str:
    """An HTML table, with notes below it."""
    lines = [
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
        for tag, cells in [("th", heading), *(("td", row) for row in rows)]
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    below = "".join(f"<div>{escape(note)}</div>" for note in notes)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{above}{body}</table>{below}"


class Bars:
    """The progress of one training or several, in the output of a notebook's cell.

    A context, at whose end the bars are shown a last time. They need no widgets. Outside of
    a notebook, nothing is shown.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = -_SHOWN_SECONDS
        self._begun: int | None = None  # the iterations that were done before
        self._html = ""
        self._output: Any = None
        self._is_here = is_here()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._output:
            self._display(f"{self._html}<div>{_clock(self._seconds)} elapsed</div>")

    def show(self, done: Mapping[str, tuple[int, int]], note: str = "") -> None:
        """Show how far each training is.

        Args:
            done: the iterations done, and their total, by what is written beside the bar.
            note: what is written below the bars, with the time.
        """
        if not self._is_here:
            return
        rows = "".join(
            f"<tr><td>{escape(name)}</td>"
            f'<td><progress value="{iterations}" max="{total}"></progress></td>'
            f"<td>{iterations:,}/{total:,}</td></tr>"
            for name, (iterations, total) in done.items()
        )
        self._html = f"<table>{rows}</table>"
        trained = sum(iterations for iterations, _ in done.values())
        if self._begun is None:
            self._begun = trained
        if self._seconds - self._shown < _SHOWN_SECONDS:
            return
        self._shown = self._seconds
        left = sum(total for _, total in done.values()) - trained
        told = [note] if note else []
        told.append(f"{_clock(self._seconds)} elapsed")
        if left > 0 and trained > self._begun:
            told.append(f"about {_clock(self._seconds * left / (trained - self._begun))} left")
        self._display(f"{self._html}<div>{escape(', '.join(told))}</div>")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _display(self, content: str) -> None:
        from IPython.display import HTML, display

        html = HTML(content)  # type: ignore[no-untyped-call]
        if self._output is None:
            self._output = display(html, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(html)


def is_here() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
