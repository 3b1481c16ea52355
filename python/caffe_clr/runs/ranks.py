"""The processes that train one solver together, by MPI: its ranks.

Each rank trains on its own share of the data, with the net's batch size, as each GPU does in
`caffe train --gpu 0,1`. After each backward pass the ranks average their gradients, so all of
them keep the same weights. Rank 0, the root, tests, records and takes snapshots.
"""

import functools
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np

from caffe_clr.errors import KEPT, ClrError, Interrupted, UsageError, counted

_SPIN_SECONDS = 0.1  # how long to ask again at once, which is fastest
_SLEEP_SECONDS = 0.001
_LONGEST = 40  # characters of what is shown; the digest of a file is longer
_PART = 2**18  # numbers to send at a time
_GRACE_SECONDS = 4.0  # for the other ranks, besides two iterations, once this one is to end
_ROLL_CALL_SECONDS = 5.0  # for them to fail as well
# what mpirun of Open MPI, that of MPICH, and srun tell; the last two are of this machine
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
# how MPICH would read the memory of other ranks, which containers forbid, and the signal that UCX
# would take for itself: SIGHUP
_OFF = ("MPIR_CVAR_CH4_CMA_ENABLE", "UCX_DEBUG_SIGNO")
_LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")


@dataclass(frozen=True)
class Place:
    """The place of a process among the ranks, as its launcher tells it.

    Attributes:
        rank: its number, from 0.
        size: the number of ranks.
        local_rank: its number among those on this machine.
        local_size: the number of those on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of(cls, mpi: bool) -> Self:
        """The place of this process; without MPI, it is alone.

        Raises:
            UsageError: it was not started by mpirun or srun.
        """
        if not mpi:
            return cls()
        rank, size = _first(_RANKS), _first(_SIZES)
        if rank is None or size is None:
            error = UsageError("--mpi: start the command with mpirun, as in `mpirun -n 4 … --mpi`")
            error.is_shared = True  # there are no others
            raise error
        return cls(rank, size, _first(_LOCAL_RANKS) or 0, _first(_LOCAL_SIZES) or 1)


class Ranks:
    """A rank, and how it deals with the others; without MPI, the only one.

    Attributes:
        rank: its number, from 0.
        size: the number of ranks.
        stop: returns the number of a signal once this process is to end.
    """

    def __init__(self, mpi: Any = None) -> None:
        self._mpi = mpi  # the module mpi4py.MPI
        self._world: Any = mpi.COMM_WORLD if mpi else None
        if mpi:
            self._roll_call = mpi.COMM_WORLD.Dup()
        self.rank: int = mpi.COMM_WORLD.rank if mpi else 0
        self.size: int = mpi.COMM_WORLD.size if mpi else 1
        self.stop: Callable[[], int | None] = lambda: None
        self._is_deserted = False
        self._parent = os.getppid()
        self._averaged = time.monotonic()
        self._iteration_seconds = 0.0

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def prepare(self, caffe: Any) -> None:
        """Have the solvers that pycaffe makes next read this rank's share of the data."""
        if self._world:
            caffe.set_solver_count(self.size)
            caffe.set_solver_rank(self.rank)
            caffe.set_multiprocess(True)

    def share(self, solver: Any) -> None:
        """Give a solver the root's weights, and have it average its gradients from now on."""
        if not self._world:
            return
        blobs = _parameters(solver.net)
        for blob in blobs:
            for part in _parts(blob.data.reshape(-1)):
                self._wait(self._world.Ibcast(part))
        sums = np.empty(sum(blob.count for blob in blobs), np.float32)

        def average() -> None:
            self._iteration_seconds = time.monotonic() - self._averaged
            begin = 0
            for blob in blobs:
                sums[begin : begin + blob.count] = blob.diff.ravel()
                begin += blob.count
            for part in _parts(sums):
                self._reduce(part, "SUM")
            np.divide(sums, np.float32(self.size), out=sums)
            begin = 0
            for blob in blobs:
                blob.diff[...] = sums[begin : begin + blob.count].reshape(blob.diff.shape)
                begin += blob.count
            self._averaged = time.monotonic()

        solver.add_callback(lambda: None, average)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The means over all ranks of some values."""
        sums = np.array(values, np.float64)
        if self._world:
            self._reduce(sums, "SUM")
        return [float(total) for total in sums / self.size]

    def agree(self, number: int | None) -> int | None:
        """The highest of the numbers that the ranks give; None if none gives any."""
        highest = np.array([number or 0])
        if self._world:
            self._reduce(highest, "MAX")
        return int(highest[0]) or None

    def together(self, call: Callable[[], Any]) -> Any:
        """Call a function on every rank, and raise on all what the first one raises.

        Raises:
            ClrError: names the rank, unless it is the root.
        """
        if not self._world:
            return call()
        result, error = _outcome(call)
        for rank, (host, failed) in enumerate(self._gather((socket.gethostname(), error))):
            if failed:
                raise type(failed)(f"rank {rank} on {host}: {failed}" if rank else str(failed))
        return result

    def from_root(self, call: Callable[[], Any]) -> Any:
        """Call a function on the root; all ranks return what it returns or raise what it raises."""
        if not self._world:
            return call()
        result, error = self._gather(_outcome(call) if self.is_root else None)[0]
        if error:
            raise error
        return result

    def check_same(self, facts: dict[str, str]) -> None:
        """Refuse ranks, by MPI, that differ from the root in one of some facts.

        Raises:
            ClrError: names the fact, the rank and what it has.
        """
        (_, expected), *others = self._gather((socket.gethostname(), facts))
        for rank, (host, found) in enumerate(others, 1):
            for name, value in found.items():
                if value != expected[name]:
                    both = f": {value}, not {expected[name]}" if len(value) < _LONGEST else ""
                    raise ClrError(f"rank {rank} on {host} has another {name} than rank 0{both}")

    def leave(self, failed: bool) -> bool:
        """Wait for the others at the end, after a failure only for a few seconds.

        Returns:
            Whether all have come to their end, for the same reason then.
        """
        if not self._world:
            return True
        if self._is_deserted:
            return False
        try:
            self._wait(self._roll_call.Ibarrier(), _ROLL_CALL_SECONDS if failed else None)
        except Interrupted:
            return False
        self._mpi.Finalize()
        return True

    def _gather(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        sent = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self._wait(self._world.Iallgather(np.array([sent.size], np.int64), sizes))
        ends = np.cumsum(sizes)
        received = np.empty(ends[-1], np.uint8)
        self._wait(self._world.Iallgatherv(sent, (received, sizes.tolist())))
        return [pickle.loads(part.tobytes()) for part in np.split(received, ends[:-1])]

    def _reduce(self, values: Any, operation: str) -> None:
        """Set values to their sum, or maximum, over all ranks."""
        how = getattr(self._mpi, operation)
        self._wait(self._world.Iallreduce(self._mpi.IN_PLACE, values, how))

    def _wait(self, request: Any, seconds: float | None = None) -> None:
        """Wait for the other ranks, but only for a few seconds once this one is to end.

        Raises:
            Interrupted: they did not come, or one is lost.
        """
        began = time.monotonic()
        end = began + seconds if seconds else None
        while not self._is_done(request):
            now = time.monotonic()
            if end is None and self.stop():
                is_orphan = os.getppid() != self._parent  # mpirun has ended the ranks
                grace = _GRACE_SECONDS + 2 * self._iteration_seconds
                end = now if is_orphan else now + grace
            if end is not None and now >= end:
                self._desert()
            if now - began < _SPIN_SECONDS:
                os.sched_yield()
            else:
                time.sleep(_SLEEP_SECONDS)

    def _is_done(self, request: Any) -> bool:
        try:
            return bool(request.Test())
        except self._mpi.Exception:
            self._desert()

    def _desert(self) -> NoReturn:
        self._is_deserted = True
        raise Interrupted(self.stop() or signal.SIGTERM, KEPT)


@functools.cache
def join(mpi: bool) -> Ranks:
    """This process among its ranks; without MPI, alone.

    Raises:
        ClrError: mpi4py is missing, or finds no MPI.
    """
    if not mpi:
        return Ranks()
    for name in _OFF:
        os.environ.setdefault(name, "0")
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # it would wait for ranks that have failed
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ClrError(f"--mpi needs mpi4py and an MPI: {error}; pip install mpi4py") from None
    started = Place.of(mpi).size
    if MPI.COMM_WORLD.size != started:
        raise ClrError(
            f"--mpi: mpirun has started {counted(started, 'rank')}, but mpi4py finds"
            f" {MPI.COMM_WORLD.size}; it uses {MPI.Get_library_version().split(',')[0].strip()}:"
            " use the mpirun of that"
        )
    return Ranks(MPI)


def _outcome(call: Callable[[], Any]) -> tuple[Any, ClrError | None]:
    try:
        return call(), None
    except ClrError as error:
        return None, error


def _parameters(net: Any) -> list[Any]:
    """The parameters of a net, shared ones once."""
    blobs = {blob.diff.ctypes.data: blob for layer in net.layers for blob in layer.blobs}
    return list(blobs.values())


def _parts(values: Any) -> list[Any]:
    """A vector in parts so small that MPI is done before _wait begins to sleep.

    MPI gets on with its work only while it is asked whether it is done.
    """
    return np.split(values, range(_PART, values.size, _PART))


def _first(names: Sequence[str]) -> int | None:
    """The number in the first of these variables that is set."""
    return next((int(os.environ[name]) for name in names if name in os.environ), None)
