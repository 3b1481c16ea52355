"""Writes files into a folder: all of them, or none."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from caffe_clr.errors import ClrError


def write(tree: Path, contents: Mapping[str, bytes]) -> None:
    """Give the files of `tree` these contents, by their paths; new ones are added.

    New contents are first written beside the files. If a file cannot be
    exchanged, the earlier ones are put back.

    Raises:
        ClrError: one cannot be written; the folder is as it was.
    """
    targets = {(tree / file).resolve(): content for file, content in contents.items()}
    made = [folder for target in targets for folder in _missing_folders(target.parent)]
    beside: list[Path] = []
    exchanged: list[Path] = []
    try:
        for target, content in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _fresh(target).write_bytes(content)
            beside.append(_fresh(target))
            if target.exists():
                _fresh(target).chmod(target.stat().st_mode & 0o7777)
                shutil.copy2(target, _former(target))
                beside.append(_former(target))
        for target in targets:
            os.replace(_fresh(target), target)
            exchanged.append(target)
    except BaseException as error:
        for target in exchanged:
            if _former(target) in beside:
                os.replace(_former(target), target)
            else:
                target.unlink()
        _remove(beside, made)
        if not isinstance(error, OSError):
            raise
        raise ClrError(
            f"{tree}: nothing was changed, because {error.filename2 or error.filename} cannot be"
            f" written: {error.strerror}"
        ) from None
    _remove(beside, [])


def _fresh(target: Path) -> Path:
    return target.with_name(target.name + ".caffe-clr-new")


def _former(target: Path) -> Path:
    return target.with_name(target.name + ".caffe-clr-old")


def _remove(files: list[Path], folders: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]
