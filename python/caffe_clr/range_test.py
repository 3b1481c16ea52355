"""The LR range test (paper, section 3.3): accuracy while the rate rises from min_lr to max_lr."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr import advice, epochs, jobs, measures, policies, prototxt, runs, suggestions
from caffe_clr.errors import ClrError, DivergedError, UsageError
from caffe_clr.measures import Measure
from caffe_clr.runs import Row
from caffe_clr.suggestions import Suggestions

_TESTS = 50
_DISPLAYS = 100
_EPOCHS_A_STEP = 4  # of the solver that is suggested; the paper: 2 to 10
_CYCLES = range(advice.FEWEST_CYCLES, advice.HALVED_AWAY)  # of that solver


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    `rows` has a row for each test: iteration, lr, the measure (a mean over the
    seeds) and, of several seeds, its lowest and highest value as measure_low
    and measure_high. `losses` has the mean training loss at each display, with
    its lr. diverged_at is the lowest rate at which a seed diverged, and stopped
    says so. solver is the solver file with what was suggested.
    """

    measure: Measure
    seeds: Sequence[int]
    rows: list[Row]
    losses: list[Row]
    diverged_at: float | None
    suggestions: Suggestions
    solver: Path | None
    stopped: str = ""


def range_test(
    solver_file: Path,
    out: Path,
    *,
    min_lr: float,
    max_lr: float,
    iterations: int | None = None,
    length: float | None = None,
    images: int | None = None,
    repeat: int = 1,
    at_once: int = 1,
    seed: int | None = None,
    gpu: int | None = None,
    resume: bool = False,
    stop_early: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RangeTest:
    """Train with a rate that rises linearly from min_lr to max_lr, testing about 50 times.

    Each seed trains in a process of its own, in a folder of its own under
    `out`; nothing is snapshot. Writes range_test.csv, range_test.json and,
    where bounds are suggested, <policy>_solver.prototxt: the solver with those bounds,
    a stepsize of 4 epochs, and a max_iter at a cycle's end.

    Args:
        solver_file: a solver prototxt; its policy, max_iter and snapshots are
            not used.
        out: the folder to write into.
        iterations: how long to train.
        length: the same in epochs, where iterations is not given.
        images: the size of the training set, where it cannot be counted.
        repeat: how many seeds, from `seed` or the solver's random_seed or 1 on.
        at_once: how many of them to train at once.
        resume: go on with the range test in `out`.
        stop_early: end a training not only when its loss is no number, but
            also when it rises to four times the first.
        on_progress: called a few times a second with the iterations that are
            done and that there are, over all seeds.

    Raises:
        UsageError: the rates or the length make no range test.
        ClrError: as training.train.
    """
    parameter = prototxt.read_solver(solver_file, check_policy=False)
    if iterations is None:
        iterations = _iterations(parameter, length, images)
    sweep = _sweep(parameter, min_lr, max_lr, iterations)
    runs.make_folder(out)
    sweep_file = (out / "range_test_solver.prototxt").resolve()
    sweep_file.write_text(text_format.MessageToString(sweep))
    first = _first_seed(parameter, seed)
    seeds = range(first, first + repeat)
    folders = [(out / f"seed_{number}").resolve() for number in seeds]
    tasks = [
        jobs.Job(
            *((str(sweep_file),), str(folder), number, gpu, resume),
            stop_on="rise" if stop_early else "divergence",
            threads=jobs.threads(min(at_once, repeat)),
        )
        for number, folder in zip(seeds, folders, strict=True)
    ]

    def show() -> None:
        done = sum(runs.last_iteration(folder) for folder in folders)
        on_progress(done, iterations * repeat)

    for error in jobs.run_all(tasks, at_once, on_wait=show):
        if error is not None and not isinstance(error, DivergedError):
            raise error
    measure = measures.measure_of(parameter, str(solver_file))
    rows, losses = _collect(folders, measure)
    diverged_at, stopped = _divergence(folders, sweep)
    found = suggestions.suggest(
        [row["lr"] for row in rows],
        [row[measure.name] for row in rows],
        loss_rates=[row["lr"] for row in losses],
        losses=[row["loss"] for row in losses],
        diverged_at=diverged_at,
        is_loss=not measure.is_accuracy,
        chance=measures.chance(parameter, str(solver_file)) if measure.is_accuracy else None,
    )
    solver = _write_solver(parameter, solver_file, found, out, images)
    result = RangeTest(measure, seeds, rows, losses, diverged_at, found, solver, stopped)
    runs.write_csv(rows, out / "range_test.csv")
    _write_json(result, solver_file, sweep, out)
    return result


def _iterations(parameter: Any, length: float | None, images: int | None) -> int:
    if length is None:
        raise UsageError("how long to train? give --epochs or --iterations")
    return round(length * epochs.epoch(parameter, images=images).iterations)


def _sweep(parameter: Any, min_lr: float, max_lr: float, iterations: int) -> Any:
    """The solver whose rate rises linearly over the run: half a cycle of triangular."""
    if not 0 <= min_lr < max_lr < math.inf:
        raise UsageError(
            f"--min-lr {min_lr:g} is not below --max-lr {max_lr:g}, or is negative or infinite"
        )
    if iterations < suggestions.FEWEST_TESTS:
        raise UsageError(
            f"{iterations} iterations are too few for a curve; give {suggestions.FEWEST_TESTS}"
            " at least"
        )
    sweep = _with_policy(parameter, "triangular", min_lr, max_lr, iterations)
    sweep.max_iter = iterations
    sweep.test_interval = max(1, iterations // _TESTS)
    sweep.display = max(1, iterations // _DISPLAYS)
    sweep.test_initialization = True
    sweep.snapshot = 0
    sweep.snapshot_after_train = False
    return sweep


def _with_policy(parameter: Any, policy: str, base_lr: float, max_lr: float, stepsize: int) -> Any:
    solver = type(parameter)()
    solver.CopyFrom(parameter)
    for field in ("power", "stepvalue", "start_lr_policy"):
        solver.ClearField(field)
    if policy != "exp_range":
        solver.ClearField("gamma")
    solver.lr_policy = policy
    solver.base_lr, solver.max_lr, solver.stepsize = base_lr, max_lr, stepsize
    return solver


def _first_seed(parameter: Any, seed: int | None) -> int:
    if seed is not None:
        return seed
    return int(parameter.random_seed) if parameter.random_seed >= 0 else 1


def _collect(folders: Sequence[Path], measure: Measure) -> tuple[list[Row], list[Row]]:
    """The measure and the loss over the seeds, where all of them have it."""
    histories = [runs.read_history(folder) for folder in folders]
    tests = _over_seeds([measure.rows(history) for history in histories], measure.name)
    return tests, _over_seeds([history.train for history in histories], "loss")


def _divergence(folders: Sequence[Path], sweep: Any) -> tuple[float | None, str]:
    """The lowest rate at which a seed diverged, and what was said of it."""
    diverged = [
        (status["iteration"], status["message"].partition(";")[0])  # the remedy is another
        for status in map(runs.read_status, folders)
        if status["status"] == "diverged"
    ]
    if not diverged:
        return None, ""
    iteration, message = min(diverged)
    return float(policies.learning_rate(sweep, iteration)), f"Stopped early: {message}"


def _over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    names = {"iteration": "iteration", "lr": "lr", "mean": name}
    if len(seeds) > 1:
        names |= {"low": f"{name}_low", "high": f"{name}_high"}
    rows = measures.over_seeds(seeds, name)
    return [{names[key]: value for key, value in row.items() if key in names} for row in rows]


def _write_solver(
    parameter: Any, solver_file: Path, found: Suggestions, out: Path, images: int | None
) -> Path | None:
    """The solver with what was suggested, with whole cycles near to its max_iter."""
    if found.base_lr.rate is None or found.max_lr.rate is None:
        return None
    policy = parameter.lr_policy if parameter.lr_policy in policies.CYCLES else "triangular2"
    try:
        stepsize = _EPOCHS_A_STEP * epochs.epoch(parameter, images=images).iterations
        length = f"{_EPOCHS_A_STEP} epochs"
    except ClrError:
        stepsize = max(1, parameter.max_iter // (2 * _CYCLES[0]))
        length = "a sixth of the run, since the epoch is not known"
    cycles = min(max(round(parameter.max_iter / (2 * stepsize)), _CYCLES[0]), _CYCLES[-1])
    base_lr, max_lr = (float(f"{bound.rate:.2g}") for bound in (found.base_lr, found.max_lr))
    solver = _with_policy(parameter, policy, base_lr, max_lr, stepsize)
    solver.max_iter = 2 * stepsize * cycles
    # its snapshots are not to be written over those of the solver it is made from
    solver.snapshot_prefix = str(Path(solver.snapshot_prefix or policy).with_name(policy))
    path = out / f"{policy}_solver.prototxt"
    path.write_text(
        f"# {solver_file} with what caffe-clr range-test suggests.\n"
        f"# base_lr: {found.base_lr.reason} (confidence: {found.base_lr.confidence}).\n"
        f"# max_lr: {found.max_lr.reason} (confidence: {found.max_lr.confidence}).\n"
        f"# stepsize: {length}. max_iter: {cycles} whole cycles.\n"
        + text_format.MessageToString(solver)
    )
    return path


def _write_json(result: RangeTest, solver_file: Path, sweep: Any, out: Path) -> None:
    content = {
        "solver": str(solver_file),
        "min_lr": sweep.base_lr,
        "max_lr": sweep.max_lr,
        "iterations": sweep.max_iter,
        "seeds": list(result.seeds),
        "measure": result.measure.name,
        "diverged_at": result.diverged_at,
        "suggestions": asdict(result.suggestions),
    }
    (out / "range_test.json").write_text(json.dumps(content, indent=2) + "\n")
