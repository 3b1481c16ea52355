"""The application that the commands enter themselves into."""

import typer

TRAINING = "Train"
BUILDING = "Build and check"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Cyclical learning rates for BVLC Caffe: build, train, compare and check.",
)
