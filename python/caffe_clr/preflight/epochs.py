"""Counts the iterations of an epoch: the training images divided by the batch size.

The images are counted in the data of the train net. Paths in prototxt files are relative
to the working directory, as for `caffe train`.
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
        images: number of training images.
        batch_size: the batch size of the train net's data layer.
        iter_size: number of batches over which an iteration accumulates gradients.
        ranks: number of processes (or GPUs) that train together, each on its own batches.
    """

    images: int
    batch_size: int
    iter_size: int = 1
    ranks: int = 1

    @property
    def iterations(self) -> int:
        """images / (batch_size * iter_size * ranks), the nearest integer, at least 1.

        An exact half is rounded up.
        """
        consumed = self.batch_size * self.iter_size * self.ranks
        return max(1, (2 * self.images + consumed) // (2 * consumed))


def epoch(
    solver: SolverFile,
    *,
    images: int | None = None,
    ranks: int = 1,
    remedy: str = "compute the stepsize as epochs * images / batch size",
) -> Epoch:
    """The epoch of a solver, by the data layer of its train net (see data_layers.of_net).

    Args:
        solver: the solver; its train net and iter_size are read.
        images: size of the training set; None to count the images.
        ranks: number of processes (or GPUs) that train together.
        remedy: what to do if the layer has no batch size in the prototxt, as one in Python.

    Raises:
        UsageError: images or ranks is not above 0.
        ClrError: the solver has no train net, its data cannot be counted, or the
            prototxt has no batch size; says where, and what to do.
    """
    for option, value in (("--images", images), ("--ranks", ranks)):
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
        if field := data_layers.PARAMETERS.get(layer.type):
            remedy = f"set it in its {field}"
        raise ClrError(
            f'{net.name}: layer "{layer.name}": no batch size in the prototxt of this layer of type'
            f" {layer.type}; {remedy}"
        )
    if images is None:
        images = data_layers.count_images(layer, net.name)
    return Epoch(images, batch_size, iter_size, ranks)


def test_images(solver: SolverFile) -> list[tuple[int | None, int | None]]:
    """The number of examples and the batch size of each test net of a solver.

    The nets are in Caffe's order, one for each test_iter. If a net has several data
    layers, data_layers.of_net chooses one. A number that the prototxt does not tell is
    None.

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
