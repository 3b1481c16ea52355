"""`patch remove`: the tree is as it was before `patch apply`, but for what its user has changed."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import EVERYTHING, EXAMPLE, FEATURE, GTEST, TREES, contents, solvers_of
from releases import PROTO, SGD_SOLVER, release_1_0, replace

from caffe_clr.errors import ClrError
from caffe_clr.harness import edits, git, removal, series, writing

Cli = Callable[..., subprocess.CompletedProcess[str]]
RATE = "    rate = CyclicalLearningRate(this->param_, this->iter_);\n"
STALE = "SolverParameter next available ID: 40 (last added: type)"  # as in some forks


@pytest.fixture
def checkout(pristine: Path, tmp_path: Path) -> Path:
    """A copy of what upstream's solvers need, for one test to change."""
    return solvers_of(pristine, tmp_path / "caffe")


@pytest.fixture
def whole(pristine: Path, tmp_path: Path) -> Path:
    """A copy of all of upstream's source."""
    subprocess.run(["cp", "-r", pristine, tmp_path / "whole"], check=True)
    return tmp_path / "whole"


@pytest.fixture(params=TREES)
def fork(request: pytest.FixtureRequest, checkout: Path) -> Path:
    TREES[request.param](checkout)
    return checkout


@pytest.fixture
def everything(patches: list[series.Patch]) -> list[series.Patch]:
    return series.select(patches, EVERYTHING)


@pytest.fixture
def feature(patches: list[series.Patch]) -> list[series.Patch]:
    return series.select(patches, [FEATURE])


def note_next_id(tree: Path, note: str) -> None:
    text = (tree / PROTO).read_text("latin-1")
    at = text.find("SolverParameter next available ID")
    if at >= 0:
        end = text.index(")", at) + 1
        (tree / PROTO).write_bytes((text[:at] + note + text[end:]).encode("latin-1"))


def test_a_fork_is_as_it_was(fork: Path, everything: list[series.Patch]) -> None:
    note_next_id(fork, STALE)
    (fork / PROTO).chmod(0o754)
    before = contents(fork)
    removal.apply(fork, everything)
    assert contents(fork).keys() - before.keys() >= {removal.RECORD}
    done = removal.remove(fork, everything)
    assert done.names == EVERYTHING
    assert done.notes == []
    assert contents(fork) == before
    assert stat.S_IMODE((fork / PROTO).stat().st_mode) == 0o754


def test_what_the_user_has_changed_since_stays(fork: Path, everything: list[series.Patch]) -> None:
    plain = contents(fork)
    removal.apply(fork, everything)
    applied = contents(fork)
    changed = [name for name in plain if applied[name] != plain[name]]
    expected = dict(plain)
    for name in changed:
        expected[name], now = edited(plain[name], applied[name])
        (fork / name).write_bytes(now)
    removal.remove(fork, everything)
    assert contents(fork) == expected


def edited(plain: bytes, applied: bytes) -> tuple[bytes, bytes]:
    """Two versions of a file with a line added on either side of each difference."""
    old, new = edits._lines(plain), edits._lines(applied)
    for _, start, end, first, last in reversed(edits._matcher(old, new).get_opcodes()):
        mine = f"// mine {start}\n"
        old[start:end] = [mine, *old[start:end], mine]
        new[first:last] = [mine, *new[first:last], mine]
    return "".join(old).encode("latin-1"), "".join(new).encode("latin-1")


@pytest.mark.parametrize("name", ["release_1_0", "nvcaffe", "before_the_split"])
def test_one_patch_of_several_is_removed(
    name: str, checkout: Path, patches: list[series.Patch], everything: list[series.Patch]
) -> None:
    TREES[name](checkout)
    removal.apply(checkout, series.select(patches, [FEATURE, "cyclical-momentum"]))
    expected = contents(checkout)
    removal.remove(checkout, everything)
    for each in EVERYTHING:
        removal.apply(checkout, series.select(patches, [each]))
    done = removal.remove(checkout, series.select(patches, ["one-cycle"]))
    assert done.names == ["one-cycle"]
    del expected[removal.RECORD]
    assert {n: c for n, c in contents(checkout).items() if n != removal.RECORD} == expected


def test_the_whole_series_is_removed(whole: Path, patches: list[series.Patch]) -> None:
    before = contents(whole)
    removal.apply(whole, patches)
    removal.remove(whole, series.select(patches, ["batch-norm"]))
    left = removal.remove(whole, patches)
    assert left.names == [patch.name for patch in patches if patch.name != "batch-norm"]
    assert contents(whole) == before


def test_what_builds_on_a_patch_is_removed_with_it_or_not_at_all(
    checkout: Path, patches: list[series.Patch], run_cli: Cli
) -> None:
    removal.apply(checkout, series.select(patches, [FEATURE, "one-cycle"]))
    before = contents(checkout)
    done = run_cli("patch", "remove", checkout, FEATURE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {checkout}: nothing was changed, because one-cycle builds on {FEATURE}."
        f" Name all of them: {FEATURE} one-cycle\n"
    )
    assert contents(checkout) == before
    removal.apply(checkout, series.select(patches, ["cyclical-momentum"]))
    done = run_cli("patch", "remove", checkout, FEATURE)
    assert f"one-cycle, cyclical-momentum build on {FEATURE}. Name all of them" in done.stderr
    removal.remove(checkout, series.select(patches, ["cyclical-momentum"]))
    done = run_cli("patch", "remove", checkout, FEATURE, "one-cycle")
    assert (done.returncode, done.stdout) == (0, f"Removed: {FEATURE}, one-cycle.\n"), done.stderr
    done = run_cli("patch", "remove", checkout)
    assert (done.returncode, done.stdout) == (
        0,
        "None of these patches is applied. There is nothing to do.\n",
    )


def test_nothing_is_removed_if_a_line_of_it_has_changed(
    checkout: Path, feature: list[series.Patch]
) -> None:
    release_1_0(checkout)
    removal.apply(checkout, feature)
    replace(checkout / SGD_SOLVER, RATE, RATE.replace("rate =", "rate = 2 *"))
    before = contents(checkout)
    with pytest.raises(ClrError) as refused:
        removal.remove(checkout, feature)
    assert str(refused.value).splitlines() == [
        f"{checkout}: nothing was changed, because lines of the patches have changed since:",
        f'  {FEATURE}: {SGD_SOLVER}: "{RATE.strip()}"',
        "Undo these changes, then run this again.",
    ]
    assert contents(checkout) == before


def test_comments_and_new_files_that_have_changed_stay_and_are_named(
    checkout: Path, feature: list[series.Patch], run_cli: Cli
) -> None:
    before = contents(checkout)
    removal.apply(checkout, feature)
    number = "SolverParameter next available ID: "
    mine = f"{number}46 (last added: mine)"
    note_next_id(checkout, mine)
    (checkout / GTEST).write_text("// mine\n")
    done = run_cli("patch", "remove", checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"Removed: {FEATURE}.\n"
        f'{PROTO}: the comment "// {number}45 (last added: max_lr)" stays, because it has'
        " changed\n"
        f"{GTEST} stays, because it has changed since {FEATURE} added it\n"
    )
    assert mine in (checkout / PROTO).read_text()
    note_next_id(checkout, f"{number}43 (last added: weights)")
    (checkout / GTEST).unlink()
    assert contents(checkout) == before


def test_what_is_taken_back_by_hand_is_not_applied(
    checkout: Path, feature: list[series.Patch]
) -> None:
    before = contents(checkout)
    removal.apply(checkout, feature)
    (checkout / PROTO).write_bytes(before[PROTO])
    (checkout / GTEST).unlink()
    assert removal.remove(checkout, feature).names == [FEATURE]
    assert contents(checkout) == before
    removal.apply(checkout, feature)
    record = (checkout / removal.RECORD).read_bytes()
    removal.remove(checkout, feature)
    (checkout / removal.RECORD).write_bytes(record)
    assert removal.remove(checkout, feature).names == []
    assert contents(checkout) == before


def test_what_git_has_applied_is_removed(whole: Path, everything: list[series.Patch]) -> None:
    before = contents(whole)
    for patch in everything:
        assert git.apply(whole, patch.path).returncode == 0
    assert removal.remove(whole, everything).names == EVERYTHING
    assert contents(whole) == before


def test_what_patch_apply_did_not_apply_is_removed_only_by_name(
    checkout: Path, patches: list[series.Patch], feature: list[series.Patch]
) -> None:
    series.apply(checkout, feature)
    before = contents(checkout)
    removal.apply(checkout, series.select(patches, ["one-cycle"]))
    done = removal.remove(checkout, patches, named=False)
    assert done.names == ["one-cycle"]
    assert done.notes == [
        f"Name these to remove them, which `patch apply` did not apply: {FEATURE}"
    ]
    assert contents(checkout) == before


def test_without_a_record_no_field_is_named_that_is_not_there(
    checkout: Path, feature: list[series.Patch]
) -> None:
    release_1_0(checkout)
    before = contents(checkout)
    series.apply(checkout, feature)
    removal.remove(checkout, feature)
    assert contents(checkout) == before


def test_without_a_record_a_fork_stays_as_it_is(
    checkout: Path, feature: list[series.Patch]
) -> None:
    TREES["single_shot_detector"](checkout)
    series.apply(checkout, feature)
    before = contents(checkout)
    with pytest.raises(ClrError, match=f"{FEATURE} has no record in {removal.RECORD}, and") as told:
        removal.remove(checkout, feature)
    assert SGD_SOLVER in str(told.value)
    assert EXAMPLE not in str(told.value)
    assert contents(checkout) == before


def test_a_damaged_record_is_told(checkout: Path, feature: list[series.Patch]) -> None:
    (checkout / removal.RECORD).write_text("nothing")
    for command in (removal.apply, removal.remove):
        with pytest.raises(ClrError, match=f"{removal.RECORD} is damaged; delete it"):
            command(checkout, feature)


def test_a_folder_of_another_user_is_told_with_a_remedy(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ClrError, match="denied; run this as the owner of the folder, or copy it"):
        writing.write(checkout, {PROTO: b""})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\nb\n", b"a\nc\nb\n"),
        (b"a\r\nb", b"a\r\nb\nc"),
        (b"", b"a\n"),
        (b"a\n\xff\nb\n", b"b\n"),
        (b"a\n" * 3, b"a\n" * 5),
    ],
)
def test_a_change_is_taken_back_byte_for_byte(before: bytes, after: bytes) -> None:
    assert edits.undo(before, after, after) == edits.Undone(before, (), ())
    undone = edits.undo(before, after, b"mine\n" + after)
    assert undone == edits.Undone(b"mine\n" + before, (), ())


def added(file: str) -> str:
    """A patch that adds a file."""
    return (
        f"diff --git a/{file} b/{file}\nnew file mode 100644\n"
        f"--- /dev/null\n+++ b/{file}\n@@ -0,0 +1 @@\n+added\n"
    )


def other_version(patches: list[series.Patch], folder: Path) -> list[series.Patch]:
    """A series with a patch more than `patches`, and another text of the last of these."""
    for patch in patches:
        (folder / patch.entry).parent.mkdir(parents=True, exist_ok=True)
        (folder / patch.entry).write_bytes(patch.path.read_bytes())
    last = folder / patches[-1].entry
    last.write_text(last.read_text().replace("CyclicalLearningRate(", "RateOfCycle("))
    (folder / "gone.patch").write_text(added("gone.txt"))
    (folder / "series").write_text("".join(f"{p.entry}\n" for p in patches) + "gone.patch\n")
    (folder / "needs").touch()
    return series.load(folder)


def test_another_version_of_the_patches_is_taken_back_to_upgrade(
    checkout: Path, feature: list[series.Patch], tmp_path: Path
) -> None:
    before = contents(checkout)
    removal.apply(checkout, other_version(feature, tmp_path / "other"))
    old = contents(checkout)
    with pytest.raises(ClrError) as told:
        removal.apply(checkout, feature)
    assert f"{FEATURE}, gone are there in another version of the patches." in str(told.value)
    assert f"patch remove {checkout}`" in str(told.value)
    assert contents(checkout) == old
    assert removal.remove(checkout, feature, named=False).names == [FEATURE, "gone"]
    assert contents(checkout) == before
    removal.apply(checkout, feature)
    assert removal.apply(checkout, feature)[0].problem == series.ALREADY_APPLIED


def test_another_version_is_refused_where_this_one_would_fit_beside_it(
    checkout: Path, tmp_path: Path
) -> None:
    versions = []
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "series").write_text("adds.patch\n")
        (tmp_path / folder / "needs").touch()
        (tmp_path / folder / "adds.patch").write_text(added(f"{folder}.txt"))
        versions.append(series.load(tmp_path / folder))
    old, new = versions
    removal.apply(checkout, old)
    with pytest.raises(ClrError, match="adds is there in another version"):
        removal.apply(checkout, new)
    assert removal.remove(checkout, new).names == ["adds"]
    assert not (checkout / "old.txt").exists()


def test_a_patch_is_not_applied_on_top_of_another_version_of_what_it_builds_on(
    checkout: Path, patches: list[series.Patch], feature: list[series.Patch], tmp_path: Path
) -> None:
    other = other_version(feature, tmp_path / "other")
    removal.apply(checkout, other)
    old = contents(checkout)
    with pytest.raises(ClrError, match=f"{FEATURE}, gone are there in another version"):
        removal.apply(checkout, series.select(patches, ["one-cycle"]))
    (checkout / SGD_SOLVER).write_bytes(old[SGD_SOLVER].replace(b"RateOfCycle", b"Rate"))
    with pytest.raises(ClrError, match="another version may build on it: gone"):
        removal.remove(checkout, feature)


def test_files_restored_from_version_control_are_taken_back(
    checkout: Path, everything: list[series.Patch]
) -> None:
    before = contents(checkout)
    for restored in ([SGD_SOLVER], list(before)):
        removal.apply(checkout, everything)
        for file in restored:
            (checkout / file).write_bytes(before[file])
        removal.remove(checkout, everything, named=False)
        assert contents(checkout) == before
    removal.apply(checkout, everything[:1])
    for file in before:
        (checkout / file).write_bytes(before[file])
    removal.apply(checkout, everything[:1])  # beside the new files of the first time
    removal.remove(checkout, everything[:1])
    assert contents(checkout) == before


def test_lines_that_were_put_back_by_hand_are_not_put_back_twice(
    whole: Path, patches: list[series.Patch]
) -> None:
    cmake = series.select(patches, ["cmake"])
    before = contents(whole)
    removal.apply(whole, cmake)
    lists = (whole / "CMakeLists.txt").read_bytes()
    examples = b"add_subdirectory(examples)\n"
    (whole / "CMakeLists.txt").write_bytes(
        lists.replace(examples, examples + b"add_subdirectory(python)\n")
    )
    removal.remove(whole, cmake)
    assert contents(whole) == before


def test_another_version_without_a_record_is_told(
    checkout: Path, patches: list[series.Patch], feature: list[series.Patch], tmp_path: Path
) -> None:
    removal.apply(checkout, other_version(feature, tmp_path / "other"))
    (checkout / removal.RECORD).unlink()
    old = contents(checkout)
    for wanted in (feature, patches):
        with pytest.raises(ClrError, match=f"It has {FEATURE} in another version or in part"):
            removal.remove(checkout, wanted, named=wanted is feature)
    assert contents(checkout) == old


def test_a_full_disk_leaves_no_files(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    before = contents(checkout)
    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(ClrError, match=f"{PROTO} cannot be written: No space .*; free some space"):
        writing.write(checkout, {PROTO: b""})
    assert contents(checkout) == before
