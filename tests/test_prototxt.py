"""Reading prototxt files: where an error is said to be, and what it should have been."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.preflight import solver_checks
from caffe_clr.runs import planning

LAYER = 'layer {{ name: "{}" type: "DummyData" top: "{}" {} }}'


@pytest.fixture
def file(tree: Tree, tmp_path: Path) -> Path:
    return tmp_path / "file.prototxt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nmaxlr: 1", '2:1: SolverParameter has no field "maxlr"; did you mean "max_lr"?'),
        ("  Base_LR: 1", '1:3: SolverParameter has no field "Base_LR"; did you mean "base_lr"?'),
        ("quux: 1", '1:1: SolverParameter has no field "quux"; remove it if it belongs to'),
        # of SSD, NVCaffe
        ('eval_type: "detection"', '1:1: SolverParameter has no field "eval_type"; remove it'),
        ("min_lr: 1e-4", '1:1: SolverParameter has no field "min_lr"; remove it if it'),
        ("solver_mode: CUP", '1:14: SolverParameter.SolverMode has no value "CUP"; did you mean'),
        ("solver_mode: TPX", '1:14: SolverParameter.SolverMode has no value "TPX"; use one of CPU'),
        ("base_lr: fast", "1:10: .*fast"),
        ("base_lr 1", '1:9: .*":"'),
        ("net: 5", "1:6: .*5"),
        ("max_iter: 99999999999", "1:11: .*99999999999"),
        ("base_lr: 1\nbase_lr: 2", "2:1: base_lr is set twice; keep one"),
        (
            "net_param {\n  layer { include { phase: TRIAN } } }",
            '2:28: Phase has no value "TRIAN"; did you mean "TRAIN"?',
        ),
    ],
)
def test_an_error_in_a_solver_is_said_with_line_and_column(
    text: str, message: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ClrError) as refused:
        prototxt.read_solver(file)
    assert re.match(f"{file}:{message.replace('?', '[?]')}", str(refused.value))
    assert len(re.findall(r"\d+:\d+", str(refused.value).removeprefix(str(file)))) == 1
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer {\n convolution_param { num_outputs: 5 } }",
            '2:22: ConvolutionParameter has no field "num_outputs"; did you mean "num_output"?',
        ),
        (
            "layer { data_param { backend: lmdb } }",
            '1:31: DataParameter.DB has no value "lmdb"; did you mean "LMDB"?',
        ),
        (
            "layers { type: POOLNG }",
            '1:16: V1LayerParameter.LayerType has no value "POOLNG"; did you mean "POOLING"?',
        ),
        ("layr { }", '1:1: NetParameter has no field "layr"; did you mean "layer"?'),
    ],
)
def test_an_unknown_name_in_a_net_is_answered_with_the_closest(
    text: str, message: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ClrError) as refused:
        prototxt.read_net(file)
    assert str(refused.value) == f"{file}:{message}"


def test_an_unknown_number_of_an_enum_is_answered_with_the_names(file: Path) -> None:
    file.write_text("layer { include { phase: 7 } }")
    with pytest.raises(
        ClrError, match=rf"{file}:1:26: phase has no value 7; use one of TRAIN, TEST"
    ):
        prototxt.read_net(file)


def test_a_missing_brace_is_said_at_the_files_end(file: Path) -> None:
    file.write_text('layer {\n  name: "data"\n')
    with pytest.raises(ClrError, match=rf"{file}:\d+:\d+: "):
        prototxt.read_net(file)


def test_a_net_in_the_place_of_a_solver_is_named(net: Path) -> None:
    message = 'SolverParameter has no field "layer", but NetParameter has: is it the wrong file?'
    with pytest.raises(ClrError, match=re.escape(message)):
        prototxt.read_solver(net)


@pytest.mark.parametrize(
    ("lr_policy", "hint"),
    [
        ("triangle", '; did you mean "triangular"?'),
        ("Triangular2", '; did you mean "triangular2"?'),
        ("steps", '; did you mean "step"?'),
        ("cosine", "triangular2, exp_range, decay, 1cycle"),
        ("", "triangular2, exp_range, decay, 1cycle"),
    ],
)
def test_an_unknown_policy_is_answered_with_the_closest(
    lr_policy: str, hint: str, solver: Callable[..., Any]
) -> None:
    with pytest.raises(ClrError) as refused:
        solver_checks.check_policy(prototxt.SolverFile(solver(lr_policy=lr_policy), "s.prototxt"))
    assert str(refused.value).startswith(f's.prototxt: lr_policy "{lr_policy}" is unknown; use one')
    assert str(refused.value).endswith(hint)


def test_a_refused_parameter_of_a_known_policy_has_no_hint(solver: Callable[..., Any]) -> None:
    with pytest.raises(ClrError, match=r"raise max_lr$"):
        solver_checks.check_policy(prototxt.SolverFile(solver(max_lr=0.0001)))


@pytest.mark.parametrize(
    "content",
    [
        b"# caf\xe9 \xff 'open\nmax_iter: 7",
        b"max_iter: 7 # \xe5\xad\xa6\xe4\xb9 cut",
        b"max_iter: 0x7; # a\rmax_iter: 8\n",
        b"\r\nmax_iter: 7,\r\n# \xa0\r\n",
        'max_iter: 7 snapshot_prefix: "\u5b66 # \u201c" # \u2028 no line'.encode(),
    ],
)
def test_a_comment_in_any_encoding_is_passed_over_as_by_caffe(
    content: bytes, tree: Tree, file: Path
) -> None:
    file.write_bytes(content)
    assert prototxt.read_solver(file).max_iter == 7
    assert caffe_reads(tree, file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfmax_iter: 7", ": begins with the byte order mark of UTF-8, which Caffe"),
        ("\ufeffmax_iter: 7".encode("utf-16-le"), ": begins with the byte order mark of UTF-16"),
        (
            "max_iter: 7".encode("utf-16-le"),
            ":1:2: U+0000 (a control character), which Caffe cannot read",
        ),
        ("\nmax_iter:\u00a07".encode(), ":2:10: U+00A0 (no-break space), which Caffe allows"),
        ("net: \u201ca\u201d".encode(), ":1:6: U+201C (left double quotation mark), which Caffe"),
        (b"max_iter: 7 \xe9", ":1:13: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_text_that_caffe_cannot_read_is_named(
    content: bytes, message: str, tree: Tree, file: Path
) -> None:
    file.write_bytes(content)
    with pytest.raises(ClrError) as refused:
        prototxt.read_solver(file)
    assert str(refused.value).startswith(f"{file}{message}")
    assert not caffe_reads(tree, file)


def test_strings_that_are_not_utf8_are_read(tree: Tree, file: Path) -> None:
    net = file.with_name(os.fsdecode(b"\xb5\xda.prototxt"))
    net.write_text(LAYER.format("data", "data", ""))
    prefix = b'snapshot_prefix: "\xd1\xb5\xc1\xb7"'
    rest = b'base_lr: 0.1 max_iter: 1 lr_policy: "fixed"'
    file.write_bytes(b'net: "%b" %b %b' % (os.fsencode(net), prefix, rest))
    solver = prototxt.open_solver(file)
    assert solver.parameter.base_lr == np.float32(0.1)
    assert names(solver.train_net) == ["data"]
    file.write_text(text_format.MessageToString(solver.parameter))
    assert prototxt.read_solver(file) == solver.parameter
    assert caffe_reads(tree, file)
    with pytest.raises(ClrError, match=f"{file}: snapshot_prefix is not UTF-8; save the file as"):
        planning.plan([file])


def test_a_net_that_pycaffe_cannot_hold_is_named(file: Path) -> None:
    file.write_bytes(b'# \xe9\nlayer { name: "caf\xe9" }')
    with pytest.raises(ClrError, match="2:15: a string that is not UTF-8, which `caffe train` rea"):
        prototxt.read_net(file)


def caffe_reads(tree: Tree, file: Path) -> bool:
    program = tree.prefix / "bin" / "upgrade_solver_proto_text"
    done = subprocess.run([program, file, "/dev/stdout"], capture_output=True)
    return done.returncode == 0


V1 = """
layers { name: "d" type: DUMMY_DATA top: "d" top: "l" include: { phase: 0 } }
layers { name: "d" type: DUMMY_DATA top: "d" top: "l" include { phase: TEST } }
layers {
  name: "s" type: INNER_PRODUCT bottom: "d" top: "s" blobs_lr: 1 blobs_lr: 2 weight_decay: 0
}
layers { name: "loss" type: SOFTMAX_LOSS bottom: "s" bottom: "l" }
layers { name: "a" type: ACCURACY bottom: "s" bottom: "l" top: "a" include { phase: TEST } }
"""
V0 = """
layers { layer { name: "d" type: "data" source: "x" batchsize: 64 scale: 0.5 } top: "d" top: "l" }
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "d" top: "p" }
layers {
  layer { name: "c" type: "conv" num_output: 8 kernelsize: 3 blobs_lr: 1. } bottom: "p" top: "c"
}
layers { layer { name: "loss" type: "softmax_loss" } bottom: "c" bottom: "l" }
"""


def test_a_net_of_v1_is_upgraded(file: Path) -> None:
    file.write_text(V1)
    solver = prototxt.SolverFile(parsed(f'net: "{file}" test_iter: 1'))
    assert [layer.type for layer in solver.train_net.parameter.layer] == [
        *("DummyData", "InnerProduct", "SoftmaxWithLoss")
    ]
    (test_net,) = solver.test_nets
    assert [layer.name for layer in test_net.parameter.layer] == ["d", "s", "loss", "a"]
    scores = test_net.parameter.layer[1]
    assert [(each.lr_mult, each.decay_mult) for each in scores.param] == [(1, 0), (2, 1)]


def test_a_net_of_v0_is_upgraded(file: Path) -> None:
    file.write_text(V0)
    data, convolution, loss = prototxt.read_net(file).layer
    assert (data.type, data.data_param.batch_size, data.transform_param.scale) == ("Data", 64, 0.5)
    assert (convolution.bottom, convolution.convolution_param.pad) == (["d"], [2])
    assert loss.type == "SoftmaxWithLoss"


def test_inputs_of_a_net_are_upgraded(file: Path) -> None:
    file.write_text('input: "x" input_dim: 8 input_dim: 3 input_dim: 2 input_dim: 2')
    (layer,) = prototxt.read_net(file).layer
    assert (layer.type, layer.top, layer.input_param.shape[0].dim) == ("Input", ["x"], [8, 3, 2, 2])


def test_a_net_that_caffe_aborts_on_upgrading_is_refused(file: Path) -> None:
    file.write_text(V0 + 'layers { layer { name: "odd" type: "odd" } bottom: "c" top: "o" }')
    with pytest.raises(
        ClrError, match=f"{file}: cannot be upgraded from .*: Unknown layer name: odd"
    ):
        prototxt.read_net(file)


def test_what_caffe_cannot_upgrade_it_leaves_out(file: Path) -> None:
    file.write_text(V0.replace("num_output: 8", "num_output: 8 batchsize: 4"))
    assert [layer.name for layer in prototxt.read_net(file).layer] == ["d", "c", "loss"]


def test_a_net_of_v1_within_a_solver_is_refused(tree: Tree) -> None:
    solver = prototxt.SolverFile(parsed(f"train_net_param {{ {V1} }}"), "s")
    with pytest.raises(ClrError, match="s: train_net_param: Caffe reads the deprecated `layers`"):
        _ = solver.train_net


@pytest.mark.parametrize(
    ("fields", "tested"),
    [
        ("test_iter: 2 test_iter: 1 test_interval: 5", [0, 1]),
        ("test_iter: 2 test_iter: 1 test_interval: 9 max_iter: 9", [0, 1]),
        ("test_iter: 0 test_iter: 1 test_interval: 5 max_iter: 9", [1]),
        ("test_iter: 0 test_interval: 5 max_iter: 9", []),
        ("test_iter: 2 test_interval: 10 max_iter: 9", []),
        ("max_iter: 9", []),
    ],
)
def test_nets_that_caffe_train_does_not_test_are_not_tested(
    fields: str, tested: list[int], tree: Tree
) -> None:
    solver = prototxt.SolverFile(parsed(f"net_param {{ }} {fields}"))
    assert list(solver.tested_nets) == tested


def parsed(text: str) -> Any:
    return text_format.Parse(text, prototxt.caffe_pb2().SolverParameter())


def names(net: prototxt.Net) -> list[str]:
    return [layer.name for layer in net.parameter.layer]


def test_the_nets_of_a_solver_have_the_layers_of_their_phases(file: Path) -> None:
    file.write_text(
        LAYER.format("train", "x", "include { phase: TRAIN }")
        + LAYER.format("test", "x", "exclude { phase: TRAIN }")
        + LAYER.format("deep", "y", "include { min_level: 2 }")
        + LAYER.format("shallow", "v", "include { max_level: 1 }")
        + LAYER.format("both", "z", "")
        + LAYER.format("late", "w", 'include { phase: TEST stage: "a" not_stage: "b" }')
    )
    solver = parsed(
        f'net: "{file}" test_iter: 1 test_iter: 1 train_state {{ level: 2 }}'
        ' test_state { stage: "a" } test_state { stage: "a" stage: "b" }'
    )
    train = prototxt.SolverFile(solver, "s").train_net
    assert train.name == str(file)
    assert names(train) == ["train", "deep", "both"]
    assert [names(net) for net in prototxt.SolverFile(solver, "s").test_nets] == [
        ["test", "shallow", "both", "late"],
        ["test", "shallow", "both"],
    ]


def test_a_net_is_read_once_for_training_and_tests(file: Path) -> None:
    file.write_text(LAYER.format("both", "x", ""))
    solver = prototxt.SolverFile(parsed(f'net: "{file}" test_iter: 1 test_iter: 1'))
    assert names(solver.train_net) == ["both"]
    file.unlink()
    assert [names(net) for net in solver.test_nets] == [["both"], ["both"]]


def test_the_test_nets_of_a_solver_are_in_caffes_order(file: Path) -> None:
    file.write_text(LAYER.format("of_file", "x", ""))
    inline, generic = LAYER.format("inline", "x", ""), LAYER.format("generic", "x", "")
    solver = parsed(
        f'test_net: "{file}" test_net_param {{ {inline} }}'
        f" net_param {{ {generic} }} test_iter: 1 test_iter: 1 test_iter: 1"
    )
    assert [(net.name, *names(net)) for net in prototxt.SolverFile(solver, "s").test_nets] == [
        ("s: test_net_param", "inline"),
        (str(file), "of_file"),
        ("s: net_param", "generic"),
    ]
    assert names(prototxt.SolverFile(solver, "s").train_net) == ["generic"]


@pytest.mark.parametrize(
    ("text", "solver_type"),
    [("", "SGD"), ("type: 'Adam'", "Adam"), ("solver_type: ADADELTA", "AdaDelta")],
)
def test_a_solvers_type_may_be_deprecated(text: str, solver_type: str, tree: Tree) -> None:
    assert prototxt.solver_type(parsed(text)) == solver_type
