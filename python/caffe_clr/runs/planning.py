"""Plans a run: reads its solvers, adapts them to the run folder, and checks them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.preflight import advice, checks, epochs
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import run_folder, solvers
from caffe_clr.runs.options import DEFAULTS, TrainingOptions
from caffe_clr.runs.ranks import Place

_MAX_ITER = 2**31 - 1
_MOST_BYTES_OF_NAME = 255  # on Linux, as those of a path
_MOST_BYTES_OF_PATH = 4095


@dataclass(frozen=True)
class Plan:
    """A checked run: the solvers of its stages as they will be trained, and warnings."""

    solvers: Sequence[SolverFile]
    folder: Path
    epoch: int | None
    warnings: Sequence[str]

    @property
    def stages(self) -> list[Any]:
        """The SolverParameter of each stage."""
        return [solver.parameter for solver in self.solvers]


def plan(
    solver_files: Sequence[Path],
    out: Path | None = None,
    options: TrainingOptions = DEFAULTS,
) -> Plan:
    """Read and check the solvers of a run, without importing caffe.

    Arguments and errors are those of `train`.

    Returns:
        The plan. Its warnings name what the paper advises against, and what Caffe does
        silently. Its epoch is in iterations; None if the size of the data set is unknown.
    """
    folder = (out or run_folder.default_folder(solver_files[0])).resolve()
    stages = []
    warnings = []
    for file in solver_files:
        if file.is_fifo():
            raise ClrError(f"{file} is a pipe, but must be read twice; write the solver to a file")
        solver = prototxt.open_solver(file)
        parameter = solver.parameter
        parameter.snapshot_prefix = _snapshot_prefix(solver, file, folder)
        if options.seed is not None:
            parameter.random_seed = options.seed
        warnings += checks.check_run(solver, gpu=options.gpu)
        modes = parameter.SolverMode
        parameter.solver_mode = modes.Value("CPU" if options.gpu is None else "GPU")
        parameter.device_id = options.gpu or 0
        stages.append(solver)
    warnings += advice.check_stages(stages)
    epoch, problems = _epoch(stages[0], options.images, Place.of(options.mpi).size)
    warnings += problems
    start = 0
    for stage in stages:
        warnings += advice.advise(stage.name, stage.parameter, start, epoch)
        start = stage.parameter.max_iter
    return Plan(stages, folder, epoch, list(dict.fromkeys(warnings)))


def _snapshot_prefix(solver: SolverFile, file: Path, folder: Path) -> str:
    """Where the snapshots of a solver go: the name that it gives them, in the run folder."""
    given = solver.parameter.snapshot_prefix
    if isinstance(given, bytes):
        raise ClrError(f"{solver.name}: snapshot_prefix is not UTF-8; save the file as UTF-8")
    name = Path(given).name or run_folder.solver_name(file)
    longest = solvers.snapshot_files(name, _MAX_ITER, hdf5=True)[0].name
    prefix = str(folder / "snapshots" / name)
    if name == ".." or "\0" in given or len(os.fsencode(longest)) > _MOST_BYTES_OF_NAME:
        shown = f"{given[:40]}…" if len(given) > 40 else given
        raise ClrError(
            f"{solver.name}: snapshot_prefix {shown!r} cannot be a file name; give a"
            " shorter, plain one"
        )
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ClrError(f"{folder}: Caffe needs a path in UTF-8; name another --out") from None
    if len(os.fsencode(prefix)) + len(longest) > _MOST_BYTES_OF_PATH:
        raise ClrError(f"{folder}: the path is too long for its snapshots; name another --out")
    return prefix


def _epoch(solver: SolverFile, images: int | None, ranks: int) -> tuple[int | None, list[str]]:
    """The iterations of an epoch, if they are known, and why a number of images does not help."""
    try:
        epoch = epochs.epoch(solver, images=images, ranks=ranks, remedy="so --images has no effect")
    except ClrError as error:
        return None, [] if images is None else [str(error)]
    return epoch.iterations, []
