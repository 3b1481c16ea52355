"""The options of a training, declared once: for Python, for jobs and for the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

TRAIN = "train"
RANGE_TEST = "range-test"
COMPARE = "compare"
_ALL = (TRAIN, RANGE_TEST, COMPARE)


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
        seed: replaces random_seed.
        gpu: the number of the GPU to train on; None for the CPU.
        images: the size of the training set; None to count it.
        resume: go on from the newest whole snapshot in the run folder, with the data
            that would have come next.
        snapshot_cycles: also snapshot where a cycle ends.
        tensorboard: also write what is recorded as TensorBoard's event files, into the
            run folder.
        stop_early: end not only at a loss that is nan, inf, or the 87.3365 that
            SoftmaxWithLoss reports for them, but also where the mean loss of a
            display is over four times the largest loss of the first tenth of the run. A
            single batch, such as the first, may be an easy one.
    """

    seed: int | None = _option(
        None,
        "Instead of the solver's random_seed.",
        commands=(TRAIN, RANGE_TEST),
        min=0,
        max=2**32 - 1,
    )
    gpu: int | None = _option(None, "Train on this GPU instead of the CPU.", min=0, max=2**31 - 1)
    images: int | None = _option(
        None, "Size of the training set, where it cannot be counted.", min=1
    )
    resume: bool = _option(
        False, "Resume from the newest complete snapshot of the run.", commands=(TRAIN,)
    )
    snapshot_cycles: bool = _option(
        False, "Also snapshot where each cycle ends.", commands=(TRAIN,)
    )
    tensorboard: bool = _option(False, "Also write event files for TensorBoard.")
    stop_early: bool = False

    @classmethod
    def of(cls, options: "TrainingOptions", **changes: Any) -> Self:
        """The options that every training has, of those that may have more; some changed."""
        return cls(**{each.name: getattr(options, each.name) for each in fields(cls)} | changes)


DEFAULTS = TrainingOptions()
