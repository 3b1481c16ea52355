"""The options of a training on the command line are the fields of TrainingOptions."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import typer

from caffe_clr.cli.app import app
from caffe_clr.runs.options import COMPARE, RANGE_TEST, TRAIN, TrainingOptions

ALL = {"seed": 0, "gpu": 0, "images": 1, "snapshot_cycles": True, "tensorboard": True}


def words_of(given: dict[str, Any], offered: set[str]) -> Iterator[str]:
    for name in offered & given.keys():
        yield "--" + name.replace("_", "-")
        if given[name] is not True:
            yield str(given[name])


@pytest.mark.parametrize(
    ("command", "more", "offered"),
    [
        (TRAIN, [], {"seed", "gpu", "images", "resume", "snapshot_cycles", "tensorboard"}),
        (RANGE_TEST, ["--min-lr=0", "--max-lr=1"], {"seed", "gpu", "images", "tensorboard"}),
        (COMPARE, [], {"gpu", "images", "tensorboard"}),
    ],
)
@pytest.mark.parametrize("given", [{}, {"resume": True}, ALL])
def test_a_command_reads_what_is_written_for_it(
    command: str, more: list[str], offered: set[str], given: dict[str, Any]
) -> None:
    options = TrainingOptions(**given)
    words = ["solver.prototxt", *more, *words_of(given, offered)]
    read = typer.main.get_group(app).commands[command].make_context(command, words).params
    assert {name: read[name] for name in offered} == {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name in offered
    }
