"""Paths as callers of the package give them."""

import os
from collections.abc import Sequence
from pathlib import Path

StrPath = str | os.PathLike[str]


def paths(files: StrPath | Sequence[StrPath]) -> list[Path]:
    """One file or several, as paths."""
    return [Path(files)] if isinstance(files, str | os.PathLike) else list(map(Path, files))
