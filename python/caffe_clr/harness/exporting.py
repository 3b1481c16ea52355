"""Exports the patch series from the commits of a git repository."""

import re
from collections.abc import Mapping
from pathlib import Path

from caffe_clr.errors import ClrError
from caffe_clr.harness import git, series, writing

# Keep an exported patch free of what changes without the commit changing.
_EXPORT = [
    *("format-patch", "--stdout", "-1", "--no-numbered", "--zero-commit"),
    *("--no-signature", "--full-index", "--no-stat", "--no-renames"),
]

_NAMED = re.compile(r"([a-z0-9][a-z0-9-]*): \S")  # how a commit's subject begins


def export(repository: Path, folder: Path) -> dict[str, bytes]:
    """The series as the commits of a git repository have it, on top of its first commit.

    The subject of a commit begins with the name of its patch, as in "cmake: Let
    CMake 4 configure the build". A patch that the series has stays in its
    folder; a new one goes into the folder of the commit before it.

    Returns:
        The bytes of each patch by its entry, in the order of the commits.

    Raises:
        ClrError: there is one commit or none, one names no patch or changes
            nothing, two name the same patch, or git fails.
    """
    entries = {patch.name: patch.entry for patch in series.load(folder)}
    group = Path(next(iter(entries.values()))).parent
    log = git.run(repository, "log", "--reverse", "--first-parent", "--format=%H %s").decode()
    commits = log.splitlines()[1:]
    if not commits:
        raise ClrError(f"{repository}: expected unpatched Caffe, then a commit for each patch")
    exported: dict[str, bytes] = {}
    for commit in commits:
        identity, _, subject = commit.partition(" ")
        shown = f'{repository}: commit {identity[:7]} "{subject}"'
        named = _NAMED.match(subject)
        if not named:
            raise ClrError(
                f"{shown} names no patch; begin its subject with the patch's name, as in"
                ' "cmake: Let CMake 4 configure the build"'
            )
        entry = entries.get(named[1], f"{group / named[1]}.patch")
        group = Path(entry).parent
        if entry in exported:
            raise ClrError(f"{shown} names the patch of an earlier commit; rename or squash it")
        exported[entry] = git.run(repository, *_EXPORT, identity)
        if not series.CHANGED.search(exported[entry].decode("latin-1")):
            raise ClrError(f"{shown} changes no file; drop it")
    return exported


def changes(folder: Path, exported: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What the files of a series become when it is exported, by file; None where one goes."""
    listed = "".join(f"{entry}\n" for entry in exported).encode()
    fresh = {**exported, "series": listed}
    gone = {patch.entry: None for patch in series.load(folder) if patch.entry not in exported}
    return {
        f: content for f, content in fresh.items() if writing.read(folder / f) != content
    } | gone


def refresh(folder: Path, changed: Mapping[str, bytes | None]) -> None:
    """Write `changes` into the folder of a series.

    Raises:
        ClrError: a file cannot be written.
    """
    writing.write(folder, changed)
