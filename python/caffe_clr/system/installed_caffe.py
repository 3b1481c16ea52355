"""The Caffe that is installed in this Python environment, seen without importing it."""

import importlib.util
import shutil
import subprocess
from functools import cache
from pathlib import Path


def package() -> Path | None:
    """The folder of its Python package, None where there is no Caffe."""
    caffe = importlib.util.find_spec("caffe")
    if caffe is None or not caffe.submodule_search_locations:
        return None
    return Path(caffe.submodule_search_locations[0])


@cache
def has_opencv() -> bool:
    """Whether it can decode images; true as well where its library is not found."""
    library = _prefix() / "lib" / "libcaffe.so"
    return not library.is_file() or b"libopencv_core" in library.read_bytes()


def upgrade_net(net: str) -> str:
    """A net prototxt in the present format, by Caffe's own upgrade_net_proto_text.

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
