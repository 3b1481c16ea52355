"""Reads tar and zip archives without unpacking them."""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

# what `files` raises of a file that is no archive, or not a whole one
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error),
    lzma.LZMAError,
)
_ZIP = b"PK\3\4"  # how one begins that is not empty
_EXECUTABLE = 0o100


class File(NamedTuple):
    """A file in an archive."""

    name: PurePosixPath
    read: Callable[[], bytes]
    is_executable: bool


def files(path: Path) -> Iterator[File]:
    """Yield the files of an archive in order; read each one before you ask for the next.

    Raises:
        tarfile.TarError, and others of DAMAGED: not an archive, or a damaged one.
        OSError: the file cannot be read.
    """
    with path.open("rb") as content:
        is_zip = content.read(len(_ZIP)) == _ZIP
    yield from (_of_zip if is_zip else _of_tar)(path)


def _of_tar(path: Path) -> Iterator[File]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file:
                name = PurePosixPath(member.name)
                yield File(name, file.read, bool(member.mode & _EXECUTABLE))


def _of_zip(path: Path) -> Iterator[File]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                mode = member.external_attr >> 16
                read = partial(_read, archive, member)
                yield File(PurePosixPath(member.filename), read, bool(mode & _EXECUTABLE))


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except RuntimeError as error:  # encrypted, or compressed in a way that Python does not know
        raise zipfile.BadZipFile(f"{member.filename}: {error}") from None
