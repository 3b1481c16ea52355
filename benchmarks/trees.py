"""Applies the solvers' patches to public trees, on every branch and tag."""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tables
from caffe_clr import locations
from caffe_clr.errors import ClrError
from caffe_clr.harness import series

_NAMES = (series.FEATURE, "one-cycle", "cyclical-momentum")
_OF_SOLVERS = re.compile(r"(solver[^/]*\.(cpp|hpp|cu)|python/caffe/_caffe\.cpp|caffe\.proto)$")
_TAKEN = (
    *("src/caffe", "include", "docs/tutorial/solver.md", "python/caffe/_caffe.cpp"),
    "examples/cifar10",
)
# parts that may be left out, by file
_LEFT_OUT = {
    "docs/": "tutorial",
    "examples/": "example",
    "python/caffe/_caffe.cpp": "solver.momentum",
    "src/caffe/test/": "gtest",
}
_LOG = "MomentumNote("  # in the line of the log


@dataclass(frozen=True)
class Tree:
    """A commit of a repository, and the folder in it that holds a Caffe."""

    repository: Path
    ref: str
    folder: str

    @property
    def name(self) -> str:
        parts = [part for part in self.repository.resolve().parts if part not in ("repo", ".git")]
        return f"{parts[-1].replace('+', '/')} {self.ref}"


def show(repositories: Sequence[Path], compiles: bool) -> None:
    """Try the patches on each tree whose solvers differ from the others'; print a line each.

    Args:
        repositories: git repositories, bare or not, that hold a Caffe.
        compiles: also compile the solvers, before and after.
    """
    patches = series.load(locations.shipped("caffe_patch"))
    trees = list(_different(repositories))
    columns = [*_NAMES, "compiles"] if compiles else list(_NAMES)
    tables.console.print(tables.machine(), soft_wrap=True)
    _print("", columns)
    placed = [0 for _ in _NAMES]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        rows = threads.map(lambda tree: _tried(tree, patches, compiles), trees)
        for tree, row in zip(trees, rows, strict=True):
            _print(tree.name, row)
            placed = [n + cell.startswith("placed") for n, cell in zip(placed, row, strict=False)]
    _print(f"{len(trees)} trees", [f"{n} placed" for n in placed])


def _print(name: str, cells: Sequence[str]) -> None:
    line = f"{name:<52}  " + "".join(f"{cell:<34}  " for cell in cells)
    tables.console.print(line.rstrip(), soft_wrap=True, markup=False)


def _different(repositories: Sequence[Path]) -> Iterator[Tree]:
    seen = set()
    for repository in repositories:
        names = ("refs/heads", "refs/tags", "refs/remotes/origin")
        listed = _git(repository, "for-each-ref", "--format=%(refname:short)", *names).decode()
        for ref in listed.split():
            files = _git(repository, "ls-tree", "-r", ref).decode().splitlines()
            blobs = sorted({line.split()[2] for line in files if _OF_SOLVERS.search(line)})
            protos = [line.split("\t")[1] for line in files if line.endswith(series.PROTO)]
            digest = hashlib.sha256("".join(blobs).encode()).digest()
            if protos and digest not in seen:
                seen.add(digest)
                yield Tree(repository, ref, protos[0].removesuffix(series.PROTO))


def _tried(tree: Tree, patches: Sequence[series.Patch], compiles: bool) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as temporary:
        folder = Path(temporary)
        wanted = [f"{tree.folder}{name}" for name in _TAKEN]
        there = _git(tree.repository, "ls-tree", "--name-only", tree.ref, *wanted).decode().split()
        content = _git(tree.repository, "archive", tree.ref, *there)
        subprocess.run(["tar", "-xC", folder], input=content, check=True)
        caffe = folder / tree.folder
        compiled = not compiles or _compiles(caffe)
        cells = [_placed(caffe, series.select(patches, [name])) for name in _NAMES]
        if compiles:
            cells.append("not before" if not compiled else "yes" if _compiles(caffe) else "no")
        return cells


def _placed(caffe: Path, patch: list[series.Patch]) -> str:
    """What became of a patch, in a word or two."""
    try:
        checks = series.apply(caffe, patch)
    except ClrError as error:
        lines = str(error).splitlines()[1:]
        reason = str(error).partition("because ")[2]
        return next((line for line in lines if not line.startswith(" ")), reason)
    left_out = {
        word
        for check in checks
        for start, word in _LEFT_OUT.items()
        if check.left_out and check.file.startswith(start)
    }
    if any(_LOG in note for check in checks for note in check.notes if "left out" in note):
        left_out.add("log")
    return f"placed, no {', '.join(sorted(left_out))}" if left_out else "placed"


def _compiles(caffe: Path) -> bool:
    """Whether g++ takes the solvers of a tree and the messages of its caffe.proto."""
    generated = caffe / "generated/caffe/proto"
    generated.mkdir(parents=True, exist_ok=True)
    proto = caffe / series.PROTO
    command = ["protoc", f"-I{proto.parent}", f"--cpp_out={generated}", str(proto)]
    if subprocess.run(command, capture_output=True).returncode:
        return False
    found = (caffe / "src/caffe").glob("**/*solver.cpp")
    solvers = sorted(file for file in found if file.parent.name != "test")
    unit = generated / "solvers.cpp"
    unit.write_text("".join(f'#include "{file}"\n' for file in solvers))
    folders = ("generated", "include", "src")
    options = ["-w", "-fsyntax-only", "-DCPU_ONLY", "-DUSE_OPENCV", "-I/usr/include/hdf5/serial"]
    command = ["g++", *options, *(f"-I{caffe / folder}" for folder in folders), str(unit)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise ClrError(f"{repository}: git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
