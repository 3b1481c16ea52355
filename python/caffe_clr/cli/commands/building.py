"""The commands that build Caffe, patch it and check it."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from caffe_clr import locations
from caffe_clr.cli.app import BUILDING, app
from caffe_clr.cli.console import console, resumable
from caffe_clr.cli.patching import apply_patches, check_patches, pack_patches, remove_patches
from caffe_clr.cli.report import ConsoleReport
from caffe_clr.errors import AGAIN, ClrError, UsageError
from caffe_clr.harness import build_record, exporting, pipeline, toolchain
from caffe_clr.system import processors

patch_app = typer.Typer(no_args_is_help=True, help="Apply the patch series to a Caffe of your own.")
app.add_typer(patch_app, name="patch", rich_help_panel=BUILDING)

Tree = Annotated[
    Path, typer.Argument(metavar="DIR", help="A checkout or unpacked tarball of Caffe.")
]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[PATCH]...", help="Only these patches.")
]


@app.command(rich_help_panel=BUILDING)
def build(
    prefix: Annotated[
        Path | None, typer.Option(help="Install into this folder. Default: build/caffe.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Build this source instead of downloading it: a folder or tarball of Caffe's"
            " pinned revision, or a folder with another Caffe, which is copied."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Number of files to compile at a time.")
    ] = None,
    gtests: Annotated[
        bool, typer.Option("--gtests", help="Also build and run Caffe's C++ tests.")
    ] = False,
    opencv: Annotated[
        bool | None,
        typer.Option(
            "--opencv/--no-opencv",
            help="Read images with OpenCV. Default: on if its development files are installed.",
        ),
    ] = None,
    onednn: Annotated[
        bool | None,
        typer.Option(
            "--onednn/--no-onednn",
            help="Compute layers on the CPU with oneDNN, or as stock Caffe does. Default: on for"
            " x86-64.",
        ),
    ] = None,
    cuda: Annotated[
        bool, typer.Option("--cuda", help="Build for NVIDIA GPUs: CUDA 11.8 to 13, nvcc on PATH.")
    ] = False,
    cuda_arch: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="GPU architectures, as in 75,86. Default: one of each generation that CUDA knows.",
        ),
    ] = None,
    cudnn: Annotated[
        bool | None, typer.Option("--cudnn/--no-cudnn", help="Default: on if it is found.")
    ] = None,
    nccl: Annotated[
        bool | None, typer.Option("--nccl/--no-nccl", help="Default: on if it is found.")
    ] = None,
    import_here: Annotated[
        bool,
        typer.Option("--import/--no-import", help="Make `import caffe` in this Python find it."),
    ] = True,
) -> None:
    """Build patched Caffe and make `import caffe` work here.

    Builds for the CPU, unless you give --cuda. A second run builds only what has changed.

    Example: caffe-clr build --prefix ~/caffe --source ~/src/caffe
    """
    if prefix is not None and prefix.resolve() == Path.cwd():
        raise UsageError("--prefix is the current folder; name another one")
    if not cuda and (cuda_arch or cudnn or nccl):
        raise UsageError("--cuda-arch, --cudnn and --nccl need --cuda")
    options = pipeline.Options(
        prefix=(prefix or locations.build() / "caffe").resolve(),
        source=source,
        gtests=gtests,
        opencv=opencv,
        onednn=onednn,
        jobs=jobs,
        cuda=cuda,
        cuda_architectures=cuda_arch,
        cudnn=cudnn,
        nccl=nccl,
        import_here=import_here,
    )
    with resumable(f"finished steps are kept; {AGAIN}"):
        pipeline.build(options, ConsoleReport(console))


@app.command(rich_help_panel=BUILDING)
def doctor() -> None:
    """Show which Caffe is installed, whether it works, and what building one needs.

    The exit status is 1 only if there is no Caffe that works and none can be built.

    Example: caffe-clr doctor
    """
    caffe = build_record.find()
    found = build_record.describe(caffe) if caffe else [("Caffe", "none is found here")]
    for word, text in found:
        console.print(f"{word:<10} {text}", soft_wrap=True)
    works = caffe is not None and not caffe.problem
    if locations.has_programs():  # Caffe came with this package, and there is nothing to build
        if not works:
            raise ClrError("the Caffe of this package does not work here: install its wheel again")
        return
    if not works:
        toolchain.check()
    problems = toolchain.problems()
    opencv = "with" if toolchain.has_opencv() else "without"
    told = "; ".join(problems) or f"nothing is missing; it would be {opencv} OpenCV"
    console.print(f"{'to build':<10} {told}", soft_wrap=True)


@app.command(rich_help_panel=BUILDING)
def wheel(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="The folder for the wheel.")] = (
        Path("dist")
    ),
) -> None:
    """Pack the built Caffe and this package into a wheel.

    The wheel needs no compiler and no system packages. Install it with pip,
    for the same version of Python, on a system whose C library is at least as
    new.

    Example: caffe-clr wheel dist
    """
    from caffe_clr.harness import wheel as packing

    with ConsoleReport(console).step("wheel") as step:
        file = packing.pack(out)
        step.note = f"{file}, {file.stat().st_size / 1e6:.0f} MB"


@app.command(rich_help_panel=BUILDING)
def parity(
    solvers: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SOLVER]...", help="Solver prototxt files; their nets are not used."
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(min=1, help="Compare at least this many rates in all.")
    ] = 200_000,
) -> None:
    """Compare the rates of live Caffe solvers with the NumPy reference.

    Without SOLVER, it compares every policy with every solver type, at critical
    iterations (ends and peaks of cycles, limits of float and int) and at random
    ones.

    Example: caffe-clr parity models/digits/*_solver.prototxt
    """
    from caffe_clr.cli.parity_table import show_parity

    show_parity(solvers or [], points, console)


@app.command(
    "test",
    rich_help_panel=BUILDING,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run_tests(
    context: typer.Context,
    fast: Annotated[
        bool, typer.Option("--fast", help="Build nothing; run the tests that need no Caffe.")
    ] = False,
) -> None:
    """Build Caffe and run its C++ tests and pytest; arguments go to pytest.

    Example: caffe-clr test -k parity
    """
    root = locations.checkout()
    if root is None:
        raise ClrError("the tests are in the project's checkout, not in an installed package")
    beside = ["-n", str(processors.count()), "--dist", "loadfile"]
    parts = [["-m", "not caffe", *beside, *context.args]]
    if not fast:
        build(gtests=True)
        parts += [["-m", "caffe and not alone", *beside], ["-m", "caffe and alone"]]
        if context.args:
            parts = [context.args]
    pytest = [sys.executable, "-P", "-m", "pytest"]
    sys.exit(max(subprocess.run([*pytest, *part], cwd=root).returncode for part in parts))


@patch_app.command("check")
def patch_check(tree: Tree, names: Names = None) -> None:
    """Show whether the patches would apply to DIR or are already applied.

    Name patches to see each of their changes.

    Example: caffe-clr patch check ~/src/caffe
    """
    _print_lines(check_patches(_series(), tree, names or []))


@patch_app.command("apply")
def patch_apply(tree: Tree, names: Names = None) -> None:
    """Apply the patches to DIR: all of them, or none.

    DIR may be another release of Caffe, or a fork. The command finds where each
    change of the cyclical policies belongs. It records what it changed in DIR
    for `patch remove`. Name patches to see each of their changes.

    Example: caffe-clr patch apply ~/src/caffe cyclical-learning-rates
    """
    _print_lines(apply_patches(_series(), tree, names or []))


@patch_app.command("remove")
def patch_remove(tree: Tree, names: Names = None) -> None:
    """Take patches back from DIR: all that are applied, or those that you name.

    What you have changed since stays. It changes nothing unless every line of
    the patches can be taken back.

    Example: caffe-clr patch remove ~/src/caffe
    """
    _print_lines(remove_patches(_series(), tree, names or []))


@patch_app.command("pack")
def patch_pack(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="The folder for the file.")] = (
        Path("dist")
    ),
) -> None:
    """Pack `patch check`, `apply` and `remove` into one file, caffe-clr.pyz.

    The file needs only git and Python 3.8 or later. Run it as in
    "python3 caffe-clr.pyz patch apply ~/src/caffe".

    Example: caffe-clr patch pack dist
    """
    root = locations.checkout()
    if root is None:
        raise ClrError("run this in the project's checkout; it cannot pack an installed package")
    _print_lines(pack_patches(root, out))


@patch_app.command("refresh")
def patch_refresh(
    repository: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A git repository: unpatched Caffe, then a commit for each patch."
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a file would change.")
    ] = False,
) -> None:
    """Export the series from commits, after editing them.

    The subject of a commit begins with the name of its patch, as in "cmake: Let
    CMake 4 configure the build". A new patch goes into the folder of the one
    before it.

    Example: caffe-clr patch refresh ~/src/caffe-series
    """
    folder = _series()
    changed = exporting.changes(folder, exporting.export(repository, folder))
    told = [f"{_became(folder / file, content)} {file}" for file, content in changed.items()]
    if check and changed:
        raise ClrError(f"{folder} differs from what {repository} exports: {', '.join(told)}")
    exporting.refresh(folder, changed)
    _print_lines(told or ["The series is up to date."])


def _became(path: Path, content: bytes | None) -> str:
    return "removed" if content is None else "changed" if path.exists() else "added"


def _series() -> Path:
    return locations.shipped("caffe_patch")


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)
