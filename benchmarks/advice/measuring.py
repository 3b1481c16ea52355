"""Measures the advice: range tests in many ranges, and trainings with what they suggest.

Every measurement is a line of a JSON Lines file, with a key; those that are there already are
not repeated, so that it can be interrupted. The lines of a range test hold its losses, so that
other rules can be tried on them.
"""

import json
import math
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from benchmarks import peers
from benchmarks.advice.tasks import FOLDER, Task
from caffe_clr import policies, prototxt
from caffe_clr.errors import DivergedError
from caffe_clr.method import new_solver, range_search, range_test, sweeps
from caffe_clr.method.sweeps import Options
from caffe_clr.runs import jobs, metrics, run_folder
from caffe_clr.runs.jobs import Job, Processes
from caffe_clr.runs.options import TrainingOptions

SEEDS = (1, 2, 3)
RANGES = (1, 5.5, 30)  # times the user's base_lr, the end of a range that starts at 0
EPOCHS = (2, 8, 32)
LENGTHS = (1, 2, 4)  # times the default, of the tests that find their range
SHARES = (0.5, 1)  # of the user's iterations
FILE = "measurements.jsonl"
_GREY = 44.4  # 64 pixels, each log 2: the cross-entropy of an output of a half
_SWEPT = (1e-7, 10.0, 100)  # fastai's defaults: from, to, iterations

Record = dict[str, Any]
Work = tuple[str, Callable[[], Record]]


def measure(folder: Path, tasks: Sequence[Task], workers: int) -> None:
    """Measure tasks, two steps each: the range tests, then the trainings that need them.

    Args:
        folder: the folder with the data sets, where measurements.jsonl is written.
        workers: how many trainings at a time, each with one thread.
    """
    os.chdir(folder)
    shutil.copytree(FOLDER, "tasks", dirs_exist_ok=True)
    for parts in (_range_tests, _trainings):
        done = read(Path(FILE))
        work = [each for task in tasks for each in parts(task, done) if each[0] not in done]
        with ProcessPoolExecutor(workers) as executor, open(FILE, "a") as file:
            for measured in executor.map(_measured, work):
                file.write(json.dumps(measured) + "\n")
                file.flush()


def read(path: Path) -> dict[str, Record]:
    """The measurements so far, by key."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["key"]: line for line in lines}


def searched(task: Task, done: dict[str, Record], seed: int) -> float | None:
    """The max_lr that a range test without a range suggests by default."""
    rate: float | None = done[key(task, "search", LENGTHS[0], seed)]["max_lr"]
    return rate


def peers_rates(task: Task, done: dict[str, Record]) -> dict[str, float | None]:
    """What the rules of other tools suggest: the median over the seeds, to half an octave."""
    found = {}
    for name, rule in peers.RULES.items():
        sweeps_of = [done[key(task, "sweep", seed)] for seed in SEEDS]
        rates = [rule(*curve(each)) for each in sweeps_of]
        known = [rate for rate in rates if rate is not None]
        found[name] = _snapped(statistics.median(known)) if len(known) == len(SEEDS) else None
    return found


def curve(record: Record) -> tuple[Any, Any]:
    """The rates and the training losses of a sweep, or of a range test."""
    losses = np.array([math.nan if loss is None else loss for loss in record["losses"]])
    low, high, iterations = _SWEPT
    swept = low * (high / low) ** (np.arange(losses.size) / iterations)
    return np.array(record.get("rates", swept)), losses


def guess(task: Task) -> float:
    """The accuracy of a guess; of the autoencoder, the loss of a grey image."""
    chance = metrics.chance(prototxt.open_solver(task.solver))
    return _GREY if chance is None else chance


def _snapped(rate: float) -> float:
    """The nearest of rates half an octave apart, so that close ones share a training."""
    return float(f"{2 ** (round(2 * math.log2(rate)) / 2):.3g}")


def _measured(work: Work) -> Record:
    key, run = work
    return {"key": key, **run()}


def key(task: Task, *parts: object) -> str:
    return " ".join(map(str, (task.name, *parts)))


def _range_tests(task: Task, done: dict[str, Record]) -> Iterator[Work]:
    for seed in SEEDS:
        yield key(task, "sweep", seed), partial(_swept, task, seed)
        for length in LENGTHS:
            yield key(task, "search", length, seed), partial(_searched, task, length, seed)
    for given in product(RANGES, EPOCHS, SEEDS):
        yield key(task, "test", *given), partial(_tested, task, *given)


def _trainings(task: Task, done: dict[str, Record]) -> Iterator[Work]:
    solver = prototxt.open_solver(task.solver)
    rates = {rate for rate in peers_rates(task, done).values() if rate}
    for seed in SEEDS:
        yield key(task, "user", seed), partial(_trained, task, seed, solver.parameter)
        ours = searched(task, done, seed)
        for share in SHARES if ours else ():
            made = _one_cycle(solver, ours, share)
            yield key(task, "ours", share, seed), partial(_trained, task, seed, made)
        for rate in sorted(rates):
            made = _one_cycle(solver, rate, 1)
            yield key(task, "peer", rate, seed), partial(_trained, task, seed, made)


def _one_cycle(solver: prototxt.SolverFile, max_lr: float | None, share: float) -> Any:
    """The solver with the schedule that range-test writes."""
    assert max_lr is not None
    max_iter = round(share * solver.parameter.max_iter)
    plan = new_solver.Plan(policies.POLICIES["1cycle"], max_iter)
    return new_solver.one_cycle(solver.parameter, plan, max_lr)


def _untested(task: Task) -> Path:
    """The solver of a task without tests, which range tests need not: they judge the loss."""
    parameter = prototxt.read_solver(task.solver)
    parameter.ClearField("test_iter")
    parameter.ClearField("test_interval")
    path = Path(f"{task.name}_untested_solver.prototxt")
    if not path.exists():
        path.write_text(text_format.MessageToString(parameter))
    return path


def _scratch(*parts: object) -> Path:
    folder = Path("runs", "-".join(map(str, parts)))
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _tested(task: Task, part: float, epochs: float, seed: int) -> Record:
    """The paper's test."""
    end = part * prototxt.read_solver(task.solver).base_lr
    folder = _scratch(task.name, "test", part, epochs, seed)
    options = Options(min_lr=0, max_lr=end, iterations=round(epochs * task.epoch), seed=seed)
    return _of_test(range_test.range_test(_untested(task), folder, options), folder)


def _searched(task: Task, length: int, seed: int) -> Record:
    """A test that finds its range."""
    max_iter = prototxt.read_solver(task.solver).max_iter
    folder = _scratch(task.name, "search", length, seed)
    iterations = round(length * range_search.FINE * max_iter) if length > 1 else None
    result = range_test.range_test(task.solver, folder, Options(seed=seed, iterations=iterations))
    steps = [[step.max_lr, step.iterations, step.outcome] for step in result.steps]
    return {**_of_test(result, folder), "iterations": result.iterations, "steps": steps}


def _of_test(result: Any, folder: Path) -> Record:
    shutil.rmtree(folder)
    found = result.suggestions
    return {
        "base_lr": found.base_lr.rate,
        "max_lr": found.max_lr.rate,
        "reason": found.max_lr.reason,
        "diverged_at": result.diverged_at,
        "rates": [float(f"{row['lr']:.4g}") for row in result.losses],
        "losses": [float(f"{row['loss']:.4g}") for row in result.losses],
    }


def _swept(task: Task, seed: int) -> Record:
    """A geometric sweep as fastai's."""
    low, high, iterations = _SWEPT
    solver = prototxt.open_solver(task.solver)
    sweep = sweeps.geometric(solver.parameter, iterations, low, high)
    folder = _scratch(task.name, "sweep", seed)
    options = Options(seed=seed)
    one = (sweep, folder, [seed], options, Processes())
    done = range_test.train(*one, lambda done: None, lambda warning: None)
    shutil.rmtree(folder)
    losses = [row["loss"] for row in done.losses]
    finite = [float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in losses]
    return {"losses": finite + [None] * (len(finite) < iterations)}


def _trained(task: Task, seed: int, parameter: Any) -> Record:
    """The test result at the end of a training."""
    about = parameter.lr_policy, f"{parameter.max_lr:g}", parameter.max_iter
    folder = _scratch(task.name, *about, seed)
    folder.mkdir(parents=True)
    file = folder / "given.prototxt"
    file.write_text(text_format.MessageToString(parameter))
    metric = metrics.metric_of(prototxt.open_solver(file))
    job = Job((str(file),), str(folder / "run"), TrainingOptions(seed=seed), threads=1)
    diverged = False
    try:
        jobs.run(job)
    except DivergedError:
        diverged = True
    rows = metric.rows(run_folder.read_history(folder / "run"))
    shutil.rmtree(folder)
    value = None if diverged else rows[-1][metric.name]
    return {"value": value, "metric": metric.name, "is_accuracy": metric.is_accuracy}
