"""Applies patches to a user's tree so that they can be taken back, and takes them back.

A record in the tree holds each file as it was before and after a patch. The
difference is taken back from the file as it is now, so that what its user has
changed since stays.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict

from caffe_clr.errors import ClrError, command
from caffe_clr.harness import edits, git, placing, series, writing
from caffe_clr.harness.series import Changes, FileCheck, Patch, Trial

RECORD = ".caffe-clr-record"


@dataclass(frozen=True)
class Entry:
    """What the record holds of a patch: the digest of its file, and what it changed."""

    digest: str
    changes: Changes


_Record = Dict[str, Entry]  # by patch, in the order in which they were applied


@dataclass
class Removal:
    """What taking patches back does.

    Args:
        names: the patches that are taken back.
        contents: the new contents of the files; None for one that goes.
        notes: what stays of them, as lines to print.
        lost: lines that cannot be taken back, likewise.
    """

    names: list[str] = field(default_factory=list)
    contents: dict[str, bytes | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def apply(tree: Path, patches: Sequence[Patch], in_detail: bool = True) -> list[FileCheck]:
    """Apply patches as `series.apply` does, and record in the tree what they changed.

    Raises:
        ClrError: see `check`; or a file cannot be written. Nothing was changed.
    """
    trial = check(tree, patches, "nothing was changed, because ", in_detail)
    if trial.changes:
        record = _read(tree)
        for patch in patches:
            if patch.name in trial.changes:
                # a file that was there already may be left of an earlier time
                earlier = record.pop(patch.name, Entry("", {})).changes
                changes = {**earlier, **trial.changes[patch.name]}
                record[patch.name] = Entry(series.digest([patch]), changes)
        writing.write(tree, {**trial.contents, RECORD: _encoded(record)})
    return trial.checks


def check(
    tree: Path, patches: Sequence[Patch], consequence: str = "", in_detail: bool = True
) -> Trial:
    """Try patches on a copy, as `series.attempt` does.

    Args:
        consequence: what a refusal begins with.
        in_detail: whether it lists the lines to add by hand.

    Raises:
        ClrError: a patch does not apply (the message says which, file by file), or the tree has
            another version of it or of one that it builds on.
    """
    trial = series.attempt(tree, patches)
    refused = series.refused(trial.checks)
    record = _read(tree)
    others = _other_versions(tree, patches, record, bool(refused))
    if others:
        are = f"{others[0]} is" if len(others) == 1 else f"{', '.join(others)} are"
        raise ClrError(
            f"{tree}: {consequence}{are} there in another version of the patches."
            f" To upgrade, first take back what is there: {command(f'patch remove {tree}')}"
        )
    if refused:
        reason = series.refusal(tree, patches, trial.checks, in_detail)
        if any(check.patch in record for check in refused):
            undo = command(f"patch remove {tree}")
            reason += f"\nIt was applied here before. {undo} takes back what is left of it."
        raise ClrError(f"{tree}: {consequence}{reason}")
    return trial


def _other_versions(
    tree: Path, patches: Sequence[Patch], record: _Record, refused: bool
) -> list[str]:
    """The patches in a tree that are not those of the series, of those and below those to apply.

    Where one is refused, it may be for those that are no longer in the series.
    """
    known = series.load(patches[0].folder)
    bases = series.bases(known)
    below = {patch.name for patch in patches}.union(*(bases[patch.name] for patch in patches))
    digests = {patch.name: series.digest([patch]) for patch in known}
    restored = _restored(tree, record)
    return [
        name
        for name, entry in record.items()
        if (name in below or (refused and name not in digests))
        and entry.digest != digests.get(name)
        and _is_there(tree, name, record, restored)
    ]


def _is_there(tree: Path, name: str, record: _Record, restored: dict[str, list[str]]) -> bool:
    """Whether a file has a recorded change as it was made; `restored` is of `_restored`."""
    for file, (before, after) in record[name].changes.items():
        now = writing.read(tree / file)
        if now is None or name in restored.get(file, ()):
            continue
        if before is None or not edits.undo(before, after, now).lost:
            return True
    return False


def _restored(tree: Path, record: _Record) -> dict[str, list[str]]:
    """By file, the patches that it no longer has, because it is as before the first of them."""
    chains: dict[str, list[str]] = {}
    for name, entry in record.items():
        for file in entry.changes:
            chains.setdefault(file, []).append(name)
    restored = {}
    for file, names in chains.items():
        now = writing.read(tree / file)
        for place, name in enumerate(names):
            if now == record[name].changes[file][0]:
                restored[file] = names[place:]
                break
    return restored


def remove(tree: Path, patches: Sequence[Patch], named: bool = True) -> Removal:
    """Take back those of the patches that are applied: all of them, or none.

    Args:
        named: whether the patches were named. If not, patches that `apply` has not applied stay in
            a tree where it has applied others, and those that are no longer in the series go.

    Raises:
        ClrError: another patch builds on one of them, lines of them have
            changed since, or one was placed without a record; nothing was changed.
    """
    record = _read(tree)
    known = series.load(patches[0].folder)
    applied = _applied(tree, known, record)
    wanted = [patch for patch in applied if patch in patches]
    others = [p for p in wanted if p.name not in record] if record and not named else []
    wanted = [patch for patch in wanted if patch not in others]
    _check_builders(tree, wanted, applied)
    in_series = {patch.name for patch in known}
    gone = [name for name in record if name not in in_series]
    if not record and series.FEATURE in {patch.name for patch in patches}:
        _check_feature(tree, known)
    done = _taken_back(tree, wanted, [] if named else gone, record)
    if others:
        names = ", ".join(patch.name for patch in others)
        done.notes.append(f"Name these to remove them, which `patch apply` did not apply: {names}")
    if done.lost and named and gone:
        raise ClrError(
            f"{tree}: nothing was changed, because patches of another version may build on it:"
            f" {', '.join(gone)}. Take all of them back: {command(f'patch remove {tree}')}"
        )
    if done.lost:
        first = f"{tree}: nothing was changed, because lines of the patches have changed since:"
        remedy = "Undo these changes, then run this again."
        raise ClrError("\n".join([first, *done.lost, remedy]))
    over = {patch.name for patch in known if patch in wanted or patch not in applied}
    over.update(done.names)
    rest = {name: entry for name, entry in record.items() if name not in over}
    if rest != record:
        done.contents[RECORD] = _encoded(rest) if rest else None
    writing.write(tree, done.contents)
    return done


def _applied(tree: Path, patches: Sequence[Patch], record: _Record) -> list[Patch]:
    """The patches that a tree has, or has recorded parts of."""
    there = series.reversible(tree, patches)
    tried = [p for p in patches if p in there or p.name in record or series.is_placeable(p)]
    problems = series.outcomes(series.check(tree, tried))
    restored = _restored(tree, record)
    return [
        patch
        for patch in tried
        if problems[patch.name] == series.ALREADY_APPLIED
        or (
            patch.name in record
            and (problems[patch.name] or _is_there(tree, patch.name, record, restored))
        )
    ]


def _check_builders(tree: Path, wanted: Sequence[Patch], applied: Sequence[Patch]) -> None:
    """Refuse to take back patches below others that stay."""
    below = {patch.name for patch in wanted}
    builders: list[str] = []
    based: set[str] = set()
    for patch in applied:
        needed = below.intersection(series.needs(patch))
        if needed and patch not in wanted:
            builders.append(patch.name)
            based |= needed
            below.add(patch.name)
    if builders:
        build = "builds" if len(builders) == 1 else "build"
        on = ", ".join(patch.name for patch in wanted if patch.name in based)
        every = " ".join(patch.name for patch in applied if patch.name in below)
        raise ClrError(
            f"{tree}: nothing was changed, because {', '.join(builders)} {build} on {on}."
            f" Name all of them: {every}"
        )


def _check_feature(tree: Path, known: Sequence[Patch]) -> None:
    """Refuse a tree whose feature is of another version, which only that version can take back."""
    checks = series.check(tree, series.select(known, [series.FEATURE]))
    if any(placing.PARTLY in (check.problem or "") for check in checks):
        raise ClrError(
            f"{tree}: nothing was changed. It has {series.FEATURE} in another version or in part,"
            f" and no {RECORD}. Take it back with the version that applied it, or restore the"
            " files from your version control or from your copy of this Caffe"
        )


def _taken_back(
    tree: Path, wanted: Sequence[Patch], gone: Sequence[str], record: _Record
) -> Removal:
    """What taking patches back does: those of the series, and by name those no longer in it."""
    done = Removal([*(patch.name for patch in wanted), *gone])
    recorded = [name for name in reversed(record) if name in done.names]
    restored = _restored(tree, record)
    files = {file for name in recorded for file in record[name].changes}
    files |= {file for patch in wanted for file in patch.files}
    with writing.copied(tree, files) as scratch:
        for name in recorded:
            for file, (before, after) in record[name].changes.items():
                if name not in restored.get(file, ()):
                    _take_back(scratch, name, file, before, after, done)
        for patch in reversed([patch for patch in wanted if patch.name not in record]):
            _reverse(tree, scratch, patch)
        for file in sorted(files):
            content = writing.read(scratch / file)
            if content != writing.read(tree / file):
                done.contents[file] = content
    return done


def _take_back(
    scratch: Path, name: str, file: str, before: bytes | None, after: bytes, done: Removal
) -> None:
    now = writing.read(scratch / file)
    if now in (before, None):
        return
    if before is None:
        if now == after:
            writing.restore(scratch / file, None)
        else:
            done.notes.append(f"{file} stays, because it has changed since {name} added it")
        return
    undone = edits.undo(before, after, now)
    writing.restore(scratch / file, undone.content)
    stays = "stays, because it has changed"
    done.notes += [f'{file}: the comment "{line}" {stays}' for line in undone.kept]
    done.lost += [f'  {name}: {file}: "{line}"' for line in undone.lost]


def _reverse(tree: Path, scratch: Path, patch: Patch) -> None:
    """Take back a patch that was not applied by `apply`, or whose record is gone."""
    absent = [f"--exclude={file}" for file in patch.files if not (scratch / file).is_file()]
    if git.apply(scratch, patch.path, "--reverse", *absent).returncode:
        there = [file for file in patch.files if (tree / file).is_file()]
        raise ClrError(
            f"{tree}: nothing was changed, because {patch.name} has no record in {RECORD}, and"
            f" `git apply --reverse` does not fit. Restore these files from your version control"
            f" or from your copy of this Caffe: {', '.join(there)}"
        )
    proto = scratch / series.PROTO
    if proto.is_file():
        writing.restore(proto, placing.with_true_next_id(proto.read_bytes()))


def _read(tree: Path) -> _Record:
    path = tree / RECORD
    if not path.is_file():
        return {}
    try:
        values = json.loads(lzma.decompress(path.read_bytes()))
        # without digests before 0.2.0
        entries = {n: ("", v) if isinstance(v, dict) else v for n, v in values.items()}
        return {
            name: Entry(
                digest,
                {
                    file: (
                        None if before is None else before.encode("latin-1"),
                        after.encode("latin-1"),
                    )
                    for file, (before, after) in files.items()
                },
            )
            for name, (digest, files) in entries.items()
        }
    except (lzma.LZMAError, ValueError, TypeError, AttributeError):
        raise ClrError(f"{path} is damaged; delete it, and run this again") from None


def _encoded(record: _Record) -> bytes:
    values = {
        name: [
            entry.digest,
            {
                file: [
                    content if content is None else content.decode("latin-1") for content in change
                ]
                for file, change in entry.changes.items()
            },
        ]
        for name, entry in record.items()
    }
    return lzma.compress(json.dumps(values).encode())
