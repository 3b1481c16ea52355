"""The folder of a training run: what it holds, and how it is checked and read.

    solver_1.prototxt …   the solver of each stage, as it was trained
    train.csv, test.csv   a row for each display and each test, written as they come
    snapshots/            .caffemodel and .solverstate files
    snapshots.csv         lists the complete snapshots, with stage, iteration, the SHA-256
                          of each file, and state of the run that neither file holds
    caffe.log             Caffe's log
    run.json              what is trained, and whether it has finished

The folder stays usable if the process is killed at any time: incomplete rows are ignored,
and a snapshot counts once it is listed with its checksums. Damaged files are skipped and
reported. One complete snapshot is enough to continue.
"""

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.runs import begun_solvers, records, snapshots, status
from caffe_clr.runs.history import History, Phase, whole_lines
from caffe_clr.runs.options import PlotFormat
from caffe_clr.system.paths import StrPath

PLOT = "training"  # its file without the suffix
PLOTS = f"({'|'.join(PlotFormat)})"  # a regular expression for their suffixes
_TIME = re.compile(r"-\d{8}(-\d{6})-\d{6}$")
CLOCKS = ("", r"\1", r"\g<0>")  # nothing, the time of the day, and all of it
_LONGEST, _SHORTENED = 40, 24  # characters of names in a folder's name
_REPLACED = rf"(train|test)\.csv|solver_\d+\.prototxt|{PLOT}\.{PLOTS}"


def default_folder(solver_file: Path) -> Path:
    """runs/<solver name>-<time>, with microseconds, because several may start at once."""
    return Path("runs") / f"{solver_name(solver_file)}-{datetime.now():%Y%m%d-%H%M%S-%f}"


def with_clock(name: str, clock: str) -> str:
    """The name of a folder with one of CLOCKS for the time that default_folder adds."""
    return _TIME.sub(clock, name)


def named_after(command: str, names: Sequence[str]) -> Path:
    """runs/<command>-<names>, the same for the same names.

    Where that is long, it has the first name and a few characters of a hash instead.
    """
    whole = "-".join(names)
    long = Path("runs") / f"{command}-{whole}"
    if len(whole) <= _LONGEST or long.is_dir():  # it has been written by an earlier version
        return long
    others = f"-and-{len(names) - 1}-more" if names[1:] else ""
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:6]
    return Path("runs") / f"{command}-{names[0][:_SHORTENED]}{others}-{digest}"


def newest_folder(solver_files: Sequence[Path]) -> Path:
    """The newest folder under runs/ with a run of these solvers.

    Raises:
        UsageError: there is none.
    """
    wanted = [str(file) for file in solver_files]
    name = glob.escape(solver_name(solver_files[0]))
    folders = Path("runs").glob(f"{name}-*")
    for folder in sorted((f for f in folders if is_run(f)), reverse=True):
        if read_status(folder)["solvers"] == wanted:
            return folder
    raise UsageError("--resume: no run of these solvers under runs/; name its folder with --out")


def solver_name(solver_file: Path) -> str:
    """A solver file's name without its suffix and a trailing _solver."""
    return solver_file.stem.removesuffix("_solver") or solver_file.stem


def is_run(folder: Path) -> bool:
    names = (status.NAME, snapshots.NAME)
    return any((folder / name).exists() for name in names) or snapshots.has_states(folder)


def has_begun(folder: Path) -> bool:
    """Whether a folder has a run that has recorded or snapshot something."""
    recorded = any(any(records.read(folder, phase)) for phase in Phase)
    taken = snapshots.is_listed(folder) or snapshots.has_states(folder)
    return is_run(folder) and (recorded or taken)


def check_begun(folder: Path, solver: Any, seed: int) -> None:
    """Refuse a solver or seed that differs from the run in a folder, if there is one.

    run_writer.open_run checks this itself; call this to check it before other runs are
    trained.

    Args:
        solver: a SolverParameter.

    Raises:
        UsageError: names the fields that differ.
    """
    if has_begun(folder):
        stage = type(solver)()
        stage.CopyFrom(solver)
        stage.random_seed = seed
        begun_solvers.check(folder, [stage])


def check_new(folder: Path, resume: bool) -> bool:
    """Refuse to start in a folder that has a run, unless `resume` is set.

    Returns:
        Whether there is a run to continue.

    Raises:
        UsageError: the folder has a run, or other files that a run would overwrite; says
            what to do instead.
    """
    check_replaced(folder, _REPLACED, is_own=is_run(folder))
    begun = has_begun(folder)
    if begun and not resume:
        raise UsageError(
            f"{folder} already has a run; continue it with --resume, or name another --out"
        )
    return begun


def check_replaced(folder: Path, names: str, *, is_own: bool) -> None:
    """Refuse to overwrite files that no command of this package wrote.

    Args:
        names: a regular expression for the files that will be written.
        is_own: whether a command of this package wrote the folder.

    Raises:
        UsageError: names one of the files.
    """
    if is_own or not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        if re.fullmatch(names, name):
            raise UsageError(
                f"{folder / name} already exists and would be overwritten; move it, or name another"
                " --out"
            )


def is_own_table(path: Path) -> bool:
    """Whether a file starts like the tables of runs, logs and schedules."""
    first = b"iteration,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(first)) == first


def read_history(folder: StrPath) -> History:
    """The records of the run in a folder so far; lines that cannot be read are skipped."""
    folder = Path(folder)
    return History(records.read(folder, Phase.TRAIN)[0], records.read(folder, Phase.TEST)[0])


def damage(folder: Path) -> list[str]:
    """A message for each file of a run's records that is damaged."""
    found = [_damage_of_status(folder), *(records.read(folder, phase)[1] for phase in Phase)]
    return [problem for problem in found if problem]


def begun(folder: Path) -> dict[str, Any]:
    """The run.json of the run in a folder; empty if it cannot be read."""
    if not is_run(folder) or _damage_of_status(folder):
        return {}
    return status.read(folder)[0]


def read_status(folder: Path) -> dict[str, Any]:
    """The run.json of a folder; if it cannot be read, that of a killed run.

    Raises:
        ClrError: the folder has no run.
    """
    if not is_run(folder):
        inside = min(folder.glob(f"**/{status.NAME}"), default=None)
        hint = f"; did you mean {inside.parent}?" if inside else f"; it has no {status.NAME}"
        raise ClrError(f"{folder} is not a run folder{hint}")
    return status.read(folder)[0]


def _damage_of_status(folder: Path) -> str | None:
    path = folder / status.NAME
    if not status.read(folder)[1]:
        return f"{path}: cannot be read; continuing without it"
    if is_run(folder) and not path.exists():
        return f"{path}: is missing; continuing without it"
    return None


def make_folder(folder: Path) -> None:
    """Make a folder to write a run into.

    Raises:
        ClrError: the folder cannot be made, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ClrError(
            f"{folder}: cannot be written: {error.strerror}; name another --out"
        ) from None


def last_iteration(folder: Path) -> int:
    """The last iteration that a run recorded or ended at; 0 if there is none."""
    tables = [whole_lines(records.table(folder, phase)) for phase in Phase]
    last = [lines[-1].split(",")[0] for lines in tables if len(lines) > 1]
    ended = int(status.read(folder)[0]["iteration"])
    return max(ended, *(int(cell) for cell in last if cell.isdecimal()), 0)
