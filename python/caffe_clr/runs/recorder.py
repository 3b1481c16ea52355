"""Records the rows of a run, each with its iteration, epoch, rate and seconds."""

import time
from typing import Any

from caffe_clr import policies
from caffe_clr.runs import solvers
from caffe_clr.runs.history import Phase, Row
from caffe_clr.runs.planning import Plan
from caffe_clr.runs.records import Records


class Recorder:
    """Makes the rows of a run and hands them on."""

    def __init__(self, planned: Plan, records: Records | None) -> None:
        self._records = records
        self._epoch = planned.epoch
        self._momentum_cycles = any(policies.cyclical_momentum(stage) for stage in planned.stages)
        rows = records.history.train + records.history.test if records else []
        self._began = time.monotonic() - max((row.get("seconds", 0) for row in rows), default=0)

    def begin(self, solver: Any, parameter: Any) -> Row:
        """The first columns of a row: a solver's iteration, epoch and rate before it steps."""
        iteration = int(solver.iter)
        epoch = {"epoch": round(iteration / self._epoch, 4)} if self._epoch else {}
        row = {"iteration": iteration, **epoch, "lr": solvers.rate(solver, parameter)}
        if self._momentum_cycles:
            row["momentum"] = solvers.momentum(solver, parameter)
        return row

    def add(self, phase: Phase, row: Row) -> None:
        """Record a row with the present time, on the rank that records."""
        if not self._records:
            return
        seconds = round(time.monotonic() - self._began, 3)
        self._records.add(phase, {**row, "seconds": seconds})
