"""Writes files into a folder: all of them, or none. Copies some to try things on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from caffe_clr.errors import ClrError


def write(tree: Path, contents: Mapping[str, bytes | None]) -> None:
    """Give the files of `tree` these contents, by their paths; None removes a file.

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
            if content is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.append(_fresh(target))  # also if the disk is full in the middle of it
            _fresh(target).write_bytes(content)
            if target.exists():
                _fresh(target).chmod(target.stat().st_mode & 0o7777)
                beside.append(_former(target))
                shutil.copy2(target, _former(target))
        for target, content in targets.items():
            if content is not None:
                os.replace(_fresh(target), target)
            elif target.exists():
                os.replace(target, _former(target))
                beside.append(_former(target))
            exchanged.append(target)
    except BaseException as error:
        for target in exchanged:
            if _former(target) in beside:
                os.replace(_former(target), target)
            else:
                target.unlink(missing_ok=True)
        _remove(beside, made)
        if not isinstance(error, OSError):
            raise
        raise ClrError(
            f"{tree}: nothing was changed, because {error.filename2 or error.filename or target}"
            f" cannot be written: {error.strerror}{_remedy(error)}"
        ) from None
    _remove(beside, [])


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "; run this as the owner of the folder, or copy it to a place of your own"
    return "; free some space, then run this again" if error.errno == errno.ENOSPC else ""


@contextlib.contextmanager
def copied(tree: Path, files: Iterable[str]) -> Iterator[Path]:
    """A folder with copies of those of the files that the tree has."""
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as temporary:
        scratch = Path(temporary)
        for file in files:
            if (tree / file).is_file():
                (scratch / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree / file, scratch / file)
        yield scratch


def read(path: Path) -> bytes | None:
    """The content of a file; None where there is none."""
    return path.read_bytes() if path.is_file() else None


def restore(path: Path, content: bytes | None) -> None:
    """Give a file the content that `read` returned."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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
