"""The commands `patch check`, `patch apply` and `patch remove` with nothing but Python itself."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caffe_clr.cli.ending import outcome, prepare
from caffe_clr.cli.patching import apply_patches, check_patches, pack_patches, remove_patches
from caffe_clr.errors import command
from caffe_clr.harness import series

_PLACE = Path(__file__).resolve().parents[2]  # python/ of a checkout, or the file that all is in
_IS_ONE_FILE = _PLACE.is_file()
_COMMANDS = {
    "check": "show whether the patches would apply to DIR or are already applied",
    "apply": "apply the patches to DIR: all of them, or none",
    "remove": "take patches back from DIR; what you have changed since stays",
}


def main() -> None:
    """Run the command that the arguments of this process name."""
    os.environ.setdefault("CLR_COMMAND", f"python3 {sys.argv[0]}")
    prepare()
    try:
        with _series() as folder:
            for line in _run(_parser().parse_args(sys.argv[1:]), folder):
                print(line)
    except BaseException as error:
        message, exit_status = outcome(error)
        if message:
            print(f"error: {message}", file=sys.stderr)
        sys.exit(exit_status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=os.environ["CLR_COMMAND"])
    patch = parser.add_subparsers(metavar="patch", required=True).add_parser("patch")
    commands = patch.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in _COMMANDS.items():
        added = commands.add_parser(name, help=purpose, description=f"{purpose.capitalize()}.")
        added.add_argument(
            "tree", metavar="DIR", type=Path, help="a checkout or unpacked tarball of Caffe"
        )
        added.add_argument(
            "names", metavar="PATCH", nargs="*", help="only these patches; with details of each"
        )
    if _IS_ONE_FILE:
        commands.add_parser("solver", help="print a solver that shows whether a Caffe is patched")
    else:
        packing = commands.add_parser("pack", help="pack these commands into one file")
        packing.add_argument("out", metavar="OUT", nargs="?", type=Path, default=Path("dist"))
    return parser


def _run(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Run a command with the series in `folder`; returns the lines to print."""
    if arguments.command == "solver":
        return (folder / series.SOLVER).read_text().splitlines()
    if arguments.command == "pack":
        return pack_patches(folder.parent, arguments.out)
    if arguments.command == "check":
        return check_patches(folder, arguments.tree, arguments.names)
    if arguments.command == "remove":
        return remove_patches(folder, arguments.tree, arguments.names)
    printing = command("patch solver").strip("`") if _IS_ONE_FILE else None
    return apply_patches(folder, arguments.tree, arguments.names, printing)


@contextmanager
def _series() -> Iterator[Path]:
    """The folder of the series: the checkout's, or a copy for git of what this file holds."""
    if not _IS_ONE_FILE:
        yield _PLACE.with_name("caffe_patch")
        return
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as temporary:
        with zipfile.ZipFile(_PLACE) as archive:
            archive.extractall(temporary)
        yield Path(temporary, "caffe_patch")
