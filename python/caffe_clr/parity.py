"""Compares the rates of live pycaffe solvers with the NumPy reference."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_clr import policies, prototxt, training
from caffe_clr.errors import ClrError

# One inner product of one number: a step costs microseconds.
_NET = """
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 1 dim: 1 } }
}
layer {
  name: "product" type: "InnerProduct" bottom: "data" top: "product"
  inner_product_param { num_output: 1 }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "product" bottom: "target" top: "loss" }
"""


@dataclass(frozen=True)
class Comparison:
    """The rates of a solver and of the reference, both float32, at iterations 0, 1, 2, ..."""

    solver: NDArray[Any]
    reference: NDArray[Any]

    @property
    def differing(self) -> NDArray[Any]:
        """The iterations at which the two are not the same bits."""
        return np.flatnonzero(self.solver.view(np.uint32) != self.reference.view(np.uint32))


def compare(solver: Any, steps: int) -> Comparison:
    """Step a pycaffe solver of a minimal net and compare its rates.

    Args:
        solver: a SolverParameter; its net is not used.
        steps: the number of iterations, from 0.
    """
    parameter = prototxt.caffe_pb2().SolverParameter()
    parameter.CopyFrom(solver)
    for field in ("net", "train_net", "test_net", "test_iter", "snapshot"):
        parameter.ClearField(field)
    parameter.snapshot_after_train = False
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        net = Path(folder) / "net.prototxt"
        net.write_text(_NET)
        parameter.net = str(net)
        live = training.load_solver(parameter)
    rates = np.empty(steps, np.float32)
    for iteration in range(steps):
        rates[iteration] = live.lr
        live.step(1)
    return Comparison(rates, policies.learning_rate(solver, np.arange(steps)))


def main() -> None:
    """The smoke check of a build: ten iterations of triangular2, equal in every bit."""
    solver = prototxt.caffe_pb2().SolverParameter(
        lr_policy="triangular2", base_lr=0.001, max_lr=0.006, stepsize=2
    )
    found = compare(solver, 10)
    if found.differing.size:
        raise ClrError(f"rates {found.solver} differ from the reference's {found.reference}")


if __name__ == "__main__":
    try:
        main()
    except ClrError as error:
        sys.exit(f"error: {error}")
