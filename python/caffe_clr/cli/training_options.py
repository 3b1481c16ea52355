"""The options of a training on the command line, derived from the fields of TrainingOptions."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from caffe_clr.errors import UsageError
from caffe_clr.runs.options import PlotFormat, TrainingOptions

Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs to train at a time.")]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Train on the workers of this Dask scheduler."),
]

_FIELDS = {field.name: field for field in fields(TrainingOptions)}
_MOST = 2**31 - 1  # the highest number that Caffe takes
_TYPES = get_type_hints(TrainingOptions)


def offered(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command so that its `**options` are the training options it offers.

    Fields for which the command has parameters of its own are left to it.

    Args:
        command: the name of the command, as in the metadata of the fields.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[:-1]
        taken = {parameter.name for parameter in own}
        names = [name for name in _offered_by(command) if name not in taken]
        parameters = [*own, *map(_parameter, names)]
        wrapper = functools.wraps(function)(lambda **given: function(**given))
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def declared(name: str) -> Any:
    """The Typer option for a field."""
    told = {key: _FIELDS[name].metadata[key] for key in ("help", "min", "max")}
    if name == "gpu":
        told = {"help": told["help"], "parser": _gpu, "metavar": "<integer>"}
    return typer.Option(_flag(name), **told)  # unnamed, a bool would get a --no- beside it


def _gpu(value: str) -> int:
    """The number of a GPU."""
    numbers = value.split(",")
    if len(numbers) > 1 and all(map(str.isdecimal, numbers)):
        first = [str(number) for number in range(len(numbers))]
        visible = "" if numbers == first else f"CUDA_VISIBLE_DEVICES={value} "
        raise UsageError(
            f"--gpu {value}: a process trains on one GPU; to train on {len(numbers)}, start as many"
            f" by MPI: {visible}mpirun -n {len(numbers)} … --gpu 0 --mpi"
        )
    if not value.isdecimal() or int(value) > _MOST:
        raise UsageError(f"--gpu {value}: give the number of a GPU, as in --gpu 0")
    return int(value)


def check_picture(option: str, file: Path | None) -> None:
    """Refuse a file for a plot whose suffix names no format."""
    *most, last = (f".{suffix}" for suffix in PlotFormat)
    if file and file.suffix not in (*most, last):
        raise UsageError(f"{option} {file}: name a file that ends in {', '.join(most)} or {last}")


def _offered_by(command: str) -> list[str]:
    return [
        name for name, field in _FIELDS.items() if command in field.metadata.get("commands", ())
    ]


def _parameter(name: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=_FIELDS[name].default,
        annotation=Annotated[_TYPES[name], declared(name)],
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
