"""Times training to an accuracy on CIFAR-10: triangular2 and fixed here, fixed in stock Caffe."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import builds, nets, tables
from benchmarks.workers import Worker, started
from caffe_clr.errors import UsageError
from caffe_clr.harness.compilation import Tree

_EVERY = 250  # iterations from test to test
_BATCHES = 100  # of 100 images: the whole test set
_LAST = 60_000  # upstream's max_iter
_TRIANGULAR2 = nets.TRIANGULAR2 | {"max_lr": 0.005}


@dataclass
class TimedRun:
    """A training under way."""

    worker: Worker
    seconds: float = 0
    accuracies: list[float] = field(default_factory=list)

    @property
    def iterations(self) -> int:
        return _EVERY * len(self.accuracies)


def show(cifar: Path, accuracy: float, seeds: int) -> None:
    """Train until the accuracy is reached, and print a table.

    Args:
        cifar: a folder with train_lmdb, test_lmdb and mean.binaryproto.

    Raises:
        UsageError: the folder lacks one of these.
    """
    for name in ("train_lmdb", "test_lmdb", "mean.binaryproto"):
        if not (cifar / name).exists():
            raise UsageError(f"--cifar: {cifar} has no {name}")
    this, stock = builds.this_build(tables.report), builds.stock(tables.report)
    subjects = {
        "this build, triangular2": (this, _TRIANGULAR2),
        "this build, fixed": (this, nets.FIXED),
        "stock Caffe, fixed": (stock, nets.FIXED),
    }
    notes = [
        f"seconds: of training alone; tests follow every {_EVERY} iterations and are not counted",
        f"{len(os.sched_getaffinity(0))} threads; the runs take turns",
        "triangular2: base_lr 0.001, max_lr 0.005, stepsize 2000; fixed: base_lr 0.001",
    ]
    headings = ("seed", "iterations", "seconds", "/ stock", "accuracy")
    title = f"Time to an accuracy of {accuracy:.1%} on CIFAR-10 with cifar10_full"
    table = tables.table(title, "", headings, notes)
    for seed in range(1, seeds + 1):
        runs = _train(subjects, cifar.resolve(), accuracy, seed)
        for name, run in runs.items():
            ratio = run.seconds / runs["stock Caffe, fixed"].seconds
            reached = run.accuracies[-1] >= accuracy
            iterations = f"{run.iterations:,}" if reached else f"not in {run.iterations:,}"
            cells = [f"{run.seconds:,.0f}", f"{ratio:.2f}", f"{run.accuracies[-1]:.2%}"]
            table.add_row(name, f"{seed}", iterations, *cells)
    tables.console.print(table)


def _train(
    subjects: dict[str, tuple[Tree, dict[str, Any]]], cifar: Path, accuracy: float, seed: int
) -> dict[str, TimedRun]:
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        workers = {}
        for number, (name, (tree, fields)) in enumerate(subjects.items()):
            file = Path(folder) / f"{number}_solver.prototxt"
            nets.write_cifar10(file, tree, cifar, **fields, test_iter=[_BATCHES], random_seed=seed)
            workers[name] = Worker(["caffe", str(file)], threads, tree)
        runs = {name: TimedRun(worker) for name, worker in workers.items()}
        with started(workers), tables.console.status("training") as status:
            while under_way := [run for run in runs.values() if not _has_ended(run, accuracy)]:
                for run in under_way:
                    run.seconds += sum(run.worker.step(_EVERY)) / 1000
                    run.accuracies.append(run.worker.test(_BATCHES))
                found = ", ".join(
                    f"{name} {run.accuracies[-1]:.1%} at {run.iterations:,}"
                    for name, run in runs.items()
                )
                status.update(f"seed {seed}: {found}")
    return runs


def _has_ended(run: TimedRun, accuracy: float) -> bool:
    return bool(run.accuracies) and (run.accuracies[-1] >= accuracy or run.iterations >= _LAST)
