"""Runs trainings in subprocesses, one or several at a time.

A failed CHECK in Caffe ends only the subprocess. Caffe's log goes to caffe.log in the run
folder.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from caffe_clr.errors import KEPT, ClrError, DiedError, DivergedError, Interrupted, UsageError
from caffe_clr.runs import run_folder
from caffe_clr.runs.options import DEFAULTS, TrainingOptions
from caffe_clr.runs.ranks import Place
from caffe_clr.system import processors

LOG = "caffe.log"
_FATAL = re.compile(r"^F\d{4,8} [^\]]*\] (.*)$", re.MULTILINE)
_PREFIX = re.compile(r"^[IWEF]\d{4,8} [^\]]*\] ")
_SIGNALS = {
    int(signal.SIGKILL): "; the system does that if memory runs out: try a smaller batch_size",
    int(signal.SIGBUS): "; a file that it was reading was truncated: is the data set complete?",
}
_LAST_BYTES = 10_000  # of the log, in which its last line is looked for
_NOT_WRITTEN = "SerializeToOstream"  # in the check of io.cpp on a snapshot
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """The arguments of training.train for a subprocess, and its working directory.

    With only_check, the subprocess calls training.check instead.

    Attributes:
        is_led: whether the other ranks train what rank 0 is told to, as in a range test. Their
            own job then names no solver files.
    """

    solver_files: tuple[str, ...]
    out: str
    options: TrainingOptions = DEFAULTS
    cwd: str = "."
    threads: int | None = None
    only_check: bool = False
    is_led: bool = False

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        return cls(**content | {"options": TrainingOptions(**content["options"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self))


WorkerReport = dict[str, Any]


class Failure(StrEnum):
    """Why a training ended early, in the last report of its process."""

    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    USAGE = "usage"
    ERROR = "error"


class Processes:
    """The trainings that this process has started, which it can ask to end together.

    A context, at whose end the process of a rank leaves the others. It trains one job after
    another, since a rank can join the others only once.
    """

    def __init__(self) -> None:
        self._is_lost = False
        self._running: set[subprocess.Popen[str]] = set()
        self._rank: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._ended: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, type_: object, error: object, traceback: object) -> None:
        if self._rank:
            self._close(self._rank)
            if isinstance(error, ClrError):
                error.is_shared = True  # the others have ended, too

    def end(self, signal_number: int) -> None:
        """Ask all of them to take a snapshot and end, and start no more."""
        with self._lock:
            self._ended = signal_number
            for process in self._running:
                process.send_signal(signal_number)

    def run(
        self,
        job: Job,
        on_report: Callable[[WorkerReport], None] = lambda report: None,
        on_warning: Callable[[str], None] = lambda warning: None,
    ) -> None:
        """Train in a subprocess, and return when it has ended.

        Args:
            on_report: called about ten times a second with a dict: iteration, lr, speed
                in iterations per second, and the newest row of train and of test.
            on_warning: see training.train.

        Raises:
            DivergedError, ClrError: see training.train.
            DiedError: Caffe aborted, or the process was killed.
            Interrupted: it was asked to end.
        """
        log = Path(job.cwd, job.out) / LOG
        run_folder.make_folder(log.parent)
        before = log.stat().st_size if log.exists() else 0
        failure: WorkerReport = {}
        with self._process(job, log) as process:
            assert process.stdout is not None
            for line in process.stdout:
                report = json.loads(line)
                if "failed" in report:
                    failure = report
                elif "warning" in report:
                    on_warning(report["warning"])
                elif "waits" in report:
                    self._rank = process
                    break
                else:
                    on_report(report)
        if self._ended is not None and process.returncode == -self._ended:
            raise Interrupted(self._ended, KEPT)  # before it could listen
        try:
            _raise_failure(failure, process.returncode or 0, log, before)
        except (ClrError, Interrupted) as error:
            error.is_shared = not failure.get("alone", True)
            raise

    @contextmanager
    def _process(self, job: Job, log: Path) -> Iterator["subprocess.Popen[str]"]:
        """The process of a job, which ends with it unless it waits for the next one."""
        with self._lock:
            if self._ended is not None:
                raise Interrupted(self._ended, KEPT)
            if self._is_lost:
                raise ClrError("the ranks have ended")
            process, self._rank = self._rank or _started(job, log), None
            self._running.add(process)
        try:
            _give(process, job)
            yield process
        finally:
            if self._rank is not process:
                self._is_lost = job.is_led
                self._close(process)

    def _close(self, process: "subprocess.Popen[str]") -> None:
        with process:
            pass
        with self._lock:
            self._running.discard(process)


def run(
    job: Job,
    on_report: Callable[[WorkerReport], None] = lambda report: None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> None:
    """Train in a subprocess, as Processes.run does, and pass an interruption on to it."""
    processes = Processes()
    with ThreadPoolExecutor(1) as executor:
        _wait([executor.submit(processes.run, job, on_report, on_warning)], processes)[0].result()


def run_all(
    tasks: Sequence[Job],
    jobs: int,
    scheduler: str | None = None,
    on_wait: Callable[[], None] = lambda: None,
    on_warning: Callable[[str], None] = lambda warning: None,
    processes: Processes | None = None,
) -> list[ClrError | None]:
    """Train several jobs, each in its own subprocess.

    Args:
        jobs: number of jobs at a time on this machine.
        scheduler: address of a Dask scheduler; its workers then train the jobs. They
            must see the same folders, and have this package and Caffe.
        on_wait: called a few times a second.
        on_warning: see training.train. Warnings of Dask workers are only in their logs.
        processes: those that train on this machine; for ranks, the same in each call.

    Returns:
        The error that ended each job early, or None if it reached its end.

    Raises:
        ClrError: the scheduler cannot be reached.
    """
    processes = processes or Processes()
    if scheduler is None:
        with ThreadPoolExecutor(jobs) as executor:
            futures = [executor.submit(processes.run, job, on_warning=on_warning) for job in tasks]
            done = _wait(futures, processes, on_wait)
    else:
        with _dask(scheduler) as executor:
            done = _wait([executor.submit(run_job, job) for job in tasks], None, on_wait)
    return [_failure(future) for future in done]


def train_all(tasks: Sequence[Job], *arguments: Any, **options: Any) -> None:
    """Train several jobs with the arguments of run_all; divergence is not an error.

    Raises:
        ClrError: the first error, when every job has ended.
    """
    for error in run_all(tasks, *arguments, **options):
        if error is not None and not isinstance(error, DivergedError):
            raise error


def run_job(job: Job) -> None:
    """Train in a subprocess; Dask workers call this."""
    Processes().run(job)


def threads(jobs: int) -> int | None:
    """The number of threads for each of several trainings; None if OpenMP may decide.

    OpenMP uses a thread for each processor of the affinity mask. A single training may do
    so, unless a control group grants fewer processors.
    """
    usable = processors.count()
    if jobs == 1 and usable == processors.affine():
        return None
    return max(1, usable // jobs)


def _threads_of_rank() -> int:
    """The number of threads for each of the ranks on this machine."""
    place = Place.of(mpi=True)
    granted = min(os.cpu_count() or 1, processors.granted())
    return int(max(1, min(processors.affine(), granted // place.local_size)))


def _failure(future: "Future[None]") -> ClrError | None:
    error = future.exception()
    if error is None or isinstance(error, ClrError):
        return error
    raise error


def _wait(
    futures: "list[Future[None]]",
    processes: Processes | None,
    on_wait: Callable[[], None] = lambda: None,
) -> "list[Future[None]]":
    """Wait for all; when interrupted, have the processes end first, the second time at once."""
    try:
        while not all(future.done() for future in futures):
            time.sleep(_WAIT_SECONDS)
            on_wait()
        on_wait()
    except BaseException as error:
        number = error.signal_number if isinstance(error, Interrupted) else signal.SIGTERM
        _end(processes, number, futures)
        for future in futures:
            if not future.cancelled() and isinstance(future.exception(), Interrupted):
                future.result()  # raises what the process says of how far it came
        if isinstance(error, Interrupted):
            raise Interrupted(number, KEPT) from None
        raise
    return futures


def _end(processes: Processes | None, number: int, futures: "list[Future[None]]") -> None:
    try:
        for future in futures:
            future.cancel()
        if processes:
            processes.end(number)
        while not all(future.done() for future in futures):
            time.sleep(_WAIT_SECONDS)
    except BaseException as error:
        if processes:
            processes.end(signal.SIGKILL)
        if isinstance(error, Interrupted):
            raise Interrupted(error.signal_number, KEPT) from None
        raise


@contextmanager
def _dask(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ClrError("--scheduler needs Dask: pip install distributed") from None
    try:
        client: Any = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClrError(f"--scheduler {scheduler}: no Dask scheduler answers: {error}") from None
    with client:
        yield client.get_executor(pure=False, retries=0)


def _environment(job: Job) -> dict[str, str]:
    environment = {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
    number = job.threads or (_threads_of_rank() if job.options.mpi else threads(1))
    if number is not None:
        environment.setdefault("OMP_NUM_THREADS", str(number))
    return environment


def _started(job: Job, log: Path) -> "subprocess.Popen[str]":
    """A process that trains the jobs on its standard input, one in each line."""
    with log.open("a") as log_file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "caffe_clr.runs.worker"],
            cwd=job.cwd,
            env=_environment(job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            close_fds=not job.options.mpi,  # over one of them, MPICH talks to mpirun
            text=True,
            start_new_session=True,
        )


def _give(process: "subprocess.Popen[str]", job: Job) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # its status says why
        process.stdin.write(job.to_json() + "\n")
        process.stdin.flush()
        if not job.is_led:
            process.stdin.close()


def _raise_failure(failure: WorkerReport, status: int, log: Path, before: int) -> None:
    """Raise what ended a training, if anything did."""
    match failure.get("failed"):
        case Failure.DIVERGED:
            raise DivergedError(failure["message"], failure["iteration"])
        case Failure.INTERRUPTED:
            raise Interrupted(failure["signal"], failure["message"])
        case Failure.USAGE:
            raise UsageError(failure["message"])
        case Failure.ERROR:
            raise ClrError(failure["message"])
    if status:
        raise DiedError(f"{_reason(status, log, before)}\nfull log: {log}")


def _reason(status: int, log: Path, before: int) -> str:
    """Why a process ended, from its status and what it has written into the log."""
    with log.open("rb") as file:
        file.seek(before)
        written = file.read().decode(errors="replace")
    if fatal := _FATAL.findall(written):
        reason = f"Caffe aborted: {fatal[-1].strip()}"
        if _NOT_WRITTEN in reason:
            reason += "\na file could not be written completely: is the disk full?"
        return reason
    lines = written[-_LAST_BYTES:].strip().splitlines()
    last = f"; Caffe's last output: {_PREFIX.sub('', lines[-1])}" if lines else ""
    if status > 0:
        return f"the training process ended with status {status}{last}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the training process was killed by {name}{_SIGNALS.get(-status, '')}{last}"
