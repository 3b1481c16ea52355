"""Epochs in iterations: the training images divided by the batch size.

How many images there are is read from the data of the train net. Paths in
prototxt files are relative to the working directory, as for `caffe train`.
"""

from dataclasses import dataclass

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.preflight import data_layers
from caffe_clr.prototxt import SolverFile

ADVISED = (2, 10)  # epochs a stepsize, the paper's section 3.2
CYCLES = (3, 4, 6)  # 3 train a net most of the way, 4 or more further: the same section


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Args:
        images: how many there are.
        batch_size: that of the train net's data layer.
        iter_size: batches that an iteration accumulates gradients over.
        gpus: solvers that train at once, each on batches of its own.
    """

    images: int
    batch_size: int
    iter_size: int = 1
    gpus: int = 1

    @property
    def iterations(self) -> int:
        """images / (batch_size * iter_size * gpus), the nearest integer, at least 1.

        An exact half is rounded up.
        """
        consumed = self.batch_size * self.iter_size * self.gpus
        return max(1, (2 * self.images + consumed) // (2 * consumed))


def epoch(solver: SolverFile, *, images: int | None = None, gpus: int = 1) -> Epoch:
    """The epoch of a solver.

    It is that of one data layer of the train net: see data_layers.of_net.

    Args:
        solver: of which the train net and iter_size are read.
        images: replaces the count of those in the train net's data.
        gpus: solvers that train at once.

    Raises:
        UsageError: images or gpus is not above 0.
        ClrError: the solver has no train net, its data cannot be counted, or the
            batch size is not in the prototxt; says where and what to do.
    """
    for option, value in (("--images", images), ("--gpus", gpus)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value}: give 1 or more")
    iter_size = solver.parameter.iter_size
    if iter_size < 1:
        raise ClrError(f"{solver.name}: iter_size is {iter_size}; set it to 1 or more")
    net = solver.train_net
    layer = data_layers.of_net(net)
    if layer is None:
        raise ClrError(f"{net.name}: no data layer in phase TRAIN; add one, or fix its include")
    batch_size = data_layers.batch_size(layer)
    if batch_size is None:
        remedy = "compute the stepsize as epochs * images / batch size"
        if field := data_layers.PARAMETERS.get(layer.type):
            remedy = f"set it in its {field}"
        raise ClrError(
            f'{net.name}: layer "{layer.name}": no batch size in the prototxt of this layer of type'
            f" {layer.type}; {remedy}"
        )
    if images is None:
        images = data_layers.count_images(layer, net.name)
    return Epoch(images, batch_size, iter_size, gpus)


def test_images(solver: SolverFile) -> list[tuple[int | None, int | None]]:
    """The examples in the data of each test net of a solver, and the size of its batches.

    The nets are in Caffe's order, one for each test_iter; of several data layers
    it is the one that `epoch` would take. None stands for what the prototxt does
    not tell.

    Raises:
        ClrError: a net or its data cannot be read, or the fields for test nets
            differ in number.
    """
    found: list[tuple[int | None, int | None]] = []
    for net in solver.test_nets:
        layer = data_layers.of_net(net)
        if layer is None:
            found.append((None, None))
        else:
            can_count = data_layers.can_count(layer)
            images = data_layers.count_images(layer, net.name) if can_count else None
            found.append((images, data_layers.batch_size(layer)))
    return found
