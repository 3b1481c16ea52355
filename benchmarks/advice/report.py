"""Tabulates what was measured: how well bounds agree, and what trainings with them reach."""

import contextlib
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmarks import peers, tables
from benchmarks.advice import measuring
from benchmarks.advice.measuring import SEEDS, Record
from benchmarks.advice.tasks import DEVELOPED, FOLDER, HELD_OUT, Task
from caffe_clr import prototxt

RECORDED = Path(__file__).parent / "measurements.jsonl"
_FACTOR = 2
_DATA = "CIFAR-10 (98 of 60,000 images from JPEG), CIFAR-100, and scikit-learn's digits; 16x16"


def show(file: Path, tasks: Sequence[Task]) -> None:
    """Print the tables of the tasks that are measured whole."""
    done = measuring.read(file)
    with contextlib.chdir(FOLDER.parent):  # where the paths in the solvers start
        _show(tasks, done)


def _show(tasks: Sequence[Task], done: dict[str, Record]) -> None:
    measured = [task for task in tasks if measuring.key(task, "user", SEEDS[-1]) in done]
    tables.console.print(_bounds(measured, done))
    tables.console.print(_schedules(measured, done))
    tables.console.print(_rules(measured, done))


def agreeing(rates: Sequence[float]) -> int:
    """How many rates are, at most, within a factor of two of one another."""
    return max((sum(low <= rate <= _FACTOR * low for rate in rates) for low in rates), default=0)


def _of(task: Task, done: dict[str, Record], part: str) -> list[Record]:
    start = f"{task.name} {part} "
    return [record for key, record in done.items() if key.startswith(start)]


def _groups(measured: Sequence[Task]) -> list[tuple[str, list[Task]]]:
    groups = (("developed with", DEVELOPED), ("held out", HELD_OUT))
    return [(title, [task for task in group if task in measured]) for title, group in groups]


def _bounds(measured: Sequence[Task], done: dict[str, Record]) -> Table:
    """How many range tests suggest bounds, how well they agree, and the span of max_lr."""
    headings = ["found", "agree", "max_lr", "given", "agree", "max_lr", "peers' span"]
    notes = [
        "found: tests without a range, 3 lengths and 3 seeds; given: 3 ranges that end 1, 5.5 and"
        " 30",
        "times the user's base_lr, of 2, 8 and 32 epochs, 3 seeds: how many suggest bounds, of"
        " how many",
        "agree: those within a factor of 2 of one another",
        "peers' span: the highest of their rates divided by the lowest, on the same given tests",
        _DATA,
    ]
    table = tables.table("max_lr from range tests of one net", "task", headings, notes)
    for title, group in _groups(measured):
        table.add_section()
        table.add_row(f"[bold]{title}")
        for task in group:
            table.add_row(
                task.name,
                *_agreement(_of(task, done, "search")),
                *_agreement(_of(task, done, "test")),
                _peers_span(_of(task, done, "test")),
            )
    return table


def _agreement(tests: Sequence[Record]) -> list[str]:
    rates = [test["max_lr"] for test in tests if test["max_lr"]]
    if not rates:
        return [f"0 of {len(tests)}", "", ""]
    spread = "-".join(f"{rate:.2g}" for rate in sorted({min(rates), max(rates)}))
    return [f"{len(rates)} of {len(tests)}", f"{agreeing(rates)} of {len(rates)}", spread]


def _peers_span(tests: Sequence[Record]) -> str:
    """The widest and the narrowest span of a rule."""
    spans = []
    for rule in peers.RULES.values():
        rates = [rate for test in tests if (rate := rule(*measuring.curve(test))) and rate > 0]
        if len(rates) > 1:
            spans.append(max(rates) / min(rates))
    return f"{min(spans):.0f}-{max(spans):,.0f}" if spans else ""


def _schedules(measured: Sequence[Task], done: dict[str, Record]) -> Table:
    """The results of the user's solver and of the one that range-test writes."""
    headings = ["user", "half", "", "whole", "", "cost"]
    notes = [
        "accuracy in percent, or loss, at the end of the training; mean of 3 seeds ± standard"
        " error",
        "half, whole: the solver that range-test writes, with a half or all of the user's"
        " iterations",
        "+: better than the user's by more than one standard error; -: worse; =: neither",
        "where the range test suggests nothing, the user keeps his own solver",
        "cost: of the range test, in percent of the user's iterations",
    ]
    title = "The user's solver, and the one that range-test writes"
    table = tables.table(title, "task", headings, notes)
    for group_title, group in _groups(measured):
        table.add_section()
        table.add_row(f"[bold]{group_title}")
        for task in group:
            user = _results(task, done, "user")
            cells = [_shown(user)]
            for share in measuring.SHARES:
                ours = _results(task, done, f"ours {share}")
                cells += [_shown(ours), _verdict(ours, user)]
            table.add_row(task.name, *cells, f"{100 * _cost(task, done):.0f}")
    return table


def _rules(measured: Sequence[Task], done: dict[str, Record]) -> Table:
    """What a single cycle reaches whose max_lr is from the rules of other tools."""
    names = list(peers.RULES)
    notes = [
        "result of a single cycle with this max_lr and the user's iterations, as above; the"
        " median of",
        "the rates over three sweeps of 100 iterations from 1e-7 to 10, rounded to half an octave",
        "mean: of accuracies only; a training that diverged counts as a guess, and where there is"
        " no",
        "rate, the user keeps his own solver",
    ]
    table = tables.table("max_lr by the rules of other tools", "task", ["ours", *names], notes)
    for column in table.columns:
        column.no_wrap = False
    for title, group in _groups(measured):
        rows = {task: _row_of_rules(task, done) for task in group}
        table.add_section()
        table.add_row(f"[bold]{title}")
        for task, row in rows.items():
            table.add_row(task.name, *(_plain(value, row[0][1]) for value, _ in row))
        counted = [row for row in rows.values() if row[0][1]]
        if counted:
            means = [statistics.fmean(row[i][0] for row in counted) for i in range(len(names) + 1)]
            table.add_row("mean", *(f"{100 * mean:.1f}" for mean in means))
    return table


def _row_of_rules(task: Task, done: dict[str, Record]) -> list[tuple[float, bool]]:
    """The mean result of ours and of each rule, and whether it is an accuracy."""
    is_accuracy = done[measuring.key(task, "user", SEEDS[0])]["is_accuracy"]
    rates = measuring.peers_rates(task, done)
    parts = ["ours 1", *(f"peer {rate}" for rate in rates.values())]
    return [(statistics.fmean(_results(task, done, part)), is_accuracy) for part in parts]


def _results(task: Task, done: dict[str, Record], part: str) -> list[float]:
    """The results of the seeds. A training that diverged counts as a guess.

    Where a range test suggests nothing, the user keeps his own solver.
    """
    found = []
    for seed in SEEDS:
        own = measuring.key(task, "user", seed)
        value = done.get(measuring.key(task, part, seed), done[own])["value"]
        is_lost = value is None or math.isnan(value)
        found.append(measuring.guess(task) if is_lost else float(value))
    return found


def _shown(results: Sequence[float]) -> str:
    scale = 100 if max(results) <= 1 else 1
    error = statistics.stdev(results) / math.sqrt(len(results))
    return f"{scale * statistics.fmean(results):.1f} ± {scale * error:.1f}"


def _plain(value: float, is_accuracy: bool) -> str:
    return f"{100 * value:.1f}" if is_accuracy else f"{value:.1f}"


def _verdict(ours: Sequence[float], user: Sequence[float]) -> str:
    """Whether ours is better, by more than one standard error of the difference."""
    better = statistics.fmean(ours) - statistics.fmean(user)
    if max(*ours, *user) > 1:  # losses
        better = -better
    error = math.sqrt((statistics.variance(ours) + statistics.variance(user)) / len(SEEDS))
    if abs(better) <= error:
        return "="
    return "+" if better > 0 else "-"


def _cost(task: Task, done: dict[str, Record]) -> float:
    """The mean cost of the range tests with the default length, as a share of the run."""
    costs = [done[measuring.key(task, "search", 1, seed)]["iterations"] for seed in SEEDS]
    return statistics.fmean(costs) / float(prototxt.read_solver(task.solver).max_iter)
