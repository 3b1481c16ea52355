"""Checks that a run is resumed with the solvers it was started with."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.prototxt import text_parser
from caffe_clr.prototxt.text_parser import TextError

# what may change between the parts of a run without changing what was trained before
_CHANGEABLE = (
    *("display", "max_iter", "snapshot", "test_iter", "test_interval", "test_initialization"),
    *("solver_mode", "device_id", "snapshot_prefix"),
)


def solver_file(folder: Path, stage: int) -> Path:
    """The solver file of a stage, counted from 0, in a run folder."""
    return folder / f"solver_{stage + 1}.prototxt"


def solver_files(folder: Path) -> list[Path]:
    """The solver files of all stages in a run folder.

    Raises:
        ClrError: there are none.
    """
    named = (solver_file(folder, stage) for stage in itertools.count())
    files = list(itertools.takewhile(Path.is_file, named))
    if not files:
        raise ClrError(f"{solver_file(folder, 0)}: is missing; plot this run without --together")
    return files


def write(folder: Path, stages: Sequence[Any]) -> None:
    """Write the SolverParameter of each stage."""
    for index, stage in enumerate(stages):
        solver_file(folder, index).write_text(text_format.MessageToString(stage))


def check(folder: Path, stages: Sequence[Any]) -> list[str]:
    """Refuse stages that differ from those of the run in a folder.

    Args:
        stages: the SolverParameter of each.

    Returns:
        A message for each solver file in the folder that cannot be read.

    Raises:
        UsageError: names the fields that differ.
    """
    problems = [
        _check_same(solver_file(folder, index), stage) for index, stage in enumerate(stages)
    ]
    return [problem for problem in problems if problem]


def _check_same(begun_file: Path, stage: Any) -> str | None:
    """Refuse a stage that is not the one in a file; says so where that cannot be read."""
    try:
        begun = text_parser.parse(begun_file.read_bytes(), type(stage)())
    except FileNotFoundError:
        return None
    except (OSError, TextError):
        return f"{begun_file}: cannot be read; replaced by the solver that you gave"
    differing = [
        name
        for name in stage.DESCRIPTOR.fields_by_name
        if name not in _CHANGEABLE and getattr(begun, name) != getattr(stage, name)
    ]
    if differing == ["random_seed"]:
        seed = f"with --seed {begun.random_seed}" if begun.random_seed >= 0 else "without --seed"
        raise UsageError(
            f"{begun_file}: the run was started with another random_seed; continue {seed}, or"
            " name another --out"
        )
    if differing:
        raise UsageError(
            f"{begun_file}: the run was started with another {', '.join(differing)};"
            " change it back, or name another --out"
        )
    return None
