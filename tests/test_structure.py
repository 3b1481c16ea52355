"""The package's seams: who may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import caffe_clr

PACKAGE = Path(caffe_clr.__file__).parent
SLOW = ("matplotlib", "sklearn", "PIL", "h5py", "distributed", "caffe", "IPython", "pandas")


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_face(file: Path) -> bool:
    """Whether a package's __init__.py only hands on names of its modules."""
    body = ast.parse(file.read_text()).body[1:]
    return file.stem == "__init__" and all(isinstance(node, ast.ImportFrom) for node in body)


def test_the_package_has_at_most_ten_floors_and_no_cycle() -> None:
    """A module stands a floor above the highest of those that it imports."""
    files = {}
    for file in PACKAGE.glob("**/*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    del files["caffe_clr"]
    needed = {name: (set(imported(file)) & files.keys()) - {name} for name, file in files.items()}
    for face in [name for name, file in files.items() if is_face(file)]:
        behind = needed.pop(face)
        for names in needed.values():
            if face in names:
                names.remove(face)
                names |= behind
    sorter = TopologicalSorter(needed)
    sorter.prepare()  # refuses a cycle
    floors = 0
    while sorter.is_active():
        sorter.done(*sorter.get_ready())
        floors += 1
    assert floors <= 10


def test_only_the_command_line_prints() -> None:
    consoles = {"rich", "typer", "caffe_clr.cli"}
    for file in PACKAGE.glob("**/*.py"):
        if file.relative_to(PACKAGE).parts[0] not in ("cli", "__main__.py"):
            names = set(imported(file))
            assert not {name for name in names if name.split(".")[0] in consoles}, file
            assert not names & consoles, file
            calls = {
                node.func.id
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert "print" not in calls, file


@pytest.mark.parametrize(
    "module",
    [
        "cli.entry",
        "cli.schedules",
        "cli.run_display",
        "cli.bounds",
        "cli.comparisons",
        "cli.log_summary",
    ],
)
def test_what_is_slow_to_import_waits_until_it_is_needed(module: str) -> None:
    code = f"import sys, caffe_clr.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(SLOW)


def test_folders_import_one_another_one_way() -> None:
    """Of two rooms at the package's root, no file of one imports from the other and back."""
    rooms: dict[str, set[str]] = {}
    for file in PACKAGE.glob("**/*.py"):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        names = {name.split(".")[1] for name in imported(file) if name.startswith("caffe_clr.")}
        rooms.setdefault(room, set()).update(names - {room})
    TopologicalSorter(rooms).prepare()  # refuses a cycle
    assert len(rooms.keys() - {"__init__"}) <= 14
