"""Runs caffe-clr in forks of a process that has imported it, since importing takes a second.

    python fork_server.py

Each line of standard input asks for a run, as JSON: its arguments, folder, environment,
and the files for its output. The answer is a line with its exit status.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import caffe_clr
from caffe_clr.cli import entry

PROGRAM = Path(caffe_clr.__file__).with_name("__main__.py")


class Server:
    """A process that runs commands, with these variables in its environment from its start on."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
        """What `python -m caffe_clr` does with these arguments in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as temporary:
            files = [Path(temporary, name) for name in ("stdout", "stderr")]
            request = {
                "arguments": arguments,
                "folder": str(folder),
                "environment": {**os.environ, **self._variables},
                "files": list(map(str, files)),
            }
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(
                arguments, status, *(file.read_text() for file in files)
            )

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Answer requests until standard input ends."""
    import caffe_clr.method.plots  # noqa: F401  # with matplotlib

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: dict[str, Any]) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    for stream, file in zip((sys.stdout, sys.stderr), request["files"], strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [str(PROGRAM), *request["arguments"]]
    try:
        entry.main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
