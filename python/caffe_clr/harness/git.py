"""Runs git, whatever repository and variables surround it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from caffe_clr.errors import ClrError


def apply(tree: Path, patch: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Apply a patch to a folder; a failure is for the caller to judge."""
    # In a folder of some repository, git apply would take paths from that
    # repository's root and silently skip all of them.
    ceiling = {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    return _run(tree, ceiling, "apply", "--verbose", *options, str(patch.resolve()))


def run(repository: Path, *arguments: str) -> bytes:
    """The output of a git command in a repository.

    Raises:
        ClrError: it fails.
    """
    done = _run(repository, {}, *arguments)
    if done.returncode:
        raise ClrError(f"{repository}: git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _run(
    folder: Path, variables: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**kept, "LC_ALL": "C", **variables},
            capture_output=True,
        )
    except FileNotFoundError as error:
        if error.filename != "git":  # the folder
            raise
        raise ClrError(
            "git is not installed; install it (on Debian: apt-get install git)"
        ) from None
