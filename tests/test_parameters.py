"""That what a Caffe of any kind printed of its parameters is read as far as it is known."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_clr import prototxt
from caffe_clr.caffe_log import parameters

pytestmark = pytest.mark.usefixtures("tree")

NET = """\
name: "a { b"
layer {
  name: "data"
  type: "Data"
  top: "data"
  transform_param {
    scale: 0.00390625
    mean_file: "C:\\\\means\\"1\\".binaryproto"
    mirror: true
  }
  data_param {
    source: "\\321\\320"
    batch_size: 64
    backend: LMDB
  }
  loss_weight: 0.5
  loss_weight: 1e-05
}
state {
  phase: TEST
  stage: "\\347\\261\\273"
}
"""


def net(text: str) -> tuple[Any, list[str]]:
    message = prototxt.caffe_pb2().NetParameter()
    return message, parameters.read(text, message)


def test_what_is_known_is_read_as_protobuf_does() -> None:
    read, left_out = net(NET)
    assert left_out == []
    expected = text_format.Parse(NET.replace("\\321\\320", "?"), type(read)())
    assert read.layer[0].data_param.source == "\ufffd\ufffd"
    read.layer[0].data_param.source = "?"
    assert read == expected
    assert text_format.MessageToString(read) == text_format.MessageToString(expected)


@pytest.mark.parametrize(
    ("edit", "left_out"),
    [
        (
            lambda text: text.replace("  type:", '  eval {\n a { b: "}" }\n c: 1\n}\n  type:'),
            "eval",
        ),
        (lambda text: text.replace("  type:", "  [caffe.ext] {\n a: 1\n}\n  type:"), "[caffe.ext]"),
        (lambda text: text.replace("  type:", "  engine: 1\n  engine: 2\n  type:"), "engine"),
        (lambda text: text.replace("  type:", "  phase: BOTH\n  type:"), "phase"),
        (lambda text: text.replace("  type:", "  data_param: 5\n  type:"), "data_param"),
        (lambda text: text.replace("  type:", "  name {\n a: 1\n}\n  type:"), "name"),
        (lambda text: text.replace("scale", "crop_size: -1\n    scale"), "crop_size"),
        (lambda text: text.replace("scale", "crop_size: 99999999999\n    scale"), "crop_size"),
    ],
)
def test_what_is_not_known_spoils_nothing_else(edit: Callable[[str], str], left_out: str) -> None:
    assert edit(NET) != NET
    read, names = net(edit(NET))
    assert set(names) == {left_out}
    assert read == net(NET)[0]


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(NET)), junk=st.text(max_size=30))
def test_any_text_is_read_to_its_end(cut: int, junk: str) -> None:
    net(NET[:cut] + junk + NET[cut:])
    read, _ = net(NET[:cut])
    assert len(read.layer) <= 1
