"""The sweeps of a range test: their options, their solvers, and what they record."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from caffe_clr import policies
from caffe_clr.errors import UsageError
from caffe_clr.policies import Policy
from caffe_clr.prototxt import SolverFile
from caffe_clr.runs.history import History, Row
from caffe_clr.runs.options import TrainingOptions

_MAX_SEED = 2**32 - 1  # of Caffe's generator
_DISPLAYS = 100
SOLVER = "range_test_solver.prototxt"


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a range test: those of each training, and the test's own.

    Attributes:
        min_lr: the rate at the start.
        max_lr: the rate at the end. Without both, the test finds its range itself.
        iterations: the length of the test. By default, a test that finds its range takes
            at most 15 % of max_iter.
        epochs: the length in epochs, if `iterations` is not given.
        policy: the policy of the solver that is written; it must have cycles. Default:
            the solver's own policy if it has cycles, else 1cycle.
        max_iter: of the solver that is written. Default: the solver's own.
        seeds: number of seeds. They count up from `seed`, else from the solver's
            random_seed, else from 1.
        jobs: number of seeds to train at a time on this machine.
        scheduler: address of a Dask scheduler; its workers then train the seeds.
        seed: the first seed.
        stop_early: as for a training, but true by default.
    """

    min_lr: float | None = None
    max_lr: float | None = None
    iterations: int | None = None
    epochs: float | None = None
    policy: str | None = None
    max_iter: int | None = None
    seeds: int = 1
    jobs: int = 1
    scheduler: str | None = None
    _: KW_ONLY
    stop_early: bool = True


DEFAULTS = Options()


@dataclass(frozen=True)
class Sweep:
    """What a sweep over the rate recorded.

    Attributes:
        histories: the records of each seed, whose run is seed_N in the sweep's folder.
        losses: the mean training loss at each display, with its lr.
        diverged_at: the lowest rate at which a seed diverged, if one did.
        stopped: a message if a seed diverged, else empty.
        iterations: how many were trained, over all seeds.
    """

    histories: Sequence[History]
    losses: list[Row]
    diverged_at: float | None
    stopped: str
    iterations: int


@dataclass(frozen=True)
class Step:
    """A test of a range test that finds its range itself.

    Attributes:
        name: its folder.
        iterations: how many were trained, over all seeds.
        outcome: what it found, in words.
    """

    name: str
    min_lr: float
    max_lr: float
    iterations: int
    outcome: str


def runs(folder: Path) -> list[Path]:
    """The folders of the runs of a range test, finished or not; none if there is no test."""
    tests = [each for each in (folder, *folder.glob("sweep_*")) if (each / SOLVER).is_file()]
    return [run for test in tests for run in test.glob("seed_*") if run.is_dir()]


def prepared(
    parameter: Any, policy: Policy, iterations: int, *, tests: int, **fields: float
) -> Any:
    """A copy of a solver whose rate rises.

    Args:
        policy: the policy by which it rises.
        iterations: the length.
        tests: how often it tests; 0 for never.
        fields: base_lr and the other fields of the policy.
    """
    sweep = with_policy(parameter, policy, iterations, **fields)
    sweep.max_iter = iterations
    sweep.display = max(1, iterations // _DISPLAYS)
    sweep.snapshot = 0
    sweep.snapshot_after_train = False
    if tests:
        sweep.test_interval = max(1, iterations // tests)
        sweep.test_initialization = True
    else:
        for field in ("test_net", "test_net_param", "test_state", "test_iter", "test_interval"):
            sweep.ClearField(field)
    return sweep


def geometric(parameter: Any, iterations: int, low: float, high: float) -> Any:
    """A copy of a solver whose rate grows from low to high by the same factor in each iteration."""
    gamma = (high / low) ** (1 / iterations)
    return prepared(parameter, policies.SWEEP, iterations, tests=0, base_lr=low, gamma=gamma)


def with_policy(parameter: Any, policy: Policy, half_cycle: int, **fields: float) -> Any:
    """A copy of a solver with another policy, and a momentum that cycles with it, if it does."""
    solver = type(parameter)()
    solver.CopyFrom(parameter)
    for field in {"gamma", "power", "stepvalue", "stepsize", "max_lr"}.difference(policy.fields):
        solver.ClearField(field)
    solver.ClearField("start_lr_policy")
    solver.lr_policy = policy.name
    for field, value in fields.items():
        setattr(solver, field, value)
    if len(policies.cyclical_momentum(solver)) == 2:
        solver.cyclical_momentum[1] = half_cycle
    return solver


def seeds_of(solver: SolverFile, options: Options) -> range:
    """The seeds of a range test.

    Raises:
        UsageError: they exceed what Caffe takes.
    """
    own = int(solver.parameter.random_seed)
    first = options.seed if options.seed is not None else own if own >= 0 else 1
    seeds = range(first, first + options.seeds)
    if seeds[-1] > _MAX_SEED:
        raise UsageError(
            f"the seeds {first} to {seeds[-1]} exceed {_MAX_SEED}; give a smaller --seed"
        )
    return seeds
