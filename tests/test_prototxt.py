"""Reading prototxt files: where an error is said to be, and what it should have been."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree

LAYER = 'layer {{ name: "{}" type: "DummyData" top: "{}" {} }}'


@pytest.fixture
def file(tree: Tree, tmp_path: Path) -> Path:
    return tmp_path / "file.prototxt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nmaxlr: 1", '2:1: SolverParameter has no field "maxlr"; did you mean "max_lr"?'),
        ("  Base_LR: 1", '1:3: SolverParameter has no field "Base_LR"; did you mean "base_lr"?'),
        ("quux: 1", '1:1: SolverParameter has no field "quux"'),
        ("solver_mode: CUP", '1:14: SolverParameter.SolverMode has no value "CUP"; did you mean'),
        ("solver_mode: TPX", '1:14: SolverParameter.SolverMode has no value "TPX"; use one of CPU'),
        ("base_lr: fast", "1:10: .*fast"),
        ("base_lr 1", '1:9: .*":"'),
        ("net: 5", "1:6: .*5"),
        ("max_iter: 99999999999", "1:11: .*99999999999"),
        ("base_lr: 1\nbase_lr: 2", "2:10: .*base_lr"),
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


def test_an_error_that_no_name_would_mend_is_told_in_protobufs_words(file: Path) -> None:
    file.write_text("layer { phase: 7 }")
    with pytest.raises(ClrError, match=rf"{file}:1:16: .*caffe\.Phase.* 7"):
        prototxt.read_net(file)


def test_a_missing_brace_is_said_at_the_files_end(file: Path) -> None:
    file.write_text('layer {\n  name: "data"\n')
    with pytest.raises(ClrError, match=rf"{file}:\d+:\d+: "):
        prototxt.read_net(file)


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
        prototxt.check_solver(solver(lr_policy=lr_policy), "s.prototxt")
    assert str(refused.value).startswith(f's.prototxt: lr_policy "{lr_policy}" is unknown; use one')
    assert str(refused.value).endswith(hint)


def test_a_refused_parameter_of_a_known_policy_has_no_hint(solver: Callable[..., Any]) -> None:
    with pytest.raises(ClrError, match=r"raise max_lr$"):
        prototxt.check_solver(solver(max_lr=0.0001))


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
