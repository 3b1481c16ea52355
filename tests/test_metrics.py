"""Which output of a net its runs are compared by."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from caffe_clr import prototxt
from caffe_clr.harness.compilation import Tree
from caffe_clr.runs import metrics, output_kinds

pytestmark = pytest.mark.usefixtures("tree")  # for its messages


def layer(name: str, kind: str, **fields: Any) -> str:
    """A test layer of the given type with a top of its name."""
    parameters = "".join(f" {key} {{ {value} }}" for key, value in fields.items())
    return f'layer {{ name: "{name}" type: "{kind}" top: "{name}"{parameters} }}'


def solver_of(*layers: str) -> prototxt.SolverFile:
    solver = text_format.Parse(
        f"net_param {{ {' '.join(layers)} }} test_iter: 1 test_interval: 1",
        prototxt.caffe_pb2().SolverParameter(),
    )
    return prototxt.SolverFile(solver)


def metric_of(*layers: str) -> metrics.Metric:
    return metrics.metric_of(solver_of(*layers))


LOSS = layer("entropy", "SoftmaxWithLoss")
TOP_1 = layer("right", "Accuracy")
TOP_5 = layer("nearly", "Accuracy", accuracy_param="top_k: 5")


def test_accuracy_before_loss() -> None:
    assert metric_of(LOSS, TOP_1) == metrics.Metric("right", of_test=True, is_accuracy=True)


def test_top_1_before_top_5() -> None:
    assert metric_of(TOP_5, TOP_1).name == metric_of(TOP_1, TOP_5).name == "right"


def test_top_5_alone() -> None:
    assert metric_of(TOP_5).name == "nearly"


def test_accuracy_of_training_does_not_count() -> None:
    training = layer("training", "Accuracy", include="phase: TRAIN")
    assert metric_of(TOP_1, training).name == "right"


def weighing(text: str, weight: float) -> str:
    return text.replace(" top:", f" loss_weight: {weight} top:")


def test_the_loss_that_weighs_most_without_an_accuracy() -> None:
    other = layer("other", "EuclideanLoss")
    assert metric_of(LOSS, other) == metrics.Metric("other", of_test=True, is_accuracy=False)
    assert metric_of(LOSS, weighing(other, 0.3)).name == "entropy"
    assert metric_of(weighing(LOSS, 2), other).name == "entropy"
    assert metric_of(LOSS, weighing(other, 0)).name == "entropy"
    assert metric_of(weighing(LOSS, 0)).name == "entropy"


def test_a_loss_that_another_layer_takes_is_no_output() -> None:
    inner = weighing(layer("inner", "EuclideanLoss"), 0)
    half = 'layer { name: "half" type: "Power" bottom: "inner" top: "half" loss_weight: 1 }'
    assert metric_of(inner, half).name == "half"


def test_the_accuracy_of_the_scores_whose_loss_weighs_most() -> None:
    def head(name: str, weight: float) -> str:
        bottoms = f'bottom: "{name}" bottom: "label"'
        loss = layer(f"{name}_loss", "SoftmaxWithLoss").replace(" top:", f" {bottoms} top:")
        accuracy = layer(f"{name}_right", "Accuracy").replace(" top:", f" {bottoms} top:")
        return weighing(loss, weight) + accuracy

    assert metric_of(head("main", 1), head("side", 0.3)).name == "main_right"
    assert metric_of(head("side", 0.3), head("main", 1)).name == "main_right"
    assert metric_of(head("one", 1), head("other", 1)).name == "other_right"


def test_a_layer_with_a_loss_weight_is_a_loss() -> None:
    mean = layer("l1", "Reduction").replace(" top:", " loss_weight: 0.5 top:")
    weightless = layer("shown", "Reduction").replace(" top:", " loss_weight: 0 top:")
    assert metric_of(weightless, mean).name == "l1"


def test_training_loss_without_a_test_net() -> None:
    solver = prototxt.caffe_pb2().SolverParameter()
    assert metrics.metric_of(prototxt.SolverFile(solver)) == metrics.Metric(
        "loss", of_test=False, is_accuracy=False
    )


def test_training_loss_where_tests_are_switched_off() -> None:
    for off in ("test_iter: 0 test_interval: 1", "test_iter: 1 test_interval: 5 max_iter: 4"):
        solver = text_format.Parse(
            f"net_param {{ {TOP_1} }} {off}", prototxt.caffe_pb2().SolverParameter()
        )
        assert metrics.metric_of(prototxt.SolverFile(solver)).label == "training loss"


def test_the_accuracy_of_the_first_net_that_is_tested() -> None:
    solver = text_format.Parse(
        f"net_param {{ {TOP_1} }} test_iter: 0 test_iter: 1 test_interval: 1",
        prototxt.caffe_pb2().SolverParameter(),
    )
    assert metrics.metric_of(prototxt.SolverFile(solver)).name == "right#1"


def test_an_output_with_the_name_of_a_column_of_ours() -> None:
    assert metric_of(layer("epoch", "Accuracy")).name == "epoch#0"


def test_googlenets_own_classifier(root: Path, tree: Tree) -> None:
    solver = prototxt.read_solver(root / "models/googlenet/triangular2_solver.prototxt")
    solver.net = str(tree.source / solver.net)
    assert metrics.metric_of(prototxt.SolverFile(solver)).name == "loss3/top-1"


def test_chance_in_a_net_of_ten_classes_is_one_in_ten(root: Path) -> None:
    solver = prototxt.open_solver(root / "models/digits/fixed_solver.prototxt")
    assert metrics.chance(solver) == 0.1


def test_the_classes_are_found_behind_other_layers() -> None:
    def chance(count: str, *after: str) -> float | None:
        convolution = layer("conv", "Convolution", convolution_param=count)
        relu = 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }'
        pool = 'layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" }'
        return metrics.chance(solver_of(convolution, relu, pool, *after))

    top_1 = TOP_1.replace(" top:", ' bottom: "pool" top:')
    top_5 = TOP_5.replace(" top:", ' bottom: "pool" top:')
    assert chance("num_output: 25", top_1) == 1 / 25
    assert chance("num_output: 25", top_1, top_5) == 1 / 25
    assert chance("num_output: 25", top_5) == 5 / 25
    assert chance("", top_1) is None
    assert chance("num_output: 25", LOSS) is None


def test_guessing_one_of_25_classes_loses_their_logarithm() -> None:
    def guess(*losses: str) -> float | None:
        scores = layer("scores", "InnerProduct", inner_product_param="num_output: 25")
        return metrics.guessing_loss(solver_of(scores, *losses).train_net.parameter)

    def loss(fields: str = "", type_: str = "SoftmaxWithLoss") -> str:
        return f'layer {{ name: "l" type: "{type_}" bottom: "scores" top: "l" {fields} }}'

    assert guess(loss()) == pytest.approx(3.218876)
    assert guess(loss("loss_weight: 1")) == pytest.approx(3.218876)
    others = ("loss_weight: 0.3", "loss_param { normalization: NONE }")
    assert [guess(loss(fields)) for fields in others] == [None, None]
    assert guess(loss(), loss().replace('"l"', '"second"')) is None
    assert guess(loss(type_="EuclideanLoss")) is None


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), 87.3365])
@pytest.mark.parametrize(
    ("others", "has_scores"),
    [
        ({"loss": 1.0}, True),
        ({}, True),
        ({"loss": "lost"}, False),
        ({"entropy": "lost"}, False),  # by its weight
        ({"loss1/loss": "lost", "loss3/loss": 1.0}, True),  # an auxiliary one
        ({"loss": 1.0, "loss#1": "lost"}, True),  # of another test net
        ({"lr": "lost", "seconds": 87.3365}, True),
    ],
)
def test_an_accuracy_is_of_scores_unless_all_losses_of_its_net_are_lost(
    others: dict[str, Any], has_scores: bool, lost: float
) -> None:
    row = {"accuracy": 0.9} | {
        name: lost if value == "lost" else value for name, value in others.items()
    }
    assert output_kinds.has_scores(row, "accuracy", {"entropy"}) == has_scores


@pytest.mark.parametrize(
    ("names", "judged", "is_accuracy"),
    [
        ("accuracy loss per_class_accuracy[0] per_class_accuracy[1]", "accuracy", True),
        ("loss3/loss3 loss3/top-1 loss3/top-5", "loss3/top-1", True),
        ("loss1/top-1 loss2/top-1 loss3/top-1 loss3/top-5", "loss3/top-1", True),
        ("accuracy_top1 accuracy_top5 loss", "accuracy_top1", True),
        ("accuracy@1 accuracy@10 accuracy_top_3", "accuracy@1", True),
        ("topk_accuracy acc loss", "acc", True),
        ("loss_bbox loss_coverage mAP precision recall", "mAP", True),
        ("Recall mean_precision", "mean_precision", True),
        ("detection_eval mbox_loss", "detection_eval", True),
        ("mIoU prob_map loss", "mIoU", True),
        ("lambda loss", "loss", False),
        ("lambda valAcc", "valAcc", True),
        ("loss top1_err", "top1_err", False),
        ("loss testMAE", "testMAE", False),
        ("epe output", "epe", False),
        ("wer", "wer", False),
        ("loss1/loss1 loss2/loss1 loss3/loss3", "loss3/loss3", False),
        ("loss/val", "loss/val", False),
        ("accuracy accuracy#1 loss loss#1", "accuracy", True),
        ("loss top-1#1", "loss", False),
        ("score[0] score[1]", "score[0]", True),
    ],
)
def test_names_alone_tell_what_to_judge_by(names: str, judged: str, is_accuracy: bool) -> None:
    metric = metrics.metric_of_outputs(names.split())
    assert metric == metrics.Metric(judged, of_test=True, is_accuracy=is_accuracy)


@pytest.mark.parametrize("names", ["", "lambda", "step label lr_mult output", "heatmap prob[0]"])
def test_names_that_tell_nothing_are_judged_by_none(names: str) -> None:
    assert metrics.metric_of_outputs(names.split()) is None


def test_an_accuracy_with_a_weight_is_a_loss() -> None:
    assert metrics.metric_of_outputs(["accuracy", "error"], {"accuracy", "error"}) == (
        metrics.Metric("error", of_test=True, is_accuracy=False)
    )


def test_a_python_layer_that_gives_an_accuracy_comes_before_the_loss() -> None:
    scored = 'layer { name: "map" type: "Python" top: "mAP" top: "precision" top: "recall" }'
    metric = metric_of(layer("loss_bbox", "L1Loss"), scored)
    assert metric == metrics.Metric("mAP", of_test=True, is_accuracy=True)


def test_an_accuracy_that_another_layer_takes_is_no_output() -> None:
    silent = 'layer { name: "quiet" type: "Silence" bottom: "right" }'
    assert metric_of(LOSS, TOP_1, silent).name == "entropy"


def data(source: str, include: str) -> str:
    return layer(source, "Data", data_param=f'source: "{source}"', include=include)


TEST_STAGES = {"train": 'stage: "on_train"', "test": 'stage: "on_test"'}


@pytest.mark.parametrize(
    ("stages", "judged"),
    [(["train", "test"], "right#1"), (["test", "train"], "right"), (["train", "train"], "right")],
)
def test_a_test_on_the_training_set_is_not_the_one_to_judge_by(
    stages: list[str], judged: str
) -> None:
    net = [
        data("train_lmdb", "phase: TRAIN"),
        *(data(f"{name}_lmdb", f"phase: TEST {stage}") for name, stage in TEST_STAGES.items()),
        TOP_1,
    ]
    states = " ".join(f"test_iter: 1 test_state {{ {TEST_STAGES[name]} }}" for name in stages)
    solver = text_format.Parse(
        f"net_param {{ {' '.join(net)} }} test_interval: 1 {states}",
        prototxt.caffe_pb2().SolverParameter(),
    )
    assert metrics.metric_of(prototxt.SolverFile(solver)).name == judged


def test_bvlc_tests_its_autoencoder_on_the_training_set_first(tree: Tree) -> None:
    solver = prototxt.read_solver(tree.source / "examples/mnist/mnist_autoencoder_solver.prototxt")
    solver.net = str(tree.source / solver.net)
    metric = metrics.metric_of(prototxt.SolverFile(solver))
    assert (metric.name, metric.net, metric.label) == (
        "cross_entropy_loss#1",
        1,
        "test cross_entropy_loss",
    )


def test_an_accuracy_is_shown_in_percent_whoever_multiplied_it() -> None:
    metric = metrics.Metric("mAP", of_test=True, is_accuracy=True)
    assert (metric.shown(0.415), metric.shown(41.5)) == ("41.50%", "41.5")
    assert (metric.scale(0.415), metric.scale(41.5)) == (100, 1)
