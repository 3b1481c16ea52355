"""Builds the two Caffes that the benchmarks compare, if they are not built."""

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

from caffe_clr import locations
from caffe_clr.errors import ClrError
from caffe_clr.harness import pipeline, series
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.report import Report


def without(*kept: str) -> tuple[str, ...]:
    """All patches except those of the toolchain and those named."""
    patches = series.load(locations.shipped("caffe_patch"))
    return tuple(p.name for p in patches if p.group != "toolchain" and p.name not in kept)


def this_build(report: Report) -> Tree:
    """Caffe with the whole series."""
    return pipeline.build(pipeline.Options(prefix=locations.build() / "caffe"), report)


def stock(report: Report) -> Tree:
    """Caffe with only the toolchain patches, built the same way."""
    work = locations.build() / "stock"
    options = pipeline.Options(
        prefix=work / "caffe",
        work=work,
        without=without(),
        onednn=False,
        import_here=False,
    )
    return pipeline.build(options, report)


def compile_program(tree: Tree, source: str, program: Path) -> Path:
    """Compile a program of this folder with the Caffe in `tree`, as that was compiled."""
    commands = json.loads((tree.binary / "compile_commands.json").read_text())
    words = shlex.split(
        next(
            each["command"]
            for each in commands
            if "/caffe.dir/" in each["command"] and not each["file"].endswith(".cu")
        )
    )
    options = [word for word in words if re.match(r"-[DI]", word)]
    options += [f"-isystem{folder}" for word, folder in pairwise(words) if word == "-isystem"]
    command = [
        *("g++", "-O2", *options, str(Path(__file__).with_name(source)), "-o", str(program)),
        *(f"-L{tree.prefix}/lib", f"-Wl,-rpath,{tree.prefix}/lib"),
        # what libcaffe is linked with counts, too
        *("-Wl,--copy-dt-needed-entries", "-lcaffe"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ClrError(f"{source} does not compile:\n{done.stderr}")
    return program
