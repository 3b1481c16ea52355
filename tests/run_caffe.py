"""Runs in a process of its own, with whichever Caffe is on its path: rates, or a part of a run.

python run_caffe.py rates <cases.json         the bits of each case's rates
python run_caffe.py train SOLVER STATE STOP   the bits of the weights at STOP, after a snapshot
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

NET = 'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }'


def rates(case: dict[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        solver_file = Path(folder) / "solver.prototxt"
        solver_file.write_text(
            f"{case['solver']} net_param {{ {NET} }} snapshot_after_train: false"
        )
        solver = caffe.get_solver(str(solver_file))
        bits = []
        for iteration, current_step in case["at"]:
            state = caffe_pb2.SolverState(iter=iteration, current_step=current_step)
            state_file = Path(folder) / f"{iteration}.solverstate"
            state_file.write_bytes(state.SerializeToString())
            solver.restore(str(state_file))
            bits.append(np.float32(solver.lr).tobytes().hex())
        return bits


def train(solver_file: str, state_file: str, stop: int) -> str:
    solver = caffe.get_solver(solver_file)
    if state_file:
        solver.restore(state_file)
    solver.step(stop - solver.iter)
    solver.snapshot()
    blobs = (blob for blobs in solver.net.params.values() for blob in blobs)
    return hashlib.sha256(b"".join(blob.data.tobytes() for blob in blobs)).hexdigest()


if sys.argv[1] == "rates":
    print(json.dumps([rates(case) for case in json.load(sys.stdin)]))
else:
    print(train(sys.argv[2], sys.argv[3], int(sys.argv[4])))
