"""Advice on cycles: when it is given, and what it says."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.preflight import advice
from caffe_clr.prototxt import SolverFile

# L. N. Smith, arXiv 1506.01186, Table 2, on CIFAR-10: an epoch is 500 iterations
TABLE_2 = [
    {"base_lr": 1e-3, "max_lr": 5e-3, "stepsize": 2000, "start_lr_policy": 0, "max_iter": 16000},
    {"base_lr": 1e-4, "max_lr": 5e-4, "stepsize": 1000, "start_lr_policy": 16000}
    | {"max_iter": 22000},
    {"base_lr": 1e-5, "max_lr": 5e-5, "stepsize": 500, "start_lr_policy": 22000}
    | {"max_iter": 25000},
]

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 2 } } }
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 3 }
}
layer { name: "probabilities" type: "Softmax" bottom: "scores" top: "probabilities" }
"""

Make = Callable[..., Any]
Stages = list[SolverFile]


@pytest.fixture
def stages(tree: Tree) -> Callable[..., Stages]:
    """Makes the three stages of Table 2, with fields of the second changed by keyword."""

    def make(net: str = NET, **fields: Any) -> Stages:
        solver_parameter = prototxt.caffe_pb2().SolverParameter
        made = []
        for number, stage in enumerate(TABLE_2, 1):
            changes = fields if number == 2 else {}
            solver = solver_parameter(**{"lr_policy": "triangular2", **stage, **changes})
            text_format.Parse(net if number == 2 else NET, solver.net_param)
            made.append(SolverFile(solver, f"stage{number}.prototxt"))
        return made

    return make


def test_the_papers_table_2_is_advised_against_in_its_last_stepsize_alone(
    stages: Callable[..., Stages],
) -> None:
    table_2 = stages()
    assert advice.check_stages(table_2) == []
    starts = [0, 16000, 22000]
    given = [
        advice.advise(stage.name, stage.parameter, start, 500)
        for stage, start in zip(table_2, starts, strict=True)
    ]
    assert given == [
        [],
        [],
        [
            "stage3.prototxt: stepsize 500 is less than 2 epochs of 500 iterations"
            " (section 3.2): set it to 1000 to 5000"
        ],
    ]


@pytest.mark.parametrize("lr_policy", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(
    ("fields", "start", "epoch", "warnings"),
    [
        ({"max_iter": 12000}, 0, 200, []),
        ({"max_iter": 12000}, 0, 1000, []),
        ({"max_iter": 12000}, 0, None, []),
        ({"max_iter": 28000}, 0, 500, []),
        (
            {"max_iter": 12000},
            0,
            199,
            [
                "s: stepsize 2000 is over 10 epochs of 199 iterations (section 3.2):"
                " set it to 398 to 1990"
            ],
        ),
        (
            {"max_iter": 12000},
            0,
            1001,
            [
                "s: stepsize 2000 is less than 2 epochs of 1001 iterations (section 3.2):"
                " set it to 2002 to 10010"
            ],
        ),
        (
            {"max_iter": 14000},
            0,
            500,
            [
                "s: max_iter 14000 is within a cycle of 4000 iterations; accuracy is best at a"
                " cycle's end (section 3.2): set max_iter: 12000 or 16000"
            ],
        ),
        (
            {"max_iter": 8000},
            0,
            500,
            [
                "s: 8000 iterations are fewer than 3 cycles of 4000, the minimum that the paper"
                " advises (section 3.2): set max_iter: 12000, or a smaller stepsize"
            ],
        ),
        # the cycles of a stage are those after its start and its policy's
        ({"max_iter": 20000, "start_lr_policy": 8000}, 8000, 500, []),
        ({"max_iter": 13000, "start_lr_policy": 1000}, 0, 500, []),
        (
            {"max_iter": 16000, "start_lr_policy": 8000},
            8000,
            500,
            [
                "s: 8000 iterations are fewer than 3 cycles of 4000, the minimum that the paper"
                " advises (section 3.2): set max_iter: 20000, or a smaller stepsize"
            ],
        ),
        (
            {"max_iter": 20000, "start_lr_policy": 0},
            9000,
            500,
            [
                "s: 11000 iterations are fewer than 3 cycles of 4000, the minimum that the paper"
                " advises (section 3.2): set max_iter: 24000, or a smaller stepsize"
            ],
        ),
        (
            {"max_iter": 9000, "start_lr_policy": 1000},
            0,
            500,
            [
                "s: 8000 iterations are fewer than 3 cycles of 4000, the minimum that the paper"
                " advises (section 3.2): set max_iter: 13000, or a smaller stepsize"
            ],
        ),
        # within a cycle, and too few of them: one advice on max_iter, not two
        (
            {"max_iter": 11000, "start_lr_policy": 8000},
            8000,
            500,
            [
                "s: 3000 iterations are fewer than 3 cycles of 4000, the minimum that the paper"
                " advises (section 3.2): set max_iter: 20000, or a smaller stepsize",
            ],
        ),
        (
            {"max_iter": 8000, "start_lr_policy": 8000},
            0,
            500,
            [
                "s: its policy starts at 8000, after the run's end at 8000: the rate stays at"
                " 0.001; lower start_lr_policy or raise max_iter"
            ],
        ),
    ],
)
def test_a_cycle_is_advised_on(
    lr_policy: str,
    fields: dict[str, int],
    start: int,
    epoch: int | None,
    warnings: list[str],
    solver: Make,
) -> None:
    parameter = solver(lr_policy=lr_policy, gamma=0.9999, **fields)
    assert advice.advise("s", parameter, start, epoch) == warnings


def test_triangular2_is_used_up_after_eight_cycles(solver: Make) -> None:
    def given(lr_policy: str, max_iter: int) -> list[str]:
        return advice.advise("s", solver(lr_policy=lr_policy, max_iter=max_iter), 0, None)

    assert given("triangular2", 7 * 4000) == []
    assert given("triangular", 9 * 4000) == []
    assert given("triangular2", 8 * 4000) == [
        "s: 8 cycles of triangular2; from cycle 8 on the rate rises by 1/128 of max_lr - base_lr or"
        " less (section 3.1): use a larger stepsize, or triangular"
    ]


@pytest.mark.parametrize(
    ("fields", "start", "warnings"),
    [
        ({"max_iter": 4500}, 0, []),
        ({"max_iter": 14500, "start_lr_policy": 10_000}, 10_000, []),
        (
            {"max_iter": 4000},
            0,
            [
                "s: the run ends at 4000, and its one cycle at 4000; some iterations should follow"
                " the cycle, at a rate far below base_lr (arXiv 1803.09820): raise max_iter above"
                " 4000, or set stepsize: 1800"
            ],
        ),
        (
            {"max_iter": 3000, "start_lr_policy": 500},
            0,
            [
                "s: the run ends at 3000, and its one cycle at 4500; some iterations should follow"
                " the cycle, at a rate far below base_lr (arXiv 1803.09820): raise max_iter above"
                " 4500, or set stepsize: 1125"
            ],
        ),
        (
            {"max_iter": 500, "start_lr_policy": 500},
            0,
            [
                "s: its policy starts at 500, after the run's end at 500: the rate stays at 0.001;"
                " lower start_lr_policy or raise max_iter"
            ],
        ),
    ],
)
def test_1cycle_is_to_end_before_the_run(
    fields: dict[str, int], start: int, warnings: list[str], solver: Make
) -> None:
    parameter = solver(lr_policy="1cycle", **fields)
    assert advice.advise("s", parameter, start, 100_000) == warnings


@pytest.mark.parametrize("lr_policy", ["triangular", "triangular2", "exp_range", "1cycle"])
def test_a_range_tests_own_solver_is_not_advised_on(lr_policy: str, solver: Make) -> None:
    parameter = solver(lr_policy=lr_policy, gamma=0.9999, max_iter=2000)
    assert advice.advise("s", parameter, 0, 5) == []
    parameter.max_iter, parameter.start_lr_policy = 2700, 700
    assert advice.advise("s", parameter, 0, 5) == []
    assert advice.advise("s", parameter, 1000, 5) != []


@pytest.mark.parametrize("lr_policy", ["decay", "fixed", "step"])
def test_other_policies_are_not_advised_on(lr_policy: str, solver: Make) -> None:
    assert advice.advise("s", solver(lr_policy=lr_policy, max_iter=4100), 0, 5) == []


@pytest.mark.parametrize(
    ("fields", "effect"),
    [
        ({"start_lr_policy": 15000, "stepsize": 1500}, "the rate starts partway through a cycle"),
        ({"start_lr_policy": 14000}, "its first cycle is skipped"),
        ({"start_lr_policy": 0}, "its first 8 cycles are skipped"),
        ({"start_lr_policy": 17000}, "the rate stays at 0.0001 for 1,000 iterations"),
        (
            {"start_lr_policy": 17000, "lr_policy": "decay"},
            "the rate stays at 0.0005 for 1,000 iterations",
        ),
        (
            {"start_lr_policy": 15000, "lr_policy": "decay"},
            "its first 1,000 iterations are skipped",
        ),
        (
            {"start_lr_policy": 15000, "lr_policy": "triangular"},
            "the rate starts partway through a cycle",
        ),
        (
            {"start_lr_policy": 15000, "lr_policy": "1cycle"},
            "the rate starts partway through a cycle",
        ),
        ({"start_lr_policy": 13000, "lr_policy": "1cycle"}, "its cycle is skipped"),
    ],
)
def test_a_policy_that_does_not_meet_the_stage_before_is_warned_of(
    fields: dict[str, Any], effect: str, stages: Callable[..., Stages]
) -> None:
    assert advice.check_stages(stages(**fields)) == [
        f"stage 2 (stage2.prototxt) starts its policy at {fields['start_lr_policy']}, but stage 1"
        f" ends at 16000: {effect}; set start_lr_policy: 16000"
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_policy": "fixed", "start_lr_policy": 0},
        {"lr_policy": "triangular", "start_lr_policy": 14000},  # where a cycle of 2000 begins
        {"lr_policy": "decay"},
        {"type": "SGD"},
        {"solver_type": 0},
        {"random_seed": 3, "momentum": 0.8, "display": 7},
    ],
)
def test_stages_that_meet_are_not_warned_of(
    fields: dict[str, Any], stages: Callable[..., Stages]
) -> None:
    assert advice.check_stages(stages(**fields)) == []


def test_a_first_stage_may_start_with_its_base_rate(stages: Callable[..., Stages]) -> None:
    first, *others = stages()
    first.parameter.start_lr_policy = 1000
    assert advice.check_stages([first, *others]) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_iter": 16000}, "max_iter is 16000, but stage 1 (stage1.prototxt) ends at 16000"),
        ({"type": "Adam"}, "the solver is Adam, but SGD in stage 1 (stage1.prototxt)"),
        ({"solver_type": 1}, "the solver is Nesterov, but SGD in stage 1 (stage1.prototxt)"),
    ],
)
def test_stages_that_cannot_go_on_are_refused(
    change: dict[str, Any], reason: str, stages: Callable[..., Stages]
) -> None:
    with pytest.raises(ClrError) as refused:
        advice.check_stages(stages(**change))
    assert f"stage 2 (stage2.prototxt): {reason}" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("num_output: 3", "num_output: 4", 'layer "scores" differs'),
        ('name: "scores"', 'name: "ip"', 'it has layer "ip" instead of "scores"'),
        (
            'layer { name: "probabilities" type: "Softmax" bottom: "scores" top: "probabilities" }',
            "",
            'layer "probabilities" is missing',
        ),
        (
            'layer { name: "prob',
            'layer { name: "squash" type: "TanH" bottom: "scores" top: "scores" } layer { name: "p',
            'it has layer "squash" instead of "probabilities"',
        ),
    ],
)
def test_stages_of_different_nets_are_refused(
    old: str, new: str, difference: str, stages: Callable[..., Stages]
) -> None:
    assert old in NET
    with pytest.raises(ClrError) as refused:
        advice.check_stages(stages(net=NET.replace(old, new)))
    assert str(refused.value) == (
        "stage 2 (stage2.prototxt): its net differs from that of stage 1 (stage1.prototxt), so the"
        f" solver state would not fit: {difference}"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dim: 1 ", "dim: 7 "),
        ('bottom: "data"', 'bottom: "data" include { phase: TRAIN }'),
        ('bottom: "data"', 'bottom: "data" exclude { phase: TEST }'),
        (
            'layer { name: "prob',
            'layer { name: "a" type: "Accuracy" bottom: "scores" include { phase: TEST } }'
            ' layer { name: "prob',
        ),
    ],
)
def test_stages_may_differ_in_data_and_tests(
    old: str, new: str, stages: Callable[..., Stages]
) -> None:
    assert old in NET
    assert advice.check_stages(stages(net=NET.replace(old, new))) == []


def test_a_layer_that_a_later_stage_adds_is_named(stages: Callable[..., Stages]) -> None:
    added = 'layer { name: "more" type: "TanH" bottom: "probabilities" top: "more" }'
    with pytest.raises(ClrError, match='would not fit: layer "more" is new'):
        advice.check_stages(stages(net=NET + added))
