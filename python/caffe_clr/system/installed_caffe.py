"""Inspects the Caffe in this Python environment without importing it."""

import importlib.util
import shutil
import subprocess
from functools import cache
from pathlib import Path


def package() -> Path | None:
    """The folder of Caffe's Python package; None if there is no Caffe."""
    caffe = importlib.util.find_spec("caffe")
    if caffe is None or not caffe.submodule_search_locations:
        return None
    return Path(caffe.submodule_search_locations[0])


def has_opencv() -> bool:
    """Whether Caffe has OpenCV; also true if its library is not found."""
    return library_has(b"libopencv_core") is not False


@cache
def library_has(word: bytes) -> bool | None:
    """Whether Caffe's library contains a word; None if the library is not found."""
    for folder in ("lib", "build/lib"):
        library = _prefix() / folder / "libcaffe.so"
        if library.is_file():
            return word in library.read_bytes()
    return None


def upgrade_net(net: str) -> str:
    """Upgrade a net prototxt to the present format with Caffe's upgrade_net_proto_text.

    Args:
        net: the text of a NetParameter.

    Raises:
        OSError: the program is missing.
        CalledProcessError: it cannot read the net.
    """
    program = _prefix() / "bin" / "upgrade_net_proto_text"
    found = program if program.is_file() else shutil.which(program.name) or program
    command = [str(found), "/dev/stdin", "/dev/stdout"]
    done = subprocess.run(command, input=net, capture_output=True, text=True)
    if done.returncode != 1:  # it could not upgrade all; Caffe trains the rest without a word
        done.check_returncode()
    return done.stdout


def _prefix() -> Path:
    """The folder that Caffe was installed into, with python/caffe in it."""
    return (package() or Path("/usr/local/python/caffe")).parent.parent
