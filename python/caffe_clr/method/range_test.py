"""The LR range test (paper, section 3.3): training while the rate rises."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method import new_solver, range_search, suggestions, sweeps
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.sweeps import Options as Options  # its users look for it here
from caffe_clr.method.sweeps import Sweep
from caffe_clr.policies import Policy
from caffe_clr.preflight import checks, epochs
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import jobs, metrics, notebook, run_folder
from caffe_clr.runs.history import Row, outputs, write_csv
from caffe_clr.runs.jobs import Job, Processes
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.ranks import Place
from caffe_clr.runs.status import Status
from caffe_clr.system.paths import StrPath

_MAX_ITER = 2**31 - 1
_TESTS = 50
_CHANGED = (
    "The base_lr and gamma of a sweep follow from the solver's base_lr, from --seeds, and from"
    " max_iter or --max-iter, --iterations or --epochs"
)


def range_test(
    solver_file: StrPath,
    out: StrPath | None = None,
    options: Options = sweeps.DEFAULTS,
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> RangeTest:
    """Suggest bounds by training while the rate rises, and write a solver with them.

    With min_lr and max_lr, it is the paper's test: the rate rises linearly from one to the
    other, and the solver is tested about 50 times. Without, range_search.search finds the
    range.

    Each seed trains in its own process and its own folder under `out`, without snapshots
    at intervals. Writes range_test.csv, range_test.json and, if bounds are suggested, the
    solver files that new_solver.write describes. If the solver's momentum cycles, it
    cycles with the rate, both in the range test and in the solver that is written.

    Args:
        solver_file: a solver prototxt; its policy and snapshot are ignored.
        out: the folder to write into; by default runs/<solver name>-<time>.
        options: see Options.
        on_progress: called a few times a second with the number of iterations done and
            the total, over all seeds; by default, a notebook shows a bar.
        on_warning: see training.train.

    Raises:
        UsageError: the rates or the length cannot be used, or `out` has a range test that is
            not to be resumed.
        ClrError: see training.train.
    """
    solver_file = Path(solver_file)
    out = Path(out) if out else run_folder.default_folder(solver_file)
    with Processes() as processes, notebook.Bars() as bars:
        show = on_progress or (lambda done, total: bars.show({"range test": (done, total)}))
        if options.mpi and (options.jobs > 1 or options.scheduler):
            raise UsageError("--mpi trains one seed at a time; leave out --jobs and --scheduler")
        solver = prototxt.open_solver(solver_file)
        plan = new_solver.plan(solver, options)
        _check_folder(out, plan.policy, options.resume)
        if options.min_lr is None and options.max_lr is None:
            length = plan.max_iter
            result = _searched(solver, length, out, options, processes, show, on_warning)
        else:
            result = _tested(solver, out, options, processes, show, on_warning)
    files = new_solver.write(solver, plan, result.suggestions, out, options.images, on_warning)
    result.solvers.extend(files)
    write_csv(result.rows, out / "range_test.csv")
    _write_json(result, solver, out, _ranks(options))
    return result


def _check_folder(out: Path, policy: Policy, resume: bool) -> None:
    """Refuse a folder whose files would be lost."""
    runs = sweeps.runs(out)
    if not resume and any(map(run_folder.is_run, runs)):
        raise UsageError(
            f"{out} already has a range test; continue it with --resume, or name another --out"
        )
    written = rf"range_test(_solver)?\..*|{new_solver.names(policy)}"
    for folder in (out, *out.glob("sweep_*")):
        run_folder.check_replaced(folder, written, is_own=bool(runs))


def _ranks(options: Options) -> int:
    return Place.of(options.mpi).size


def _tested(
    solver: SolverFile,
    out: Path,
    options: Options,
    processes: Processes,
    on_progress: Callable[[int, int], None],
    on_warning: Callable[[str], None],
) -> RangeTest:
    """The paper's test, in a given range."""
    min_lr, max_lr = _range(options)
    iterations = _iterations(solver, options)
    seeds = sweeps.seeds_of(solver, options)
    sweep = sweeps.prepared(
        solver.parameter,
        policies.RANGE_TEST,
        iterations,
        tests=_TESTS if solver.tested_nets else 0,
        base_lr=min_lr,
        max_lr=max_lr,
        stepsize=iterations,
    )
    warnings = _check(sweep, solver.name, out, seeds, options)
    for warning in warnings + checks.warn_of_no_tests(solver):
        on_warning(warning)
    total = iterations * options.seeds
    found = train(
        *(sweep, out, seeds, options, processes),
        lambda done: on_progress(done, total),
        on_warning,
    )
    metric = metrics.metric_of(solver)
    rows = [metric.rows(history) for history in found.histories]
    tested = _over_seeds(rows, metric.name)
    chance, length = metrics.chance(solver), _epochs_of(solver, iterations, options)
    suggested = suggestions.of_rows(
        *(metric, tested, found.losses),
        diverged_at=found.diverged_at,
        chance=chance,
        epochs=length,
    )
    return RangeTest(
        *(metric, seeds, tested, found.losses, found.diverged_at, suggested),
        stopped=found.stopped,
        others=[name for name in outputs(found.histories[0].test) if name != metric.name],
        chance=chance,
        epochs=length,
        iterations=found.iterations,
    )


def _searched(
    solver: SolverFile,
    max_iter: int,
    out: Path,
    options: Options,
    processes: Processes,
    on_progress: Callable[[int, int], None],
    on_warning: Callable[[str], None],
) -> RangeTest:
    """Tests whose range is found."""
    length = None
    if options.iterations is not None or options.epochs is not None:
        length = _iterations(solver, options)
    lengths = range_search.lengths(max_iter, length)
    seeds = sweeps.seeds_of(solver, options)
    trained = 0

    def sweep(number: int, low: float, high: float) -> Sweep:
        nonlocal trained
        iterations = lengths[number - 1]
        folder = out / f"sweep_{number}"
        prepared = sweeps.geometric(solver.parameter, iterations, low, high)
        try:
            warnings = _check(prepared, solver.name, folder, seeds, options)
        except UsageError as error:
            raise UsageError(f"{error}. {_CHANGED}") from None
        for warning in warnings if number == 1 else []:
            on_warning(warning)
        before = trained
        found = train(
            *(prepared, folder, seeds, options, processes),
            lambda done: on_progress(before + done, sum(lengths) * len(seeds)),
            on_warning,
        )
        trained += found.iterations
        return found

    guess = metrics.guessing_loss(solver.train_net.parameter)
    found = range_search.search(solver, sweep, on_warning, guess)
    last = found.last
    return RangeTest(
        *(metrics.TRAINING_LOSS, seeds, last.losses, last.losses, last.diverged_at),
        *(found.suggestions, last.stopped),
        guess=guess,
        iterations=trained,
        steps=found.steps,
    )


def _epochs_of(solver: SolverFile, iterations: int, options: Options) -> float | None:
    """The length of a test in epochs; None if the images cannot be counted."""
    try:
        epoch = epochs.epoch(solver, images=options.images, ranks=_ranks(options))
    except ClrError:
        return None
    return iterations / epoch.iterations


def _check(
    sweep: Any, name: str, folder: Path, seeds: Sequence[int], options: Options
) -> list[str]:
    """Check a sweep before it writes anything.

    Returns:
        The warnings.

    Raises:
        UsageError: the folder has another run.
        ClrError: see training.train.
    """
    warnings = checks.check_run(SolverFile(sweep, name), gpu=options.gpu)
    for seed in seeds:
        run_folder.check_begun(folder / f"seed_{seed}", sweep, seed)
    return warnings


def train(
    sweep: Any,
    folder: Path,
    seeds: Sequence[int],
    options: Options,
    processes: Processes,
    on_progress: Callable[[int], None],
    on_warning: Callable[[str], None],
) -> Sweep:
    """Train a sweep, which `check` has passed.

    Args:
        processes: what trains it, if that is this machine.
        on_progress: called a few times a second with the iterations done, over all seeds.
        on_warning: see training.train.

    Raises:
        ClrError: see training.train.
    """
    folders = [(folder / f"seed_{seed}").resolve() for seed in seeds]
    for each in folders:
        run_folder.make_folder(each)
    file = (folder / sweeps.SOLVER).resolve()
    file.write_text(text_format.MessageToString(sweep))
    threads = jobs.threads(min(options.jobs, options.seeds))
    tasks = [
        Job(
            solver_files=(str(file),),
            out=str(each),
            options=TrainingOptions.of(options, seed=seed),
            cwd=str(Path.cwd()),
            threads=None if options.mpi or options.scheduler else threads,
            is_led=options.mpi,
        )
        for seed, each in zip(seeds, folders, strict=True)
    ]

    def show() -> None:
        on_progress(sum(map(run_folder.last_iteration, folders)))

    jobs.train_all(tasks, options.jobs, options.scheduler, show, on_warning, processes)
    histories = [run_folder.read_history(each) for each in folders]
    losses = _over_seeds([each.train for each in histories], "loss")
    trained = sum(map(run_folder.last_iteration, folders))
    return Sweep(histories, losses, *_divergence(folders, sweep), trained)


def _over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    """Rows with iteration, lr, the mean of `name` and, of several seeds, its band."""
    names = {"iteration": "iteration", "lr": "lr", "mean": name}
    if len(seeds) > 1:
        names |= {"low": f"{name}_low", "high": f"{name}_high"}
    rows = metrics.over_seeds(seeds, name)
    return [{names[key]: value for key, value in row.items() if key in names} for row in rows]


def _divergence(folders: Sequence[Path], sweep: Any) -> tuple[float | None, str]:
    """The lowest rate at which a seed diverged, and what was said of it."""
    diverged = [
        (status["iteration"], status["message"].partition(";")[0])  # the remedy is another
        for status in map(run_folder.read_status, folders)
        if status["status"] == Status.DIVERGED
    ]
    if not diverged:
        return None, ""
    iteration, message = min(diverged)
    return float(policies.learning_rate(sweep, iteration)), f"Stopped early: {message}"


def _range(options: Options) -> tuple[float, float]:
    min_lr, max_lr = options.min_lr, options.max_lr
    if min_lr is None or max_lr is None:
        raise UsageError("give both --min-lr and --max-lr, or neither to have the range found")
    if not 0 <= min_lr < max_lr < math.inf:
        raise UsageError(
            f"--min-lr {min_lr:g} --max-lr {max_lr:g}: give finite rates of 0 or more, the first"
            " below the second"
        )
    return min_lr, max_lr


def _iterations(solver: SolverFile, options: Options) -> int:
    """The length of the test that was asked for."""
    if options.iterations is not None:
        iterations = options.iterations
    elif options.epochs is None:
        raise UsageError("the length of the test is missing; give --epochs or --iterations")
    elif not 0 < options.epochs < math.inf:
        raise UsageError(f"--epochs {options.epochs:g}: give a number above 0")
    else:
        remedy = "give --iterations instead of --epochs"
        ranks = _ranks(options)
        epoch = epochs.epoch(solver, images=options.images, ranks=ranks, remedy=remedy)
        length = options.epochs * epoch.iterations
        iterations = round(min(length, 2.0 * _MAX_ITER))
    if iterations < suggestions.FEWEST_TESTS:
        raise UsageError(
            f"{iterations} iterations are too few for a curve; give at least"
            f" {suggestions.FEWEST_TESTS}"
        )
    if iterations > _MAX_ITER:
        raise UsageError(
            f"the length of the test exceeds {_MAX_ITER:,} iterations, the highest max_iter; give"
            " a shorter one"
        )
    return iterations


def _write_json(result: RangeTest, solver: SolverFile, out: Path, ranks: int) -> None:
    last = result.steps[-1].name if result.steps else ""
    sweep = prototxt.read_solver(out / last / sweeps.SOLVER)
    content: dict[str, Any] = {
        "solver": solver.name,
        "min_lr": sweep.base_lr,
        "max_lr": float(policies.learning_rate(sweep, sweep.max_iter)),
        "iterations": sweep.max_iter,
        "trained": result.iterations,
        "ranks": ranks,
        "seeds": list(result.seeds),
        "metric": result.metric.name,
        "diverged_at": result.diverged_at,
        "suggestions": asdict(result.suggestions),
        "steps": [asdict(step) for step in result.steps],
    }
    # what else the test is judged by
    if result.steps:
        content["guess"] = result.guess
    else:
        content |= {"epochs": result.epochs, "chance": result.chance}
    (out / "range_test.json").write_text(json.dumps(content, indent=2) + "\n")
