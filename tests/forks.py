"""Caffes that the patches were not written for, made from upstream's source by edits.

They lack what an old release had not yet, or have what forks have beside or instead.
"""

import re
import shutil
from pathlib import Path

from releases import HEADER, PROTO, PYCAFFE, SGD_SOLVER, SOLVER, release_1_0, replace

FEATURE = "cyclical-learning-rates"
EVERYTHING = [FEATURE, "one-cycle", "cyclical-momentum"]
TUTORIAL = "docs/tutorial/solver.md"
GTEST = "src/caffe/test/test_cyclical_learning_rate.cpp"
EXAMPLE = "examples/cifar10/cifar10_full_triangular2_solver.prototxt"
LAST_ELSE = '  } else {\n    LOG(FATAL) << "Unknown learning rate policy: "'


def solvers_of(pristine: Path, tree: Path) -> Path:
    """Copy upstream's source without what no solver needs; returns `tree`."""
    left_out = shutil.ignore_patterns("layers", "test", "util", "gtest", "examples", "data")
    shutil.copytree(pristine / "src", tree / "src", ignore=left_out)
    shutil.copytree(pristine / "include", tree / "include")
    (tree / "src/caffe/test").mkdir()
    for name in (TUTORIAL, PYCAFFE, "Makefile", "CMakeLists.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pristine / name, tree / name)
    return tree


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def add_field(tree: Path, *declarations: str) -> None:
    """Fields where the older ones are, as forks add them, and not in the comment above."""
    added = "".join(f"  {declaration}\n" for declaration in declarations)
    replace(tree / PROTO, "  optional string net = 24;\n", f"  optional string net = 24;\n{added}")


def release_candidate_3(tree: Path) -> None:
    """January 2016: the line of the log is one line."""
    release_1_0(tree)
    replace(
        tree / SGD_SOLVER,
        'LOG_IF(INFO, Caffe::root_solver()) << "Iteration " << this->iter_\n        << ", lr',
        'LOG(INFO) << "Iteration " << this->iter_ << ", lr',
    )
    replace(tree / PROTO, "42 (last added: layer_wise_reduce)", "41 (last added: type)")


def windows(tree: Path) -> None:
    """The lines of Windows."""
    release_1_0(tree)
    for file in (PROTO, SGD_SOLVER, TUTORIAL):
        text = (tree / file).read_text()
        (tree / file).write_bytes(text.replace("\n", "\r\n").encode())


def single_shot_detector(tree: Path) -> None:
    """Fields 43 and 44 are taken, a policy comes after the others, and in the comment too."""
    release_candidate_3(tree)
    add_field(
        tree,
        'optional string eval_type = 42 [default = "classification"];',
        "optional bool show_per_class_result = 43 [default = false];",
        "repeated int32 plateau_winsize = 44;",
    )
    replace(
        tree / SGD_SOLVER,
        LAST_ELSE,
        '  } else if (lr_policy == "plateau") {\n    if (this->iter_ > 3) {\n'
        "      rate = 1;\n    } else {\n      rate = 2;\n    }\n" + LAST_ELSE,
    )
    replace(
        tree / PROTO,
        "(iter - stepsize))))\n  //\n",
        "(iter - stepsize))))\n  //    - plateau: wait for the loss\n  //\n",
    )


def opencl(tree: Path) -> None:
    """One of the two numbers is taken, and headers are written otherwise."""
    replace(tree / SGD_SOLVER, "template <typename Dtype>", "template<typename Dtype>")
    add_field(tree, "optional int32 device = 43;")


def intel(tree: Path) -> None:
    """A warm-up comes before the policies, and the numbers have gaps.

    The rate is logged elsewhere, another function updates as well, and RMSProp takes a momentum.
    """
    release_1_0(tree)
    solver = (tree / SGD_SOLVER).read_text()
    logged = re.search(r"  if \(this->param_\.display\(\).*?\n  }\n", solver, re.DOTALL)
    assert logged
    solver = solver.replace("  Dtype rate = GetLearningRate();\n" + logged[0], "  LogRate();\n")
    solver = solver.replace(
        "    ComputeUpdateValue(param_id, rate);\n",
        "    Dtype rate = GetLearningRate();\n    ComputeUpdateValue(param_id, rate);\n",
    )
    head = "template <typename Dtype>\nvoid SGDSolver<Dtype>::"
    at = solver.index(f"{head}Normalize")
    added = (
        f"{head}LogRate() {{\n  Dtype rate = GetLearningRate();\n{logged[0]}}}\n\n"
        f"{head}UpdateAtOnce(int param_id, Dtype rate) {{\n"
        "  // momentum\n  Dtype momentum = this->param_.momentum();\n"
        "  CHECK_GE(momentum * rate * param_id, 0);\n}\n\n"
    )
    (tree / SGD_SOLVER).write_text(solver[:at] + added + solver[at:])
    replace(
        tree / SGD_SOLVER,
        "  const vector<float>& net_params_lr = this->net_->params_lr();\n  Dtype momentum =",
        "  Dtype momentum =",
    )
    replace(tree / SGD_SOLVER, "rate * net_params_lr[param_id];", "rate;")
    replace(
        tree / HEADER,
        "  virtual void ApplyUpdate();\n",
        "  Dtype GetLocalRate(int param_id) const;\n\n  virtual void LogRate();\n"
        "  void UpdateAtOnce(int param_id, Dtype rate);\n  virtual void ApplyUpdate();\n",
    )
    sanity = (tree / HEADER).read_text().split("class RMSPropSolver")
    sanity[1] = sanity[1].replace("    CHECK_EQ(0, this", "//    CHECK_EQ(0, this")
    sanity[1] = sanity[1].replace('        << "Momentum c', '//        << "Momentum c')
    (tree / HEADER).write_text("class RMSPropSolver".join(sanity))
    add_field(
        tree,
        "optional int32 warmup_iter = 48 [default = 0];",
        "repeated int32 plateau_winsize = 44;",
        "// optional int32 retired = 60;",
    )
    replace(
        tree / SGD_SOLVER,
        '  if (lr_policy == "fixed") {',
        "\n\n  if (this->iter_ < this->param_.warmup_iter()) {\n    rate = 0;\n"
        '  } else if (lr_policy == "fixed") {',
    )


def nvcaffe(tree: Path) -> None:
    """Rates are float, GetLearningRate is const, braces stand alone, other fields go on.

    The momentum has policies of its own, and the log shows it.
    """
    release_1_0(tree)
    add_field(
        tree,
        "optional uint32 rampup_interval = 43 [default = 0];",
        "optional float min_lr = 46 [default = 0];",
        'reserved 47, 50 to 52; reserved "old";',
        "extensions 100 to max;",
    )
    (tree / SGD_SOLVER).write_text(
        _apart((tree / SGD_SOLVER).read_text())
        .replace("namespace caffe {", "namespace caffe\n{")
        .replace("#include <string>\n#include <vector>\n\n", "")
        .replace(
            "  return rate;",
            "  if (rate < this->param_.min_lr())\n  {\n    rate = 0;\n  }\n  return rate;",
        )
        .replace(
            "template <typename Dtype>\nDtype SGDSolver<Dtype>::GetLearningRate()",
            "template<typename Dtype>\nfloat SGDSolver<Dtype>::GetLearningRate() const",
        )
        .replace("  Dtype rate;", "  float rate;")
    )
    own = "  float GetLearningRate() const;\n  float GetMomentum() const;"
    replace(tree / HEADER, "  Dtype GetLearningRate();", own)
    replace(
        tree / SGD_SOLVER,
        "template <typename Dtype>\nvoid SGDSolver<Dtype>::PreSolve()",
        "template<typename Dtype>\nfloat SGDSolver<Dtype>::GetMomentum() const {\n"
        "  float momentum = this->param_.momentum();\n"
        "  return this->iter_ ? momentum : 0;\n}\n\n"
        "template <typename Dtype>\nvoid SGDSolver<Dtype>::PreSolve()",
    )
    replace(
        tree / SGD_SOLVER,
        "Dtype momentum = this->param_.momentum(",
        "float momentum = GetMomentum(",
    )
    replace(
        tree / SGD_SOLVER, '", lr = " << rate;', '", lr = " << rate << ", m = " << GetMomentum();'
    )
    for name in ("sgd", "nesterov", "adam"):
        file = tree / f"src/caffe/solvers/{name}_solver.cpp"
        text = re.sub(r"Dtype (\w+ = this->param_.momentum\(\);)", r"float \1", file.read_text())
        file.write_text(re.sub(r"(?<=[ (])-?\b(momentum|beta1)(?=[,)])", r"Dtype(\g<0>)", text))
    replace(
        tree / "include/caffe/solver.hpp", "  int current_step_;", "  mutable int current_step_;"
    )


def _apart(text: str) -> str:
    """GetLearningRate and PreSolve with each brace on a line of its own."""
    start = text.index("Dtype SGDSolver<Dtype>::GetLearningRate()")
    end = text.index("template", text.index("::PreSolve()"))
    part = re.sub(r"^( *)} else", r"\1}\n\1else", text[start:end], flags=re.MULTILINE)
    part = re.sub(r"^( *)(.*\)) {$", r"\1\2\n\1{", part, flags=re.MULTILINE)
    part = re.sub(r"^( *)else {$", r"\1else\n\1{", part, flags=re.MULTILINE)
    return text[:start] + part + text[end:]


def before_the_split(tree: Path) -> None:
    """2015: every solver in solver.cpp; no comments on policies and numbers, no tutorial."""
    release_1_0(tree)
    replace(tree / SGD_SOLVER, LAST_ELSE, LAST_ELSE.replace("} else", "}else"))
    replace(tree / PYCAFFE, "&Solver<Dtype>::iter)", "&Solver<Dtype>::iteration)")
    bodies = ""
    for name in ("sgd", "adadelta", "adagrad", "adam", "nesterov", "rmsprop"):
        file = tree / f"src/caffe/solvers/{name}_solver.cpp"
        bodies += file.read_text().split("namespace caffe {\n")[1].split("}  // namespace caffe")[0]
        file.unlink()
    replace(tree / SOLVER, "INSTANTIATE_CLASS(Solver);\n", f"INSTANTIATE_CLASS(Solver);\n{bodies}")
    conditional = "#ifdef SOME\n#include <set>\n#endif\n"
    replace(tree / SOLVER, '#include "caffe/solver.hpp"', f'{conditional}#include "caffe/sgd.hpp"')
    (tree / "include/caffe/sgd_solvers.hpp").rename(tree / "include/caffe/sgd.hpp")
    proto = re.sub(
        r"\n// NOTE\n// Update the next available ID when you add a new SolverParameter.*?42.*?\n",
        "\n",
        (tree / PROTO).read_text(),
        flags=re.DOTALL,
    )
    policies = r"  // The learning rate decay policy.*?(?=  optional string lr_policy)"
    proto = re.sub(policies, "", proto, flags=re.DOTALL)
    assert "next available ID: 42" not in proto
    (tree / PROTO).write_text(proto)
    shutil.rmtree(tree / "docs")


TREES = {
    edits.__name__: edits
    for edits in (
        release_1_0, release_candidate_3, windows, single_shot_detector, opencl, intel, nvcaffe,
        before_the_split,
    )
}  # fmt: skip
