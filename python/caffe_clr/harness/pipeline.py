"""Builds Caffe step by step, and repeats only steps whose input has changed.

build/ holds
    source/     the patched source
    cmake/      CMake's and the compiler's files
    logs/       the output of each step
    state.json  the input of each step at its last run
"""

import filecmp
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from caffe_clr import locations
from caffe_clr.errors import ClrError, UsageError, counted
from caffe_clr.harness import (
    build_record,
    commands,
    compilation,
    import_path,
    series,
    source,
    toolchain,
)
from caffe_clr.harness.report import Report
from caffe_clr.system import processors
from caffe_clr.system.files import replacing


@dataclass(frozen=True)
class Options:
    """The options of a build.

    Args:
        prefix: the folder to install into.
        source: a folder or tarball of the pinned revision, or a folder with another Caffe;
            the pinned revision is fetched where None.
        jobs: how many compilers run at once; where None, one on each processor.
        gtests: also build and run Caffe's C++ tests.
        opencv: build with OpenCV; where None, if its development files are there.
        onednn: compute layers on the CPU with oneDNN; None where it is fast.
        cuda: build for NVIDIA's GPUs.
        cuda_architectures: which GPUs; where None, one of each generation.
        cudnn: build with cuDNN; where None, if it is found.
        nccl: build with NCCL; where None, if it is found.
        without: names of patches to leave out.
        work: the folder to build in; where None, the one of locations.build().
        import_here: make `import caffe` of this environment find this build.
    """

    prefix: Path
    source: Path | None = None
    jobs: int | None = None
    gtests: bool = False
    opencv: bool | None = None
    onednn: bool | None = None
    cuda: bool = False
    cuda_architectures: str | None = None
    cudnn: bool | None = None
    nccl: bool | None = None
    without: tuple[str, ...] = ()
    work: Path | None = None
    import_here: bool = True


def build(options: Options, report: Report) -> compilation.Tree:
    """Fetch, patch, configure, compile and install Caffe, and check that it trains.

    Returns:
        The folders of the build.

    Raises:
        UsageError: the prefix has a Caffe of another origin.
        ClrError: a step failed; what is done stays done, and the next run goes on from there.
    """
    jobs = processors.count() if options.jobs is None else options.jobs
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: give 1 or more")
    build_record.check_prefix(options.prefix)
    work = options.work or locations.build()
    _check_writable(work, options.prefix)
    onednn = toolchain.has_fast_onednn() if options.onednn is None else options.onednn
    toolchain.check(onednn)
    has_opencv = toolchain.has_opencv()
    opencv = has_opencv if options.opencv is None else options.opencv
    if opencv and not has_opencv:
        raise ClrError("OpenCV's development files are missing (Debian package libopencv-dev)")
    cuda = _cuda(options) if options.cuda else None
    tree = compilation.Tree(work / "source", work / "cmake", options.prefix, work / "logs")
    python, cmake = sys.version.split()[0], toolchain.version("cmake")
    report.line("building", f"in {work}, to install into {tree.prefix}")
    report.line(
        "with",
        f"Python {python}, g++ {toolchain.version('g++')}, CMake {cmake},"
        f" {'with' if onednn else 'no'} oneDNN, {'with' if opencv else 'no'} OpenCV,"
        f" {f'{cuda}, ' if cuda else ''}{counted(jobs, 'job')}",
    )
    with _locked(work):
        state = _State(work / "state.json")
        _prepare_source(tree, options, state, report)
        entries = compilation.definitions(
            tree.prefix, opencv, onednn, cuda, unity=not state["other"]
        )
        configured = _digest(
            entries, state["source"], python, cmake, os.environ.get("CXX"), cuda and cuda.version
        )
        if state["configured"] != configured or not (tree.binary / "build.ninja").is_file():
            with report.step("configure"):
                compilation.configure(tree, entries)
            state["configured"] = configured
        with report.step("compile") as step:
            compilation.build(tree, jobs, options.gtests, step.advance)
        build_record.write_record(tree.python / "caffe", *state["made_of"])
        _install(tree, configured, state, report)
        if options.import_here:
            _check_import(tree, state, report)
        if options.gtests:
            with report.step("gtests") as step:
                passed = compilation.run_gtests(tree, step.advance, cuda=options.cuda)
                step.note = f"{passed} passed"
    report.line("caffe", str(tree.caffe))
    return tree


def _cuda(options: Options) -> compilation.Cuda:
    version = toolchain.cuda()
    folders = {}
    for name, header, wanted in (
        ("cuDNN", "cudnn.h", options.cudnn),
        ("NCCL", "nccl.h", options.nccl),
    ):
        lower = name.lower()
        found = toolchain.nvidia_library(lower, header) if wanted is not False else None
        if wanted and found is None:
            wheel = f"nvidia-{lower}-cu{version.split('.')[0]}"
            raise ClrError(
                f"--{lower}: {name} was not found; install the wheel {wheel} into this environment,"
                f" or set {lower.upper()}_ROOT to its folder"
            )
        folders[lower] = found
    return compilation.Cuda(version, options.cuda_architectures, **folders)


def _prepare_source(
    tree: compilation.Tree, options: Options, state: "_State", report: Report
) -> None:
    folder = locations.shipped("caffe_patch")
    patches = [patch for patch in series.load(folder) if patch.name not in options.without]
    upstream = source.load_upstream(folder)
    wanted = _digest(upstream.files, series.digest(patches))
    is_done = state["source"] == wanted and state["made_of"] and tree.source.is_dir()
    if options.source is None and is_done:
        return
    fresh = tree.source.with_name("source.new")
    with report.step("fetch") as step:
        revision, step.note = _fetch(options.source, upstream, patches, fresh)
    left_out: dict[str, str] = {}
    with report.step("patch") as step:
        if revision == upstream.revision:
            series.apply(fresh, patches)
        else:
            left_out = series.apply_fitting(fresh, patches)
            wanted = _digest_of(fresh)
        state["source"] = None
        state["files"] = _replace(tree.source, fresh, state["files"] or [])
        applied = [patch.name for patch in patches if patch.name not in left_out]
        state["other"] = revision != upstream.revision
        state["made_of"] = [revision, applied]
        state["source"] = wanted
        step.note = ", ".join(applied)
    for name, reason in left_out.items():
        report.line("left out", f"{name}: {reason}")


def _fetch(
    given: Path | None, upstream: source.Upstream, patches: list[series.Patch], folder: Path
) -> tuple[str, str]:
    """Write the source into `folder`; returns its revision, and what to say of it."""
    try:
        origin = _unpack(given, upstream, patches, folder)
    except source.OtherRevisionError:
        if given is None or not given.is_dir():
            raise
        source.copy(given, folder)
        return (
            f"that of {given.resolve()}",
            f"a copy of {given}, which is not Caffe {upstream.revision}",
        )
    files = len(upstream.files)
    note = f"Caffe {upstream.revision} from {origin}, {files} files verified"
    return upstream.revision, note


def _unpack(
    given: Path | None, upstream: source.Upstream, patches: list[series.Patch], folder: Path
) -> str:
    if given is not None:
        source.unpack(given.resolve(), upstream, patches, folder)
        return str(given)
    downloads = locations.cache() / "downloads"
    tarball, origin = source.fetch(upstream, downloads)
    try:
        source.unpack(tarball, upstream, patches, folder)
    except source.SourceError:
        tarball.unlink()  # damaged since it was checked
        tarball, origin = source.fetch(upstream, downloads)
        source.unpack(tarball, upstream, patches, folder)
    return origin


def _replace(target: Path, fresh: Path, before: list[str]) -> list[str]:
    """Make the files of `target` those of `fresh`, leaving alone those that are the same."""
    files = sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file())
    for name in set(before) - set(files):
        (target / name).unlink(missing_ok=True)
    for name in files:
        old, new = target / name, fresh / name
        if not (old.is_file() and filecmp.cmp(old, new, shallow=False)):
            old.parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, old)
    shutil.rmtree(fresh)
    return files


def _install(tree: compilation.Tree, configured: str, state: "_State", report: Report) -> None:
    products = [configured, *(path.stat().st_mtime_ns for path in tree.products)]
    if state["installed"] != products or not tree.is_installed:
        with report.step("install") as step:
            compilation.install(tree)
            step.note = str(tree.prefix)
        state["installed"] = products


def _check_import(tree: compilation.Tree, state: "_State", report: Report) -> None:
    file = import_path.add(tree.python)
    checked = [*state["installed"], str(file)]
    if state["checked"] != checked:
        with report.step("check") as step:
            # in a process of its own: what fails inside Caffe would end this one
            commands.run(
                [sys.executable, "-P", "-m", "caffe_clr.parity"],
                tree.logs / "check.log",
                env={"GLOG_logtostderr": "1"},
            )
            step.note = "import caffe; 10 iterations of triangular2 equal the reference"
        state["checked"] = checked


class _State:
    """The input of each step at its last run, kept in a file from build to build."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._values: dict[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            self._values = {}

    def __getitem__(self, key: str) -> Any:
        return self._values.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        with replacing(self._path) as partial:
            partial.write_text(json.dumps(self._values))


def _check_writable(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ClrError(f"{folder} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    try:
        lock = FileLock(work / "lock").acquire(blocking=False)
    except Timeout:
        raise ClrError(f"another build is running in {work}; wait for it to finish") from None
    with lock:
        yield


def _digest_of(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return _digest([str(path.relative_to(folder)) for path in files], hashes)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
