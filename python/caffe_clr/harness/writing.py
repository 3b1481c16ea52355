"""Changes files of a folder: all of them, or none."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from caffe_clr.errors import ClrError

_FRESH, _FORMER = ".caffe-clr-new", ".caffe-clr-old"


def write(tree: Path, contents: Mapping[str, bytes]) -> None:
    """Give the files of `tree` these contents, by their paths; new ones are added.

    Everything is written beside the files before the first is exchanged, and
    what was exchanged is put back if one cannot be.

    Raises:
        ClrError: one cannot be written; the folder is as it was.
    """
    targets = {(tree / file).resolve(): content for file, content in contents.items()}
    made = [_missing_folders(target.parent) for target in targets]
    exchanged: list[Path] = []
    try:
        for target, content in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _beside(target, _FRESH).write_bytes(content)
            if target.exists():
                _beside(target, _FRESH).chmod(target.stat().st_mode & 0o7777)
                shutil.copy2(target, _beside(target, _FORMER))
        for target in targets:
            os.replace(_beside(target, _FRESH), target)
            exchanged.append(target)
    except BaseException as error:
        for target in exchanged:
            if _beside(target, _FORMER).exists():
                os.replace(_beside(target, _FORMER), target)
            else:
                target.unlink()
        _tidy(targets)
        for folder in (folder for folders in made for folder in folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            place = error.filename or tree
            raise ClrError(
                f"{tree}: nothing was changed, since {_plain(place)} cannot be written:"
                f" {error.strerror}"
            ) from None
        raise
    _tidy(targets)


def _tidy(targets: Mapping[Path, bytes]) -> None:
    for target in targets:
        for suffix in (_FRESH, _FORMER):
            _beside(target, suffix).unlink(missing_ok=True)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _plain(place: str | Path) -> str:
    return str(place).removesuffix(_FRESH).removesuffix(_FORMER)
