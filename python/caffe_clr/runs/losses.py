"""The losses of a run: their mean from display to display, and whether they diverge."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from caffe_clr.runs import output_kinds

_RISE = 4  # times the largest early loss is "risen"
_EARLY = 10  # one part in so many of a run is early


@dataclass
class Losses:
    """What is known of the losses up to an iteration.

    Attributes:
        max_iter: of the stage.
        early_loss: the largest of the first tenth of the run, without its sign.
        loss_sum: of the losses since the last display.
        losses: how many those are.
    """

    max_iter: int
    early_loss: float = 0.0
    loss_sum: float = 0.0
    losses: int = 0

    def add(self, iteration: int, loss: float) -> None:
        self.loss_sum += loss
        self.losses += 1
        if iteration < self._early:
            self.early_loss = max(self.early_loss, abs(loss))

    def displayed(self, loss: float) -> float:
        """The mean since the last display, or the loss of now where that is not finite."""
        mean = self.loss_sum / self.losses if math.isfinite(loss) else loss
        self.loss_sum, self.losses = 0.0, 0
        return mean

    def risen(self, iteration: int, mean: float) -> str | None:
        """The mean loss of a display, if it has risen far above the early ones."""
        if iteration < self._early or not 0 < _RISE * self.early_loss < mean:
            return None
        return (
            f"the loss is {mean:.6g}, over {_RISE} times the largest of the first {self._early}"
            " iterations (with --keep-going, the range test continues)"
        )

    @property
    def _early(self) -> int:
        return max(1, self.max_iter // _EARLY)


def lost(loss: float, softmax: Iterable[float]) -> str | None:
    """The loss that is of scores that are not finite, if there is one.

    Args:
        softmax: the outputs of SoftmaxWithLoss.
    """
    found = [value for value in softmax if output_kinds.is_lost(value)]
    if not math.isfinite(loss):
        found.append(loss)
    return f"the loss is {found[0]:.6g}" if found else None
