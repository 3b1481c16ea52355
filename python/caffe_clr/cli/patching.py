"""Tries, applies and takes back patches; returns the lines to print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caffe_clr.errors import command
from caffe_clr.harness import removal, series, single_file


def check_patches(folder: Path, tree: Path, names: Sequence[str]) -> list[str]:
    """Try patches of the series in `folder` on a tree.

    Args:
        names: the patches; all of them if there are none.
    """
    patches = series.select(series.load(folder), names)
    checks = removal.check(tree, patches, in_detail=bool(names)).checks
    shown = series.details if names else series.summary
    told = [] if series.is_applied(checks) else shown(checks)
    return [series.verdict(checks), *told]


def apply_patches(
    folder: Path, tree: Path, names: Sequence[str], printing: str | None = None
) -> list[str]:
    """Apply patches.

    Args:
        printing: the command that prints the solver for a test; None names its file.
    """
    patches = series.select(series.load(folder), names)
    checks = removal.apply(tree, patches, bool(names))
    told = [series.verdict(checks, "Applied")]
    if not series.is_applied(checks):
        shown = series.details if names else series.summary
        told += [*shown(checks, "applied"), *series.next_steps(tree, patches, printing)]
        told.append(f"{command(f'patch remove {tree}')} takes it back.")
    return told


def remove_patches(folder: Path, tree: Path, names: Sequence[str]) -> list[str]:
    """Take patches back."""
    removed = removal.remove(tree, series.select(series.load(folder), names), bool(names))
    told = "None of these patches is applied. There is nothing to do."
    if removed.names:
        told = f"Removed: {', '.join(removed.names)}."
    return [told, *removed.notes]


def pack_patches(root: Path, out: Path) -> list[str]:
    """Pack these commands into one file, from the checkout at `root`."""
    file = single_file.pack(root, out)
    return [f"{file}, {file.stat().st_size / 1000:,.0f} KB"]
