"""Compares the rates and momenta of live pycaffe solvers with the NumPy reference.

A solver reaches an iteration by restoring a solver state, and the next iterations by steps.
Its net has no parameters, so that a step takes a microsecond. If pycaffe has no `solver.lr`,
as up to Caffe 1.0, the net has one weight with gradient 1; the rate is then the amount by
which a step lowers the weight.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError
from caffe_clr.preflight import solver_checks
from caffe_clr.runs import solvers

_DATA = 'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { %s } }'
_NET = _DATA % "shape { dim: 1 }"
_NET_OF_ONE_WEIGHT = (
    _DATA
    % 'shape { dim: 1 dim: 1 } data_filler { type: "constant" value: 1 }'
    + 'layer { name: "weight" type: "InnerProduct" bottom: "data" top: "weight" loss_weight: 1'
    " inner_product_param { num_output: 1 bias_term: false } }"
)
_OF_AN_UPDATE = ("type", "solver_type", "momentum", "weight_decay", "clip_gradients")
_OF_A_TRAINING = ("net", "train_", "test_", "snapshot", "weights", "iter_size", "debug_info")
_LAST = 2**31 - 1
_STEPPED_OVER = 50  # a gap up to this is cheaper to step over than to jump
_WINDOW = 1000  # consecutive iterations around each random one

_CYCLICAL_MOMENTUM: list[dict[str, Any]] = [
    {"momentum": 0.95, "cyclical_momentum": [0.85, 2246]},
    {"momentum": 0.8, "cyclical_momentum": [0.95, 1999.7], "start_lr_policy": 777},
]
_MOMENTUM = "momentum"  # in place of a policy, where momenta are compared


@dataclass(frozen=True)
class Comparison:
    """The rates or momenta of a solver and of the reference, as float32, at some iterations."""

    iterations: NDArray[np.int64]
    solver: NDArray[Any]
    reference: NDArray[Any]

    @property
    def differing(self) -> NDArray[np.int64]:
        """The iterations at which the two differ."""
        return self.iterations[self._differs]

    @property
    def units(self) -> float:
        """The largest difference, in units in the last place of the reference."""
        return self._largest(np.spacing(np.abs(self.reference)))

    def share(self, amplitude: float) -> float:
        """The largest difference as a fraction of `amplitude`."""
        return self._largest(np.full(self.reference.shape, amplitude))

    @property
    def _differs(self) -> NDArray[np.bool_]:
        both_nan = np.isnan(self.solver) & np.isnan(self.reference)
        differs: NDArray[np.bool_] = (self.solver != self.reference) & ~both_nan
        return differs

    def _largest(self, scale: NDArray[Any]) -> float:
        differs = self._differs
        if not differs.any():
            return 0.0
        apart = self.solver[differs].astype(np.float64) - self.reference[differs]
        largest = np.abs(apart / scale[differs]).max()
        return float(largest) if np.isfinite(largest) else float("inf")


@dataclass(frozen=True)
class Result:
    """The result of comparing one solver.

    Attributes:
        name: the solver file; empty for a default case.
        policy: lr_policy, or "momentum" if the momentum was compared.
        points: number of iterations compared.
        differing: number of iterations at which the two differ.
        units: the largest difference, in units in the last place of the reference.
        share: the largest difference, as a fraction of the amplitude.
        units_allowed: the largest value of `units` that passes.
    """

    name: str
    policy: str
    solver_type: str
    points: int
    differing: int
    units: float
    share: float
    units_allowed: int

    @property
    def passed(self) -> bool:
        return self.units <= self.units_allowed


def default_cases() -> Iterator[Any]:
    """Yield a SolverParameter for each policy of this Caffe and each solver type."""
    for policy in policies.POLICIES.values():
        if not prototxt.has_policy(policy.name):
            continue
        for solver_type in prototxt.SOLVER_TYPES:
            yield prototxt.caffe_pb2().SolverParameter(
                lr_policy=policy.name, type=solver_type, **policy.parity
            )


def momentum_cases() -> Iterator[Any]:
    """Yield SolverParameters with cyclical momentum, for each solver type with momentum.

    There are none if this pycaffe has no `solver.momentum`.
    """
    if not _tells(_MOMENTUM):
        return
    for fields in _CYCLICAL_MOMENTUM:
        for solver_type in prototxt.WITH_MOMENTUM:
            yield prototxt.caffe_pb2().SolverParameter(
                lr_policy="fixed", base_lr=0.01, type=solver_type, **fields
            )


def check(solver: Any, name: str, points: int, last: int = _LAST) -> Result:
    """Compare one solver's rates at critical iterations, and at random ones.

    Args:
        solver: a SolverParameter; its nets are not used.
        name: the name for the result.
        points: the least number of iterations to compare, if there are as many.
        last: the last iteration.
    """
    found = compare(solver, _chosen(solver, points, last))
    amplitude = solver.max_lr - solver.base_lr if solver.HasField("max_lr") else solver.base_lr
    policy = policies.policy_of(solver)
    return _result(found, solver, name, policy.name, amplitude, policy.units_allowed)


def check_momentum(solver: Any, name: str, points: int, last: int = _LAST) -> Result:
    """Compare one solver's momenta; the arguments are those of `check`."""
    found = compare_momentum(solver, _chosen(solver, points, last))
    amplitude = abs(policies.cyclical_momentum(solver)[0] - solver.momentum)
    return _result(found, solver, name, _MOMENTUM, amplitude)


def _chosen(solver: Any, points: int, last: int) -> NDArray[np.int64]:
    matter = iterations_that_matter(solver)
    return _more(matter[matter <= last], points, last)


def _result(
    found: Comparison,
    solver: Any,
    name: str,
    policy: str,
    amplitude: float,
    units_allowed: int = 0,
) -> Result:
    return Result(
        name=name,
        policy=policy,
        solver_type=prototxt.solver_type(solver),
        points=found.iterations.size,
        differing=found.differing.size,
        units=found.units,
        share=found.share(amplitude),
        units_allowed=units_allowed,
    )


def iterations_that_matter(solver: Any) -> NDArray[np.int64]:
    """The ends and peaks of a solver's cycles, the limits of float and int, and neighbours."""
    places = [0, solver.start_lr_policy, 2**24, _LAST, *solver.stepvalue]
    if solver.stepsize > 0:
        # in halves of a cycle: the first 200 cycles, and 2^1100 for triangular2
        halves = [*range(400), *range(2198, 2203)]
        places += [solver.start_lr_policy + solver.stepsize * half for half in halves]
    if cycle := policies.cyclical_momentum(solver):
        length = min(cycle[1], _LAST)
        places += [solver.start_lr_policy + round(length * half) for half in range(400)]
    around = (np.array(places, np.int64)[:, np.newaxis] + np.arange(-2, 3)).ravel()
    return np.unique(around[(around >= 0) & (around <= _LAST)])


def compare(solver: Any, iterations: ArrayLike) -> Comparison:
    """Read the rate of a pycaffe solver at some iterations, beside that of the reference.

    Args:
        solver: a SolverParameter; its nets are not used.
        iterations: the iterations, in rising order.
    """
    return _compare(solver, iterations, "lr", policies.learning_rate)


def compare_momentum(solver: Any, iterations: ArrayLike) -> Comparison:
    """Read the momentum of a pycaffe solver, beside that of the reference; see `compare`.

    Raises:
        ClrError: this pycaffe has no `solver.momentum`.
    """
    if not _tells(_MOMENTUM):
        raise ClrError("this pycaffe has no solver.momentum to compare")
    return _compare(solver, iterations, _MOMENTUM, policies.momenta)


def _compare(
    solver: Any,
    iterations: ArrayLike,
    attribute: str,
    reference: Callable[[Any, ArrayLike], policies.Rates],
) -> Comparison:
    wanted = np.asarray(iterations, np.int64)
    parameter = prototxt.caffe_pb2().SolverParameter()
    parameter.CopyFrom(solver)
    for field in parameter.DESCRIPTOR.fields_by_name:
        if field.startswith(_OF_A_TRAINING):
            parameter.ClearField(field)
    parameter.snapshot_after_train = False
    parameter.display = 0
    tells = _tells(attribute)
    if not tells:
        wanted = wanted[wanted < _LAST]  # from which there is no step
        for field in _OF_AN_UPDATE:
            parameter.ClearField(field)
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        net = Path(folder) / "net.prototxt"
        net.write_text(_NET if tells else _NET_OF_ONE_WEIGHT)
        parameter.net = str(net)
        live = solvers.load_solver(parameter)
        read = (lambda: getattr(live, attribute)) if tells else (lambda: _step_of_weight(live))
        values = _read(live, read, solver.stepvalue, wanted, Path(folder))
    return Comparison(wanted, values, reference(solver, wanted))


def _tells(attribute: str) -> bool:
    """Whether solvers in this pycaffe have an attribute."""
    return hasattr(solvers.import_caffe().SGDSolver, attribute)


def _step_of_weight(live: Any) -> float:
    """Do the next iteration of a solver of _NET_OF_ONE_WEIGHT, and return its rate."""
    weight = live.net.params["weight"][0].data
    weight[...] = 0
    live.step(1)
    return -float(weight[0, 0])


def _read(
    live: Any,
    read: Callable[[], float],
    stepvalues: Sequence[int],
    wanted: NDArray[np.int64],
    folder: Path,
) -> NDArray[Any]:
    pb2 = prototxt.caffe_pb2()
    blobs = [blob.data.shape for each in live.net.params.values() for blob in each]
    history = [pb2.BlobProto(shape={"dim": shape}, data=[0]) for shape in blobs]
    values = np.empty(wanted.size, np.float32)
    here = 0
    for index, iteration in enumerate(wanted.tolist()):
        gap = iteration - here
        if gap > _STEPPED_OVER:
            reached = sum(value <= iteration for value in stepvalues)
            state = pb2.SolverState(iter=iteration, current_step=reached, history=history)
            # a new file each time: some file systems wait for the disk to replace one
            state_file = folder / f"{iteration}.solverstate"
            state_file.write_bytes(state.SerializeToString())
            live.restore(str(state_file))
        elif gap:
            live.step(gap)
        values[index] = read()
        here = live.iter
    return values


def _more(iterations: NDArray[np.int64], points: int, last: int) -> NDArray[np.int64]:
    """Add random windows of iterations, the same every time, up to `points` in all."""
    if last < points:
        return np.arange(last + 1)
    generator = np.random.default_rng(0)
    while iterations.size < points:
        windows = -(-(points - iterations.size) // _WINDOW)
        # as many early ones as late ones
        starts = np.exp(generator.uniform(0, np.log(last), windows)).astype(np.int64)
        added = (starts[:, np.newaxis] + np.arange(_WINDOW)).ravel()
        iterations = np.union1d(iterations, added[added <= last])
    return iterations


def _raise(error: ClrError) -> None:
    raise error


def check_all(
    solver_files: Sequence[Path],
    points: int,
    on_refused: Callable[[ClrError], None] = _raise,
) -> Iterator[Result]:
    """Compare the solvers in some files or, if there are none, the default cases.

    A solver with cyclical momentum has a second result for that.

    Args:
        solver_files: solver prototxts; their nets are not used.
        points: number of iterations to compare in all. A solver with a max_iter is
            compared up to it.
        on_refused: called with the error of each file that is refused.

    Raises:
        ClrError: a file is refused, and on_refused is not given.
    """
    tasks: list[tuple[Callable[..., Result], Any, str]] = []
    for file in solver_files:
        try:
            opened = prototxt.open_solver(file)
            solver_checks.check_policy(opened)
            solver_checks.check_type(opened)
            solver = opened.parameter
        except ClrError as error:
            on_refused(error)
            continue
        tasks.append((check, solver, str(file)))
        if policies.cyclical_momentum(solver):
            tasks.append((check_momentum, solver, str(file)))
    if not solver_files:
        tasks += [(check, solver, "") for solver in default_cases()]
        tasks += [(check_momentum, solver, "") for solver in momentum_cases()]
    each = -(-points // max(1, len(tasks)))
    for check_one, solver, name in tasks:
        try:
            result = check_one(solver, name, each, max(0, solver.max_iter) or _LAST)
        except ClrError as error:
            on_refused(ClrError(f"{name}: {error}"))
        else:
            yield result


def main() -> None:
    """Check a build quickly: ten iterations of triangular2 must match bit for bit."""
    solver = prototxt.caffe_pb2().SolverParameter(
        lr_policy="triangular2", base_lr=0.001, max_lr=0.006, stepsize=2
    )
    found = compare(solver, np.arange(10))
    if found.differing.size:
        raise ClrError(f"Caffe's rates {found.solver} differ from the reference, {found.reference}")


if __name__ == "__main__":
    try:
        main()
    except ClrError as error:
        sys.exit(f"error: {error}")
