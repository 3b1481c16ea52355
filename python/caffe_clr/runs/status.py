"""Reads and writes the run.json of a run folder: what is trained, and how far it is."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from caffe_clr.system.files import replacing

NAME = "run.json"
DIGESTS = ("nets", "data")  # a list each: of each stage's net and data


class Status(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"
    FINISHED = "finished"


def read(folder: Path) -> tuple[dict[str, Any], bool]:
    """Read run.json; missing entries are those of a killed run.

    Returns:
        The entries, and whether the file could be read or does not exist.
    """
    killed: dict[str, Any] = {
        **{"solvers": [], "seed": None, "gpu": None},
        **{"status": Status.RUNNING, "iteration": 0, "message": ""},
    }
    try:
        content = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        return killed, True
    except (OSError, ValueError, RecursionError):
        return killed, False
    if not isinstance(content, dict) or not _is_status({**killed, **content}):
        return killed, False
    return {**killed, **content}, True


def write(folder: Path, content: Mapping[str, Any]) -> None:
    with replacing(folder / NAME) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def _is_status(content: dict[str, Any]) -> bool:
    solvers, status = content["solvers"], content["status"]
    return (
        isinstance(solvers, list)
        and all(isinstance(solver, str) for solver in solvers)
        and all(isinstance(content.get(key, []), list) for key in DIGESTS)
        and status in list(Status)
        and isinstance(content["message"], str)
        and all(
            type(content.get(key)) in types
            for key, types in (
                ("iteration", (int,)),
                ("seed", (int, type(None))),
                ("gpu", (int, type(None))),
                ("threads", (str, type(None))),
                ("ranks", (int, type(None))),
            )
        )
    )
