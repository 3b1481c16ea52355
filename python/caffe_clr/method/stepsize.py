"""Converts epochs into a stepsize.

The paper (L. N. Smith, arXiv 1506.01186, section 3.2) advises 2 to 10.
"""

import math
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from caffe_clr import prototxt
from caffe_clr.errors import UsageError
from caffe_clr.preflight import checks
from caffe_clr.preflight.epochs import CYCLES, epoch
from caffe_clr.system.paths import StrPath

_MAX_ITER = 2**31 - 1  # an int32 in caffe.proto


def stepsize(
    solver_file: StrPath, epochs: float = 4, *, images: int | None = None, ranks: int = 1
) -> dict[str, Any]:
    """Convert epochs into a stepsize, and list where whole cycles end.

    The solver needs no stepsize yet: only its nets, iter_size and
    start_lr_policy are read.

    Args:
        solver_file: a solver prototxt.
        epochs: length of half a cycle; may be a fraction. The paper advises 2 to 10.
        images: size of the training set; None to count the images of the train net.
        ranks: number of ranks (`train --mpi`), or of GPUs that `caffe train` will use.

    Returns:
        A dict with images, batch_size, iter_size, ranks, start_lr_policy and epochs; in
        iterations, epoch, stepsize (epochs * epoch rounded to the nearest integer, a half
        up, at least 1) and cycle; and max_iter, which maps a number of cycles to the
        iteration at which the last of them ends.

    Raises:
        UsageError: epochs, images or ranks is not above 0, or the cycles have more
            iterations than Caffe can count.
        ClrError: the prototxt or the data cannot be read, or do not tell the size of an
            epoch.
    """
    if not 0 < epochs < math.inf:
        raise UsageError(f"--epochs {epochs:g}: give a number above 0")
    solver = prototxt.open_solver(Path(solver_file))
    checks.check_unfinished(solver)
    one = epoch(solver, images=images, ranks=ranks)
    half = max(1, math.floor(Fraction(str(epochs)) * one.iterations + Fraction(1, 2)))
    start = solver.parameter.start_lr_policy
    max_iter = {cycles: start + cycles * 2 * half for cycles in CYCLES}
    if max_iter[CYCLES[-1]] > _MAX_ITER:
        raise UsageError(
            f"--epochs {epochs:g}: with {one.iterations:,} iterations per epoch, {CYCLES[-1]}"
            f" cycles exceed {_MAX_ITER:,}, the highest max_iter; give fewer"
        )
    return {
        **asdict(one),
        "start_lr_policy": start,
        "epochs": epochs,
        "epoch": one.iterations,
        "stepsize": half,
        "cycle": 2 * half,
        "max_iter": max_iter,
    }
