"""Starts workers and asks them for iterations, one worker at a time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree

# what has oneDNN, PyTorch and OpenBLAS compute as on a processor without AVX-512
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "AVX-512": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}

_ROOT = Path(__file__).resolve().parent.parent
_SETTLE = 0.1  # seconds: threads of the last worker that wait for work spin, then sleep


class Worker:
    """A process of benchmarks.worker; `facts` is what it tells of its net.

    Args:
        arguments: those of benchmarks.worker.
        threads: how many it computes in.
        tree: the Caffe that it imports, if any.
        instructions: one of INSTRUCTIONS, the vector instructions that it is to use.
        ranks: how many processes train together, by MPI.
    """

    def __init__(
        self,
        arguments: list[str],
        threads: int,
        tree: Tree | None = None,
        instructions: str = "AVX-512",
        ranks: int = 1,
    ) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "GLOG_minloglevel": "2"}
        environment |= INSTRUCTIONS[instructions]
        # BLAS follows OMP_NUM_THREADS where nothing else is said
        environment.pop("OPENBLAS_NUM_THREADS", None)
        if tree:
            environment["PYTHONPATH"] = str(tree.python)
        self._name = " ".join(arguments)
        launcher: list[str | Path] = []
        if ranks > 1:
            launcher = [Path(sys.executable).with_name("mpirun"), "-n", str(ranks)]
        self._process = subprocess.Popen(
            [*launcher, sys.executable, "-m", "benchmarks.worker", *arguments],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )
        self.facts: dict[str, int] = {}

    def wait(self) -> None:
        """Wait until it can work."""
        self.facts = self._read()

    def step(self, iterations: int) -> list[float]:
        """Do iterations; returns the milliseconds of each."""
        milliseconds: list[float] = self._ask(f"step {iterations}")
        return milliseconds

    def test(self, batches: int) -> float:
        """The mean accuracy of some batches."""
        accuracy: float = self._ask(f"test {batches}")
        return accuracy

    def averaging(self) -> list[float]:
        """The milliseconds for which rank 0 averaged gradients, or waited to, by iteration."""
        milliseconds: list[float] = self._ask("averaging 0")
        return milliseconds

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: str) -> Any:
        assert self._process.stdin is not None
        time.sleep(_SETTLE)
        try:
            print(request, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._fail()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return json.loads(line)

    def _fail(self) -> None:
        errors = self._process.communicate()[1].splitlines()
        status = self._process.returncode
        last = "\n".join(f"  {line}" for line in errors[-4:])
        raise ClrError(f"worker {self._name} ended with exit status {status}:\n{last}")


@contextmanager
def started(workers: dict[str, Worker]) -> Iterator[dict[str, Worker]]:
    """Workers that are ready, by name; ended in the end."""
    with ExitStack() as stack:
        for worker in workers.values():
            stack.callback(worker.end)
        for worker in workers.values():
            worker.wait()
        yield workers
