"""The commands that write data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caffe_clr.cli.app import TRAINING, app
from caffe_clr.cli.console import console

if TYPE_CHECKING:
    from caffe_clr.experiments.cifar import DataSet
    from caffe_clr.experiments.datasets import Split

data_app = typer.Typer(
    no_args_is_help=True, help="Write a data set as the LMDBs that Caffe trains on."
)
app.add_typer(data_app, name="data", rich_help_panel=TRAINING)

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="The official archive (the binary version or the one for Python), or its unpacked"
        " folder; or a folder or archive of images in train/<class>/ and test/<class>/.",
    ),
]
Out = Annotated[
    Path,
    typer.Argument(
        metavar="OUT", help="The folder for train_lmdb, test_lmdb and mean.binaryproto."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the data set in OUT.")]
Pad = Annotated[
    int,
    typer.Option(
        min=0,
        max=16,
        help="Surround the training images with N pixels of their mean colour, for random crops.",
        metavar="N",
    ),
]

Order = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Shuffle the training images with this seed. Default: the official order; a folder"
        " of images is always shuffled.",
        metavar="SEED",
        show_default=False,
    ),
]


@data_app.command()
def cifar10(
    source: Source, out: Out, pad: Pad = 0, order: Order = None, force: Force = False
) -> None:
    """Write CIFAR-10: 50,000 and 10,000 images of 32x32 in 10 classes.

    Example: caffe-clr data cifar10 cifar-10-binary.tar.gz data/cifar10
    """
    from caffe_clr.experiments.cifar import CIFAR10

    _cifar(CIFAR10, source, out, pad, order, force)


@data_app.command()
def cifar100(
    source: Source, out: Out, pad: Pad = 0, order: Order = None, force: Force = False
) -> None:
    """Write CIFAR-100 with its 100 fine labels.

    Example: caffe-clr data cifar100 cifar-100-python.tar.gz data/cifar100
    """
    from caffe_clr.experiments.cifar import CIFAR100

    _cifar(CIFAR100, source, out, pad, order, force)


@data_app.command()
def digits(out: Out, force: Force = False) -> None:
    """Write scikit-learn's handwritten digits: 1,500 and 297 images of 8x8.

    Example: caffe-clr data digits models/digits
    """
    from caffe_clr.cli.data_sets import write_data
    from caffe_clr.experiments import datasets

    write_data(lambda on_progress: datasets.digits(), out, force, console)


def _cifar(
    data_set: "DataSet", source: Path, out: Path, pad: int, order: int | None, force: bool
) -> None:
    from caffe_clr.cli.data_sets import write_data
    from caffe_clr.experiments import cifar

    def read(on_progress: Callable[[int, int], None]) -> "dict[str, Split]":
        return cifar.read(source, data_set, order, on_progress, pad)

    write_data(read, out, force, console)
    if pad:
        console.print(
            "No mean.binaryproto: the padded training images and the test images differ in size;"
            " use mean_value instead",
            soft_wrap=True,
        )
