"""The patch series: what it applies to, what it leaves, and what it says when it does not fit."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffe_clr import policies, prototxt
from caffe_clr.errors import ClrError, UsageError
from caffe_clr.harness import exporting, series, source
from caffe_clr.harness.compilation import Tree

FEATURE = "cyclical-learning-rates"
EXAMPLE = "examples/cifar10/cifar10_full_triangular2_solver.prototxt"
SGD_SOLVER = Path("src/caffe/solvers/sgd_solver.cpp")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@tests.invalid")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_prefix_applies_with_neither_fuzz_nor_offset(
    checkout: Path, patches: list[series.Patch]
) -> None:
    for patch in patches:
        checks = series.apply(checkout, [patch])
        assert [c for c in checks if c.problem or c.offset] == []
        assert {c.file for c in checks} == set(patch.files)


def test_the_feature_applies_alone_and_the_rest_of_its_folder_on_top_of_it(
    checkout: Path, patch_folder: Path
) -> None:
    git(checkout, "init", "-q")
    done = subprocess.run(
        ["git", "apply", "--check", "--verbose", patch_folder / f"feature/{FEATURE}.patch"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "offset" not in done.stderr
    git(checkout, "apply", str(patch_folder / f"feature/{FEATURE}.patch"))
    git(checkout, "apply", str(patch_folder / "feature/one-cycle.patch"))
    git(checkout, "apply", "--check", str(patch_folder / "feature/cyclical-momentum.patch"))


def test_the_series_reverses(checkout: Path, pristine: Path, patches: list[series.Patch]) -> None:
    series.apply(checkout, patches)
    assert snapshot(checkout) != snapshot(pristine)
    git(checkout, "init", "-q")
    for patch in reversed(patches):
        git(checkout, "apply", "--reverse", str(patch.path))
    shutil.rmtree(checkout / ".git")
    assert snapshot(checkout) == snapshot(pristine)


def test_the_series_applies_inside_another_repository(
    checkout: Path, patches: list[series.Patch]
) -> None:
    git(checkout.parent, "init", "-q")
    series.apply(checkout, patches)
    assert "triangular2" in (checkout / SGD_SOLVER).read_text()


@pytest.fixture
def commits(checkout: Path, patches: list[series.Patch]) -> Path:
    """A git repository with upstream's source and a commit for each patch."""
    git(checkout, "init", "-q")
    git(checkout, "add", "--all", "--force")
    git(checkout, "commit", "-qm", "unpatched")
    git(checkout, "am", "-q", *(str(patch.path) for patch in patches))
    return checkout


@pytest.fixture
def small(tmp_path: Path, patch_folder: Path) -> tuple[Path, Path]:
    """A git repository with three commits, and the series exported from its first two."""
    repository, folder = tmp_path / "repository", tmp_path / "series"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    for name in ("unpatched", "first: Add a", "second: Add b", "third: Add c"):
        (repository / name.split()[-1]).write_text("a line\n")
        git(repository, "add", ".")
        git(repository, "commit", "-qm", name)
    for entry, commit in (("one/first.patch", "HEAD~2"), ("two/second.patch", "HEAD~1")):
        (folder / entry).parent.mkdir(parents=True)
        exported = git(repository, *exporting._EXPORT, commit)
        (folder / entry).write_text(exported)
    (folder / "series").write_text("one/first.patch\ntwo/second.patch\n")
    return repository, folder


def refresh(repository: Path, folder: Path) -> dict[str, bytes | None]:
    changed = exporting.changes(folder, exporting.export(repository, folder))
    exporting.refresh(folder, changed)
    assert exporting.changes(folder, exporting.export(repository, folder)) == {}
    return changed


def test_exporting_the_commits_again_gives_the_same_bytes(
    commits: Path, patch_folder: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    exported = exporting.export(commits, patch_folder)
    assert "".join(f"{entry}\n" for entry in exported) == (patch_folder / "series").read_text()
    for entry, content in exported.items():
        assert content == (patch_folder / entry).read_bytes(), entry
    done = run_cli("patch", "refresh", commits)
    assert (done.returncode, done.stdout) == (0, "The series is up to date.\n"), done.stderr
    git(commits, "commit", "-q", "--amend", "-m", "batch-norm: Reword")
    done = run_cli("patch", "refresh", "--check", commits)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"differs from what {commits} exports: changed cpu/batch-norm.patch\n"
    )


def test_a_commit_becomes_a_patch_beside_the_one_before_it(small: tuple[Path, Path]) -> None:
    assert list(refresh(*small)) == ["two/third.patch", "series"]
    assert [patch.entry for patch in series.load(small[1])] == [
        *("one/first.patch", "two/second.patch", "two/third.patch")
    ]
    assert [patch.files for patch in series.load(small[1])] == [("a",), ("b",), ("c",)]


def test_a_patch_goes_with_its_commit_and_moves_with_it(small: tuple[Path, Path]) -> None:
    repository, folder = small
    refresh(*small)
    (folder / "two/third.patch").rename(folder / "one/third.patch")  # another folder is kept
    (folder / "series").write_text("one/first.patch\ntwo/second.patch\none/third.patch\n")
    git(repository, "checkout", "-q", "HEAD~3")
    git(repository, "cherry-pick", "main", "main~2")
    assert list(refresh(*small)) == ["series", "two/second.patch"]
    assert (folder / "series").read_text() == "one/third.patch\none/first.patch\n"
    assert not (folder / "two/second.patch").exists()


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("Add d", r'commit \w{7} "Add d" names no patch; begin its subject with'),
        ("The title: Add d", "names no patch"),
        ("first: Add d", r'"first: Add d" names the patch of an earlier commit'),
    ],
)
def test_a_commit_that_names_no_patch_of_its_own_is_told(
    subject: str, told: str, small: tuple[Path, Path]
) -> None:
    (small[0] / "d").write_text("a line\n")
    git(small[0], "add", ".")
    git(small[0], "commit", "-qm", subject)
    with pytest.raises(ClrError, match=told):
        exporting.export(*small)


def test_commits_that_make_no_series_are_told(small: tuple[Path, Path]) -> None:
    git(small[0], "commit", "-q", "--allow-empty", "-m", "fourth: Do nothing")
    with pytest.raises(ClrError, match='"fourth: Do nothing" changes no file; drop it'):
        exporting.export(*small)
    git(small[0], "checkout", "-q", "HEAD~4")
    with pytest.raises(ClrError, match="expected unpatched Caffe, then a commit for each patch"):
        exporting.export(*small)


def test_a_patch_says_its_name_and_what_it_does(patches: list[series.Patch]) -> None:
    for patch in patches:
        header = patch.path.read_text().split("\ndiff --git", 1)[0]
        subject, message = header.split("\nSubject: [PATCH] ")[1].split("\n\n", 1)
        assert re.fullmatch(rf"{patch.name}: [A-Z][^\n]{{10,60}}", subject), subject
        assert len(message) > 50, patch.name
        assert not re.search(r"^[A-Z][a-z]+(-[A-Z]?[a-z]+)*: \S+( \S+)?$", message, re.M), message


def test_the_policy_lists_name_the_same_policies(
    checkout: Path, patches: list[series.Patch]
) -> None:
    series.apply(checkout, patches)

    def policy_list(file: str) -> str:
        text = (checkout / file).read_text()
        found = re.search(r"^ *//    - fixed:.*?^ *// where.*?^(?! *//)", text, re.DOTALL | re.M)
        assert found
        return re.sub(r"^ *// ?", "", found[0], flags=re.MULTILINE)

    in_proto = policy_list("src/caffe/proto/caffe.proto")
    assert in_proto == policy_list(str(SGD_SOLVER))
    assert re.findall(r"^   - (\w+):", in_proto, re.MULTILINE) == list(policies.POLICIES)
    solver_md = (checkout / "docs/tutorial/solver.md").read_text()
    for policy in policies.BOUNDED:
        escaped = policy.replace("_", "\\_")
        assert f"\\text{{{escaped}}}" in solver_md


@pytest.mark.parametrize("policy", policies.BOUNDED)
def test_the_record_of_a_policy_names_the_patch_that_adds_it(
    policy: str, patches: list[series.Patch]
) -> None:
    added = re.compile(rf'^\+.*lr_policy.*"{policy}"', re.MULTILINE)
    first = next(patch for patch in patches if added.search(patch.path.read_text()))
    assert policies.POLICIES[policy].patch == first.name


def test_the_example_has_the_lines_of_the_tutorial(tree: Tree) -> None:
    solver = prototxt.read_solver(tree.source / EXAMPLE)
    tutorial = (tree.source / "docs/tutorial/solver.md").read_text()
    section = tutorial.split("#### Cyclical learning rates")[1].split("\n#")[0]
    lines = re.findall(r"^    (\w+): +([^ #\n]+)", section, re.MULTILINE)
    assert len(lines) == 6
    for field, value in lines:
        own = getattr(solver, field)
        assert own == (value.strip('"') if isinstance(own, str) else np.float32(value)), field
    cycle = 2 * solver.stepsize
    assert solver.max_iter % cycle == solver.snapshot % cycle == 0
    rates = policies.learning_rate(solver, [0, cycle // 2, cycle, cycle + cycle // 2])
    assert rates == pytest.approx([0.001, 0.006, 0.001, 0.0035])
    assert (tree.source / solver.net).is_file()


def test_the_next_available_field_number_is_kept_true(
    checkout: Path, patches: list[series.Patch]
) -> None:
    series.apply(checkout, patches)
    proto = (checkout / "src/caffe/proto/caffe.proto").read_text()
    body = proto.split("message SolverParameter {")[1].split("\n}\n")[0]
    fields = {int(n): name for name, n in re.findall(r"(\w+) = (\d+)(?: \[.*?\])?;", body)}
    note = re.search(r"SolverParameter next available ID: (\d+) \(last added: (\w+)\)", proto)
    assert note
    assert int(note[1]) == max(fields) + 1
    assert fields[max(fields)] == note[2]
    assert [fields[number] for number in (43, 44, 45)] == [
        *("start_lr_policy", "max_lr", "cyclical_momentum")
    ]


def test_a_patch_that_does_not_fit_changes_nothing_and_says_where(
    checkout: Path, patches: list[series.Patch]
) -> None:
    (checkout / "CMakeLists.txt").write_text("project(Caffe)\n")
    (checkout / "src/caffe/util/io.cpp").unlink()
    before = snapshot(checkout)
    with pytest.raises(ClrError) as refused:
        series.apply(checkout, patches)
    message = str(refused.value)
    first = r": nothing was changed, because \d+ of \d+ patches do not apply:$"
    assert re.search(first, message.splitlines()[0])
    assert re.search(r"cmake: CMakeLists\.txt: does not apply at line \d+", message)
    assert "opencv: src/caffe/util/io.cpp: does not exist" in message
    assert f"{FEATURE}: " not in message
    assert snapshot(checkout) == before


def test_a_patched_tree_is_told_from_a_wrong_one(
    checkout: Path, patches: list[series.Patch]
) -> None:
    feature = series.select(patches, [FEATURE])
    series.apply(checkout, feature)
    checks = series.check(checkout, feature)
    assert {check.problem for check in checks} == {"is already applied"}


def test_what_builds_on_a_patch_that_does_not_apply_is_left_out_with_it(
    checkout: Path, patches: list[series.Patch]
) -> None:
    (checkout / "src/caffe/syncedmem.cpp").write_text("// another one\n")
    left_out = series.apply_fitting(checkout, patches)
    assert list(left_out) == [
        *("channels-last", "onednn", "pooling-lrn", "onednn-neurons", "batch-norm")
    ]
    assert re.fullmatch(r"src/caffe/syncedmem.cpp: does not apply at .*", left_out["channels-last"])
    assert left_out["onednn"] == "builds on channels-last"
    assert (checkout / "src/caffe/syncedmem.cpp").read_text() == "// another one\n"
    assert "triangular2" in (checkout / SGD_SOLVER).read_text()
    assert "VERSION 3.14" in (checkout / "CMakeLists.txt").read_text()
    again = series.apply_fitting(checkout, series.select(patches, [FEATURE, "channels-last"]))
    assert list(again) == ["channels-last"]


def test_a_tree_without_a_place_for_the_feature_is_refused(
    checkout: Path, patches: list[series.Patch]
) -> None:
    text = (checkout / SGD_SOLVER).read_text()
    (checkout / SGD_SOLVER).write_text(text.replace("::PreSolve()", "::Prepare()"))
    before = snapshot(checkout)
    with pytest.raises(
        ClrError, match="head of SGDSolver::PreSolve: SGDSolver::PreSolve was not found"
    ):
        series.apply_fitting(checkout, patches)
    assert snapshot(checkout) == before


def test_a_patch_builds_on_earlier_ones(patches: list[series.Patch], patch_folder: Path) -> None:
    names = [patch.name for patch in patches]
    rules = re.findall(r"^(?!#)(.+): .", (patch_folder / "needs").read_text(), re.MULTILINE)
    assert {*rules} == {patch.name for patch in patches if series.needs(patch)}
    for patch in patches:
        for other in series.needs(patch):
            assert names.index(other) < names.index(patch.name)


def test_a_patch_applies_with_those_that_it_builds_on(
    checkout: Path, patches: list[series.Patch]
) -> None:
    below: dict[str, set[str]] = {}
    for patch in patches:
        needed = series.needs(patch)
        below[patch.name] = {patch.name, *needed}.union(*(below[name] for name in needed))
        chain = [other for other in patches if other.name in below[patch.name]]
        assert series.refused(series.check(checkout, chain)) == []


def test_an_offset_is_told(checkout: Path, patches: list[series.Patch]) -> None:
    file = checkout / "docs/tutorial/solver.md"
    file.write_text("moved\n" * 5 + file.read_text())
    checks = {c.file: c for c in series.check(checkout, series.select(patches, [FEATURE]))}
    assert checks["docs/tutorial/solver.md"].offset
    assert checks["docs/tutorial/solver.md"].problem is None
    assert not checks["src/caffe/proto/caffe.proto"].offset


def test_a_series_is_linted(tmp_path: Path, patch_folder: Path) -> None:
    shutil.copytree(patch_folder / "toolchain", tmp_path / "a")
    for path in (tmp_path / "a").iterdir():
        if path.name not in ("cmake.patch", "opencv.patch"):
            path.unlink()
    (tmp_path / "series").write_text("a/cmake.patch\nb/cmake.patch\na/lost.patch\n")
    with pytest.raises(ClrError) as refused:
        series.load(tmp_path)
    assert str(refused.value).endswith(
        "series: cmake.patch is listed twice; b/cmake.patch is missing; a/lost.patch is missing;"
        " a/opencv.patch is not listed"
    )
    (tmp_path / "a/empty.patch").write_text("Subject: nothing\n")
    (tmp_path / "series").write_text("a/cmake.patch\na/opencv.patch\na/empty.patch\n")
    with pytest.raises(ClrError, match=r"empty\.patch changes no file"):
        series.load(tmp_path)
    with pytest.raises(ClrError, match="is not a patch series"):
        series.load(tmp_path / "nowhere")


def test_a_folder_says_what_a_patch_is_for(patches: list[series.Patch]) -> None:
    groups = [patch.group for patch in patches]
    assert list(dict.fromkeys(groups)) == ["feature", "toolchain", "gpu", "cpu"]
    assert groups == sorted(groups, key=[*dict.fromkeys(groups)].index)
    assert patches[0].name == FEATURE
    assert [p.name for p in series.select(patches, ["one-cycle"])] == ["one-cycle"]


def test_an_unknown_patch_is_a_usage_error(patches: list[series.Patch]) -> None:
    with pytest.raises(UsageError, match="no patch clr; the series has cyclical"):
        series.select(patches, ["clr"])


def test_the_command_checks_and_applies(
    checkout: Path,
    patches: list[series.Patch],
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_cli("patch", "check", checkout)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"Can be applied: {len(patches)} patches.", f"{FEATURE}: applies"]
    assert len(lines) == 1 + len(patches)
    done = run_cli("patch", "apply", checkout, FEATURE)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Applied: {FEATURE}.\n")
    assert f"{FEATURE}: {SGD_SOLVER}: applied\n" in done.stdout
    assert "triangular2" in (checkout / SGD_SOLVER).read_text()
    assert "2.8.7" in (checkout / "CMakeLists.txt").read_text()
    done = run_cli("patch", "check", checkout)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"Can be applied: {len(patches) - 1} patches. Already applied: {FEATURE}."
    assert lines[1] == f"{FEATURE}: is already applied"
    (checkout / "CMakeLists.txt").unlink()
    done = run_cli("patch", "check", checkout)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert (
        lines[0] == f"error: {checkout}: {len(lines) - 2} of {len(patches)} patches do not apply:"
    )
    assert lines[1] == "cmake: CMakeLists.txt: does not exist"
    assert lines[-1] == "Name the patches that you want, to leave out the rest."
    assert run_cli("patch", "check", checkout / "none").stderr.endswith("is not a folder\n")
    assert "is not Caffe's source" in run_cli("patch", "check", checkout / "scripts").stderr


def test_what_is_applied_is_left_alone(checkout: Path, patches: list[series.Patch]) -> None:
    series.apply(checkout, series.select(patches, [FEATURE, "cmake"]))
    series.apply(checkout, patches)
    before = snapshot(checkout)
    assert {check.problem for check in series.apply(checkout, patches)} == {"is already applied"}
    assert snapshot(checkout) == before


def test_what_a_patch_builds_on_is_named_in_one_line(
    checkout: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    chain = (
        "cmake cuda cudnn cudnn-fallback parallel-for parallel-convolution parallel-layers"
        " channels-last"
    )
    done = run_cli("patch", "check", checkout, "onednn")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {checkout}: onednn builds on {', '.join(chain.split())}, which are not applied."
        f" Name all of them: {chain} onednn\n"
    )
    assert run_cli("patch", "check", checkout, *chain.split(), "onednn").returncode == 0
    done = run_cli("patch", "apply", checkout, "one-cycle")
    assert done.stderr == (
        f"error: {checkout}: nothing was changed, because one-cycle builds on {FEATURE}, which is"
        f" not applied. Name all of them: {FEATURE} one-cycle\n"
    )


def test_a_patch_is_applied_also_below_later_ones(
    checkout: Path, patches: list[series.Patch]
) -> None:
    series.apply(checkout, series.select(patches, ["cmake", "cuda", "cudnn", "cudnn-fallback"]))
    assert series.is_applied(series.check(checkout, series.select(patches, ["cuda"])))
    assert series.refused(series.check(checkout, patches)) == []


def test_half_a_patch_is_not_an_applied_one(checkout: Path, patches: list[series.Patch]) -> None:
    opencv = series.select(patches, ["opencv"])
    upstreams = (checkout / opencv[0].files[0]).read_bytes()
    series.apply(checkout, opencv)
    (checkout / opencv[0].files[0]).write_bytes(upstreams)
    before = snapshot(checkout)
    with pytest.raises(ClrError, match=r"opencv: .*: is already applied"):
        series.apply(checkout, opencv)
    assert snapshot(checkout) == before


def test_the_pinned_tarball_is_what_the_manifest_says(
    tarball: Path, upstream: source.Upstream
) -> None:
    with tarfile.open(tarball) as archive:
        files = {member.name.removeprefix("./") for member in archive if member.isfile()}
        assert archive.pax_headers["comment"] == upstream.commit
    assert files == set(upstream.files)


def test_without_git_it_says_so(
    checkout: Path, patches: list[series.Patch], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ClrError, match="git is not installed"):
        series.check(checkout, patches[:1])
