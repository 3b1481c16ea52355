"""The solvers that a range test writes: one cycle, or several and a stage that ends low."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_clr import policies, prototxt
from caffe_clr.errors import UsageError
from caffe_clr.method import new_solver, schedule
from caffe_clr.method.suggestions import Bound, Suggestions
from caffe_clr.method.sweeps import Options

Write = Callable[..., Path]
FOUND = Suggestions(Bound(0.01234, "the reason of base_lr"), Bound(0.07404, "that of max_lr"))
NONE = Suggestions(Bound(None, "no reason"), Bound(None, "no reason"))
LEAST = "give the length of the training that the bounds are for, at least 10"


def written(
    file: Path,
    found: Suggestions = FOUND,
    on_warning: Callable[[str], None] | None = None,
    **options: Any,
) -> list[Path]:
    """The files that are written for a solver."""
    solver = prototxt.open_solver(file)
    plan = new_solver.plan(solver, Options(**options))
    images = options.get("images")
    return new_solver.write(solver, plan, found, file.parent, images, on_warning or print)


def test_a_single_cycle_takes_nine_tenths_of_the_run(write_solver: Write, tmp_path: Path) -> None:
    own = {"momentum": 0.95, "cyclical_momentum": [0.85, 7], "start_lr_policy": 3}
    file = write_solver(lr_policy="fixed", max_lr=None, stepsize=None, max_iter=1000, **own)
    (path,) = written(file)
    assert path == tmp_path / "1cycle_solver.prototxt"
    solver = prototxt.read_solver(path)
    assert (solver.lr_policy, solver.stepsize, solver.max_iter) == ("1cycle", 450, 1000)
    assert (solver.base_lr, solver.max_lr) == (np.float32(0.0074), np.float32(0.074))
    assert list(solver.cyclical_momentum) == [np.float32(0.85), 450]
    assert (solver.start_lr_policy, solver.snapshot_prefix) == (0, "elsewhere/1cycle")
    assert solver.random_seed == 5
    assert path.read_text().splitlines()[:6] == [
        f"# {file} with the bounds and the schedule that caffe-clr suggests.",
        "# max_lr: that of max_lr.",
        "# base_lr: a tenth of max_lr, as advised for a single cycle (arXiv 1803.09820).",
        "# stepsize: the cycle takes 90% of max_iter; after it, the rate stays far below base_lr.",
        "# 1cycle: one high rate early, and a low one at the end.",
        "# Other schedules with these bounds: --policy triangular2, triangular, exp_range.",
    ]


@pytest.mark.parametrize(
    ("policy", "max_iter", "cycles", "stepsize"),
    [
        ("triangular", 10, 3, 1),  # an epoch is one iteration
        ("triangular2", 40, 4, 4),
        ("exp_range", 1200, 7, 68),
    ],
)
def test_after_several_cycles_the_rate_falls(
    policy: str, max_iter: int, cycles: int, stepsize: int, write_solver: Write, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"gamma": 0.999} if policy == "exp_range" else {}
    file = write_solver(lr_policy=policy, max_iter=max_iter, start_lr_policy=3, **own)
    files = written(file)
    assert files == [tmp_path / f"{policy}_{stage}_solver.prototxt" for stage in (1, 2)]
    cyclical, falling = map(prototxt.read_solver, files)
    assert (cyclical.lr_policy, cyclical.stepsize, cyclical.start_lr_policy) == (
        *(policy, stepsize, 0),
    )
    assert (cyclical.base_lr, cyclical.max_lr) == (np.float32(0.012), np.float32(0.074))
    assert cyclical.max_iter == 2 * stepsize * cycles
    assert (cyclical.HasField("gamma"), falling.HasField("gamma")) == ("gamma" in own, False)
    assert cyclical.gamma == np.float32(own.get("gamma", 0))
    end = float(policies.learning_rate(cyclical, cyclical.max_iter))
    assert (falling.lr_policy, falling.start_lr_policy) == ("decay", cyclical.max_iter)
    assert (falling.max_iter, falling.stepsize) == (max_iter, max_iter - cyclical.max_iter)
    assert falling.max_lr == np.float32(f"{end:.2g}")
    assert falling.base_lr == np.float32(f"{end / 100:.2g}")
    assert {falling.snapshot_prefix, cyclical.snapshot_prefix} == {f"elsewhere/{policy}"}
    for number, path in enumerate(files, 1):
        command = f"caffe-clr train {policy}_1_solver.prototxt {policy}_2_solver.prototxt"
        assert f"\n# Stage {number} of 2: `{command}` trains both.\n" in path.read_text()
    text = files[0].read_text()
    assert "# base_lr: the reason of base_lr.\n# max_lr: that of max_lr.\n" in text
    assert f"# stepsize: {cycles} whole cycles in four fifths of the run.\n" in text
    others = [
        name for name in ("1cycle", "triangular2", "triangular", "exp_range") if name != policy
    ]
    assert f"# Other schedules with these bounds: --policy {', '.join(others)}.\n" in text


@pytest.mark.parametrize("policy", ["triangular", "triangular2", "exp_range"])
def test_the_stages_are_one_schedule_without_a_jump(policy: str, write_solver: Write) -> None:
    file = write_solver(lr_policy="fixed", max_lr=None, stepsize=None, max_iter=1000)
    files = written(file, policy=policy)
    rates = [row["lr"] for row in schedule.schedule(files)]
    assert len(rates) == 1000
    assert 0.06 < max(rates) <= np.float32(0.074)
    assert max(np.abs(np.diff(rates))) < 0.0015
    assert rates[-1] < 0.02 * rates[0]


def test_the_momentum_stays_where_it_is_while_the_rate_falls(write_solver: Write) -> None:
    own = {"momentum": 0.95, "cyclical_momentum": [0.85, 7]}
    rows = schedule.schedule(written(write_solver(max_iter=1000, **own)))
    assert min(row["momentum"] for row in rows) == np.float32(0.85)
    assert {row["momentum"] for row in rows if row["stage"] == 2} == {np.float32(0.95)}


@pytest.mark.parametrize(("own", "gamma"), [("step", 0.5), ("exp_range", None), ("exp_range", 2)])
def test_exp_range_declines_to_a_tenth_where_the_solver_has_no_gamma_for_it(
    own: str, gamma: float | None, write_solver: Write
) -> None:
    files = written(write_solver(lr_policy=own, gamma=gamma, max_iter=1000), policy="exp_range")
    cyclical, falling = map(prototxt.read_solver, files)
    assert cyclical.gamma**cyclical.max_iter == pytest.approx(0.1, rel=1e-3)
    assert falling.max_lr == pytest.approx(cyclical.base_lr / 10, rel=0.05)


def test_a_gamma_of_ones_own_is_kept_for_runs_of_that_length(write_solver: Write) -> None:
    own: dict[str, Any] = {"lr_policy": "exp_range", "gamma": 0.999, "max_iter": 1000}
    for max_iter, gamma, why in (
        (1000, 0.999, "that of the given solver"),
        (4000, 0.999**0.25, "falls as far in 4000 iterations as that of the given in 1000"),
    ):
        first, _ = written(write_solver(**own), max_iter=max_iter)
        assert prototxt.read_solver(first).gamma == np.float32(gamma)
        assert f"\n# gamma: {why}.\n" in first.read_text()
        for stage in first.parent.glob("exp_range_?_solver.prototxt"):
            stage.unlink()


def test_a_file_that_was_changed_is_kept(write_solver: Write) -> None:
    said: list[str] = []
    file = write_solver()
    first, second = written(file, on_warning=said.append)
    before = first.stat().st_mtime_ns
    assert written(file, on_warning=said.append) == [first, second]
    assert (said, first.stat().st_mtime_ns) == ([], before)
    first.write_text("mine")
    second.unlink()
    assert written(file, on_warning=said.append) == [first, second]
    assert first.read_text() == "mine"
    assert second.is_file()
    assert said == [
        f"{first} is kept, but differs from what is now suggested; rename it to have that written"
    ]


def test_the_run_may_be_of_another_length(write_solver: Write) -> None:
    (path,) = written(write_solver(), policy="1cycle", max_iter=5000)
    one = prototxt.read_solver(path)
    assert (one.stepsize, one.max_iter) == (2250, 5000)
    cyclical, falling = map(prototxt.read_solver, written(write_solver(), max_iter=5000))
    assert (cyclical.lr_policy, cyclical.stepsize) == ("triangular2", 2000 // 7)
    assert falling.max_iter == 5000


def test_cycles_of_an_uncounted_net_are_as_few_as_advised(
    write_solver: Write, tmp_path: Path
) -> None:
    layer = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 10 } } }'
    (tmp_path / "net.prototxt").write_text(layer)
    file = write_solver(net=str(tmp_path / "net.prototxt"), max_iter=6000)
    cyclical = prototxt.read_solver(written(file)[0])
    assert (cyclical.stepsize, cyclical.max_iter) == (800, 4800)
    for stage in tmp_path.glob("triangular2_?_solver.prototxt"):
        stage.unlink()
    counted = prototxt.read_solver(written(file, images=1250)[0])  # an epoch is 125 iterations
    assert (counted.stepsize, counted.max_iter) == (480, 4800)


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("runs/mine", "runs/1cycle"),
        ("runs/1cycle", "runs/1cycle_suggested"),
        ("runs/", "runs/1cycle"),
        (".", "1cycle"),
        ("/", "/1cycle"),
        (None, ""),
    ],
)
def test_its_snapshots_are_beside_those_of_the_solver(
    given: str | None, prefix: str, write_solver: Write
) -> None:
    (path,) = written(write_solver(snapshot_prefix=given), policy="1cycle")
    assert prototxt.read_solver(path).snapshot_prefix == prefix


def test_a_policy_that_this_caffe_lacks_is_refused_before_the_test(
    write_solver: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prototxt, "has_policy", lambda name: name != "1cycle")
    lacks = "this Caffe lacks the patch one-cycle, which adds it; give another --policy"
    with pytest.raises(UsageError, match=f'^--policy "1cycle": {lacks}$'):
        written(write_solver(), policy="1cycle")
    with pytest.raises(UsageError, match=f'solver.prototxt: lr_policy "1cycle": {lacks}$'):
        written(write_solver(lr_policy="1cycle"))
    assert len(written(write_solver(lr_policy="fixed", max_lr=None, stepsize=None))) == 2


def test_without_bounds_nothing_is_written(write_solver: Write, tmp_path: Path) -> None:
    file = write_solver()
    assert written(file, NONE) == []
    assert list(tmp_path.glob("*.prototxt")) == [file]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (
            {},
            {"policy": "decay"},
            "--policy decay: give one of triangular, triangular2, exp_range, 1cycle",
        ),
        ({}, {"max_iter": 9}, f"--max-iter 9: {LEAST}"),
        ({}, {"max_iter": 2**31}, "--max-iter 2147483648: give 2,147,483,647 or less"),
        ({"max_iter": None}, {}, f"solver.prototxt: max_iter 0: {LEAST}"),
    ],
)
def test_what_cannot_be_written_is_refused(
    fields: dict[str, Any], options: dict[str, Any], message: str, write_solver: Write
) -> None:
    with pytest.raises(UsageError) as refused:
        written(write_solver(**fields), **options)
    assert str(refused.value).endswith(message)
