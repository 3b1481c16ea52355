"""Runs iterations of one kind on request, in a process of its own.

    python -m benchmarks.worker caffe SOLVER
    mpirun -n 2 python -m benchmarks.worker rank SOLVER
    python -m benchmarks.worker torch NET LAYOUT
    python -m benchmarks.worker matmul

OMP_NUM_THREADS sets the number of threads. Each answer is a line of JSON. The first
one describes the net. To "step N" on standard input, the process answers with the
milliseconds of each of N iterations; to "test N", with the mean accuracy of N batches
of a Caffe solver's test net; to "averaging 0", with the milliseconds for which rank 0
averaged gradients in each iteration since it was last asked.
"""

import json
import math
import os
import sys
import time
from typing import Any

import numpy as np

from caffe_clr.experiments import nets
from caffe_clr.runs.ranks import join

MATRIX = 1024  # rows and columns of matmul's


class CaffeNet:
    """Training with whichever Caffe is on the import path."""

    def __init__(self, solver_file: str) -> None:
        import caffe

        caffe.set_mode_cpu()
        self._solver = caffe.get_solver(solver_file)
        net = self._solver.net
        generator = np.random.default_rng(0)
        for name, layer in zip(net._layer_names, net.layers, strict=True):
            if layer.type == "Input":
                data, label = (net.blobs[top].data for top in net.top_names[name])
                data[...] = generator.standard_normal(data.shape)
                label[...] = generator.integers(0, 10, label.shape)

    def facts(self) -> dict[str, int]:
        """The number of parameters, and the multiply-adds of an iteration."""
        net = self._solver.net
        return {"parameters": nets.count_learned(net), "multiply_adds": _multiply_adds(net)}

    def step(self) -> None:
        self._solver.step(1)

    def number(self) -> float:
        """The loss."""
        return float(self._solver.net.blobs["loss"].data)

    def test(self, batches: int) -> float:
        net = self._solver.test_nets[0]
        net.share_with(self._solver.net)
        # float: the arrays are the net's own
        return float(np.mean([float(net.forward()["accuracy"]) for _ in range(batches)]))


class RankNet(CaffeNet):
    """The same on each rank that mpirun has started."""

    def __init__(self, solver_file: str) -> None:
        import caffe

        ranks = join(mpi=True)
        ranks.prepare(caffe)
        super().__init__(solver_file)
        self._times: list[int] = []
        self._solver.add_callback(lambda: None, self._note)
        ranks.share(self._solver)
        self._solver.add_callback(lambda: None, self._note)

    def averaging(self) -> list[float]:
        """The milliseconds of each iteration since the last call."""
        times = np.array(self._times).reshape(-1, 2) / 1e6
        self._times.clear()
        return [float(end - begin) for begin, end in times]

    def _note(self) -> None:
        self._times.append(time.perf_counter_ns())


class TorchNet:
    """Training the same net with PyTorch on a batch that is in memory, with CyclicLR."""

    def __init__(self, net: str, layout: str) -> None:
        import torch

        from benchmarks import torch_nets

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._training = torch_nets.Training(net, getattr(torch, layout))

    def facts(self) -> dict[str, int]:
        return {"parameters": self._training.parameters}

    def step(self) -> None:
        self._training.step()

    def number(self) -> float:
        return self._training.loss()


class MatMul:
    """The product of two square float matrices, by NumPy's BLAS."""

    def __init__(self) -> None:
        self._left, self._right = np.random.default_rng(0).random((2, MATRIX, MATRIX), np.float32)
        self._product = np.empty((MATRIX, MATRIX), np.float32)

    def facts(self) -> dict[str, int]:
        return {"multiply_adds": MATRIX**3}

    def step(self) -> None:
        np.matmul(self._left, self._right, out=self._product)

    def number(self) -> float:
        return float(self._product[0, 0])


KINDS: dict[str, Any] = {"caffe": CaffeNet, "rank": RankNet, "torch": TorchNet, "matmul": MatMul}


def main() -> None:
    kind, *arguments = sys.argv[1:]
    subject = KINDS[kind](*arguments)
    ranks = join(mpi=kind == "rank")

    def answer(value: Any) -> None:
        if ranks.is_root:
            print(json.dumps(value), flush=True)

    answer(subject.facts())
    while line := ranks.from_root(sys.stdin.readline):
        request, number = line.split()
        if request == "test":
            answer(subject.test(int(number)))
            continue
        if request == "averaging":
            answer(subject.averaging())
            continue
        milliseconds = []
        for _ in range(int(number)):
            start = time.perf_counter_ns()
            subject.step()
            milliseconds.append((time.perf_counter_ns() - start) / 1e6)
        if not math.isfinite(subject.number()):
            sys.exit("the loss is NaN, so the times would mean nothing")
        answer(milliseconds)


def _multiply_adds(net: Any) -> int:
    """Those of the products with weights, forward and backward.

    Backward there are two, one for the gradient of the weights and one for that
    of what the layer reads; data from a layer that reads nothing needs none.
    """
    total = 0
    read: set[str] = set()
    for name, layer in zip(net._layer_names, net.layers, strict=True):
        bottoms, tops = net.bottom_names[name], net.top_names[name]
        if not bottoms:
            read.update(tops)
        if layer.type in ("Convolution", "InnerProduct"):
            weights = layer.blobs[0]
            product = net.blobs[tops[0]].count * weights.count // weights.num
            total += product * (2 if bottoms[0] in read else 3)
    return total


if __name__ == "__main__":
    main()
