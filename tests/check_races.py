"""Looks for data races in the layers on the CPU, with ThreadSanitizer.

    .venv/bin/python tests/check_races.py

Builds Caffe with clang into build/races, and computes every layer of test_openmp.py
forward and backward with 2 and with 5 threads, among which even the smallest blob is
shared. Takes Debian's clang-14, libclang-rt-14-dev and libomp-14-dev; Archer, of the
last, tells ThreadSanitizer how OpenMP's threads wait for each other.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import test_openmp

from caffe_clr import locations
from caffe_clr.cli.app import console
from caffe_clr.errors import ClrError
from caffe_clr.harness import pipeline
from caffe_clr.harness.report import Report

CLANG = "clang++-14"
FLAGS = "-fsanitize=thread -g1 -DCAFFE_ELEMENTS_PER_THREAD=1"


def main() -> None:
    if not shutil.which(CLANG):
        raise ClrError(
            f"{CLANG} is missing: apt-get install clang-14 libclang-rt-14-dev libomp-14-dev"
        )
    os.environ.update(CXX=CLANG, CXXFLAGS=FLAGS)
    work = locations.build() / "races"
    options = pipeline.Options(prefix=work / "caffe", work=work, import_here=False)
    tree = pipeline.build(options, Report(console))
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        net = Path(folder) / "net.prototxt"
        net.write_text(test_openmp.net(test_openmp.all_layers()))
        for threads in (2, 5):
            check(tree.caffe, net, threads)


def check(caffe: Path, net: Path, threads: int) -> None:
    resources = subprocess.check_output([CLANG, "-print-resource-dir"], text=True).strip()
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_TOOL_LIBRARIES": f"{resources}/../../libarcher.so",
        "ARCHER_OPTIONS": "verbose=1",
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
    if "Archer detected OpenMP" not in done.stdout:
        raise ClrError(f"Archer is not at work: {variables['OMP_TOOL_LIBRARIES']}")
    if done.returncode:
        raise ClrError(f"{threads} threads:\n{done.stdout}")
    console.print(f"{threads} threads: no race in {done.stdout.count('forward: ')} layers")


if __name__ == "__main__":
    try:
        main()
    except ClrError as error:
        sys.exit(f"error: {error}")
