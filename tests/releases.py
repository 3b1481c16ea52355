"""An older release of Caffe, made from upstream's source by edits."""

import re
from pathlib import Path

PROTO = "src/caffe/proto/caffe.proto"
SGD_SOLVER = "src/caffe/solvers/sgd_solver.cpp"
SOLVER = "src/caffe/solver.cpp"
HEADER = "include/caffe/sgd_solvers.hpp"
PYCAFFE = "python/caffe/_caffe.cpp"


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file}: {old}"
    file.write_text(text.replace(old, new))


def release_1_0(tree: Path) -> None:
    """April 2017: GetLearningRate is protected, and pycaffe has no `lr`; no field `weights`."""
    public = "  virtual void ApplyUpdate();\n  Dtype GetLearningRate();\n\n protected:"
    replace(tree / HEADER, public, " protected:")
    replace(
        tree / HEADER,
        "  void PreSolve();\n",
        "  void PreSolve();\n  Dtype GetLearningRate();\n  virtual void ApplyUpdate();\n",
    )
    replace(
        tree / PYCAFFE,
        '"SGDSolver", bp::init<string>())\n'
        '        .add_property("lr", &SGDSolver<Dtype>::GetLearningRate);',
        '"SGDSolver", bp::init<string>());',
    )
    replace(tree / SGD_SOLVER, "  ++this->iter_;\n", "")
    replace(tree / SOLVER, "    ApplyUpdate();\n", "    ApplyUpdate();\n    ++iter_;\n")
    replace(tree / PROTO, "43 (last added: weights)", "42 (last added: layer_wise_reduce)")
    proto = (tree / PROTO).read_text()
    proto = re.sub(r"\n  // Path to caffemodel file.*?weights = 42;\n", "", proto, flags=re.DOTALL)
    assert "weights = 42" not in proto
    (tree / PROTO).write_text(proto)
    solver = re.sub(r"    CHECK_G.\(this.*\n", "", (tree / SGD_SOLVER).read_text())
    (tree / SGD_SOLVER).write_text(solver)
    solver = re.sub(
        r"^( *)for \(int w_idx.*?^\1}\n", "", (tree / SOLVER).read_text(), flags=re.S | re.M
    )
    solver = re.sub(r"// Load weights from.*?^}\n", "", solver, flags=re.DOTALL | re.MULTILINE)
    assert "LoadNetWeights" not in solver
    (tree / SOLVER).write_text(solver)


def release_1_0_to_build(tree: Path) -> None:
    """The same with its programs, and the name of its target of messages."""
    release_1_0(tree)
    for name in ("src/caffe/CMakeLists.txt", "cmake/ConfigGen.cmake"):
        replace(tree / name, "caffeproto", "proto")
    replace(tree / "tools/caffe.cpp", "solver_param.clear_weights();", "")
    replace(tree / "tools/caffe.cpp", "solver_param.add_weights(FLAGS_weights);", "")
