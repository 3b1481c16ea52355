"""Solver files without Caffe: our own SolverParameter."""

import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import schedule
from caffe_clr.prototxt import solver_message
from caffe_clr.system import installed_caffe


def described(message: Any) -> dict[str, tuple[Any, ...]]:
    """The number, type and default of each field of a message."""
    found = descriptor_pb2.DescriptorProto()
    message.DESCRIPTOR.CopyToProto(found)
    empty = message()
    return {
        field.name: (
            *(field.number, field.label, field.type, field.type_name),
            getattr(empty, field.name) if field.type != Field.TYPE_MESSAGE else "",
        )
        for field in found.field
    }


@pytest.fixture
def no_caffe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_caffe, "package", lambda: None)
    monkeypatch.delitem(sys.modules, "caffe.proto.caffe_pb2", raising=False)


def test_it_is_that_of_the_patched_caffe(tree: Tree) -> None:
    own, caffes = solver_message.message_class(), prototxt.caffe_pb2().SolverParameter
    assert described(own) == described(caffes)
    states = (type(message().train_state) for message in (own, caffes))
    assert described(next(states)) == described(next(states))
    for name in ("SolverMode", "SnapshotFormat", "SolverType"):
        assert getattr(own, name).items() == getattr(caffes, name).items()


@pytest.mark.usefixtures("no_caffe")
def test_a_schedule_needs_no_caffe(tmp_path: Path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text(
        'net: "none.prototxt" base_lr: 0.001 max_lr: 0.006 lr_policy: "triangular" stepsize: 2\n'
        'max_iter: 4 solver_type: NESTEROV train_state { stage: "deep" level: 1 }'
    )
    solver = prototxt.read_solver(file)
    assert prototxt.solver_type(solver) == "Nesterov"
    rates = [row["lr"] for row in schedule.schedule([file])]
    assert rates == pytest.approx([0.001, 0.0035, 0.006, 0.0035])


@pytest.mark.usefixtures("no_caffe")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_lrr: 1", 'SolverParameter has no field "base_lrr"; did you mean "base_lr"?'),
        ("layer {}", 'SolverParameter has no field "layer", but NetParameter has: is it the wrong'),
        ('net_param { layer { name: "a" } }', "a net in a solver is read only with Caffe: run "),
        ("solver_mode: TPU", 'SolverMode has no value "TPU"'),
    ],
)
def test_what_cannot_be_read_without_caffe(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text(text)
    with pytest.raises(ClrError, match=r"solver\.prototxt:1:") as raised:
        prototxt.read_solver(file)
    assert message in str(raised.value)


@pytest.mark.usefixtures("no_caffe")
def test_a_net_needs_caffe(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('name: "net"')
    with pytest.raises(ClrError, match="no Caffe in this Python environment"):
        prototxt.read_net(tmp_path / "net.prototxt")
