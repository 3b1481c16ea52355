"""Runs `patch` with nothing but Python itself: from this folder, and from caffe-clr.pyz."""

import sys

if sys.hexversion < 0x3080000:
    sys.exit("error: this needs Python 3.8 or later, and runs on " + sys.version.split()[0])

from caffe_clr.cli.standalone import main

main()
