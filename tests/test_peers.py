"""The rules of other tools, on losses whose averages are made for them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers import RULES

Values = NDArray[np.float64]

POINTS = np.arange(100)
RATES = np.geomspace(1e-4, 1, 100)
LINEAR = np.linspace(0.01, 1, 100)


def losses(rule: str, averages: Values) -> Values:
    """The losses whose averages, as the tool of a rule takes them, are these."""
    if rule == "pytorch-lr-finder":
        return np.append(averages[:1], (averages[1:] - 0.95 * averages[:-1]) / 0.05)
    counted = POINTS + (1 if rule.startswith("fastai") else 2)
    sums = averages * (1 - 0.98**counted)
    return (sums - 0.98 * np.append(0, sums[:-1])) / 0.02


def point(rule: str, averages: Values, rates: Values = RATES) -> int:
    """The point whose rate a rule suggests, or a tenth of it for the minimum."""
    suggested = RULES[rule](rates, losses(rule, averages))
    assert isinstance(suggested, float)
    shares = suggested / (rates / 10 if rule == "fastai minimum" else rates)
    (found,) = np.flatnonzero(np.abs(shares - 1) < 1e-9)
    return int(found)


def falling(drops: dict[int, float], start: float = 2.0) -> Values:
    """Averages that fall by so much at these points."""
    averages = np.full(POINTS.size, start)
    for at, drop in drops.items():
        averages[at:] -= drop
    return averages


def bent(*knots: tuple[int, float]) -> Values:
    """Averages that are straight between these points."""
    return np.interp(POINTS, [at for at, _ in knots], [height for _, height in knots])


@pytest.mark.parametrize("rule", ["pytorch-lr-finder", "Lightning before 2.5.3"])
def test_the_steepest_slope_by_points_is_that_between_the_neighbours(rule: str) -> None:
    averages = falling({30: 0.12, 41: 0.1, 42: 0.11})  # 0.06 at 30, 0.105 at 41
    assert point(rule, averages) == 41


def test_pytorch_lr_finder_skips_10_points_and_5() -> None:
    # at the ends, a slope is that to the only neighbour
    assert point("pytorch-lr-finder", falling({10: 0.3, 11: 0.1, 95: 0.5})) == 10
    assert point("pytorch-lr-finder", falling({11: 0.1, 94: 0.2, 95: 0.5})) == 94


def test_lightning_skips_10_points_and_1() -> None:
    assert point("Lightning before 2.5.3", falling({10: 0.3, 11: 0.1, 99: 0.5})) == 10
    assert point("Lightning before 2.5.3", falling({11: 0.1, 98: 0.2, 99: 0.5})) == 98


@pytest.mark.parametrize(
    ("rule", "times", "last", "stopped", "whole"),
    [
        ("pytorch-lr-finder", 5, 55, 55, 61),
        ("Lightning", 4, 59, 59, 61),
        ("Lightning before 2.5.3", 4, 59, 59, 61),
        ("fastai steep", 4, 55, 54, 60),
    ],
)
def test_a_sweep_stops_at_so_many_times_the_lowest_average(
    rule: str, times: int, last: int, stopped: int, whole: int
) -> None:
    averages = falling({50: 0.5, 51: 0.4, last: 1.2, last + 1: 1.5}, start=5.0)
    low = averages[59]
    averages[60:] = low  # and 60 itself is far above; the steepest fall is that after it
    averages[60] = 0.99 * times * low
    assert point(rule, averages) == whole
    averages[60] = 1.01 * times * low
    assert point(rule, averages) == stopped


def test_pytorch_lr_finder_suggests_the_last_rate_before_nan() -> None:
    averages = falling({20: 1.0})
    averages[50:] = np.nan
    assert point("pytorch-lr-finder", averages) == 49


def test_lightning_leaves_nan_out() -> None:
    averages = falling({20: 0.2, 49: 0.5})
    averages[50:] = np.nan
    assert point("Lightning before 2.5.3", averages) == 49
    assert point("Lightning", averages) == 20


def test_lightning_takes_the_slope_over_the_rate() -> None:
    averages = falling({20: 0.05, 21: 0.06, 60: 0.15, 61: 0.16})
    assert point("Lightning before 2.5.3", averages) == 60
    assert point("Lightning", averages) == 20  # at 60, the rates are 41 times as far apart
    assert point("Lightning", averages, LINEAR) == 60


def test_steep_takes_the_slope_over_the_logarithm_of_the_rate() -> None:
    averages = falling({21: 0.15, 61: 0.1})
    assert point("fastai steep", averages) == 20
    assert point("fastai steep", averages, LINEAR) == 60  # log(62/61) is a third of log(22/21)


def test_a_valley_is_halfway_down_the_longest_fall() -> None:
    averages = bent((0, 2), (39, 2.1), (69, 1.5), (99, 2.2))
    assert point("fastai valley", averages) == 53  # of 31 points, number 10 + 5 from 39 on
    averages[50] = 2
    assert point("fastai valley", averages) == 54  # of 30, number 10 + 5 of the last 30
    averages[49] = 2.01
    assert point("fastai valley", averages) == 53  # of 29, number 9 + 4 of the last 29


def test_a_valley_goes_on_behind_a_peak() -> None:
    averages = bent((0, 3), (40, 2.79), (41, 3.5), (50, 3), (80, 2), (99, 2.6))
    # 31 points from 10 to 40 and 24 from 57 to 80: number 18 + 9 of the last 55
    assert point("fastai valley", averages) == 52


def test_a_valley_without_a_fall_is_the_first_point_left() -> None:
    assert point("fastai valley", bent((0, 2), (99, 3))) == 10


def test_slide_goes_down_from_the_end_while_slopes_differ() -> None:
    # the slopes rise by 0.00035 at each point after 60: by 0.00516 from 60 to 75, a quarter of
    # the first rise being at 60, but only by 0.0049 from 59 to 74
    averages = 2 + 0.000175 * np.maximum(0, POINTS - 60) ** 2
    assert point("fastai slide", averages) == 60
    assert point("fastai slide", falling({})) == 94 - 15


def test_minimum_is_a_tenth_of_the_rate_of_the_lowest_average_left() -> None:
    averages = falling({50: 0.5, 51: -0.4})
    averages[[9, 95]] = 1.2
    assert point("fastai minimum", averages) == 50
    averages[94] = 1.4
    assert point("fastai minimum", averages) == 94
    averages[10] = 1.3
    assert point("fastai minimum", averages) == 10


def test_fastai_cuts_off_what_comes_after_nan() -> None:
    averages = bent((0, 2), (99, 1))
    averages[70:] = np.nan
    assert point("fastai minimum", averages) == 69


@pytest.mark.parametrize("rule", RULES)
def test_some_rules_do_not_look_at_the_spacing_of_the_rates(rule: str) -> None:
    averages = 2 - 1 / (1 + np.exp((50.3 - POINTS) / 6)) + 0.0004 * np.maximum(0, POINTS - 70) ** 2
    looks_at_it = rule in ("Lightning", "fastai steep")
    assert (point(rule, averages) != point(rule, averages, LINEAR)) == looks_at_it


@pytest.mark.parametrize(
    ("rule", "points"),
    [
        ("pytorch-lr-finder", 17),
        ("fastai valley", 6),
        ("fastai slide", 23),  # 2 and 5 are cut, 16 are left
        ("fastai minimum", 6),
        ("fastai steep", 7),
        ("Lightning", 13),
        ("Lightning before 2.5.3", 13),
    ],
)
def test_too_few_points_have_no_suggestion(rule: str, points: int) -> None:
    assert RULES[rule](RATES[:points], np.ones(points)) is not None
    for fewer in (0, 1, points - 1):
        assert RULES[rule](RATES[:fewer], np.ones(fewer)) is None


def test_too_few_points_before_the_sweep_stops_have_no_suggestion() -> None:
    averages = falling({})
    averages[5] = 20
    for name, rule in RULES.items():
        assert rule(RATES, losses(name, averages)) is None
