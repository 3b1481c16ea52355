"""The tasks that judge the advice: nets, data, and the solver that a user would bring.

Each solver was tuned before the rules were made: of three to five values of base_lr, half a
decade apart, it has the one with the best test accuracy (loss of the autoencoder) after the
whole run, with one seed.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        about: the net and its data, in a few words.
        epoch: iterations.
    """

    name: str
    about: str
    epoch: int

    @property
    def solver(self) -> Path:
        return FOLDER / self.name / "solver.prototxt"


# the rules were made with these
DEVELOPED = (
    Task("digits", "small convolutional net, handwritten digits", 30),
    Task("mlp", "three inner products, CIFAR-10", 80),
    Task("quick", "Caffe's cifar10_quick, CIFAR-10", 80),
    Task("full", "Caffe's cifar10_full, CIFAR-10", 80),
    Task("noisy", "LeNet, CIFAR-10 with 30 % of the labels wrong", 80),
    Task("batchnorm", "four convolutions with BatchNorm, CIFAR-10", 80),
)
# and judged by these, named before that
HELD_OUT = (
    Task("cifar100", "Caffe's cifar10_full, CIFAR-100", 80),
    Task("sixes", "LeNet, six classes of CIFAR-10", 80),
    Task("dropout", "LeNet with Dropout, CIFAR-10", 80),
    Task("resnet8", "ResNet-8, CIFAR-10, mirrored", 80),
    Task("autoencoder", "autoencoder of sigmoids, handwritten digits; losses only", 30),
    Task("overfit", "wide convolutional net, 500 images of CIFAR-10", 20),
)
TASKS = {task.name: task for task in DEVELOPED + HELD_OUT}
