"""The folder of a training run: what it holds, how it is written and how it is resumed.

    solver_1.prototxt …   the solver of each stage, as it is trained
    train.csv, test.csv   a row for each display and each test, written as they come
    snapshots/            .caffemodel and .solverstate; snapshots.csv lists the whole ones
                          by stage, iteration, and each file with its SHA-256, and what the
                          run knew by then that is in neither file
    caffe.log             what Caffe logged
    run.json              what is being trained, and whether it is finished

It stays usable whenever the process is killed: rows are written whole or
ignored, and a snapshot counts when it is in the list with its checksums. What
is damaged is left out, and said; a whole snapshot is enough to go on from.
"""

import glob
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.runs import begun_solvers, records, snapshots, status
from caffe_clr.runs.history import History, Phase, whole_lines

PLOT = "training.png"
_REPLACED = r"(train|test)\.csv|solver_\d+\.prototxt|training\.png"


def default_folder(solver_file: Path) -> Path:
    """runs/<solver name>-<time>, to the microsecond: several may be begun at once."""
    return Path("runs") / f"{solver_name(solver_file)}-{datetime.now():%Y%m%d-%H%M%S-%f}"


def newest_folder(solver_files: Sequence[Path]) -> Path:
    """The folder under runs/ that a run of these solvers was begun in last.

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
    """A solver file's name without what all of them end in."""
    return solver_file.stem.removesuffix("_solver") or solver_file.stem


def is_run(folder: Path) -> bool:
    names = (status.NAME, snapshots.NAME)
    return any((folder / name).exists() for name in names) or snapshots.has_states(folder)


def has_begun(folder: Path) -> bool:
    """Whether a folder has a run that came so far as to record or snapshot something."""
    recorded = any(any(records.read(folder, phase)) for phase in Phase)
    taken = snapshots.is_listed(folder) or snapshots.has_states(folder)
    return is_run(folder) and (recorded or taken)


def check_begun(folder: Path, solver: Any, seed: int) -> None:
    """Refuse another solver or seed than that of the run in a folder, if there is one.

    run_writer.open_run does so itself; this is to be called before others are trained.

    Args:
        solver: its SolverParameter.

    Raises:
        UsageError: says what is another.
    """
    if has_begun(folder):
        stage = type(solver)()
        stage.CopyFrom(solver)
        stage.random_seed = seed
        begun_solvers.check(folder, [stage])


def check_new(folder: Path, resume: bool) -> bool:
    """Refuse to begin where there is a run, and without --resume.

    Returns:
        Whether there is a run to go on with.

    Raises:
        UsageError: there is a run, or files that are no run's and that one would
            replace; says what to do instead.
    """
    check_replaced(folder, _REPLACED, is_own=is_run(folder))
    begun = has_begun(folder)
    if begun and not resume:
        raise UsageError(
            f"{folder} already has a run; continue it with --resume, or name another --out"
        )
    return begun


def check_replaced(folder: Path, names: str, *, is_own: bool) -> None:
    """Refuse to replace files that no command of this package has written.

    Args:
        names: a regular expression of those that are going to be written.
        is_own: whether the folder is one that such a command has written.

    Raises:
        UsageError: names one of them.
    """
    if is_own or not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        if re.fullmatch(names, name):
            raise UsageError(
                f"{folder / name} is there already, and would be replaced; move it, or name another"
                " --out"
            )


def is_own_table(path: Path) -> bool:
    """Whether a file begins as the tables of runs, logs and schedules do."""
    first = b"iteration,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(first)) == first


def read_history(folder: Path) -> History:
    """What the run in a folder has recorded so far; what cannot be read is left out."""
    return History(records.read(folder, Phase.TRAIN)[0], records.read(folder, Phase.TEST)[0])


def damage(folder: Path) -> list[str]:
    """What of the records of a run cannot be read, a line for each file."""
    found = [_damage_of_status(folder), *(records.read(folder, phase)[1] for phase in Phase)]
    return [problem for problem in found if problem]


def begun(folder: Path) -> dict[str, Any]:
    """What run.json says of the run in a folder; empty where that cannot be read."""
    if not is_run(folder) or _damage_of_status(folder):
        return {}
    return status.read(folder)[0]


def read_status(folder: Path) -> dict[str, Any]:
    """The run.json of a folder; what cannot be read of it is as of a run that was killed.

    Raises:
        ClrError: there is no run in the folder.
    """
    if not is_run(folder):
        inside = min(folder.glob(f"**/{status.NAME}"), default=None)
        hint = f"; {inside.parent} is one" if inside else f"; it would have a {status.NAME}"
        raise ClrError(f"{folder}: there is no run in it{hint}")
    return status.read(folder)[0]


def _damage_of_status(folder: Path) -> str | None:
    path = folder / status.NAME
    if not status.read(folder)[1]:
        return f"{path}: cannot be read; what it said is not used"
    if is_run(folder) and not path.exists():
        return f"{path}: is missing; what it said is not used"
    return None


def make_folder(folder: Path) -> None:
    """Make a folder to write a run into.

    Raises:
        ClrError: it cannot be made or written.
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
    """The last iteration that a run has recorded, or ended at; 0 where there is none."""
    tables = [whole_lines(records.table(folder, phase)) for phase in Phase]
    last = [lines[-1].split(",")[0] for lines in tables if len(lines) > 1]
    ended = int(status.read(folder)[0]["iteration"])
    return max(ended, *(int(cell) for cell in last if cell.isdecimal()), 0)
