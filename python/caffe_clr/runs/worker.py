"""The subprocess of a job, or of several: trains, and reports to its parent."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

from caffe_clr.errors import ClrError, DivergedError, Interrupted, UsageError
from caffe_clr.runs import training
from caffe_clr.runs.jobs import LOG, Failure, Job, WorkerReport
from caffe_clr.runs.ranks import join
from caffe_clr.runs.stage import Progress

_REPORT_SECONDS = 0.1


def main() -> None:
    """Train the jobs on standard input, and report in lines of JSON; other output is logged."""
    watch = _start_watch()
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    def listen(handler: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, handler)

    def stop() -> int | None:
        return signals[0] if signals else None

    def report(**content: Any) -> None:
        try:
            reports.write(json.dumps(content) + "\n")
        except BrokenPipeError:  # nobody is there any more to ask for the end
            signals.append(signal.SIGHUP)

    given = map(Job.from_json, sys.stdin)
    listen(signal.SIG_DFL)
    job = next(given)
    failure = None
    try:
        join(job.options.mpi)  # during which nothing but the signal itself can end it
        listen(note)
        if job.is_led:
            _do_led(job, given, report, stop)
        else:
            _do(job, report, stop)
    except (Exception, Interrupted) as error:
        failure = _failure(error, job)
    together = _leave(job, failed=failure is not None)
    if failure:
        report(**failure, alone=not together)
    watch.communicate()


def _do(job: Job, report: Callable[..., None], stop: Callable[[], int | None]) -> None:
    if job.only_check:
        training.check([Path(file) for file in job.solver_files], Path(job.out), job.options)
    else:
        _train(job, report, stop)


def _do_led(
    job: Job, given: Iterator[Job], report: Callable[..., None], stop: Callable[[], int | None]
) -> None:
    """Train the jobs that rank 0 is given, on all ranks.

    Args:
        job: the first one; on the other ranks, it has the folder for theirs.
        given: the next ones.
    """
    ranks = join(job.options.mpi)
    ranks.stop = stop
    jobs, folder = chain([job], given), Path(job.out)
    while sent := ranks.from_root(lambda: _sent(next(jobs, None))):
        job, solvers = sent
        if ranks.is_root:
            _log_to(job)
        else:
            job = _received(job, solvers, folder)
        try:
            _train(job, report, stop)
        except DivergedError as error:  # on all ranks
            if ranks.is_root:
                report(**_failure(error, job), alone=False)
        if ranks.is_root:
            report(waits=True)


def _sent(job: Job | None) -> tuple[Job, list[str]] | None:
    """A job with the text of its solvers, since not all ranks may see the files."""
    return (job, [Path(file).read_text() for file in job.solver_files]) if job else None


def _received(job: Job, solvers: Sequence[str], folder: Path) -> Job:
    files = []
    for number, text in enumerate(solvers):
        file = folder / f"solver_{number}.prototxt"
        file.write_text(text)
        files.append(str(file))
    return replace(job, solver_files=tuple(files), out=str(folder))


def _log_to(job: Job) -> None:
    """Write everything from now on to the log of a job."""
    with Path(job.out, LOG).open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())


def _failure(error: BaseException, job: Job) -> WorkerReport:
    """The report of an error that ended the training."""
    match error:
        case DivergedError():
            return dict(failed=Failure.DIVERGED, message=str(error), iteration=error.iteration)
        case UsageError():
            return dict(failed=Failure.USAGE, message=str(error))
        case ClrError():
            return dict(failed=Failure.ERROR, message=str(error))
        case Interrupted():
            number, message = error.signal_number, error.remedy
            return dict(failed=Failure.INTERRUPTED, signal=number, message=message)
        case OSError():
            message = f"{error.filename or job.out}: {error.strerror or error}"
            return dict(failed=Failure.ERROR, message=f"{message}; earlier snapshots are kept")
    traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemError):  # Caffe has written Python's own error to the log
        message = "a Python layer cannot be made; add the folder of its module to PYTHONPATH"
    return dict(failed=Failure.ERROR, message=f"{message}\nfull log: {job.out}/{LOG}")


def _leave(job: Job, failed: bool) -> bool:
    """Whether all ranks have come to their end, for the same reason if this one failed."""
    try:
        ranks = join(job.options.mpi)
    except ClrError:
        return False
    return ranks.leave(failed)


def _start_watch() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "caffe_clr.runs.watch", str(os.getpid())],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _train(job: Job, report: Callable[..., None], stop: Callable[[], int | None]) -> None:
    reported, iteration = time.monotonic() - _REPORT_SECONDS, 0

    def on_iteration(progress: Progress) -> None:
        nonlocal reported, iteration
        seconds = time.monotonic() - reported
        if seconds >= _REPORT_SECONDS:
            speed = (progress.iteration - iteration) / seconds
            reported, iteration = time.monotonic(), progress.iteration
            history = progress.history
            report(
                iteration=progress.iteration,
                lr=progress.lr,
                speed=speed,
                train=history.train[-1] if history.train else {},
                test=history.test[-1] if history.test else {},
            )

    def on_warning(warning: str) -> None:
        sys.stderr.write(f"warning: {warning}\n")
        report(warning=warning)

    training.train(
        [Path(file) for file in job.solver_files],
        Path(job.out),
        job.options,
        on_iteration=on_iteration,
        on_warning=on_warning,
        stop=stop,
    )


if __name__ == "__main__":
    main()
