"""The patch series: reading, checking and applying it, and writing it anew from commits.

A patch is one serialised commit (`git format-patch`); the file `series` names
the patches in their order.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe_clr.errors import ClrError, UsageError

PROTO = "src/caffe/proto/caffe.proto"  # by which Caffe's source is known

# Keep an exported patch free of what changes without the commit changing.
_EXPORT = [
    *("format-patch", "--stdout", "-1", "--no-numbered", "--zero-commit"),
    *("--no-signature", "--full-index", "--no-stat", "--no-renames"),
]

ALREADY_APPLIED = "is already applied"


@dataclass(frozen=True)
class Patch:
    """A patch file and the files that it changes, in its order."""

    path: Path
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class FileCheck:
    """Whether a patch applies to one file; `problem` is None where it does."""

    patch: str
    file: str
    problem: str | None
    offset: bool = False


def load(folder: Path) -> list[Patch]:
    """The patches that `folder`/series names, in order.

    Raises:
        ClrError: an entry is missing, named twice or changes nothing, or a
            patch file in the folder is not named.
    """
    try:
        names = (folder / "series").read_text().split()
    except OSError as error:
        raise ClrError(f"{folder} is not a patch series: series: {error.strerror}") from None
    problems = [f"{name} is named twice" for name in names if names.count(name) > 1]
    problems += [f"{name} is missing" for name in names if not (folder / name).is_file()]
    problems += [
        f"{path.name} is not named" for path in folder.glob("*.patch") if path.name not in names
    ]
    if problems:
        raise ClrError(f"{folder / 'series'}: {'; '.join(dict.fromkeys(problems))}")
    patches = [Patch(folder / name, _files(folder / name)) for name in names]
    for patch in patches:
        if not patch.files:
            raise ClrError(f"{patch.path} changes no file")
    return patches


def select(patches: Sequence[Patch], names: Sequence[str]) -> list[Patch]:
    """The named patches in the order of the series, or all of them where none is named."""
    known = {patch.name for patch in patches}
    for name in names:
        if name.removesuffix(".patch") not in known:
            raise UsageError(
                f"no patch {name}; the series has {', '.join(p.name for p in patches)}"
            )
    wanted = {name.removesuffix(".patch") for name in names} or known
    return [patch for patch in patches if patch.name in wanted]


def digest(patches: Sequence[Patch]) -> str:
    """A hash of the patches' bytes in their order."""
    return hashlib.sha256(b"".join(patch.path.read_bytes() for patch in patches)).hexdigest()


def check(tree: Path, patches: Sequence[Patch]) -> list[FileCheck]:
    """Try the patches, one after another and file by file, on a copy of what they change.

    Raises:
        ClrError: `tree` is not a folder with Caffe's source.
    """
    if not tree.is_dir():
        raise ClrError(f"{tree} is not a folder")
    files = {file for patch in patches for file in patch.files}
    if not (tree / PROTO).is_file():
        raise ClrError(f"{tree} is not Caffe's source: it has no {PROTO}")
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as temporary:
        scratch = Path(temporary)
        for file in files:
            if (tree / file).is_file():
                (scratch / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree / file, scratch / file)
        return [_check_file(scratch, patch, file) for patch in patches for file in patch.files]


def apply(tree: Path, patches: Sequence[Patch]) -> list[FileCheck]:
    """Apply the patches to `tree`: all of them, or none.

    Raises:
        ClrError: one would not apply; says which, file by file.
    """
    checks = check(tree, patches)
    problems = [f"  {c.patch}: {c.file}: {c.problem}" for c in checks if c.problem]
    if problems:
        listed = "\n".join(problems)
        raise ClrError(f"{tree}: nothing was changed, since not every patch applies:\n{listed}")
    for patch in patches:
        done = _git_apply(tree, patch)
        if done.returncode:
            raise ClrError(f"{tree}: {patch.path.name} could not be applied:\n{done.stderr}")
    return checks


def refresh(repository: Path, folder: Path) -> dict[str, bytes]:
    """The series anew, from the commits of a git repository on top of its first.

    Returns:
        The bytes of each patch by file name; the commits stand in the order of
        the series.

    Raises:
        ClrError: the commits are not as many as the patches, or git fails.
    """
    names = [patch.path.name for patch in load(folder)]
    commits = _git(repository, "rev-list", "--reverse", "--first-parent", "HEAD").decode().split()
    if len(commits) != len(names) + 1:
        raise ClrError(
            f"{repository}: {len(commits)} commits; expected unpatched Caffe and one for each"
            f" of the {len(names)} patches in {folder / 'series'}"
        )
    return {
        name: _git(repository, *_EXPORT, commit)
        for name, commit in zip(names, commits[1:], strict=True)
    }


def _files(patch: Path) -> tuple[str, ...]:
    return tuple(re.findall(r"^diff --git a/\S+ b/(\S+)$", patch.read_text(), re.MULTILINE))


def _check_file(scratch: Path, patch: Patch, file: str) -> FileCheck:
    done = _git_apply(scratch, patch, f"--include={file}")
    if done.returncode == 0:
        return FileCheck(patch.name, file, None, offset="offset" in done.stderr)
    if _git_apply(scratch, patch, f"--include={file}", "--reverse", "--check").returncode == 0:
        return FileCheck(patch.name, file, ALREADY_APPLIED)
    if not (scratch / file).exists():
        return FileCheck(patch.name, file, "there is no such file")
    place = re.search(r"patch failed: .*:(\d+)", done.stderr)
    where = f" at line {place[1]}" if place else ": the file already exists"
    return FileCheck(patch.name, file, f"does not apply{where}")


def _git_apply(tree: Path, patch: Patch, *options: str) -> subprocess.CompletedProcess[str]:
    # In a folder of some repository, git apply would take paths from that
    # repository's root and silently skip all of them.
    return subprocess.run(
        ["git", "apply", "--verbose", *options, str(patch.path.resolve())],
        cwd=tree,
        env={**_environment(), "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)},
        capture_output=True,
        text=True,
    )


def _git(repository: Path, *arguments: str) -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=repository, env=_environment(), capture_output=True
    )
    if done.returncode:
        raise ClrError(f"{repository}: git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "LC_ALL": "C"}
