"""Writes the records of a run as TensorBoard event files, while it trains."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.protobuf import text_format

from caffe_clr import policies
from caffe_clr.errors import UsageError
from caffe_clr.runs.history import OWN_COLUMNS, Phase, Row
from caffe_clr.runs.run_writer import RunWriter

_FLUSH_SECONDS = 2
_SUFFIX = ".caffe-clr"  # of the files' names, to know them by
_BY_RATE = "lr_in_millionths"


def check() -> None:
    """Raise UsageError where the package that writes event files is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UsageError(
            "--tensorboard needs tensorboardX: pip install tensorboard tensorboardX"
        ) from None


@contextmanager
def written(run: RunWriter, stages: Sequence[Any]) -> Iterator[None]:
    """Write an event file into the folder of a run while it trains.

    It begins with the earlier records of a resumed run, and replaces the event files that
    this package wrote before. Other event files stay.

    Args:
        stages: the SolverParameter of each stage; shown as text.
    """
    from tensorboardX import SummaryWriter

    for old in run.folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    # from step 0 on: a TensorBoard that has read the old files forgets them
    writer = SummaryWriter(
        str(run.folder), purge_step=0, flush_secs=_FLUSH_SECONDS, filename_suffix=_SUFFIX
    )
    history = run.history
    seconds = max((row.get("seconds", 0) for row in history.train + history.test), default=0)
    board = _Board(writer, _is_range_test(stages), time.time() - seconds)
    for number, stage in enumerate(stages, 1):
        text = text_format.MessageToString(stage)
        writer.add_text(f"solver/stage {number}", "    " + text.replace("\n", "\n    "))
    rows = [(row["iteration"], phase, row) for phase in Phase for row in history.rows(phase)]
    for _, phase, row in sorted(rows, key=lambda entry: entry[0]):
        board.add(phase, row)
    run.records.on_row = board.add
    try:
        yield
    finally:
        writer.close()


class _Board:
    """The event file of a run.

    It has rate, momentum and each output by iteration, as `lr`, `loss/train` or
    `accuracy/test`. The outputs of a range test are also there by rate, in millionths,
    because TensorBoard's steps are integers.
    """

    def __init__(self, writer: Any, by_rate: bool, began: float) -> None:
        self._writer = writer
        self._by_rate = by_rate
        self._began = began

    def add(self, phase: Phase, row: Row) -> None:
        """Write a row that the run has recorded."""
        when = self._began + row.get("seconds", 0)
        for name, value in row.items():
            if name in ("lr", "momentum"):
                self._writer.add_scalar(name, value, row["iteration"], when)
            elif name not in OWN_COLUMNS:
                self._writer.add_scalar(f"{name}/{phase}", value, row["iteration"], when)
                if self._by_rate:
                    tag = f"{_BY_RATE}/{name}_{phase}"
                    self._writer.add_scalar(tag, value, round(row["lr"] * 1e6), when)


def _is_range_test(stages: Sequence[Any]) -> bool:
    """Whether a run is one rise of the rate, linear or geometric."""
    if len(stages) != 1:
        return False
    (solver,) = stages
    if solver.lr_policy == policies.SWEEP.name:
        return bool(solver.gamma > 1)
    return bool(solver.lr_policy == policies.RANGE_TEST.name and solver.stepsize >= solver.max_iter)
