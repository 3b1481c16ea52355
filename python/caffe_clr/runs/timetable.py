"""When a stage of a run displays, tests and snapshots."""

from dataclasses import dataclass
from typing import Any, Self

from caffe_clr import policies
from caffe_clr.runs.planning import Plan


@dataclass(frozen=True)
class Timetable:
    """The timetable of a stage, as its solver sets it.

    Attributes:
        parameter: the SolverParameter of the stage.
        start: the iteration at which the stage begins.
        is_last: whether the run ends with this stage.
        has_tests: whether its test nets are ever tested.
        snapshot_cycles: whether to snapshot at the end of each cycle.
    """

    parameter: Any
    start: int
    is_last: bool
    has_tests: bool
    snapshot_cycles: bool

    @classmethod
    def of(cls, planned: Plan, number: int, snapshot_cycles: bool) -> Self:
        return cls(
            planned.stages[number],
            start=planned.stages[number - 1].max_iter if number else 0,
            is_last=number == len(planned.stages) - 1,
            has_tests=bool(planned.solvers[number].tested_nets),
            snapshot_cycles=snapshot_cycles,
        )

    def displays(self, iteration: int) -> bool:
        return bool(self.parameter.display > 0 and iteration % self.parameter.display == 0)

    def tests(self, iteration: int) -> bool:
        """Whether to test: at each test_interval, and where a run ends or a stage begins."""
        if not any(self.parameter.test_iter):
            return False
        if iteration == 0:
            return bool(self.parameter.test_initialization)
        if not self.has_tests:
            return False
        if iteration >= self.parameter.max_iter:
            return self.is_last
        return iteration % self.parameter.test_interval == 0 or iteration == self.start

    def snapshots(self, iteration: int) -> bool:
        """Whether to snapshot: at each `snapshot`, and at the ends of cycles if wanted."""
        solver = self.parameter
        if solver.snapshot and iteration % solver.snapshot == 0:
            return True
        policy = policies.policy_of(solver)
        if not self.snapshot_cycles or not policy.cycles:
            return False
        finished, position = divmod(iteration - solver.start_lr_policy, 2 * solver.stepsize)
        return bool(position == 0 and 0 < finished <= policy.cycles)

    @property
    def snapshots_at_end(self) -> bool:
        return not self.is_last or self.parameter.snapshot_after_train
