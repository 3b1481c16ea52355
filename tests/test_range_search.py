"""What a search for the range refuses, with real Caffe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caffe_clr.errors import ClrError, UsageError
from caffe_clr.method.range_test import range_test
from caffe_clr.method.sweeps import Options

Write = Callable[..., Path]
NAN = """
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {
    shape { dim: 8 dim: 1 } shape { dim: 8 dim: 1 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: nan }
  }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "scores" bottom: "target" top: "loss" }
"""


@pytest.mark.parametrize(
    ("net", "fields", "message"),
    [
        (None, {"base_lr": -0.01}, "base_lr is -0.01; set it above 0"),
        (
            NAN,
            {},
            "the training loss is not finite from the first iteration, before the rate matters;"
            " check the data, the labels and the weights",
        ),
    ],
)
def test_a_solver_that_no_rate_trains_is_refused(
    net: str | None, fields: dict[str, Any], message: str, write_solver: Write, tmp_path: Path
) -> None:
    if net is not None:
        (tmp_path / "net.prototxt").write_text(net)
        fields = {**fields, "net": str(tmp_path / "net.prototxt")}
    file = write_solver(**fields)
    with pytest.raises(ClrError) as refused:
        range_test(file, tmp_path / "out", Options())
    assert str(refused.value) == f"{file}: {message}"


def test_a_search_resumed_with_another_length_says_which_options_to_give(
    write_solver: Write, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", write_solver()
    range_test(file, out, Options(iterations=30))
    with pytest.raises(UsageError, match=r"another gamma; .*follow from .*--seeds.*--iterations"):
        range_test(file, out, Options(iterations=60, resume=True))


def test_a_base_lr_far_from_any_rate_that_trains_is_named(
    write_solver: Write, tmp_path: Path
) -> None:
    warnings: list[str] = []
    found = range_test(
        write_solver(base_lr=1e-12), tmp_path / "out", Options(), on_warning=warnings.append
    )
    assert found.suggestions.max_lr.rate is None
    assert "began at a hundredth of base_lr, 1e-12; " in warnings[-1]
