"""Where the project's own files are, and where it may write.

In a checkout, caffe_patch/ and models/ stand beside python/; in a wheel they
are under caffe_clr/data.
"""

from pathlib import Path

import platformdirs

from caffe_clr.errors import ClrError

PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The root of the checkout that this package is imported from, if any."""
    root = PACKAGE.parent.parent
    return root if (root / "caffe_patch" / "series").is_file() else None


def shipped(name: str) -> Path:
    """The folder caffe_patch, models or bin, of the checkout or else of the wheel.

    Raises:
        ClrError: the installed package lacks the folder.
    """
    folder = (checkout() or PACKAGE / "data") / name
    if not folder.is_dir():
        raise ClrError(f"{folder} is missing: the installed package is incomplete, reinstall it")
    return folder


def has_programs() -> bool:
    """Whether this package is one that Caffe came with, as a wheel of `caffe-clr wheel` is."""
    return checkout() is None and (PACKAGE / "data/bin").is_dir()


def cache() -> Path:
    """The folder that keeps downloads from one checkout to the next."""
    return platformdirs.user_cache_path("caffe-clr")


def build() -> Path:
    """The folder that Caffe is built in: build/ of the checkout, or one in the cache."""
    root = checkout()
    return root / "build" if root else cache() / "build"
