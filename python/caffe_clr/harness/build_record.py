"""Describes the Caffe that `import caffe` finds: its revision, patches and options."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from caffe_clr.errors import UsageError
from caffe_clr.system import installed_caffe, processors

_RECORD = "caffe-clr.json"  # beside pycaffe, so that it goes where that goes

# The library that an option of the build links, and what is lost without it.
_OPTIONS = {
    "CUDA": ("cudart", "trains only on the CPU"),
    "cuDNN": ("cudnn", "convolutions on a GPU are many times slower"),
    "OpenCV": (
        "opencv_core",
        "ImageData and WindowData are missing; Data reads no encoded images",
    ),
    "oneDNN": (
        "dnnl",
        "layers on the CPU use Caffe's own code; on x86-64, oneDNN is faster",
    ),
}

_PROBE = """
import caffe
from caffe.proto import caffe_pb2
print({"max_lr", "start_lr_policy"} <= {*caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name})
"""


@dataclass(frozen=True)
class Record:
    """What a build leaves beside pycaffe: its revision and its patches."""

    revision: str
    patches: tuple[str, ...]


@dataclass(frozen=True)
class Installed:
    """A Caffe that Python finds.

    Args:
        folder: the package caffe.
        record: None where it was not built by this package.
        libraries: the names of those that it is linked with.
        problem: why these tools cannot use it; None where they can.
    """

    folder: Path
    record: Record | None
    libraries: frozenset[str]
    problem: str | None

    @property
    def has_cuda(self) -> bool:
        return "cudart" in self.libraries


def write_record(folder: Path, revision: str, patches: tuple[str, ...]) -> None:
    """Record the revision and the patches of a build in the folder of pycaffe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).write_text(json.dumps(asdict(Record(revision, patches)), indent=1) + "\n")


def check_prefix(prefix: Path) -> None:
    """Refuse to install into a folder with a Caffe that no build of this package put there.

    Raises:
        UsageError: says what is in the folder.
    """
    folder = prefix / "python" / "caffe"
    if folder.exists() and not (folder / _RECORD).exists():
        raise UsageError(
            f"--prefix: {folder} is a Caffe that `caffe-clr build` did not install and would"
            " overwrite; name another folder"
        )


def find() -> Installed | None:
    """The Caffe that `import caffe` would load, without loading it into this process."""
    folder = installed_caffe.package()
    if folder is None:
        return None
    linked = subprocess.run(
        ["/usr/bin/ldd", str(folder / "_caffe.so")], capture_output=True, text=True
    )
    names = re.findall(r"^\s*lib(\S+?)(?:-[0-9a-f]{8})?\.so(?:\.\S+)? =>", linked.stdout, re.M)
    missing = re.findall(r"(\S+) => not found", linked.stdout)
    problem = f"not found: {', '.join(missing)}" if missing else _problem_of_import(folder)
    return Installed(folder, _read_record(folder), frozenset(names), problem)


def describe(caffe: Installed) -> list[tuple[str, str]]:
    """A description of a Caffe, in pairs of a name and a value."""
    lines = [("Caffe", str(caffe.folder))]
    if caffe.problem:
        lines.append(("broken", f"{caffe.problem}; build it again, or run `caffe-clr build`"))
    else:
        lines.append(("works", f"yes, with {_policies()}"))
    if caffe.record:
        lines.append(("revision", caffe.record.revision))
        lines.append(("patches", ", ".join(caffe.record.patches) or "none"))
    else:
        lines.append(("revision", "unknown: this caffe-clr did not build it"))
    for option, (library, loss) in _OPTIONS.items():
        if library in caffe.libraries:
            lines.append((option, "yes"))
        elif option != "cuDNN" or caffe.has_cuda:
            lines.append((option, f"no: {loss}"))
    lines.append(("threads", _threads(caffe)))
    return lines


def _problem_of_import(folder: Path) -> str | None:
    """Why `import caffe` fails in a process of its own, or which patch it lacks."""
    path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROBE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"`import caffe` fails: {lines[-1]}"
    if done.stdout.split() != ["True"]:
        return "it lacks the patch cyclical-learning-rates; `caffe-clr patch apply` applies it"
    return None


def _policies() -> str:
    """The policies of the patches that the library has, and the patches of the others."""
    from caffe_clr.policies import BOUNDED, POLICIES  # which no build needs

    bounded = [POLICIES[name] for name in BOUNDED]
    lacking = {p.patch for p in bounded if installed_caffe.library_has(p.name.encode()) is False}
    has = [policy.name for policy in bounded if policy.patch not in lacking]
    told = [f"the policies {', '.join(has)}", *(f"without the patch {name}" for name in lacking)]
    return ", ".join(told)


def _threads(caffe: Installed) -> str:
    if caffe.record and "parallel-for" not in caffe.record.patches:
        return "used only by BLAS, because the patch parallel-for is missing"
    given = os.environ.get("OMP_NUM_THREADS")
    if given:
        return f"{given}, from OMP_NUM_THREADS"
    return f"one for each of the {processors.count()} processors that this process may use"


def _read_record(folder: Path) -> Record | None:
    try:
        values = json.loads((folder / _RECORD).read_text())
        return Record(values["revision"], tuple(values["patches"]))
    except (OSError, ValueError, KeyError):
        return None
