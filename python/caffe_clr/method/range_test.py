"""The LR range test (paper, section 3.3): accuracy while the rate rises from min_lr to max_lr."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, DivergedError, UsageError
from caffe_clr.method import suggestions
from caffe_clr.method.results import RangeTest
from caffe_clr.method.suggestions import Suggestion, Suggestions
from caffe_clr.policies import Policy
from caffe_clr.preflight import advice, checks, epochs
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs import jobs, metrics, run_folder
from caffe_clr.runs.history import Row, outputs, write_csv
from caffe_clr.runs.jobs import Job
from caffe_clr.runs.options import TrainingOptions
from caffe_clr.runs.status import Status

_MAX_ITER = 2**31 - 1
_MAX_SEED = 2**32 - 1  # of Caffe's generator
_TESTS = 50
_DISPLAYS = 100
_EPOCHS_A_STEP = 4  # of the solver that is suggested; the paper: 2 to 10
_CYCLES = range(advice.FEWEST_CYCLES, advice.HALVED_AWAY)  # of that solver


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a range test: those of each training, and the test's own.

    Attributes:
        min_lr: the rate at the start.
        max_lr: the rate at the end.
        iterations: the length of the test.
        epochs: the length in epochs, if `iterations` is not given.
        policy: the policy of the solver that is written; it must have cycles. Default:
            the solver's own policy if it has cycles, else triangular2.
        seeds: number of seeds. They count up from `seed`, else from the solver's
            random_seed, else from 1.
        jobs: number of seeds to train at a time.
        seed: the first seed.
        stop_early: as for a training, but true by default.
    """

    min_lr: float
    max_lr: float
    iterations: int | None = None
    epochs: float | None = None
    policy: str | None = None
    seeds: int = 1
    jobs: int = 1
    _: KW_ONLY
    stop_early: bool = True


def range_test(
    solver_file: Path,
    out: Path,
    options: Options,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_warning: Callable[[str], None] = lambda warning: None,
) -> RangeTest:
    """Train while the rate rises linearly from min_lr to max_lr, testing about 50 times.

    Each seed trains in its own process and its own folder under `out`, without
    snapshots at intervals. Writes range_test.csv, range_test.json and, if bounds are
    suggested, <policy>_solver.prototxt: the solver with those bounds, a stepsize of 4
    epochs, and a max_iter at the end of a cycle. For 1cycle, that solver has the
    suggested max_lr, a tenth of it as base_lr, and a cycle that takes nine tenths of its
    max_iter. If the solver's momentum cycles, it cycles with the rate, both in the range
    test and in the solver that is written.

    Args:
        solver_file: a solver prototxt; its policy, max_iter and snapshot are ignored.
        out: the folder to write into.
        options: see Options.
        on_progress: called a few times a second with the number of iterations done and
            the total, over all seeds.
        on_warning: see training.train.

    Raises:
        UsageError: the rates or the length cannot be used.
        ClrError: see training.train.
    """
    solver = prototxt.open_solver(solver_file)
    policy = _policy(solver, options.policy)
    iterations = _iterations(solver, options)
    sweep = _sweep(solver.parameter, options.min_lr, options.max_lr, iterations)
    if not solver.tested_nets:
        for field in ("test_net", "test_net_param", "test_state", "test_iter", "test_interval"):
            sweep.ClearField(field)
    warnings = checks.check_run(SolverFile(sweep, solver.name), gpu=options.gpu)
    for warning in warnings + checks.warn_of_no_tests(solver):
        on_warning(warning)
    first = _first_seed(solver.parameter, options.seed)
    seeds = range(first, first + options.seeds)
    if seeds[-1] > _MAX_SEED:
        raise UsageError(
            f"the seeds {first} to {seeds[-1]} exceed {_MAX_SEED}; give a smaller --seed"
        )
    folders = [(out / f"seed_{seed}").resolve() for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        run_folder.check_begun(folder, sweep, seed)
    is_own = any(folder.is_dir() for folder in out.glob("seed_*"))
    run_folder.check_replaced(
        out, rf"range_test(_solver)?\..*|{policy.name}_solver\.prototxt", is_own=is_own
    )
    for folder in folders:
        run_folder.make_folder(folder)
    sweep_file = (out / "range_test_solver.prototxt").resolve()
    sweep_file.write_text(text_format.MessageToString(sweep))
    tasks = [
        Job(
            solver_files=(str(sweep_file),),
            out=str(folder),
            options=TrainingOptions.of(options, seed=seed),
            threads=jobs.threads(min(options.jobs, options.seeds)),
        )
        for seed, folder in zip(seeds, folders, strict=True)
    ]

    def show() -> None:
        done = sum(run_folder.last_iteration(folder) for folder in folders)
        on_progress(done, iterations * options.seeds)

    for error in jobs.run_all(tasks, options.jobs, on_wait=show, on_warning=on_warning):
        if error is not None and not isinstance(error, DivergedError):
            raise error
    metric = metrics.metric_of(solver)
    histories = [run_folder.read_history(folder) for folder in folders]
    rows = _over_seeds([metric.rows(each) for each in histories], metric.name)
    losses = _over_seeds([each.train for each in histories], "loss")
    diverged_at, stopped = _divergence(folders, sweep)
    found = suggestions.of_rows(
        metric, rows, losses, diverged_at=diverged_at, chance=metrics.chance(solver)
    )
    suggested = _write_solver(solver, policy, found, out, options.images)
    others = [name for name in outputs(histories[0].test) if name != metric.name]
    result = RangeTest(metric, seeds, rows, losses, diverged_at, found, suggested, stopped, others)
    write_csv(rows, out / "range_test.csv")
    _write_json(result, solver_file, sweep, out)
    return result


def _policy(solver: SolverFile, name: str | None) -> Policy:
    parameter = solver.parameter
    own = policies.POLICIES.get(parameter.lr_policy)
    if name is None:
        policy: Policy | None = own if own and own.cycles else policies.SUGGESTED
    else:
        policy = policies.POLICIES.get(name)
    if policy is None or not policy.cycles:
        names = [each.name for each in policies.POLICIES.values() if each.cycles]
        raise UsageError(f"--policy {name}: give one of {', '.join(names)}")
    if policy.cycles == 1 and parameter.max_iter < 3:
        raise UsageError(
            f"{solver.name}: max_iter is {parameter.max_iter}; set it to 3 or more, because the"
            f" cycle of {policy.name} takes {advice.ONE_CYCLE:.0%} of it"
        )
    return policy


def _iterations(solver: SolverFile, options: Options) -> int:
    if options.iterations is not None:
        return options.iterations
    if options.epochs is None:
        raise UsageError("the length of the test is missing; give --epochs or --iterations")
    if not 0 < options.epochs < math.inf:
        raise UsageError(f"--epochs {options.epochs:g}: give a number above 0")
    length = options.epochs * epochs.epoch(solver, images=options.images).iterations
    return round(min(length, 2.0 * _MAX_ITER))


def _sweep(parameter: Any, min_lr: float, max_lr: float, iterations: int) -> Any:
    """The solver whose rate rises linearly over the run: half a cycle."""
    if not 0 <= min_lr < max_lr < math.inf:
        raise UsageError(
            f"--min-lr {min_lr:g} --max-lr {max_lr:g}: give finite rates of 0 or more, the first"
            " below the second"
        )
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
    sweep = _with_policy(parameter, policies.RANGE_TEST, min_lr, max_lr, iterations)
    sweep.max_iter = iterations
    sweep.test_interval = max(1, iterations // _TESTS)
    sweep.display = max(1, iterations // _DISPLAYS)
    sweep.test_initialization = True
    sweep.snapshot = 0
    sweep.snapshot_after_train = False
    return sweep


def _with_policy(
    parameter: Any, policy: Policy, base_lr: float, max_lr: float, stepsize: int
) -> Any:
    solver = type(parameter)()
    solver.CopyFrom(parameter)
    for field in {"gamma", "power", "stepvalue"}.difference(policy.fields):
        solver.ClearField(field)
    solver.ClearField("start_lr_policy")
    solver.lr_policy = policy.name
    solver.base_lr, solver.max_lr, solver.stepsize = base_lr, max_lr, stepsize
    if len(policies.cyclical_momentum(solver)) == 2:
        solver.cyclical_momentum[1] = stepsize
    return solver


def _first_seed(parameter: Any, seed: int | None) -> int:
    if seed is not None:
        return seed
    return int(parameter.random_seed) if parameter.random_seed >= 0 else 1


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


def _over_seeds(seeds: Sequence[list[Row]], name: str) -> list[Row]:
    names = {"iteration": "iteration", "lr": "lr", "mean": name}
    if len(seeds) > 1:
        names |= {"low": f"{name}_low", "high": f"{name}_high"}
    rows = metrics.over_seeds(seeds, name)
    return [{names[key]: value for key, value in row.items() if key in names} for row in rows]


def _write_solver(
    given: SolverFile, policy: Policy, found: Suggestions, out: Path, images: int | None
) -> Path | None:
    """The solver with what was suggested."""
    parameter = given.parameter
    if found.max_lr.rate is None or (found.base_lr.rate is None and policy.cycles > 1):
        return None
    if policy.cycles == 1:
        solver, remarks = _one_cycle(parameter, policy, found.max_lr)
    else:
        solver, remarks = _cycles(given, policy, found, images)
    # its snapshots are not to be written over those of the solver it is made from
    solver.snapshot_prefix = str(Path(solver.snapshot_prefix or policy.name).with_name(policy.name))
    path = out / f"{policy.name}_solver.prototxt"
    path.write_text(
        f"# {given.name} with the bounds that caffe-clr range-test suggests.\n"
        + "".join(f"# {remark}.\n" for remark in remarks)
        + text_format.MessageToString(solver),
        errors="surrogateescape",  # a name that is no UTF-8 stays what it is
    )
    return path


def _cycles(
    given: SolverFile, policy: Policy, found: Suggestions, images: int | None
) -> tuple[Any, list[str]]:
    """A solver with whole cycles near to its max_iter, and remarks on it."""
    parameter = given.parameter
    try:
        stepsize = _EPOCHS_A_STEP * epochs.epoch(given, images=images).iterations
        length = f"{_EPOCHS_A_STEP} epochs"
    except ClrError:
        stepsize = max(1, parameter.max_iter // (2 * _CYCLES[0]))
        length = "a sixth of the run, because the length of an epoch is unknown"
    cycles = min(max(round(parameter.max_iter / (2 * stepsize)), _CYCLES[0]), _CYCLES[-1])
    base_lr, max_lr = _rounded(found.base_lr), _rounded(found.max_lr)
    solver = _with_policy(parameter, policy, base_lr, max_lr, stepsize)
    solver.max_iter = 2 * stepsize * cycles
    return solver, [
        _remark("base_lr", found.base_lr),
        _remark("max_lr", found.max_lr),
        f"stepsize: {length}. max_iter: {cycles} whole cycles",
    ]


def _one_cycle(parameter: Any, policy: Policy, bound: Suggestion) -> tuple[Any, list[str]]:
    """A solver with one cycle in its max_iter, and remarks on it."""
    max_lr = _rounded(bound)
    stepsize = max(1, round(advice.ONE_CYCLE * parameter.max_iter / 2))
    base_lr = float(f"{max_lr / 10:.2g}")
    return _with_policy(parameter, policy, base_lr, max_lr, stepsize), [
        "base_lr: a tenth of max_lr, as advised for a single cycle (arXiv 1803.09820)",
        _remark("max_lr", bound),
        f"stepsize: the cycle takes {advice.ONE_CYCLE:.0%} of max_iter, much as in the solver files"
        " of that report; after it, the rate stays far below base_lr",
    ]


def _rounded(bound: Suggestion) -> float:
    return float(f"{bound.rate:.2g}")


def _remark(field: str, bound: Suggestion) -> str:
    return f"{field}: {bound.reason} (confidence: {bound.confidence})"


def _write_json(result: RangeTest, solver_file: Path, sweep: Any, out: Path) -> None:
    content = {
        "solver": str(solver_file),
        "min_lr": sweep.base_lr,
        "max_lr": sweep.max_lr,
        "iterations": sweep.max_iter,
        "seeds": list(result.seeds),
        "metric": result.metric.name,
        "diverged_at": result.diverged_at,
        "suggestions": asdict(result.suggestions),
    }
    (out / "range_test.json").write_text(json.dumps(content, indent=2) + "\n")
