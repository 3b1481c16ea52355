"""Looks for data races in the layers on the CPU, with ThreadSanitizer.

    .venv/bin/python tests/check_races.py

Builds Caffe with clang into build/races, and computes every layer of test_parallel.py
forward and backward with 2 and with 5 threads, among which even the smallest blob is
shared. Takes Debian's clang-14 and libclang-rt-14-dev.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import test_parallel

from caffe_clr import locations
from caffe_clr.cli.console import console
from caffe_clr.cli.report import ConsoleReport
from caffe_clr.errors import ClrError
from caffe_clr.harness import pipeline

CLANG = "clang++-14"
FLAGS = "-fsanitize=thread -g1"


def main() -> None:
    if not shutil.which(CLANG):
        raise ClrError(f"{CLANG} is missing: apt-get install clang-14 libclang-rt-14-dev")
    os.environ.update(CXX=CLANG, CXXFLAGS=FLAGS)
    work = locations.build() / "races"
    options = pipeline.Options(prefix=work / "caffe", work=work, import_here=False)
    tree = pipeline.build(options, ConsoleReport(console))
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        net = Path(folder) / "net.prototxt"
        for engine in ("CAFFE", "ONEDNN"):
            net.write_text(test_parallel.net(test_parallel.all_layers(), engine))
            for threads in (2, 5):
                check(tree.caffe, net, engine, threads)


def check(caffe: Path, net: Path, engine: str, threads: int) -> None:
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "CAFFE_ELEMENTS_PER_THREAD": "1",
        # libraries that are not compiled so would seem to take no locks
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
    }
    done = subprocess.run(
        [caffe, "time", f"-model={net}", "-iterations=3"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise ClrError(f"{engine}, {threads} threads:\n{done.stdout}")
    layers = done.stdout.count("forward: ")
    console.print(f"{engine}, {threads} threads: no race in {layers} layers")


if __name__ == "__main__":
    try:
        main()
    except ClrError as error:
        sys.exit(f"error: {error}")
