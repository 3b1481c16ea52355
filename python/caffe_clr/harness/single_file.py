"""Packs what applies patches into one file, which Python runs as it is."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from pathlib import Path

from caffe_clr.harness import series
from caffe_clr.system import files

NAME = "caffe-clr.pyz"
_INTERPRETER = b"#!/usr/bin/env python3\n"


def pack(root: Path, out: Path) -> Path:
    """Write the file into a folder, from a checkout; the same sources give the same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    with files.replacing(out / NAME) as partial:
        with partial.open("wb") as stream:
            stream.write(_INTERPRETER)
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in sorted(_contents(root).items()):
                    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        partial.chmod(0o755)
    return out / NAME


def modules(python: Path) -> set[str]:
    """The files that python/__main__.py imports, itself, and those that they import."""
    found: set[str] = set()
    waiting = {"__main__.py"}
    while waiting:
        name = waiting.pop()
        found.add(name)
        imported = _imported(ast.parse((python / name).read_text()))
        waiting |= {file for file in imported if (python / file).is_file()} - found
    return found


def _contents(root: Path) -> dict[str, bytes]:
    """The content of each file in the archive."""
    patches = series.load(root / "caffe_patch")
    beside = ["series", "needs", series.SOLVER, *(patch.entry for patch in patches)]
    sources = {name: root / "python" / name for name in modules(root / "python")}
    sources.update({name: root / name for name in (f"caffe_patch/{file}" for file in beside)})
    sources["LICENSE"] = root / "LICENSE"
    return {name: path.read_bytes() for name, path in sources.items()}


def _imported(module: ast.Module) -> Iterator[str]:
    """The files in which the modules that one imports at its top may be."""
    for node in module.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            for path in ("/".join(parts[:size]) for size in range(1, len(parts) + 1)):
                yield from (f"{path}.py", f"{path}/__init__.py")
