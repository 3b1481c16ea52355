"""What an output of a net is by its name and its values: a loss, an accuracy, or lost."""

import math
import re
from collections.abc import Container, Mapping
from functools import cache

import numpy as np

# what SoftmaxWithLoss gives where a probability is 0 or NaN: 87.3365
_SOFTMAX_LOST = -math.log(float(np.finfo(np.float32).tiny))
_DIGITS = 1e-3  # as logs print it and batches average it
_LOSS = re.compile(r"(?i)loss|error|perplexity|entropy|distance|deviance")
_LOSS_WORDS = {"err", "mae", "mse", "rmse", "epe", "wer", "cer", "ppl", "nll", "dist", "cost"}
_ACCURACY = re.compile(
    r"(?i:accura|precision|recall|iou|\bf1|_f1|psnr|ssim|\bdice|detection_eval|^map$)|m?AP(?![a-z])"
)
_ACCURACY_WORDS = {"acc", "top", "rank", "prec", "hit", "ap", "iu", "auc"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of valAcc, testMAE, top1err


def is_lost(loss: float) -> bool:
    """Whether a loss comes from lost scores: nan, inf, or SoftmaxWithLoss's 87.3365."""
    return not math.isfinite(loss) or abs(loss - _SOFTMAX_LOST) < _DIGITS


def has_scores(row: Mapping[str, float], accuracy: str, weighted: Container[str] = ()) -> bool:
    """Whether an accuracy comes from finite scores: some loss of its test net is not lost.

    Caffe's Accuracy layer counts nan as correct: a ResNet before its first iteration has
    an accuracy of 1.

    Args:
        weighted: outputs that are known to be losses.
    """
    losses = [
        value
        for name, value in row.items()
        if is_loss(name, weighted) and name.partition("#")[2] == accuracy.partition("#")[2]
    ]
    return not losses or not all(map(is_lost, losses))


def is_loss(output: str, weighted: Container[str] = ()) -> bool:
    """Whether lower values of an output are better, judged by its weight or its name.

    In loss3/top-1 the last part decides; in loss/test it does not tell, so the whole does.
    """
    return output in weighted or _kind(output) is _LOSS


def is_accuracy(output: str, weighted: Container[str] = ()) -> bool:
    """Whether higher values of an output are better, as far as its name tells."""
    return output not in weighted and _kind(output) is _ACCURACY


@cache
def _kind(output: str) -> re.Pattern[str] | None:
    """Whether a name is one of a loss or of an accuracy, if it is either."""
    for name in (output.rpartition("/")[2], output):
        words = {word.lower() for word in _WORD.findall(name)}
        if _LOSS.search(name) or words & _LOSS_WORDS:
            return _LOSS
        if _ACCURACY.search(name) or words & _ACCURACY_WORDS:
            return _ACCURACY
    return None
