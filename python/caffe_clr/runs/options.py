"""The options of a training, declared once for Python, jobs and the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

TRAIN = "train"
RANGE_TEST = "range-test"
COMPARE = "compare"
_ALL = (TRAIN, RANGE_TEST, COMPARE)


class PlotFormat(StrEnum):
    """What plots are written as, which is also the suffix of their files."""

    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


def _option(
    default: Any,
    help: str,
    *,
    commands: Sequence[str] = _ALL,
    min: int | None = None,
    max: int | None = None,
) -> Any:
    """A field that these commands offer as an option; help, min and max are what they show."""
    return field(
        default=default, metadata={"help": help, "commands": commands, "min": min, "max": max}
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a solver is trained.

    Attributes:
        seed: replaces the solver's random_seed.
        gpu: number of the GPU to train on; None for the CPU.
        images: size of the training set; None to count it.
        resume: continue from the newest complete snapshot in the run folder, with the
            data that comes next.
        snapshot_cycles: also take a snapshot at the end of each cycle.
        mpi: be one of the ranks that train together, as mpirun started them (see ranks).
        tensorboard: also write TensorBoard event files into the run folder.
        plot_format: what the command line writes its plots as.
        stop_early: also stop if the mean loss of a display exceeds four times the largest
            loss of the first tenth of the run (a single early batch may be easy). A loss
            of nan, inf, or the 87.3365 that SoftmaxWithLoss reports for them always stops
            the training.
    """

    seed: int | None = _option(
        None,
        "Use this seed instead of the solver's random_seed.",
        commands=(TRAIN, RANGE_TEST),
        min=0,
        max=2**32 - 1,
    )
    gpu: int | None = _option(None, "Train on this GPU instead of the CPU.")
    images: int | None = _option(None, "Size of the training set, if it cannot be counted.", min=1)
    resume: bool = _option(
        False, "Resume from the newest complete snapshot of the run.", commands=(TRAIN,)
    )
    snapshot_cycles: bool = _option(
        False, "Also take a snapshot at the end of each cycle.", commands=(TRAIN,)
    )
    mpi: bool = _option(
        False, "Train on all ranks that mpirun has started.", commands=(TRAIN, RANGE_TEST)
    )
    tensorboard: bool = _option(False, "Also write event files for TensorBoard.")
    plot_format: PlotFormat = _option(  # noqa: RUF009  # a field
        PlotFormat.PNG, "Write plots in this format."
    )
    stop_early: bool = False

    @classmethod
    def of(cls, options: "TrainingOptions", **changes: Any) -> Self:
        """Copy the training options from `options`, which may have more, with changes."""
        return cls(**{each.name: getattr(options, each.name) for each in fields(cls)} | changes)


DEFAULTS = TrainingOptions()
