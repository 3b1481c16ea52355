"""What an installed Caffe needs to run in an image that has no compiler.

python -m caffe_clr.harness.runtime PREFIX OUT writes
    OUT/packages.txt  the Debian packages that hold the libraries of PREFIX
    OUT/lib/          what no such package holds: the libraries of NVIDIA's own packages
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from caffe_clr.errors import ClrError

# the programs of Python itself, which no library needs
_PACKAGES = ("python3",)
_DRIVER = ("libcuda.so.1",)  # comes from the host


def main(prefix: Path, out: Path) -> None:
    packages = set(_PACKAGES)
    (out / "lib").mkdir(parents=True, exist_ok=True)
    for name, library in _libraries(prefix):
        if library.is_relative_to(sys.prefix):
            continue  # a wheel's, and goes where the environment goes
        package = _package(library)
        if package:
            packages.add(package)
        else:
            shutil.copy(library, out / "lib" / name)
    (out / "packages.txt").write_text("".join(f"{name}\n" for name in sorted(packages)))


def _libraries(prefix: Path) -> Iterator[tuple[str, Path]]:
    """The libraries that what is in `prefix` is linked with, each once, by name."""
    seen = set()
    waiting = [path for path in prefix.rglob("*") if path.is_file() and _is_elf(path)]
    while waiting:
        file = waiting.pop()
        resolved = _resolved(file)
        for name in _needed(file):
            path = resolved.get(name)
            if name in seen or name in _DRIVER or (path and path.is_relative_to(prefix)):
                continue
            if path is None:
                raise ClrError(f"{file} needs {name}, which is not found")
            seen.add(name)
            yield name, path
            if _package(path) is None:
                waiting += _with_parts(path)


def _with_parts(library: Path) -> list[Path]:
    """A library and what it loads by itself: cuDNN is in parts."""
    if library.name.startswith("libcudnn"):
        return sorted(library.parent.glob("libcudnn*.so.?"))
    return [library]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _needed(file: Path) -> list[str]:
    return re.findall(r"NEEDED +(\S+)", _output("objdump", "-p", str(file)))


def _resolved(file: Path) -> dict[str, Path]:
    found = re.findall(r"(\S+) => (/\S+)", _output("ldd", str(file)))
    return {name: Path(path) for name, path in found}


def _package(library: Path) -> str | None:
    """The distribution's package that holds a library, if it is one's."""
    for path in dict.fromkeys((library, library.resolve(), Path(os.path.realpath(library)))):
        done = subprocess.run(["dpkg-query", "-S", str(path)], capture_output=True, text=True)
        if done.returncode == 0:
            package = done.stdout.split(":")[0]
            maintainer = _output("dpkg-query", "-W", "-f", "${Maintainer}", package)
            return None if "nvidia.com" in maintainer else package
    return None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
