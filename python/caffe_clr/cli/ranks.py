"""The commands on the ranks that mpirun starts."""

import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from caffe_clr.errors import ClrError, Interrupted
from caffe_clr.preflight import data_layers
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import jobs
from caffe_clr.runs.jobs import Job
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.ranks import Place


def follow(solver_files: Sequence[Path], options: TrainingOptions, place: Place) -> None:
    """Train as a rank that is not the root, and say nothing unless it fails by itself.

    Args:
        solver_files: what to train; if empty, it is what the root trains.
    """
    files = tuple(map(str, solver_files))
    folder = tempfile.mkdtemp(prefix=f"caffe-clr-rank-{place.rank}-")
    try:
        jobs.run(Job(files, folder, options, is_led=not files))
    except ClrError as error:
        if error.is_shared:
            shutil.rmtree(folder)
            raise error.saying("") from None
        if folder not in str(error):
            shutil.rmtree(folder)
        where = f"rank {place.rank} on {socket.gethostname()}"
        raise error.saying(f"{where}: {error}") from None
    except Interrupted as interrupted:
        shutil.rmtree(folder)
        raise interrupted.saying("") from None
    shutil.rmtree(folder)


def shared(solver: SolverFile, size: int) -> str:
    """How the ranks share an iteration."""
    layer = data_layers.of_net(solver.train_net)
    batch = data_layers.batch_size(layer) if layer else None
    if batch is None:
        return f"{size} ranks, each with the batches of the net"
    images = batch * size * solver.parameter.iter_size
    return f"{size} ranks, each with batches of {batch:,}: {images:,} images an iteration"
