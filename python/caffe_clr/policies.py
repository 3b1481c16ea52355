"""The learning rate policies of patched Caffe, and its momentum, in NumPy.

There is one function per policy, written from its definition: four from the paper (L. N.
Smith, arXiv 1506.01186, sections 3.1 and 4.1.1 and Appendix A), 1cycle from his later papers
(arXiv 1708.07120 and 1803.09820), and the seven of stock Caffe from the comments in its
caffe.proto. The functions take the fields of SolverParameter by name. They return the rate
at each iteration, or raise ValueError for parameters that Caffe refuses. `momentum` does
the same for the momentum.

Parameters are first rounded to float, as in a prototxt. Smith's policies, the momentum and
fixed, step, exp and multistep compute in double, and round the result to `dtype` once. inv,
poly and sigmoid compute in `dtype`, as Caffe does, but with correctly rounded powers;
Caffe's powf and expf may differ in the last place.

    >>> triangular([0, 1000, 2000, 3000, 4000], base_lr=0.001, max_lr=0.006, stepsize=2000)
    array([0.001 , 0.0035, 0.006 , 0.0035, 0.001 ], dtype=float32)
    >>> triangular2([2000, 6000, 10000], base_lr=0.001, max_lr=0.006, stepsize=2000)
    array([0.006  , 0.0035 , 0.00225], dtype=float32)
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Rates = NDArray[Any]


def triangular(
    iterations: ArrayLike,
    *,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """Rise from base_lr to max_lr in stepsize iterations, fall back in the next, and repeat.

    With t iterations after start_lr_policy, counted from 0, the rate is
    base_lr + (max_lr - base_lr) * h, where p = t mod 2*stepsize is the position
    in the cycle and h = (p if p <= stepsize else 2*stepsize - p) / stepsize.

    Args:
        iterations: the solver's iterations, integers of any shape.
        base_lr: the lower bound, where each cycle begins and ends; also the
            rate up to start_lr_policy.
        max_lr: the upper bound, reached in the middle of each cycle.
        stepsize: half a cycle, in iterations.
        start_lr_policy: the iteration at which the first cycle begins.
        dtype: the solver's number type.

    Returns:
        The rates, in the shape of `iterations`.

    Raises:
        ValueError: Caffe refuses the parameters; see check_bounds.
    """
    check_bounds("triangular", base_lr, max_lr, stepsize, start_lr_policy)
    _, height = _cycle_and_height(iterations, stepsize, start_lr_policy)
    return _rounded(_float(base_lr) + _rise(base_lr, max_lr, height), dtype)


def triangular2(
    iterations: ArrayLike,
    *,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """Like triangular, but the difference between the bounds halves after every cycle.

    The rate is base_lr + (max_lr - base_lr) * h / 2^c, where c is the number of
    finished cycles. Arguments, result and errors are those of `triangular`.
    """
    check_bounds("triangular2", base_lr, max_lr, stepsize, start_lr_policy)
    cycle, height = _cycle_and_height(iterations, stepsize, start_lr_policy)
    rise = _rise(base_lr, max_lr, height) * np.ldexp(1.0, -cycle)
    return _rounded(_float(base_lr) + rise, dtype)


def exp_range(
    iterations: ArrayLike,
    *,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    gamma: float,
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """Like triangular, but both bounds are multiplied by gamma in every iteration.

    With t and h as in `triangular`, the rate is
    (base_lr + (max_lr - base_lr) * h) * gamma^t. The exponent counts iterations
    from start_lr_policy, not from the start of a cycle. PyTorch's CyclicLR and
    the Keras ports keep base_lr, and scale only (max_lr - base_lr) * h; in the
    paper's section 3.1 and its AlexNet figures, both bounds decline.

        >>> cycle = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
        >>> exp_range([0, 2000, 4000, 6000], **cycle, gamma=0.99994)
        array([0.001     , 0.00532127, 0.00078655, 0.00418546], dtype=float32)

    Args:
        gamma: above 0 and at most 1.

    The other arguments, result and errors are those of `triangular`.
    """
    check_bounds("exp_range", base_lr, max_lr, stepsize, start_lr_policy, gamma)
    _, height = _cycle_and_height(iterations, stepsize, start_lr_policy)
    within = _float(base_lr) + _rise(base_lr, max_lr, height)
    return _rounded(within * _power(gamma, _elapsed(iterations, start_lr_policy)), dtype)


def decay(
    iterations: ArrayLike,
    *,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """Fall from max_lr to base_lr in stepsize iterations and stay there.

    This is the paper's control experiment (section 4.1.1). With t iterations after
    start_lr_policy, the rate is max_lr - (max_lr - base_lr) * min(t, stepsize) /
    stepsize. It is computed from base_lr up, which avoids cancellation.

        >>> decay([0, 1000, 4000, 9000], base_lr=0.001, max_lr=0.007, stepsize=4000)
        array([0.007 , 0.0055, 0.001 , 0.001 ], dtype=float32)

    Arguments, result and errors are those of `triangular`; up to
    start_lr_policy the rate is max_lr.
    """
    check_bounds("decay", base_lr, max_lr, stepsize, start_lr_policy)
    left = stepsize - np.minimum(_elapsed(iterations, start_lr_policy), stepsize)
    return _rounded(_float(base_lr) + _rise(base_lr, max_lr, left / stepsize), dtype)


def one_cycle(
    iterations: ArrayLike,
    *,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """The policy 1cycle: rise to max_lr, fall far below base_lr, and stay there.

    With t iterations after start_lr_policy, the rate is base_lr + (max_lr -
    base_lr) * t / stepsize up to stepsize, then max_lr * (2*stepsize - t) /
    stepsize, but never below base_lr / 1000, where it stays. It falls towards 0,
    not to base_lr. PyTorch's OneCycleLR falls until the end of the run, along a
    cosine by default; with three_phase it first returns to its initial rate, and
    falls below that in a last phase.

        >>> one_cycle([0, 1000, 2000, 3000], base_lr=0.1, max_lr=1, stepsize=2000)
        array([0.1 , 0.55, 1.  , 0.5 ], dtype=float32)
        >>> one_cycle([4000, 5000], base_lr=0.5, max_lr=1, stepsize=2000)
        array([0.0005, 0.0005], dtype=float32)

    Arguments, result and errors are those of `triangular`.
    """
    check_bounds("1cycle", base_lr, max_lr, stepsize, start_lr_policy)
    elapsed = _elapsed(iterations, start_lr_policy)
    up = _float(base_lr) + _rise(base_lr, max_lr, elapsed / stepsize)
    down = _float(max_lr) * (np.maximum(2 * stepsize - elapsed, 0) / stepsize)
    lowest = _float(base_lr) / 1000
    return _rounded(np.where(elapsed <= stepsize, up, np.maximum(down, lowest)), dtype)


def fixed(iterations: ArrayLike, *, base_lr: float, dtype: DTypeLike = np.float32) -> Rates:
    """base_lr at every iteration."""
    return _rounded(np.full(np.shape(iterations), _float(base_lr)), dtype)


def step(
    iterations: ArrayLike,
    *,
    base_lr: float,
    gamma: float,
    stepsize: int,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """base_lr * gamma ^ floor(iteration / stepsize)."""
    _check_stock("step", gamma, stepsize)
    steps = np.asarray(iterations, np.int64) // stepsize
    return _rounded(_float(base_lr) * _power(gamma, steps), dtype)


def exp(
    iterations: ArrayLike, *, base_lr: float, gamma: float, dtype: DTypeLike = np.float32
) -> Rates:
    """base_lr * gamma ^ iteration."""
    _check_stock("exp", gamma)
    powers = _power(gamma, np.asarray(iterations, np.int64))
    return _rounded(_float(base_lr) * powers, dtype)


def inv(
    iterations: ArrayLike,
    *,
    base_lr: float,
    gamma: float,
    power: float,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """base_lr * (1 + gamma * iteration) ^ -power, in dtype; gamma * iteration in float."""
    _check_stock("inv", gamma)
    number: Any = np.dtype(dtype).type
    growth = np.float32(gamma) * np.asarray(iterations, np.int64).astype(np.float32)
    base = number(1) + growth.astype(dtype)
    factor = _rounded(base.astype(np.float64) ** -_float(power), dtype)
    return _rounded(number(np.float32(base_lr)) * factor, dtype)


def multistep(
    iterations: ArrayLike,
    *,
    base_lr: float,
    gamma: float,
    stepvalue: Sequence[int],
    dtype: DTypeLike = np.float32,
) -> Rates:
    """base_lr * gamma ^ (number of stepvalues reached), in the order of the stepvalues.

    Caffe advances by at most one stepvalue per iteration. This is the rate of a run
    from iteration 0 with distinct stepvalues.
    """
    _check_stock("multistep", gamma)
    reached = np.searchsorted(
        np.maximum.accumulate(np.asarray(stepvalue, np.int64)),
        np.asarray(iterations, np.int64),
        side="right",
    )
    return _rounded(_float(base_lr) * _power(gamma, np.asarray(reached)), dtype)


def poly(
    iterations: ArrayLike,
    *,
    base_lr: float,
    power: float,
    max_iter: int,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """base_lr * (1 - iteration / max_iter) ^ power, in dtype."""
    number: Any = np.dtype(dtype).type
    left = number(1) - np.asarray(iterations, np.int64).astype(dtype) / number(max_iter)
    # past max_iter a fractional power is nan, in Caffe too
    with np.errstate(invalid="ignore"):
        factor = _rounded(left.astype(np.float64) ** _float(power), dtype)
    return _rounded(number(np.float32(base_lr)) * factor, dtype)


def sigmoid(
    iterations: ArrayLike,
    *,
    base_lr: float,
    gamma: float,
    stepsize: int,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """base_lr / (1 + e ^ (-gamma * (iteration - stepsize))), in dtype."""
    _check_stock("sigmoid", gamma, stepsize)
    number: Any = np.dtype(dtype).type
    distance = np.asarray(iterations, np.int64).astype(dtype) - number(stepsize)
    # e^x overflows to inf far from stepsize, where the rate is 0
    with np.errstate(over="ignore"):
        exponent = -number(np.float32(gamma)) * distance
        falloff = _rounded(np.exp(exponent.astype(np.float64)), dtype)
    return _rounded(number(np.float32(base_lr)) * (number(1) / (number(1) + falloff)), dtype)


def momentum(
    iterations: ArrayLike,
    *,
    momentum: float,
    cyclical_momentum: Sequence[float] = (),
    start_lr_policy: int = 0,
    dtype: DTypeLike = np.float32,
) -> Rates:
    """The momentum of SGD and Nesterov, or Adam's beta1, which may cycle with any policy.

    With t iterations after start_lr_policy and cyclical_momentum = (first, M), it
    is momentum + (first - momentum) * h / 2^c, where c = floor(t / 2M) is the
    number of finished cycles, p = t - 2M*c the position in the cycle and h = (p
    if p <= M else 2M - p) / M. It keeps cycling, at half the height each time, after
    the single cycle of 1cycle; in PyTorch's OneCycleLR it stops.

        >>> momentum([0, 500, 1000, 2000, 3000], momentum=0.95, cyclical_momentum=[0.85, 1000])
        array([0.95, 0.9 , 0.85, 0.95, 0.9 ], dtype=float32)

    Args:
        iterations: the solver's iterations, integers of any shape.
        momentum: the momentum where each cycle begins and ends, up to
            start_lr_policy, and in all iterations without cyclical_momentum.
        cyclical_momentum: the momentum in the middle of the first cycle, and half
            a cycle in iterations, which need not be whole; or empty.
        start_lr_policy: the iteration at which the first cycle begins.
        dtype: the solver's number type.

    Returns:
        The momenta, in the shape of `iterations`.

    Raises:
        ValueError: Caffe refuses the parameters; see check_momentum.
    """
    if not len(cyclical_momentum):
        return _rounded(np.full(np.shape(iterations), _float(momentum)), dtype)
    check_momentum(momentum, cyclical_momentum, start_lr_policy)
    first, half = map(_float, cyclical_momentum)
    cycle, position = np.divmod(_elapsed(iterations, start_lr_policy).astype(np.float64), 2 * half)
    height = np.minimum(position, 2 * half - position)
    weight = np.ldexp(height / half, -cycle.astype(np.int64))
    # close to the first peak, 1 - weight has fewer digits
    rest = np.where(cycle > 0, 1 - weight, (half - height) / half)
    return _rounded(_float(momentum) * rest + first * weight, dtype)


def learning_rate(solver: Any, iterations: ArrayLike, dtype: DTypeLike = np.float32) -> Rates:
    """The rates of a solver, from its SolverParameter message.

    Args:
        solver: a SolverParameter of the patched caffe.proto.
        iterations: integers of any shape.
        dtype: the solver's number type.

    Raises:
        ValueError: lr_policy is unknown, or Caffe refuses its parameters.
    """
    policy = policy_of(solver)
    parameters = {field: getattr(solver, field) for field in policy.fields}
    if policy.bounded and not solver.HasField("max_lr"):
        parameters["max_lr"] = None
    return policy.rates(iterations, **parameters, dtype=dtype)


def momenta(solver: Any, iterations: ArrayLike, dtype: DTypeLike = np.float32) -> Rates:
    """The momenta of a solver, from its SolverParameter message.

    Arguments are those of `learning_rate`.

    Raises:
        ValueError: Caffe refuses cyclical_momentum.
    """
    return momentum(
        iterations,
        momentum=solver.momentum,
        cyclical_momentum=cyclical_momentum(solver),
        start_lr_policy=solver.start_lr_policy,
        dtype=dtype,
    )


def cyclical_momentum(solver: Any) -> Sequence[float]:
    """The cyclical_momentum of a SolverParameter; empty if this Caffe lacks the field."""
    values: Sequence[float] = getattr(solver, "cyclical_momentum", ())
    return values


def check_bounds(
    policy: str,
    base_lr: float,
    max_lr: float | None,
    stepsize: int,
    start_lr_policy: int,
    gamma: float = 1,
) -> None:
    """Refuse the parameters that patched Caffe refuses, for the same reasons.

    Raises:
        ValueError: names the policy, the field, its value and the remedy.
    """
    if max_lr is None:
        problem = "max_lr is not set; set it to the upper bound of the rate, base_lr or above"
    elif not math.isfinite(_float(base_lr)):
        problem = f"base_lr is {base_lr}; it must be finite"
    elif not math.isfinite(_float(max_lr)):
        problem = f"max_lr is {max_lr}; it must be finite"
    elif base_lr < 0:
        problem = f"base_lr is {base_lr:g}; set it to 0 or more"
    elif _float(max_lr) < _float(base_lr):
        problem = f"max_lr {max_lr:g} is below base_lr {base_lr:g}; swap them or raise max_lr"
    elif stepsize <= 0:
        problem = f"stepsize is {stepsize}; it is half a cycle, in iterations: set it to 1 or more"
    elif start_lr_policy < 0:
        problem = f"start_lr_policy is {start_lr_policy}; it is an iteration, set it to 0 or more"
    elif not 0 < gamma <= 1:
        problem = (
            f"gamma is {gamma:g}; the rate is multiplied by it in every iteration: set it above 0,"
            " and to 1 at most"
        )
    else:
        return
    raise ValueError(f'lr_policy "{policy}": {problem}')


def check_momentum(
    momentum: float, cyclical_momentum: Sequence[float], start_lr_policy: int
) -> None:
    """Refuse a cyclical momentum that patched Caffe refuses, for the same reasons.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    problem = None
    if len(cyclical_momentum) != 2:
        problem = (
            f"has {len(cyclical_momentum)} values; give it two, the momentum in mid-cycle and"
            " half a cycle in iterations"
        )
    elif not 0 <= _float(momentum) < 1:
        problem = f"begins at momentum {momentum:g}; set that to 0 or more, and below 1"
    elif not 0 <= _float(cyclical_momentum[0]) < 1:
        problem = f"is {cyclical_momentum[0]:g} in mid-cycle; set it to 0 or more, and below 1"
    elif not 1 <= _float(cyclical_momentum[1]) < math.inf:
        problem = (
            f"has half a cycle of {cyclical_momentum[1]:g} iterations; set it to 1 or more,"
            " and finite"
        )
    elif start_lr_policy < 0:
        problem = (
            f"begins at start_lr_policy {start_lr_policy}, an iteration; set that to 0 or more"
        )
    if problem:
        raise ValueError(f"cyclical_momentum {problem}")


def _check_stock(policy: str, gamma: float, stepsize: int = 1) -> None:
    """Refuse what stock Caffe aborts on at the first iteration."""
    if not gamma >= 0:
        raise ValueError(f'lr_policy "{policy}": gamma is {gamma:g}; set it to 0 or more')
    if stepsize <= 0:
        raise ValueError(f'lr_policy "{policy}": stepsize is {stepsize}; set it to 1 or more')


def _cycle_and_height(
    iterations: ArrayLike, stepsize: int, start_lr_policy: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    cycle, position = np.divmod(_elapsed(iterations, start_lr_policy), 2 * stepsize)
    return cycle, np.where(position <= stepsize, position, 2 * stepsize - position) / stepsize


def _rise(base_lr: float, max_lr: float | None, height: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance from base_lr at a height between 0 and 1."""
    rise: NDArray[np.float64] = (_float(max_lr) - _float(base_lr)) * height
    return rise


def _elapsed(iterations: ArrayLike, start_lr_policy: int) -> NDArray[np.int64]:
    return np.maximum(np.asarray(iterations, np.int64) - start_lr_policy, 0)


def _power(gamma: float, exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    """gamma ^ n with the C library's pow, because NumPy's depends on the processor."""
    base = float(_float(gamma))

    def power(exponent: np.int64) -> float:
        try:
            return math.pow(base, exponent)
        except OverflowError:
            return math.inf

    powers = map(power, exponents.flat)
    return np.fromiter(powers, np.float64, exponents.size).reshape(exponents.shape)


def _float(value: Any) -> np.float64:
    with np.errstate(over="ignore"):
        return np.float64(np.float32(value))


def _rounded(rates: Any, dtype: DTypeLike) -> Rates:
    return np.asarray(rates).astype(dtype)


class Marks(NamedTuple):
    """The iterations at which a rate turns or steps, so that a plot needs a point there.

    Attributes:
        begins: the iterations at which cycles or steps begin, in rising order.
        offsets: the marks within each of them, in iterations from its beginning.
    """

    begins: Sequence[int]
    offsets: Sequence[int]


def _no_marks(solver: Any) -> Marks:
    return Marks([], [0])


def _marks_of_steps(solver: Any) -> Marks:
    return Marks(range(0, solver.max_iter, solver.stepsize), [-1, 0])


def _marks_of_stepvalues(solver: Any) -> Marks:
    return Marks(list(solver.stepvalue), [-1, 0])


def _marks_of_one_way(solver: Any) -> Marks:
    return Marks([solver.start_lr_policy], [0, solver.stepsize])


def _marks_of_one_cycle(solver: Any) -> Marks:
    return Marks([solver.start_lr_policy], [0, solver.stepsize, 2 * solver.stepsize])


def _marks_of_cycles(solver: Any) -> Marks:
    begins = range(solver.start_lr_policy, solver.max_iter, 2 * solver.stepsize)
    return Marks(begins, [0, solver.stepsize])


def _marks_of_exp_range(solver: Any) -> Marks:
    """The marks of cycles, and the peak if it comes before the middle of a cycle.

    If gamma lowers the rate faster than it rises, the peak is where (base_lr + (max_lr -
    base_lr) * p / stepsize) * gamma^p is highest.
    """
    begins, offsets = _marks_of_cycles(solver)
    rise = (solver.max_lr - solver.base_lr) / solver.stepsize
    if solver.gamma == 1 or rise == 0:
        return Marks(begins, offsets)
    position = -1 / math.log(solver.gamma) - solver.base_lr / rise
    within = min(max(position, 0), solver.stepsize)
    return Marks(begins, [*offsets, math.floor(within), math.ceil(within)])


def _same_steps(solver: Any, first: int, taken: int) -> int:
    return taken


def _resume_step(solver: Any, first: int, taken: int) -> int:
    return int((solver.max_iter - 1) // solver.stepsize)


def _resume_multistep(solver: Any, first: int, taken: int) -> int:
    iterations = [0] * taken
    for stepvalue in solver.stepvalue[taken:]:
        first = max(first, stepvalue)
        iterations.append(first)
        first += 1
    solver.stepvalue[:] = iterations
    return sum(iteration < solver.max_iter for iteration in iterations)


@dataclass(frozen=True)
class Policy:
    """A learning rate policy, with everything that the package needs to know about it.

    Attributes:
        name: the value of lr_policy.
        rates: the formula: a function from iterations and fields of SolverParameter to rates.
        parity: the fields with which `caffe-clr parity` compares the formula with Caffe.
        units_allowed: how far Caffe's rate may differ from the formula, in units in the last
            place of a float.
        patch: the patch that adds the policy to Caffe; None if stock Caffe has it.
        start: the field with the rate up to start_lr_policy.
        cycles: the number of cycles of 2 * stepsize iterations: 0, 1 or math.inf.
        next_height: the height of a cycle relative to the cycle before it; None if it depends
            on the solver.
        marks: returns the marks of a solver that learning_rate accepts.
        resume: called with a solver, the iteration at which it resumes, and the number of
            steps in Caffe's snapshot. It replaces the solver's stepvalues by those that Caffe
            then acts on, and returns the number of steps at max_iter. Caffe keeps that number
            in its snapshots with any policy, and takes at most one step per iteration
            (GetLearningRate in sgd_solver.cpp).
    """

    name: str
    rates: Callable[..., Rates]
    parity: Mapping[str, Any]
    units_allowed: int = 0
    patch: str | None = None
    start: str = "base_lr"
    cycles: float = 0
    next_height: float | None = 1
    marks: Callable[[Any], Marks] = _no_marks
    resume: Callable[[Any, int, int], int] = _same_steps

    @property
    def fields(self) -> list[str]:
        """The fields of SolverParameter that its formula takes."""
        names = inspect.getfullargspec(self.rates).kwonlyargs
        return [name for name in names if name != "dtype"]

    @property
    def bounded(self) -> bool:
        """Whether the policy has the bounds base_lr and max_lr."""
        return "max_lr" in self.fields


_FEATURE = "cyclical-learning-rates"
_BOUNDS = {"base_lr": 0.001, "max_lr": 0.006, "start_lr_policy": 777}
_CYCLES = {**_BOUNDS, "stepsize": 1999}
_LONG = {**_BOUNDS, "stepsize": 2**24 + 12_345}
_POWF = 2  # units: stock Caffe's powf and expf differ from C library to C library

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("fixed", fixed, {"base_lr": 0.01}),
        Policy(
            "step",
            step,
            {"base_lr": 0.01, "gamma": 0.97, "stepsize": 3333},
            marks=_marks_of_steps,
            resume=_resume_step,
        ),
        Policy("exp", exp, {"base_lr": 0.01, "gamma": 0.99994}),
        Policy("inv", inv, {"base_lr": 0.01, "gamma": 0.0001, "power": 0.75}, units_allowed=_POWF),
        Policy(
            "multistep",
            multistep,
            {"base_lr": 0.01, "gamma": 0.3, "stepvalue": [1, 5000, 2**24, 2**30]},
            marks=_marks_of_stepvalues,
            resume=_resume_multistep,
        ),
        Policy(
            "poly",
            poly,
            {"base_lr": 0.01, "power": 0.9, "max_iter": 2**31 - 1},
            units_allowed=_POWF,
        ),
        Policy(
            "sigmoid",
            sigmoid,
            {"base_lr": 0.01, "gamma": 1e-6, "stepsize": 2**23},
            units_allowed=_POWF,
        ),
        Policy(
            "triangular",
            triangular,
            _CYCLES,
            patch=_FEATURE,
            cycles=math.inf,
            marks=_marks_of_cycles,
        ),
        Policy(
            "triangular2",
            triangular2,
            _CYCLES,
            patch=_FEATURE,
            cycles=math.inf,
            next_height=1 / 2,
            marks=_marks_of_cycles,
        ),
        Policy(
            "exp_range",
            exp_range,
            {**_CYCLES, "gamma": 0.99994},
            patch=_FEATURE,
            cycles=math.inf,
            next_height=None,
            marks=_marks_of_exp_range,
        ),
        Policy("decay", decay, _LONG, patch=_FEATURE, start="max_lr", marks=_marks_of_one_way),
        Policy("1cycle", one_cycle, _LONG, patch="one-cycle", cycles=1, marks=_marks_of_one_cycle),
    )
}

BOUNDED = [policy.name for policy in POLICIES.values() if policy.bounded]
ONE_CYCLE = 0.9  # of a run; 0.86 to 0.97 in the solver files that the report's author published
HALVED_AWAY = 8  # the cycle from which on a halved height is at most 1/128 of the first
RANGE_TEST = POLICIES["triangular"]  # the paper's range test is half a cycle of it
SWEEP = POLICIES["exp"]  # with a gamma above 1, the rate grows
FALLING = POLICIES["decay"]
SUGGESTED = [POLICIES["1cycle"], POLICIES["triangular2"]]  # the first that Caffe has


def policy_of(solver: Any) -> Policy:
    """The policy of a SolverParameter.

    Raises:
        ValueError: lr_policy is unknown.
    """
    policy = POLICIES.get(solver.lr_policy)
    if policy is None:
        raise ValueError(
            f'lr_policy "{solver.lr_policy}" is unknown; use one of {", ".join(POLICIES)}'
        )
    return policy
