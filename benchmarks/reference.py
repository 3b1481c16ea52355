"""Compares the speed of the NumPy reference with PyTorch's CyclicLR."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks import tables
from caffe_clr import policies
from caffe_clr.harness.series import FEATURE
from caffe_clr.policies import Policy

_POINTS = 1_000_000
_STEPS = 20_000
_CYCLE: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000}
_GAMMA = 0.99994
_MODES = ("triangular", "triangular2", "exp_range")  # of CyclicLR


def show(repeats: int) -> None:
    """Measure each policy of the paper, and print a table."""
    iterations = np.arange(_POINTS)
    headings = ("reference", "quartiles", "CyclicLR", "quartiles", "reference / CyclicLR")
    notes = [
        f"rates per second; median and quartiles of {repeats}; the reference gets an array of"
        f" {_POINTS:,}",
        f"iterations, CyclicLR {_STEPS:,} calls of step(); CyclicLR has no decay",
    ]
    if not tables.has_torch():
        notes[1] = "iterations; PyTorch is not installed, so CyclicLR is missing"
    table = tables.table("Speed of the reference", "policy", headings, notes)
    papers = [policy for policy in policies.POLICIES.values() if policy.patch == FEATURE]
    for policy in track(papers, "reference", console=tables.console, transient=True):
        fields = _CYCLE | ({"gamma": _GAMMA} if "gamma" in policy.fields else {})

        def reference(policy: Policy = policy, fields: dict[str, Any] = fields) -> None:
            policy.rates(iterations, **fields)

        has_mode = tables.has_torch() and policy.name in _MODES
        stepping = _cyclic_lr(policy.name) if has_mode else None
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(_POINTS / _seconds(reference))
            if stepping:
                theirs.append(_STEPS / _seconds(stepping))
        cells = [policy.name, *_cells(ours)]
        if stepping:
            paired = tables.quartiles(np.divide(ours, theirs))
            cells += [*_cells(theirs), f"{paired[0]:,.0f} ({paired[1]:,.0f}-{paired[2]:,.0f})"]
        table.add_row(*cells)
    tables.console.print(table)


def _cells(speeds: list[float]) -> list[str]:
    found = tables.quartiles(speeds)
    return [f"{found[0]:,.0f}", "-".join(f"{value:,.0f}" for value in found[1:])]


def _cyclic_lr(policy: str) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.001)
    schedule = torch.optim.lr_scheduler.CyclicLR(
        optimizer,
        base_lr=_CYCLE["base_lr"],
        max_lr=_CYCLE["max_lr"],
        step_size_up=_CYCLE["stepsize"],
        mode=policy,
        gamma=_GAMMA,
        cycle_momentum=False,
    )
    optimizer.step()  # PyTorch warns where a schedule steps first

    def step() -> None:
        for _ in range(_STEPS):
            schedule.step()

    return step


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
