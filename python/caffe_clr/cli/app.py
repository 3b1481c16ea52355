"""The Typer application, with which the commands register themselves."""

from importlib import metadata
from typing import Annotated

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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"caffe-clr {metadata.version('caffe-clr')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass
