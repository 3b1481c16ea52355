"""Caffe's programs as commands of a wheel that carries them."""

import os
import sys
from pathlib import Path

from caffe_clr import locations


def main() -> None:
    """Become the program that this process is named after."""
    program = locations.shipped("bin") / Path(sys.argv[0]).name
    os.execv(program, [str(program), *sys.argv[1:]])
