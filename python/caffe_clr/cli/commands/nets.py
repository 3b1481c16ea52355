"""The commands that write the nets of the paper's Table 4."""

from pathlib import Path
from typing import Annotated, Any

import typer

from caffe_clr.cli.app import TRAINING, app
from caffe_clr.cli.console import console
from caffe_clr.errors import UsageError

net_app = typer.Typer(
    no_args_is_help=True, help="Write a net of the paper's Table 4 for CIFAR-10 or CIFAR-100."
)
app.add_typer(net_app, name="net", rich_help_panel=TRAINING)

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The prototxt to write.")]
Classes = Annotated[int, typer.Option(help="10 for CIFAR-10, 100 for CIFAR-100.")]
Data = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", help="Folder of train_lmdb and test_lmdb, from `data` with --pad 4."
    ),
]
ResidualDepth = Annotated[int, typer.Option(help="Number of layers with weights, 6n + 2.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT.")]
DATA = Path("data/cifar10_padded")


@net_app.command()
def resnet(
    out: Out,
    depth: ResidualDepth = 110,
    classes: Classes = 10,
    data: Data = DATA,
    force: Force = False,
) -> None:
    """Write a ResNet (He et al. 2015) with parameter-free shortcuts.

    Example: caffe-clr net resnet models/resnet/train_test.prototxt
    """
    from caffe_clr.experiments import nets

    _write(nets.resnet(depth, classes, data), out, force)


@net_app.command()
def stochastic_depth(
    out: Out,
    depth: ResidualDepth = 110,
    survival: Annotated[
        float, typer.Option(help="Probability that the last block survives a batch.")
    ] = 0.5,
    classes: Classes = 10,
    data: Data = DATA,
    force: Force = False,
) -> None:
    """Write a ResNet with stochastic depth (Huang et al. 2016).

    Example: caffe-clr net stochastic-depth
    models/stochastic_depth/train_test.prototxt
    """
    from caffe_clr.experiments import nets

    _write(nets.stochastic_depth(depth, survival, classes, data), out, force)


@net_app.command()
def densenet(
    out: Out,
    depth: Annotated[int, typer.Option(help="Number of layers with weights, 3n + 4.")] = 40,
    growth_rate: Annotated[int, typer.Option(help="Channels that each layer adds.")] = 12,
    classes: Classes = 10,
    data: Data = DATA,
    force: Force = False,
) -> None:
    """Write a DenseNet (Huang et al. 2016) without bottlenecks or compression.

    Example: caffe-clr net densenet models/densenet/train_test.prototxt
    """
    from caffe_clr.experiments import nets

    _write(nets.densenet(depth, growth_rate, classes, data), out, force)


def _write(net: Any, out: Path, force: bool) -> None:
    from caffe_clr.experiments import nets

    if out.exists() and not force:
        raise UsageError(f"{out} exists; overwrite it with --force, or name another OUT")
    parameters = nets.count_parameters(net)
    nets.write(net, out)
    console.print(
        f"Net: {out} ({len(net.layer):,} layers, {parameters:,} parameters)", soft_wrap=True
    )
