"""Reads, checks and applies the patch series, and exports it from commits.

A patch is one serialised commit (`git format-patch`). The file `series` lists
the patches in order; the folder of a patch says what it is for.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.harness import diffs, git, placing, writing

PROTO = "src/caffe/proto/caffe.proto"  # by which Caffe's source is known

# Keep an exported patch free of what changes without the commit changing.
_EXPORT = [
    *("format-patch", "--stdout", "-1", "--no-numbered", "--zero-commit"),
    *("--no-signature", "--full-index", "--no-stat", "--no-renames"),
]

_NAMED = re.compile(r"([a-z0-9][a-z0-9-]*): \S")  # how a commit's subject begins
_CHANGED = re.compile(r"^diff --git a/\S+ b/(\S+)$", re.MULTILINE)

FEATURE = "cyclical-learning-rates"  # the patch that all the rest is for
_SOLVER = "triangular.prototxt"  # beside the patches

ALREADY_APPLIED = placing.APPLIED


@dataclass(frozen=True)
class Patch:
    """A patch file and the files that it changes, in its order.

    Args:
        folder: the folder of the series.
        entry: the line of `series`: the file, relative to that folder.
    """

    folder: Path
    entry: str
    files: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.folder / self.entry

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def group(self) -> str:
        """What the patch is for: feature, toolchain, cpu or gpu."""
        return self.path.parent.name


@dataclass(frozen=True)
class FileCheck:
    """The result of trying a patch on one file.

    Args:
        patch: its name.
        file: its name in the tree.
        problem: why the patch does not apply; None if it does.
        offset: whether it applies at other lines than the patch says.
        left_out: why an optional file stays unchanged.
        notes: where each part goes, if the patch is placed.
        by_hand: lines to add by hand if parts cannot be placed, each list with its place.
    """

    patch: str
    file: str
    problem: str | None
    offset: bool = False
    left_out: str | None = None
    notes: tuple[str, ...] = ()
    by_hand: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass
class Trial:
    """Patches tried on a copy: a check for each file, and the new contents of the files."""

    checks: list[FileCheck] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)


def load(folder: Path) -> list[Patch]:
    """The patches that `folder`/series lists, in order.

    Raises:
        ClrError: an entry is missing, two have one name, one changes nothing,
            or a patch file below the folder is not listed.
    """
    try:
        entries = (folder / "series").read_text().split()
    except OSError as error:
        raise ClrError(f"{folder} is not a patch series: series: {error.strerror}") from None
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.patch")}
    names = [Path(entry).name for entry in entries]
    problems = [f"{name} is listed twice" for name in names if names.count(name) > 1]
    problems += [f"{entry} is missing" for entry in entries if entry not in files]
    problems += [f"{file} is not listed" for file in sorted(files - {*entries})]
    if problems:
        raise ClrError(f"{folder / 'series'}: {'; '.join(dict.fromkeys(problems))}")
    patches = [Patch(folder, entry, _files(folder / entry)) for entry in entries]
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
    """Try the patches, one after another and file by file, on a copy.

    Raises:
        ClrError: `tree` is not a folder with Caffe's source.
    """
    return attempt(tree, patches).checks


def attempt(tree: Path, patches: Sequence[Patch]) -> Trial:
    """The same, with the new contents of the files.

    A patch that does not apply leaves the copy as it is, for the next one.
    """
    if not tree.is_dir():
        raise ClrError(f"{tree} is not a folder")
    if not (tree / PROTO).is_file():
        raise ClrError(f"{tree} is not Caffe's source: it has no {PROTO}")
    trial = Trial()
    changed = {file for patch in patches for file in patch.files}
    with writing.copied(tree, changed) as scratch:
        if all(git.apply(scratch, p.path, "--reverse").returncode == 0 for p in reversed(patches)):
            trial.checks = [FileCheck(p.name, f, ALREADY_APPLIED) for p in patches for f in p.files]
            return trial
    nets = {net for patch in patches for net in placing.nets(_parse(patch))}
    with writing.copied(tree, placing.sources(tree) | changed | nets) as scratch:
        for patch in patches:
            checks = _attempt(scratch, patch)
            trial.checks += checks
            if not any(check.problem for check in checks):
                files = {check.file for check in checks if (scratch / check.file).is_file()}
                trial.contents |= {file: (scratch / file).read_bytes() for file in files}
    return trial


def apply(tree: Path, patches: Sequence[Patch]) -> list[FileCheck]:
    """Apply the patches to `tree`: all of them, or none. Those that are applied stay as they are.

    Raises:
        ClrError: one would not apply; says which, file by file. Or a file cannot be written.
    """
    trial = attempt(tree, patches)
    told = [c for c in refused(trial.checks) if c.problem or c.by_hand]
    if told:
        lines = missing(tree, patches) + [line for check in told for line in describe(check)]
        listed = "\n".join(lines)
        raise ClrError(f"{tree}: nothing was changed, because not every patch applies:\n{listed}")
    writing.write(tree, trial.contents)
    return trial.checks


def apply_fitting(tree: Path, patches: Sequence[Patch]) -> dict[str, str]:
    """Apply those patches to `tree` that apply to it, or are there already.

    Returns:
        Why the others were left out, by name.

    Raises:
        ClrError: the feature's own patch does not apply; nothing was changed.
    """
    left_out: dict[str, str] = {}
    for patch in patches:
        lacking = [name for name in _needs(patch) if name in left_out]
        if lacking:
            left_out[patch.name] = f"builds on {lacking[0]}"
            continue
        trial = attempt(tree, [patch])
        problems = [check for check in refused(trial.checks) if check.problem]
        if not problems:
            writing.write(tree, trial.contents)
            continue
        if patch.name == FEATURE:
            apply(tree, [patch])  # which tells why it cannot be
        left_out[patch.name] = f"{problems[0].file}: {problems[0].problem}"
    return left_out


def describe(check: FileCheck, fitting: str = "applies") -> list[str]:
    """A check in lines to print."""
    outcome = check.problem or (f"{fitting} at an offset" if check.offset else fitting)
    if check.by_hand and not check.problem:
        outcome = "would apply"
    if check.left_out:
        outcome = f"left out: {check.left_out}"
    lines = [f"{check.patch}: {check.file}: {outcome}"]
    lines += [f"    {note}" for note in check.notes]
    for place, added in check.by_hand:
        lines += [f"    add by hand: {place}", *(f"      | {line}" for line in added)]
    return lines


def is_applied(checks: Sequence[FileCheck]) -> bool:
    """Whether a tree has all that was tried."""
    return all(check.problem == ALREADY_APPLIED for check in checks)


def refused(checks: Sequence[FileCheck]) -> list[FileCheck]:
    """The checks of patches that neither apply in every file nor are applied in every file."""
    problems: dict[str, set[str | None]] = {}
    for check in checks:
        problems.setdefault(check.patch, set()).add(check.problem)
    return [c for c in checks if problems[c.patch] not in ({None}, {ALREADY_APPLIED})]


def missing(tree: Path, patches: Sequence[Patch]) -> list[str]:
    """The patches that these build on and that are neither given nor applied, as lines to print."""
    names = {patch.name for patch in patches}
    return [
        f"{patch.name} builds on {name}, which is not applied: name both"
        for patch in patches
        for name in _needs(patch)
        if name not in names and not is_applied(check(tree, select(load(patch.folder), [name])))
    ]


def next_steps(tree: Path, patches: Sequence[Patch]) -> list[str]:
    """What to do after patches with policies were applied, as lines to print."""
    shown = [p.folder / _SOLVER for p in patches if _is_placeable(p)]
    if not shown:
        return []
    ways = {"Makefile": f"make -j4 -C {tree}", "CMakeLists.txt": f"cmake --build {tree}/build"}
    build = " or ".join(way for file, way in ways.items() if (tree / file).is_file())
    return [
        f"Next, build it as usual: {build or 'its libraries and tools'}",
        "To test it, run a solver that needs no data:",
        f'    {tree}/build/tools/caffe train --solver={shown[0]} 2>&1 | grep "lr ="',
        "It must log the rates 1, 2, 3, 4, 5, 4, 3, 2, 1.",
    ]


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
    entries = {patch.name: patch.entry for patch in load(folder)}
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
        if not _CHANGED.search(exported[entry].decode("latin-1")):
            raise ClrError(f"{shown} changes no file; drop it")
    return exported


def changes(folder: Path, exported: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What the files of a series become when it is exported, by file; None where one goes."""
    listed = "".join(f"{entry}\n" for entry in exported).encode()
    fresh = {**exported, "series": listed}
    gone = {patch.entry: None for patch in load(folder) if patch.entry not in exported}
    return {
        f: content for f, content in fresh.items() if writing.read(folder / f) != content
    } | gone


def refresh(folder: Path, changed: Mapping[str, bytes | None]) -> None:
    """Write `changes` into the folder of a series.

    Raises:
        ClrError: a file cannot be written.
    """
    writing.write(folder, {file: c for file, c in changed.items() if c is not None})
    for file in (file for file, content in changed.items() if content is None):
        (folder / file).unlink()


def _files(patch: Path) -> tuple[str, ...]:
    return tuple(_CHANGED.findall(patch.read_text()))


def _attempt(scratch: Path, patch: Patch) -> list[FileCheck]:
    """Apply a patch to a copy: as git does, or else by placing it, if it is one to be placed."""
    placed = placing.place(scratch, _parse(patch)) if _is_placeable(patch) else None
    if placed and placed.state in (placing.APPLIED, placing.PARTLY, placing.OWN):
        return _of_placement(patch, placed)
    lacking = _lacking(scratch, patch) if placed else []
    if lacking:
        problem = f"builds on {lacking[0]}, which is not applied"
        return [FileCheck(patch.name, file, problem) for file in patch.files]
    fits = git.apply(scratch, patch.path, "--check").returncode == 0
    if placed is None or (fits and not placed.taken and not placed.elsewhere):
        before = {file: writing.read(scratch / file) for file in patch.files}
        checks = [_check_file(scratch, patch, file) for file in patch.files]
        if any(check.problem for check in checks):
            for file, content in before.items():
                writing.restore(scratch / file, content)
        return checks
    if placed.state == placing.FITS:
        for done in placed.files:
            if done.content is not None:
                writing.restore(scratch / done.file, done.content)
    return _of_placement(patch, placed)


def _of_placement(patch: Patch, placed: placing.Placement) -> list[FileCheck]:
    files = [file for file in placed.files if placed.state == placing.FITS or file.is_needed]
    return [_of_file(patch, placed, file) for file in files]


def _of_file(patch: Patch, placed: placing.Placement, file: placing.FilePlacement) -> FileCheck:
    def parts(*states: str) -> list[placing.Part]:
        return [part for part in file.parts if part.state in states and part.is_code]

    if placed.state == placing.FITS:
        notes = [part.place for part in parts(placing.FITS)]
        if file.file.endswith(".proto") and placed.numbers:
            notes += [placed.reason]
        left_out = [part.place for part in file.parts if part.state == placing.LOST]
        notes += [f"left out: {place}" for place in left_out if file.content is not None]
        return FileCheck(
            patch.name,
            file.file,
            None,
            left_out=left_out[0] if file.content is None and left_out else None,
            notes=tuple(notes),
        )
    by_hand = tuple((part.place, part.lines) for part in parts(placing.FITS, placing.LOST))
    if placed.state == placing.APPLIED:
        return FileCheck(patch.name, file.file, ALREADY_APPLIED)
    if placed.state == placing.OWN:
        own = "; ".join(part.place for part in parts(placing.OWN))
        problem = f"{own}; remove the conflicting code, then run this again" if own else None
        return FileCheck(patch.name, file.file, problem)
    if placed.state == placing.PARTLY:
        here = [part for part in parts(placing.APPLIED, placing.PARTLY) if part.needed]
        there = tuple(f"already there: {part.place}" for part in here)
        state = "is partly applied; remove the code that is there, or add the rest by hand"
        return FileCheck(patch.name, file.file, state, notes=there, by_hand=by_hand)
    lost = "; ".join(part.place for part in parts(placing.LOST))
    problem = f"cannot place {lost}" if lost else None
    if lost == placing.NO_FILE:
        problem = lost
        by_hand = tuple(("wherever this Caffe has this code", lines) for _, lines in by_hand)
    return FileCheck(patch.name, file.file, problem, by_hand=by_hand)


def _check_file(scratch: Path, patch: Patch, file: str) -> FileCheck:
    done = git.apply(scratch, patch.path, f"--include={file}")
    if done.returncode == 0:
        return FileCheck(patch.name, file, None, offset=b"offset" in done.stderr)
    if git.apply(scratch, patch.path, f"--include={file}", "--reverse", "--check").returncode == 0:
        return FileCheck(patch.name, file, ALREADY_APPLIED)
    if not (scratch / file).exists():
        return FileCheck(patch.name, file, placing.NO_FILE)
    failed = re.search(rb"patch failed: .*:(\d+)", done.stderr)
    where = f" at line {int(failed[1])}" if failed else ": the file already exists"
    return FileCheck(patch.name, file, f"does not apply{where}")


def _parse(patch: Patch) -> list[diffs.FileDiff]:
    return diffs.parse(patch.path.read_bytes().decode("latin-1"))


def _needs(patch: Patch) -> list[str]:
    """The patches that another one builds on, as needs.toml beside `series` has it."""
    needs: dict[str, list[str]] = tomllib.loads((patch.folder / "needs.toml").read_text())
    return needs.get(patch.name, [])


def _lacking(scratch: Path, patch: Patch) -> list[str]:
    """The patches that a patch of the solvers builds on and that a copy does not have."""
    needed = [other for other in load(patch.folder) if other.name in _needs(patch)]
    return [
        other.name
        for other in needed
        if placing.place(scratch, _parse(other)).state != placing.APPLIED
    ]


def _is_placeable(patch: Patch) -> bool:
    return placing.is_placeable(_parse(patch))
