"""The feature patch on Caffes that it was not written for: old releases, forks, patched trees.

The trees are made from upstream's by edits: what an old release had not yet,
and what forks have beside or instead.
"""

import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import (
    EVERYTHING,
    EXAMPLE,
    FEATURE,
    GTEST,
    LAST_ELSE,
    TREES,
    TUTORIAL,
    add_field,
    before_the_split,
    contents,
    intel,
    nvcaffe,
    single_shot_detector,
    solvers_of,
)
from releases import PROTO, PYCAFFE, SGD_SOLVER, SOLVER, release_1_0, replace

from caffe_clr.errors import ClrError
from caffe_clr.harness import code, diffs, series
from caffe_clr.harness.compilation import Tree

EARLIER_NAMES = {"IsCyclical": "HasBounds", "CyclicalLearningRate": "LearningRateWithinBounds"}


SAME_CODE = ("windows", "opencl")  # that release_1_0 and upstream have
NUMBERS = {
    "release_1_0": (43, 44),
    "release_candidate_3": (43, 44),
    "windows": (43, 44),
    "single_shot_detector": (45, 46),
    "opencl": (44, 45),
    "intel": (49, 50),
    "nvcaffe": (48, 49),
    "before_the_split": (43, 44),
}
# Appendix A of the paper, as people have pasted it
PASTED_POLICY = """  } else if (lr_policy == "triangular") {
    int itr = this->iter_ - this->param_.start_lr_policy();
    rate = itr > 0 ? this->param_.max_lr() : this->param_.base_lr();
"""
PASTED_FIELDS = ("optional float start_lr_policy = 51;", "optional float max_lr = 52;")


@pytest.fixture
def checkout(pristine: Path, tmp_path: Path) -> Path:
    """A copy of upstream's source without what no solver needs, for one test to change."""
    return solvers_of(pristine, tmp_path / "caffe")


@pytest.fixture(params=TREES)
def fork(request: pytest.FixtureRequest, checkout: Path) -> Path:
    """One of the trees, in a folder of its name."""
    TREES[request.param](checkout)
    return checkout.rename(checkout.with_name(request.param))


@pytest.fixture
def feature(patches: list[series.Patch]) -> list[series.Patch]:
    return series.select(patches, [FEATURE])


@pytest.fixture
def one_cycle(patches: list[series.Patch]) -> list[series.Patch]:
    return series.select(patches, ["one-cycle"])


@pytest.fixture
def momentum(patches: list[series.Patch]) -> list[series.Patch]:
    return series.select(patches, ["cyclical-momentum"])


def solver_file(tree: Path) -> Path:
    return tree / (SGD_SOLVER if (tree / SGD_SOLVER).is_file() else SOLVER)


def body(tree: Path, function: str) -> str:
    found = code.function(solver_file(tree).read_text(), ("SGDSolver", function))
    assert found
    return found.code


def fields(tree: Path) -> dict[str, int]:
    message = code.message((tree / PROTO).read_text(), "SolverParameter")
    assert message
    numbers = [field.number for field in message.fields]
    assert sorted(set(numbers)) == sorted(numbers)
    return {field.name: field.number for field in message.fields}


def test_every_part_finds_its_place(fork: Path, feature: list[series.Patch]) -> None:
    changed = {SGD_SOLVER, SOLVER, PROTO, TUTORIAL, GTEST, EXAMPLE}
    before = {name: c for name, c in contents(fork).items() if name not in changed}
    checks = series.apply(fork, feature)
    assert not [check.problem for check in checks if check.problem]
    numbers = fields(fork)
    assert (numbers["start_lr_policy"], numbers["max_lr"]) == NUMBERS[fork.name]
    rate = body(fork, "GetLearningRate")
    ours = rate.index("IsCyclical(lr_policy)")
    assert rate.index('== "sigmoid"') < ours < rate.rindex("else")
    assert rate.count("CyclicalLearningRate(this->param_, this->iter_)") == 1
    assert re.match(r"\S+\(\)\s*{\s+if \(IsCyclical\(", body(fork, "PreSolve"))
    assert {n: c for n, c in contents(fork).items() if n not in changed} == before
    assert {check.problem for check in series.check(fork, feature)} == {"is already applied"}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("nvcaffe", [FEATURE]),
        ("intel", [FEATURE, "cyclical-momentum"]),
        *((name, EVERYTHING) for name in TREES if name not in SAME_CODE),
    ],
)
def test_what_was_placed_compiles(
    name: str, names: list[str], checkout: Path, patches: list[series.Patch], tmp_path: Path
) -> None:
    TREES[name](checkout)
    series.apply(checkout, series.select(patches, names))
    generated = tmp_path / "caffe/proto"
    generated.mkdir(parents=True, exist_ok=True)
    proto = checkout / PROTO
    subprocess.run(
        ["protoc", f"-I{proto.parent}", f"--cpp_out={generated}", proto.name], check=True
    )
    folders = (checkout / "include", tmp_path, Path("/usr/include/hdf5/serial"))
    command = ["g++", "-w", "-fsyntax-only", "-DCPU_ONLY", *(f"-I{folder}" for folder in folders)]
    files = {solver_file(checkout), *(checkout / "src/caffe/solvers").glob("*_solver.cpp")}
    everything = tmp_path / "everything.cpp"
    everything.write_text("".join(f'#include "{file}"\n' for file in sorted(files)))
    done = subprocess.run([*command, everything], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_lines_of_windows_stay_its_own(
    checkout: Path, feature: list[series.Patch], tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(checkout, plain)
    for file in (PROTO, SGD_SOLVER, TUTORIAL):
        text = (checkout / file).read_bytes()
        (checkout / file).write_bytes(text.replace(b"\n", b"\r\n"))
    series.apply(plain, feature)
    series.apply(checkout, feature)
    for file in (PROTO, SGD_SOLVER, TUTORIAL, GTEST):
        expected = (plain / file).read_bytes().replace(b"\n", b"\r\n")
        assert (checkout / file).read_bytes() == expected, file


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("release_1_0", "45 (last added: max_lr)"),
        ("single_shot_detector", "47 (last added: max_lr)"),
        ("intel", "51 (last added: max_lr)"),
        ("before_the_split", None),
    ],
)
def test_the_next_available_number_is_brought_up_to_date(
    name: str, note: str | None, checkout: Path, feature: list[series.Patch]
) -> None:
    TREES[name](checkout)
    series.apply(checkout, feature)
    found = re.search(r"SolverParameter next available ID: (.*)", (checkout / PROTO).read_text())
    assert (found and found[1]) == note


def test_fields_go_to_the_end_where_their_neighbours_are_others(
    checkout: Path, feature: list[series.Patch]
) -> None:
    replace(
        checkout / PROTO,
        "  repeated int32 stepvalue = 34;\n\n",
        "  repeated int32 stepvalue = 34;\n",
    )
    series.apply(checkout, feature)
    message = (checkout / PROTO).read_text().split("message SolverParameter {")[1]
    assert message.split("\n}\n")[0].endswith("optional float max_lr = 44;")


def test_what_caffe_trains_without_is_left_out(checkout: Path, feature: list[series.Patch]) -> None:
    before_the_split(checkout)
    checks = {check.file: check for check in series.apply(checkout, feature)}
    assert checks[TUTORIAL].left_out == "does not exist"
    assert "this Caffe has no caffe/sgd_solvers.hpp, which" in str(checks[GTEST].left_out)
    assert not (checkout / GTEST).exists()
    assert SOLVER in checks


def test_a_gtest_that_would_not_compile_is_left_out(
    checkout: Path, feature: list[series.Patch]
) -> None:
    nvcaffe(checkout)
    checks = {check.file: check for check in series.apply(checkout, feature)}
    assert "this Caffe declares SGDSolver::GetLearningRate differently" in str(
        checks[GTEST].left_out
    )
    assert not (checkout / GTEST).exists()


@pytest.mark.parametrize("name", ["pristine", "intel"])
def test_a_pasted_fragment_of_the_paper_is_told(
    name: str, checkout: Path, feature: list[series.Patch]
) -> None:
    if name in TREES:
        TREES[name](checkout)
    add_field(checkout, *PASTED_FIELDS)
    replace(checkout / SGD_SOLVER, LAST_ELSE, PASTED_POLICY + LAST_ELSE)
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, feature)
    message = str(refused.value)
    assert "nothing was changed" in message
    assert 'SGDSolver::GetLearningRate already has the policies "triangular"' in message
    assert "SolverParameter already has optional float start_lr_policy = 51" in message
    assert contents(checkout) == before


def test_a_policy_of_the_same_name_is_told(checkout: Path, feature: list[series.Patch]) -> None:
    replace(
        checkout / SGD_SOLVER,
        LAST_ELSE,
        '  } else if (lr_policy == "decay") {\n    rate = 1;\n' + LAST_ELSE,
    )
    with pytest.raises(
        ClrError, match='already has the policies "decay"; remove the conflicting code'
    ):
        series.apply(checkout, feature)


def test_a_tree_with_part_of_the_patch_is_told(checkout: Path, feature: list[series.Patch]) -> None:
    release_1_0(checkout)
    series.apply(checkout, feature)
    checks = "  if (IsCyclical(this->param_.lr_policy())) {\n    CheckBounds(this->param_);\n  }\n"
    replace(checkout / SGD_SOLVER, checks, "")
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, feature)
    message = str(refused.value)
    assert f"{SGD_SOLVER}: is partly applied" in message
    assert "already there: the functions IsCyclical, CheckBounds" in message
    assert "add by hand the checks at the head of SGDSolver::PreSolve:\n" in message
    assert "      |     CheckBounds(this->param_);\n" in message
    assert contents(checkout) == before


def test_a_tree_with_an_earlier_version_of_the_patch_is_told(
    checkout: Path, feature: list[series.Patch]
) -> None:
    series.apply(checkout, feature)
    text = (checkout / SGD_SOLVER).read_text()
    for name, earlier in EARLIER_NAMES.items():
        assert name in text
        text = text.replace(name, earlier)
    (checkout / SGD_SOLVER).write_text(text)
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, feature)
    message = str(refused.value)
    assert f"{SGD_SOLVER}: is partly applied; remove the code that is there" in message
    assert "already there: start_lr_policy = 43, max_lr = 44 in SolverParameter\n" in message
    assert contents(checkout) == before


def test_an_example_is_left_out_without_its_net(
    checkout: Path, feature: list[series.Patch]
) -> None:
    single_shot_detector(checkout)
    checks = {check.file: check for check in series.apply(checkout, feature)}
    assert str(checks[EXAMPLE].left_out).startswith(
        "this Caffe has no examples/cifar10/cifar10_full_tr"
    )
    assert not (checkout / EXAMPLE).exists()


def test_an_example_is_added_beside_its_net(checkout: Path, feature: list[series.Patch]) -> None:
    single_shot_detector(checkout)
    net = checkout / "examples/cifar10/cifar10_full_train_test.prototxt"
    net.parent.mkdir(parents=True)
    net.touch()
    own = checkout / EXAMPLE
    own.write_text("# another one\n")
    checks = {check.file: check for check in series.check(checkout, feature)}
    assert checks[EXAMPLE].left_out == "a file of this name already exists"
    own.unlink()
    series.apply(checkout, feature)
    assert 'lr_policy: "triangular2"' in own.read_text()
    assert {c.problem for c in series.check(checkout, feature)} == {"is already applied"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "::PreSolve() {",
            "::Prepare() {",
            "the head of SGDSolver::PreSolve: SGDSolver::PreSolve was not found\n",
        ),
        (
            "lr_policy = this->param_.lr_policy()",
            "lr_policy = Policy()",
            "SGDSolver::GetLearningRate has no `lr_policy",
        ),
        ("  Dtype rate;", "  Dtype r;", "SGDSolver::GetLearningRate has no `rate`"),
        (
            '  } else {\n    LOG(FATAL) << "Unknown l',
            '  }\n  { CHECK(rate) << "',
            "SGDSolver::GetLearningRate has no `else` after its policies\n",
        ),
    ],
)
def test_a_place_that_is_not_there_is_named_with_its_lines(
    old: str, new: str, told: str, checkout: Path, feature: list[series.Patch]
) -> None:
    single_shot_detector(checkout)
    text = (checkout / SGD_SOLVER).read_text()
    assert old in text
    text = text.replace(old, new)
    if "rate" in told:
        text = re.sub(r"\brate\b", "r", text)
    (checkout / SGD_SOLVER).write_text(text)
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, feature)
    message = str(refused.value)
    assert told in message
    for line in (
        "  optional float max_lr = 46;",
        "static void CheckBounds(const SolverParameter& param) {",
        "    rate = CyclicalLearningRate(this->param_, this->iter_);",
        "    CheckBounds(this->param_);",
    ):
        assert f"      | {line}\n" in message
    assert contents(checkout) == before


def test_a_folder_that_cannot_be_written_leaves_all_as_it_was(
    checkout: Path, feature: list[series.Patch]
) -> None:
    shutil.rmtree((checkout / GTEST).parent)
    (checkout / GTEST).parent.write_text("a file where a folder should be")
    before = contents(checkout)
    with pytest.raises(ClrError, match=r"nothing was changed, because .* cannot be written"):
        series.apply(checkout, feature)
    assert contents(checkout) == before


def test_a_file_that_cannot_be_exchanged_leaves_all_as_it_was(
    checkout: Path, feature: list[series.Patch], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(checkout)
    exchange = os.replace

    def fail_at_the_solver(old: Path, new: Path) -> None:
        if new.name == "sgd_solver.cpp" and old.name.endswith("new"):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(new))
        exchange(old, new)

    monkeypatch.setattr(os, "replace", fail_at_the_solver)
    with pytest.raises(ClrError, match=r"sgd_solver\.cpp cannot be written: Operation not perm"):
        series.apply(checkout, feature)
    assert contents(checkout) == before


def test_permissions_are_kept(checkout: Path, feature: list[series.Patch]) -> None:
    (checkout / SGD_SOLVER).chmod(0o754)
    series.apply(checkout, feature)
    assert stat.S_IMODE((checkout / SGD_SOLVER).stat().st_mode) == 0o754


def test_the_other_patches_of_solvers_follow_the_feature(
    fork: Path, patches: list[series.Patch]
) -> None:
    before = fields(fork)
    series.apply(fork, series.select(patches, EVERYTHING))
    assert fields(fork).keys() - before.keys() == {"start_lr_policy", "max_lr", "cyclical_momentum"}
    assert "CheckMomentum(this->param_);" in body(fork, "PreSolve")
    text = solver_file(fork).read_text()
    assert 'lr_policy == "decay" ||' in text
    assert text.count('if (lr_policy == "1cycle" && elapsed > stepsize) {') == 1
    assert text.index("static double CyclicalMomentum") < text.index("::GetLearningRate() ")
    for name in EVERYTHING:
        checks = series.check(fork, series.select(patches, [name]))
        assert {check.problem for check in checks} == {"is already applied"}


def test_1cycle_and_the_momentum_do_without_each_other(
    fork: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    before = fields(fork)
    series.apply(fork, [*feature, *momentum])
    text = solver_file(fork).read_text()
    assert "1cycle" not in text + (fork / PROTO).read_text()
    assert "CheckMomentum(this->param_);" in body(fork, "PreSolve")
    assert "cyclical_momentum" in fields(fork).keys() - before.keys()


def test_every_update_takes_the_momentum_of_the_iteration(
    fork: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    series.apply(fork, [*feature, *momentum])
    ours = body(fork, "GetMomentum")
    assert ours.count("CyclicalMomentum(this->param_, this->iter_)") == 1
    assert ours.count("GetMomentum(") == 1
    solvers = (fork / "src/caffe").glob("**/*solver.cpp")
    found = [m for file in solvers for m in code_of_updates(file.read_text())]
    taken = {owner for owner, update in found if "GetMomentum()" in update}
    assert taken == {"SGD", "Nesterov", "Adam"}
    kept = {owner for owner, update in found if "this->param_.momentum()" in update}
    assert kept == {"AdaDelta"}  # whose momentum is the share of its averages
    header = next((fork / "include/caffe").glob("sgd*.hpp")).read_text()
    assert header.count(" GetMomentum()") == 1
    for name in ("AdaGrad", "RMSProp"):
        assert f'"{name} has no momentum that could cycle' in header
    assert '"AdaDelta has no momentum that could cycle' in "".join(
        file.read_text() for file in (fork / "src/caffe").glob("**/*solver.cpp")
    )


def code_of_updates(text: str) -> list[tuple[str, str]]:
    """The functions that update parameters, each with what its class is called before Solver."""
    head = r"^void (\w+)Solver<Dtype>::(?:ComputeUpdateValue|UpdateAtOnce)\(.*?^}"
    return [(m[1], m[0]) for m in re.finditer(head, text, re.DOTALL | re.MULTILINE)]


@pytest.mark.parametrize("name", ["release_1_0", "release_candidate_3", "before_the_split"])
def test_the_log_shows_the_momentum_where_it_shows_the_rate(
    name: str, checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    TREES[name](checkout)
    series.apply(checkout, [*feature, *momentum])
    shown = '", lr = " << rate << MomentumNote(this->param_, GetMomentum());'
    assert shown in body(checkout, "ApplyUpdate")


@pytest.mark.parametrize("name", ["intel", "nvcaffe"])
def test_a_log_of_another_form_stays_as_it_is(
    name: str, checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    TREES[name](checkout)
    checks = series.apply(checkout, [*feature, *momentum])
    assert "<< MomentumNote(" not in (checkout / SGD_SOLVER).read_text()
    notes = [note for check in checks if check.file == SGD_SOLVER for note in check.notes]
    assert any(note.startswith('left out: "<< ", lr = "') for note in notes)


@pytest.mark.parametrize(("name", "has_rate"), [("release_1_0", False), ("opencl", True)])
def test_pycaffe_has_the_momentum_where_it_has_the_rate(
    name: str,
    has_rate: bool,
    pristine: Path,
    checkout: Path,
    feature: list[series.Patch],
    momentum: list[series.Patch],
) -> None:
    TREES[name](checkout)
    its_tests = "python/caffe/test/test_solver.py"
    (checkout / its_tests).parent.mkdir()
    shutil.copyfile(pristine / its_tests, checkout / its_tests)
    series.apply(checkout, [*feature, *momentum])
    assert ("::GetMomentum" in (checkout / PYCAFFE).read_text()) == has_rate
    assert ("solver.momentum" in (checkout / its_tests).read_text()) == has_rate


def test_an_update_that_the_patch_does_not_know_is_told(
    checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    intel(checkout)
    checks = series.apply(checkout, [*feature, *momentum])
    notes = [note for check in checks for note in check.notes]
    assert any("SGDSolver::ComputeUpdateValue, and in SGDSolver::UpdateAtOnce" in n for n in notes)


def test_an_update_beside_upstreams_own_is_not_forgotten(
    checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    added = (
        "template <typename Dtype>\nvoid SGDSolver<Dtype>::UpdateAtOnce(int param_id) {\n"
        "  Dtype momentum = this->param_.momentum();\n}\n\nINSTANTIATE_CLASS(SGDSolver);"
    )
    replace(checkout / SGD_SOLVER, "INSTANTIATE_CLASS(SGDSolver);", added)
    series.apply(checkout, [*feature, *momentum])
    assert "GetMomentum()" in body(checkout, "UpdateAtOnce")


def test_patches_are_placed_one_by_one_or_at_once(
    checkout: Path, patches: list[series.Patch], tmp_path: Path
) -> None:
    single_shot_detector(checkout)
    at_once = tmp_path / "at_once"
    shutil.copytree(checkout, at_once)
    for name in EVERYTHING:
        series.apply(checkout, series.select(patches, [name]))
    series.apply(at_once, series.select(patches, EVERYTHING))
    assert contents(checkout) == contents(at_once)
    assert fields(checkout)["cyclical_momentum"] == 47
    assert "next available ID: 48 (last added: cyclical_momentum)" in (checkout / PROTO).read_text()


def test_1cycle_comes_with_no_word_on_numbers(
    checkout: Path, feature: list[series.Patch], one_cycle: list[series.Patch]
) -> None:
    before_the_split(checkout)
    series.apply(checkout, feature)
    noted = [note for check in series.apply(checkout, one_cycle) for note in check.notes]
    assert noted
    assert not any("number" in note for note in noted)


@pytest.mark.parametrize("name", ["one-cycle", "cyclical-momentum"])
def test_what_builds_on_the_feature_changes_nothing_without_it(
    name: str, checkout: Path, patches: list[series.Patch]
) -> None:
    release_1_0(checkout)
    before = contents(checkout)
    with pytest.raises(ClrError, match="nothing was changed") as refused:
        series.apply(checkout, series.select(patches, [name]))
    assert str(refused.value).endswith(
        f"{name} builds on {FEATURE}, which is not applied. Name all of them: {FEATURE} {name}"
    )
    assert contents(checkout) == before


def test_where_the_momentum_has_no_place_the_lines_are_told(
    checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    release_1_0(checkout)
    replace(checkout / SGD_SOLVER, "::ComputeUpdateValue(", "::ComputeUpdate(")
    series.apply(checkout, feature)
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, momentum)
    message = str(refused.value)
    assert "in SGDSolver::ComputeUpdateValue: SGDSolver::ComputeUpdateValue was not" in message
    assert "      |   Dtype momentum = GetMomentum();\n" in f"{message}\n"
    assert "builds on" not in message
    assert contents(checkout) == before


def test_a_momentum_that_is_not_the_iterations_is_told(
    checkout: Path, feature: list[series.Patch], momentum: list[series.Patch]
) -> None:
    nvcaffe(checkout)
    replace(checkout / SGD_SOLVER, "::GetMomentum() const", "::GetMomentum(int i) const")
    with pytest.raises(ClrError, match="this Caffe already has a function GetMomentum; remove"):
        series.apply(checkout, [*feature, *momentum])


def test_the_command_tells_what_it_did_and_what_to_do_next(
    checkout: Path, patch_folder: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    single_shot_detector(checkout)
    before = contents(checkout)
    checked = run_cli("patch", "check", checkout, FEATURE)
    assert checked.returncode == 0, checked.stderr
    assert contents(checkout) == before
    done = run_cli("patch", "apply", checkout, FEATURE)
    assert done.returncode == 0, done.stderr
    for expected in (
        f"{FEATURE}: {PROTO}: applied\n    start_lr_policy = 45, max_lr = 46 in SolverParameter\n",
        "this Caffe uses 43 (show_per_class_result), 44 (plateau_winsize)",
        "    the branch for the policies before the last `else` of SGDSolver::GetLearningRate\n",
        f"make -j4 -C {checkout} or cmake --build {checkout}/build\n",
        f"caffe train --solver={patch_folder}/triangular.prototxt",
    ):
        assert expected in done.stdout
    applied = done.stdout.split("Next, build")[0].replace(": applied\n", ": applies\n")
    assert checked.stdout.splitlines()[0] == f"Can be applied: {FEATURE}."
    assert checked.stdout.splitlines()[1:] == applied.splitlines()[1:]
    before = contents(checkout)
    for command in ("check", "apply"):
        again = run_cli("patch", command, checkout, FEATURE)
        assert again.returncode == 0, again.stderr
        assert again.stdout == f"Already applied: {FEATURE}. There is nothing to do.\n"
    assert contents(checkout) == before


def test_the_solver_that_shows_the_policies_logs_their_rates(
    patch_folder: Path, tree: Tree
) -> None:
    solver = patch_folder / "triangular.prototxt"
    done = subprocess.run(
        [tree.caffe, "train", f"--solver={solver}"], capture_output=True, text=True
    )
    assert re.findall(r"lr = (\S+)", done.stderr) == [*"123454321"]


def test_runs_of_a_patch_are_read_with_what_stands_around_them(
    patches: list[series.Patch],
) -> None:
    for patch in patches:
        parsed = diffs.parse(patch.path.read_text())
        assert tuple(diff.path for diff in parsed) == patch.files
        assert all(diff.runs for diff in parsed if "new file" not in diff.path)
