"""The command that continues what was interrupted, as it can be pasted into a shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from caffe_clr.runs.ranks import Place

# what decides which Caffe and which layers are found, and how they compute
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONPATH")


def continuation(out: Path | None = None, resume: bool = False, mpi: bool = False) -> str:
    """Say with which command to continue: this one, in the same folder.

    It names the program as the user called it, and the variables that may be set for this
    command alone.

    Args:
        out: the folder to add as --out.
        resume: whether to add --resume.
        mpi: whether mpirun is to start it, with as many ranks as there are now.
    """
    added = [*(["--out", str(out)] if out else []), *(["--resume"] if resume else [])]
    variables = [
        f"{name}={shlex.quote(value)}" for name in _VARIABLES if (value := os.environ.get(name))
    ]
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    launcher = ["mpirun", "-n", str(Place.of(mpi).size)] if mpi else []
    words = [*launcher, *_program(), *arguments[:end], *added, *arguments[end:]]
    return f"continue with: {' '.join([*variables, shlex.join(words)])}"


def _program() -> list[str]:
    if os.path.basename(sys.argv[0]) == "__main__.py":
        return [_found(sys.executable), "-m", "caffe_clr"]
    return [_found(os.environ.get("CLR_COMMAND", sys.argv[0]))]  # the script clr sets it


def _found(program: str) -> str:
    """A program as the shell finds it: by its name where it is in PATH."""
    name = os.path.basename(program)
    return name if shutil.which(name) == program else program
