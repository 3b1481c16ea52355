"""Runs Caffe's programs from a wheel that contains them."""

import os
import sys
from pathlib import Path

from caffe_clr import locations


def main() -> None:
    """Become the program that this process is named after."""
    program = locations.shipped("bin") / Path(sys.argv[0]).name
    os.execv(program, [str(program), *sys.argv[1:]])
