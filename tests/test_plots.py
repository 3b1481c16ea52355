"""What plots show, and that it can be read: panels, axes, lines, keys, and files."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from caffe_clr import policies
from caffe_clr.method import plots, results, suggestions
from caffe_clr.method.range_test_result import RangeTest
from caffe_clr.method.results import Entry
from caffe_clr.runs.history import History
from caffe_clr.runs.metrics import TRAINING_LOSS, Metric

ACCURACY = Metric("accuracy", of_test=True, is_accuracy=True)
LINEAR = np.linspace(0, 0.02, 51)
GEOMETRIC = np.geomspace(1e-4, 1, 101)
CYCLE: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 100}
STEPS: dict[str, Any] = {"base_lr": 0.1, "gamma": 0.1, "stepvalue": [100, 250]}
LONG = "a_solver_with_momentum_0.95_weight_decay_0.0005_and_batches_of_128_images_{}"


def valley(rates: Any, lowest: float) -> Any:
    """A loss that falls, is lowest at a rate, and rises again."""
    return 2.3 - 2 * np.exp(-(((rates - lowest) / lowest) ** 2))


def ranged(
    rates: Any, losses: Any, *, diverged_at: float | None = None, band: bool = False
) -> RangeTest:
    """A range test whose accuracy is high where its loss is low."""
    scores = 1 - np.asarray(losses) / 3
    rows = [
        {"iteration": i, "lr": rate, "accuracy": score}
        | ({"accuracy_low": score - 0.1, "accuracy_high": score + 0.1} if band else {})
        for i, (rate, score) in enumerate(zip(rates, scores, strict=True))
    ]
    train = [
        {"iteration": i, "lr": rate, "loss": loss}
        for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))
    ]
    found = suggestions.of_rows(ACCURACY, rows, train, diverged_at=diverged_at)
    return RangeTest(ACCURACY, (1, 2, 3) if band else (1,), rows, train, diverged_at, found)


def swept() -> RangeTest:
    losses = np.where(GEOMETRIC < 0.3, valley(np.log10(GEOMETRIC) + 4.5, 2.5), 9)
    rows = [
        {"iteration": 10 * i, "lr": rate, "loss": loss}
        for i, (rate, loss) in enumerate(zip(GEOMETRIC, losses, strict=True))
    ]
    columns = ([row[name] for row in rows] for name in ("iteration", "lr", "loss"))
    return RangeTest(TRAINING_LOSS, (1,), rows, rows, None, suggestions.swept(*columns))


def scheduled(policy: str, last: int = 401, **fields: Any) -> list[dict[str, Any]]:
    record = policies.POLICIES[policy]
    rates = record.rates(np.arange(last), **fields)
    cycle = 0 if record.cycles else None
    return [{"iteration": i, "lr": float(r), "cycle": cycle} for i, r in enumerate(rates)]


def entry(
    name: str,
    policy: str = "triangular",
    fields: Mapping[str, Any] = CYCLE,
    *,
    seeds: int = 1,
    top: float = 0.8,
    solver_type: str = "SGD",
    diverged: Sequence[int] = (),
) -> Entry:
    histories = {
        seed: History(
            [],
            [
                {"iteration": i, "lr": 0.1, "accuracy": (top + seed / 50) * (1 - math.exp(-i / 90))}
                for i in range(0, 401, 40)
            ],
        )
        for seed in range(1, seeds + 1)
    }
    messages = dict.fromkeys(diverged, "diverged")
    schedule = scheduled(policy, **fields)
    return Entry(name, ACCURACY, 400, histories, messages, schedule, solver_type)


def drawn_lines(axes: Axes) -> list[Any]:
    """The lines of curves, without what is wider beneath them."""
    return [line for line in axes.get_lines() if line.get_linewidth() < 2]


def boxes(figure: Figure, texts: Sequence[Text]) -> list[Bbox]:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def check_readable(figure: Figure) -> None:
    """No text leaves the figure, no tick's label meets the next, and no key covers a panel."""
    figure.draw_without_rendering()
    keys: list[Legend] = [*figure.legends, *filter(None, map(Axes.get_legend, figure.axes))]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for key in keys:
        for axes in figure.axes:
            assert not Bbox.intersection(key.get_window_extent(renderer), axes.bbox)
    for text in [text for key in keys for text in key.get_texts()] + [
        text for axes in figure.axes for text in (axes.title, axes.yaxis.label, axes.xaxis.label)
    ]:
        for box in boxes(figure, [text]):
            assert box.x0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y0 >= -1, text
            assert box.y1 <= figure.bbox.y1 + 1, text
    for axes in figure.axes:
        shown = [label for label in axes.get_xticklabels() if label.get_visible()]
        visible = [b for b in boxes(figure, shown) if axes.bbox.x0 - 1 <= (b.x0 + b.x1) / 2]
        for left, right in pairwise(sorted(visible, key=lambda box: box.x0)):
            assert left.x1 < right.x0


@pytest.mark.parametrize(
    ("result", "scale"),
    [
        (ranged(LINEAR, valley(LINEAR, 0.01)), "linear"),
        (ranged(LINEAR + 1e-5, valley(LINEAR, 0.01)), "linear"),
        (swept(), "log"),
    ],
)
def test_a_range_test_has_one_axis_as_its_rates_are_spaced(
    result: RangeTest, scale: str, tmp_path: Path, figures: list[Figure]
) -> None:
    plots.plot_range_test(result, "a test", tmp_path / "plot.png")
    (figure,) = figures
    assert {axes.get_xscale() for axes in figure.axes} == {scale}
    assert len({axes.bbox.x0 for axes in figure.axes}) == 1  # one column
    check_readable(figure)


def test_the_marks_of_a_range_test_are_numbered_as_in_its_key(
    tmp_path: Path, figures: list[Figure]
) -> None:
    result = ranged(LINEAR[:33], valley(LINEAR[:33], 0.01), diverged_at=0.0128, band=True)
    plots.plot_range_test(result, "a test", tmp_path / "plot.png")
    (figure,) = figures
    found, upper = result.suggestions, figure.axes[0]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        f"1  base_lr {found.base_lr.rate:.2g}",
        f"2  max_lr {found.max_lr.rate:.2g}",
        f"3  lowest training loss, at {found.turn:.3g}",
        "4  diverged, at 0.0128",
        "the suggested cycle",
    ]
    rates = [found.base_lr.rate, found.max_lr.rate, found.turn, 0.0128]
    assert [text.xy for text in upper.texts] == [(rate, 1) for rate in rates]  # type: ignore[attr-defined]
    assert [text.get_text() for text in upper.texts] == ["1", "2", "3", "4"]
    styles = set()
    for axes in figure.axes:
        marks = axes.get_lines()[1:]
        assert [line.get_xdata()[0] for line in marks] == rates  # type: ignore[index]
        styles |= {(to_hex(line.get_color()), line.get_linestyle()) for line in marks}
        (cycle,) = axes.patches
        assert cycle.get_extents().transformed(axes.transData.inverted()).intervalx == (
            pytest.approx(rates[:2])
        )
    assert len(styles) == 4
    assert upper.get_title() == "a test\nmean of 3 seeds, band: lowest to highest"
    check_readable(figure)


def test_numbers_of_marks_do_not_cover_each_other(tmp_path: Path, figures: list[Figure]) -> None:
    near = ranged(LINEAR[:27], valley(LINEAR[:27], 0.01), diverged_at=0.0102)
    plots.plot_range_test(near, "a test", tmp_path / "plot.png")
    (figure,) = figures
    numbers = boxes(figure, figure.axes[0].texts)
    assert len(numbers) == 4
    for one, other in combinations(numbers, 2):
        assert not Bbox.intersection(one, other)
    (title,) = boxes(figure, [figure.axes[0].title])
    assert title.y0 > max(box.y1 for box in numbers)


def test_a_loss_that_explodes_leaves_the_rest_readable(
    tmp_path: Path, figures: list[Figure]
) -> None:
    losses = valley(LINEAR, 0.01)
    losses[-1] = 1e6
    plots.plot_range_test(ranged(LINEAR, losses), "a test", tmp_path / "plot.png")
    assert figures[0].axes[1].get_ylim()[1] == pytest.approx(2 * losses[:5].max())


def test_a_test_that_suggests_nothing_is_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    plots.plot_range_test(ranged(LINEAR, 0 * LINEAR + 2.3), "a test", tmp_path / "plot.png")
    (figure,) = figures
    assert figure.legends == []
    assert [len(axes.patches) for axes in figure.axes] == [0, 0]
    assert figure.axes[0].get_title() == "a test"


def test_a_comparison_says_what_is_compared(tmp_path: Path, figures: list[Figure]) -> None:
    solvers = [entry("fixed", "fixed", {"base_lr": 0.01}, seeds=3), entry("1cycle", seeds=3)]
    assert results.compared(solvers, "digits") == "digits: fixed and 1cycle"
    assert results.compared([*solvers, entry("exp")]) == "fixed, 1cycle and exp"
    assert results.compared([entry(LONG.format(i)) for i in range(8)], "digits") == (
        "digits: 8 solvers"
    )
    single = [entry("a"), entry("b")]
    for entries in (solvers, single, [solvers[0], single[0]], single[:1]):
        plots.plot_comparison(entries, "digits: a and b", tmp_path / "plot.png")
    assert [figure.axes[0].get_title() for figure in figures] == [
        "digits: a and b\nmean of 3 seeds, band: lowest to highest",
        "digits: a and b\none run each",
        "digits: a and b\nmean of 1 to 3 seeds, band: lowest to highest",
        "digits: a and b\none run",
    ]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_comparison_is_readable(count: int, tmp_path: Path, figures: list[Figure]) -> None:
    names = [LONG.format(i) if count == 8 else f"solver {i}" for i in range(count)]
    entries = [entry(name, top=0.6 + i / 40, seeds=2) for i, name in enumerate(names)]
    plots.plot_comparison(entries, results.compared(entries, "net"), tmp_path / "plot.png")
    (figure,) = figures
    check_readable(figure)
    upper, rates = figure.axes
    assert rates.get_ylim()[0] == 0
    assert upper.get_ylabel() == "test accuracy (%)"
    assert drawn_lines(upper)[0].get_ydata()[-1] == pytest.approx(
        100 * entries[0].curve()[-1]["mean"]
    )
    assert upper.bbox.height > 2 * figure.dpi


def test_steps_of_a_rate_are_vertical(tmp_path: Path, figures: list[Figure]) -> None:
    plots.plot_comparison([entry("steps", "multistep", STEPS)], "", tmp_path / "plot.png")
    recorded = range(0, 401, 20)
    rates = policies.multistep(np.array(recorded), **STEPS)
    rows = [
        {"iteration": i, "lr": float(r), "loss": 1.0} for i, r in zip(recorded, rates, strict=True)
    ]
    plots.plot_log(History(rows, []), "a run", tmp_path / "plot.png")
    for figure, width in zip(figures, (1, 0), strict=True):
        line = figure.axes[-1].get_lines()[0]
        points = np.column_stack(line.get_data()).tolist()
        falls = [(x, y) for (x, a), (y, b) in pairwise(points) if a != b]
        assert [(y - x, round(x / 50)) for x, y in falls] == [(width, 2), (width, 5)]


def test_a_rate_with_cycles_has_no_steps(tmp_path: Path, figures: list[Figure]) -> None:
    recorded = np.arange(0, 401, 40)  # two are as far from a peak
    rates = policies.triangular(recorded, **CYCLE)
    rows = [
        {"iteration": int(i), "lr": float(r), "loss": 1.0}
        for i, r in zip(recorded, rates, strict=True)
    ]
    plots.plot_log(History(rows, []), "a run", tmp_path / "plot.png")
    assert figures[0].axes[-1].get_lines()[0].get_xdata() == pytest.approx(recorded)


def test_curves_on_one_another_are_all_visible(tmp_path: Path, figures: list[Figure]) -> None:
    entries = [entry("one"), entry("two"), entry("three"), entry("other", top=0.4)]
    plots.plot_comparison(entries[:3], "", tmp_path / "plot.png")
    plots.plot_comparison(entries[2:], "", tmp_path / "plot.png")
    same, apart = figures
    for axes in same.axes:
        wider = [line.get_linewidth() for line in axes.get_lines() if line.get_linewidth() > 2]
        assert len(wider) == 2
        assert wider[0] > wider[1] + 1
        beneath = [to_hex(line.get_color()) for line in axes.get_lines()]
        assert len(set(beneath)) == 5
    assert len(apart.axes[0].get_lines()) == 2


def test_a_solver_type_has_a_hue_and_no_cycles_have_dashes(
    tmp_path: Path, figures: list[Figure]
) -> None:
    fixed = {"base_lr": 0.01}
    of_types = [
        entry(f"{kind}, {policy}", policy, fields, solver_type=kind, top=top)
        for kind, top in (("SGD", 0.5), ("Adam", 0.7))
        for policy, fields in (("fixed", fixed), ("triangular", CYCLE), ("triangular2", CYCLE))
    ]
    plots.plot_comparison(of_types, "", tmp_path / "plot.png")
    of_one = [entry("fixed", "fixed", fixed), *(entry(f"cycles {i}", top=i / 9) for i in range(7))]
    plots.plot_comparison(of_one, "", tmp_path / "plot.png")
    looks = [
        [(to_hex(line.get_color()), line.get_linestyle()) for line in drawn_lines(figure.axes[0])]
        for figure in figures
    ]
    hues = [hue for hue, _ in looks[0]]
    assert hues[0] == hues[1] == hues[2] != hues[3] == hues[4] == hues[5]
    assert [dash for _, dash in looks[0]] == ["--", "-", "-."] * 2
    assert len({hue for hue, _ in looks[1]}) == 8
    assert [dash for _, dash in looks[1]] == ["--", *["-"] * 7]


def test_runs_that_diverged_are_named(tmp_path: Path, figures: list[Figure]) -> None:
    entries = [
        entry("whole", seeds=2),
        entry("some", seeds=2, diverged=[2]),
        entry("all", seeds=2, diverged=[1, 2]),
        Entry("nothing", ACCURACY, 400, {1: History([], [])}, {1: "diverged"}, []),
    ]
    plots.plot_comparison(entries, "", tmp_path / "plot.png")
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == [
        *("whole", "some (1 of 2 diverged)", "all (diverged)"),
        "nothing (diverged)",
    ]


def test_a_run_is_drawn_in_percent_with_rates_from_zero(
    tmp_path: Path, figures: list[Figure]
) -> None:
    test = [
        {"iteration": i, "lr": 0.1, "accuracy": i / 500, LONG.format(1): 0.5, LONG.format(2): 0.6}
        for i in range(0, 401, 100)
    ]
    plots.plot_log(History([], test), LONG * 3, tmp_path / "plot.png")
    (figure,) = figures
    outputs, rates = figure.axes
    assert outputs.get_ylabel() == "outputs (%)"
    assert drawn_lines(outputs)[0].get_ydata() == pytest.approx([0, 20, 40, 60, 80])
    assert rates.get_ylim()[0] == 0
    check_readable(figure)


def test_iterations_are_whole_numbers(tmp_path: Path, figures: list[Figure]) -> None:
    for last in (0, 1, 3, 12_345_678):
        rows = [{"iteration": i, "lr": 0.1, "loss": 1.0} for i in (0, last)]
        plots.plot_log(History(rows, []), "a run", tmp_path / "plot.png")
    for figure in figures:
        check_readable(figure)
        texts = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
        assert len(texts) == len(set(texts))


def test_a_schedule_starts_at_zero_with_a_key_beside_it(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rows = [row | {"stage": 1} for row in scheduled("triangular", **CYCLE)]
    rows += [
        row | {"iteration": row["iteration"] + 401, "stage": 2}
        for row in scheduled("fixed", base_lr=0.001)
    ]
    plots.plot_schedule(rows, {0: 0.001}, f"Learning rate of {LONG}, {LONG}", tmp_path / "plot.png")
    (figure,) = figures
    assert figure.axes[0].get_ylim()[0] == 0
    check_readable(figure)


def test_a_schedule_that_falls_far_is_drawn_on_a_logarithmic_axis(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rates = scheduled("step", base_lr=0.01, gamma=0.1, stepsize=100)
    rows = [row | {"stage": 1, "cycle": None} for row in rates]
    plots.plot_schedule(rows, {}, "Learning rate of step", tmp_path / "plot.png")
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert 0.5e-6 < low < min(row["lr"] for row in rows) < 0.01 < high < 0.02
    check_readable(figures[0])


def test_the_policies_name_their_fields(tmp_path: Path, figures: list[Figure]) -> None:
    shown = {"triangular": CYCLE, "exp_range": {**CYCLE, "gamma": 0.9999}}
    plots.plot_policies(shown, tmp_path / "plot.png")
    for axes, (policy, fields) in zip(figures[0].axes, shown.items(), strict=True):
        assert axes.get_title("left") == policy
        for field, value in fields.items():
            assert f"{field} {value:g}" in axes.get_title("right")
        texts = {text.get_text() for text in axes.texts}
        assert {"base_lr", "max_lr", "stepsize"} <= texts


@pytest.mark.parametrize(
    ("suffix", "first"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_the_suffix_decides_the_format(suffix: str, first: bytes, tmp_path: Path) -> None:
    picture = tmp_path / f"plot{suffix}"
    plots.plot_comparison([entry("a")], "a", picture)
    assert picture.read_bytes().startswith(first)


def test_a_plot_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "plot.png"
    picture.write_bytes(b"the one before")

    def fill(figure: Figure, file: Path, **how: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Figure, "savefig", fill)
    with pytest.raises(OSError, match="No space left") as raised:
        plots.plot_comparison([entry("a")], "a", picture)
    assert raised.value.filename == str(picture)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the one before"]
