"""Reads, checks and applies the patch series.

A patch is one serialised commit (`git format-patch`). The file `series` lists
the patches in order; the folder of a patch says what it is for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Optional, Tuple

from caffe_clr.errors import ClrError, UsageError, counted
from caffe_clr.harness import diffs, git, placing, writing

PROTO = "src/caffe/proto/caffe.proto"  # by which Caffe's source is known

# the files that a patch names
CHANGED = re.compile(r"^diff --git a/\S+ b/(\S+)$", re.MULTILINE)

FEATURE = "cyclical-learning-rates"  # the patch that all the rest is for
SOLVER = "triangular.prototxt"  # beside the patches; shows whether a Caffe has them

ALREADY_APPLIED = placing.APPLIED
_NAMES_SHOWN = 3  # in a verdict

# before and after, by file; None where it is new
Changes = Dict[str, Tuple[Optional[bytes], bytes]]


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
    """Patches tried on a copy.

    Args:
        checks: the result for each file of each patch.
        contents: the new contents of the files.
        changes: the contents of the files before and after each patch that applies, by its name.
    """

    checks: list[FileCheck] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    changes: dict[str, Changes] = field(default_factory=dict)


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
    known = [patch.name for patch in patches]
    wanted = [re.sub(r"\.patch$", "", name) for name in names] or known
    for name in wanted:
        if name not in known:
            raise UsageError(f"no patch {name}; the series has {', '.join(known)}")
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
    there = reversible(tree, patches)
    trial = Trial()
    if there.issuperset(patches):
        trial.checks = [check for patch in patches for check in _applied(patch)]
        return trial
    changed = {file for patch in patches for file in patch.files}
    nets = {net for patch in patches for net in placing.nets(_parse(patch))}
    with writing.copied(tree, placing.sources(tree) | changed | nets) as scratch:
        for patch in patches:
            checks = _applied(patch) if patch in there else _attempt(scratch, patch)
            trial.checks += checks
            if not any(check.problem for check in checks):
                for file in [c.file for c in checks if (scratch / c.file).is_file()]:
                    before = trial.contents.get(file, writing.read(tree / file))
                    after = (scratch / file).read_bytes()
                    if after != before:
                        trial.contents[file] = after
                        trial.changes.setdefault(patch.name, {})[file] = (before, after)
    return trial


def apply(tree: Path, patches: Sequence[Patch]) -> list[FileCheck]:
    """Apply the patches to `tree`: all of them, or none. Those that are applied stay as they are.

    Raises:
        ClrError: one would not apply; says which, file by file. Or a file cannot be written.
    """
    trial = attempt(tree, patches)
    if refused(trial.checks):
        reason = refusal(tree, patches, trial.checks)
        raise ClrError(f"{tree}: nothing was changed, because {reason}")
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
        lacking = [name for name in needs(patch) if name in left_out]
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


def verdict(checks: Sequence[FileCheck], fitting: str = "Can be applied") -> str:
    """What became of patches that apply or are applied, in one line."""
    problems = outcomes(checks)
    there = [name for name, problem in problems.items() if problem == ALREADY_APPLIED]
    fits = [name for name in problems if name not in there]
    told = [f"{fitting}: {_listed(fits)}."] if fits else []
    told += [f"Already applied: {_listed(there)}."] if there else []
    return " ".join(told if fits else [*told, "There is nothing to do."])


def summary(checks: Sequence[FileCheck], fitting: str = "applies") -> list[str]:
    """A line for each patch."""
    return [f"{name}: {problem or fitting}" for name, problem in outcomes(checks).items()]


def details(checks: Sequence[FileCheck], fitting: str = "applies") -> list[str]:
    """The changes of the patches that apply, file by file, as lines to print."""
    return [
        line
        for check in checks
        if check.problem != ALREADY_APPLIED
        for line in _describe(check, fitting)
    ]


def refusal(
    tree: Path, patches: Sequence[Patch], checks: Sequence[FileCheck], in_detail: bool = True
) -> str:
    """Why patches do not apply: a line, then what concerns them, file by file.

    Args:
        in_detail: whether to list the lines to add by hand.
    """
    told = [check for check in refused(checks) if check.problem or check.by_hand]
    names = list(dict.fromkeys(check.patch for check in told))
    lacking = _missing(tree, select(patches, names), patches)
    if lacking:
        return lacking
    does = "does" if len(names) == 1 else "do"
    number = f"{len(names)} of {len(patches)} patches" if len(patches) > 1 else names[0]
    if in_detail:
        lines = [line for check in told for line in _describe(check, "applies")]
    else:
        lines = [_in_a_line([c for c in told if c.patch == name]) for name in names]
        lines.append("Name the patches that you want, to leave out the rest.")
    return "\n".join([f"{number} {does} not apply:", *lines])


def outcomes(checks: Sequence[FileCheck]) -> dict[str, str | None]:
    """The problem of each patch: None where it applies, ALREADY_APPLIED where all of it is."""
    problems: dict[str, set[str | None]] = {}
    for check in checks:
        problems.setdefault(check.patch, set()).add(check.problem)
    return {
        name: found.pop() if found in ({None}, {ALREADY_APPLIED}) else "does not apply"
        for name, found in problems.items()
    }


def is_applied(checks: Sequence[FileCheck]) -> bool:
    """Whether a tree has all that was tried."""
    return all(check.problem == ALREADY_APPLIED for check in checks)


def refused(checks: Sequence[FileCheck]) -> list[FileCheck]:
    """The checks of patches that neither apply in every file nor are applied in every file."""
    problems = outcomes(checks)
    return [c for c in checks if problems[c.patch] not in (None, ALREADY_APPLIED)]


def reversible(tree: Path, patches: Sequence[Patch]) -> set[Patch]:
    """The patches that git can take back, after later ones that change the same files."""
    tried: list[Patch] = []
    files: set[str] = set()
    for patch in load(patches[0].folder) if patches else ():
        if patch in patches or files.intersection(patch.files):
            tried.append(patch)
            files.update(patch.files)
    with writing.copied(tree, files) as scratch:
        return {
            patch
            for patch in reversed(tried)
            if git.apply(scratch, patch.path, "--reverse").returncode == 0
        }


def is_placeable(patch: Patch) -> bool:
    """Whether a patch is placed by what its changes are, and not by git alone."""
    return placing.is_placeable(_parse(patch))


def needs(patch: Patch) -> list[str]:
    """The patches that another one builds on, as `needs` beside `series` has it."""
    lines = (patch.folder / "needs").read_text().splitlines()
    rules = dict(line.split(":") for line in lines if line and not line.startswith("#"))
    return rules.get(patch.name, "").split()


def bases(known: Sequence[Patch]) -> dict[str, set[str]]:
    """By patch of the series, all that it builds on, also through others."""
    below: dict[str, set[str]] = {}
    for patch in known:
        below[patch.name] = {*needs(patch)}.union(*(below[name] for name in needs(patch)))
    return below


def next_steps(tree: Path, patches: Sequence[Patch], printing: str | None = None) -> list[str]:
    """What to do after patches with policies were applied, as lines to print.

    Args:
        printing: the command that prints the solver for a test; None names its file.
    """
    shown = [p.folder / SOLVER for p in patches if is_placeable(p)]
    if not shown:
        return []
    ways = {"Makefile": f"make -j4 -C {tree}", "CMakeLists.txt": f"cmake --build {tree}/build"}
    build = " or ".join(way for file, way in ways.items() if (tree / file).is_file())
    train, solver = f"{tree}/build/tools/caffe train", shown[0]
    if printing:
        train, solver = f"{printing} | {train}", Path("/dev/stdin")
    return [
        f"Next, build it as usual: {build or 'its libraries and tools'}",
        "To test it, run a solver that needs no data:",
        f'    {train} --solver={solver} 2>&1 | grep "lr ="',
        "It must log the rates 1, 2, 3, 4, 5, 4, 3, 2, 1.",
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMES_SHOWN else f"{len(names)} patches"


def _in_a_line(checks: Sequence[FileCheck]) -> str:
    """The first problem of a patch, and in how many files there are more."""
    (first, *_), *rest = (_describe(check, "applies") for check in checks if check.problem)
    return f"{first} (and {counted(len(rest), 'more file')})" if rest else first


def _describe(check: FileCheck, fitting: str) -> list[str]:
    """A check in lines to print."""
    outcome = check.problem or (f"{fitting} at an offset" if check.offset else fitting)
    if check.by_hand and not check.problem:
        outcome = "would apply"
    if check.left_out:
        outcome = f"left out: {check.left_out}"
    lines = [f"{check.patch}: {check.file}: {outcome}"]
    lines += [f"    {note}" for note in check.notes]
    for place, added in check.by_hand:
        lines += [f"    add by hand {place}:", *(f"      | {line}" for line in added)]
    return lines


def _missing(tree: Path, refused: Sequence[Patch], given: Sequence[Patch]) -> str | None:
    """What patches build on that is neither given nor applied, as a sentence."""
    known = load(refused[0].folder)
    below = bases(known)
    names = set().union(*(below[patch.name] for patch in refused))
    others = [patch for patch in known if patch.name in names and patch not in given]
    problems = outcomes(check(tree, others))
    lacking = [name for name, problem in problems.items() if problem != ALREADY_APPLIED]
    if not lacking:
        return None
    builders = [patch.name for patch in refused if below[patch.name].intersection(lacking)]
    build = "builds" if len(builders) == 1 else "build"
    are = "is" if len(lacking) == 1 else "are"
    every = [patch.name for patch in known if patch.name in lacking or patch in given]
    return (
        f"{', '.join(builders)} {build} on {', '.join(lacking)}, which {are} not applied."
        f" Name all of them: {' '.join(every)}"
    )


def _applied(patch: Patch) -> list[FileCheck]:
    return [FileCheck(patch.name, file, ALREADY_APPLIED) for file in patch.files]


def _files(patch: Path) -> tuple[str, ...]:
    return tuple(CHANGED.findall(patch.read_text()))


def _attempt(scratch: Path, patch: Patch) -> list[FileCheck]:
    """Apply a patch to a copy: as git does, or else by placing it, if it is one to be placed."""
    placed = placing.place(scratch, _parse(patch)) if is_placeable(patch) else None
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
        left_out = [part.problem for part in file.parts if part.state == placing.LOST]
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
    lost = "; ".join(part.problem for part in parts(placing.LOST))
    problem = f"cannot place {lost}" if lost else None
    if lost == placing.NO_FILE:
        problem = lost
        by_hand = tuple(("where this Caffe has this code", lines) for _, lines in by_hand)
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


def _lacking(scratch: Path, patch: Patch) -> list[str]:
    """The patches that a patch of the solvers builds on and that a copy does not have."""
    needed = [other for other in load(patch.folder) if other.name in needs(patch)]
    return [
        other.name
        for other in needed
        if placing.place(scratch, _parse(other)).state != placing.APPLIED
    ]
