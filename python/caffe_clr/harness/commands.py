"""Runs other programs, with their output in a log."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from caffe_clr.errors import ClrError

# what a compiler, linker, CMake, apt or the system says of the first thing that went wrong
_ERROR = re.compile(
    r"error:|^CMake Error|^E: |undefined reference|No space left on device|\[  FAILED  \]"
)
_LINES_SHOWN = 4
_COLUMNS_SHOWN = 200


def run(
    command: Sequence[str],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a command, appending it and its output to `log`; end it when interrupted.

    Args:
        env: variables to set beside those of this process.
        on_line: called with each line of output.

    Raises:
        ClrError: the program is missing or exits non-zero; holds the first
            error in its output and the log's path.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output: list[str] = []
    with log.open("a", buffering=1) as file, ExitStack() as stack:
        file.write(f"+ {shlex.join(command)}\n")
        with _uninterrupted():
            process = stack.enter_context(_start(command, cwd, env))
            stack.push(partial(_end_group, process.pid))
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            output.append(line.rstrip())
            on_line(output[-1])
    if process.returncode != 0:
        raise ClrError(
            f"{Path(command[0]).name} failed (exit status {process.returncode}):\n"
            f"{_first_error(output)}\nfull log: {log}"
        )


def _start(
    command: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ClrError(f"{command[0]} is not installed; see `caffe-clr doctor`") from None


def _end_group(leader: int, kind: type[BaseException] | None, *_: object) -> None:
    """End a program and what it has started, where an exception leaves it running."""
    if kind is not None:
        os.killpg(leader, signal.SIGTERM)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have signals wait for the end: a program just started would outlive an interruption."""
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for each in came:
        signal.raise_signal(each)


def _first_error(output: Sequence[str]) -> str:
    found = next((i for i, line in enumerate(output) if _ERROR.search(line)), None)
    lines = output[-_LINES_SHOWN:] if found is None else output[found : found + _LINES_SHOWN]
    return "\n".join(f"  {line[:_COLUMNS_SHOWN]}" for line in lines)
