"""How many processors a process may use: its mask, and what its control groups grant."""

import math
import os
from pathlib import Path

import pytest

from caffe_clr.runs import jobs
from caffe_clr.system import processors

# what the list of control groups says, files below the mount, and the processors granted
GROUPS = {
    "version 2": ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2),
    "a part of a processor": ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
    "a group above": ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "cpu.max": "50000 100000\n"}, 1),
    "no limit": ("0::/a\n", {"a/cpu.max": "max 100000\n"}, math.inf),
    "within a container": ("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3),
    "version 1": (
        "5:memory:/x\n4:cpuacct,cpu:/docker/x\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        4,
    ),
    "version 1, no limit": (
        "4:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "another controller": ("4:cpuset:/\n", {"cpuset/cpu.max": "100000 100000\n"}, math.inf),
}


@pytest.mark.parametrize("case", GROUPS)
def test_what_control_groups_grant(case: str, tmp_path: Path) -> None:
    listed, files, granted = GROUPS[case]
    (tmp_path / "list").write_text(listed)
    mounted = tmp_path / "mounted"
    for name, content in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(content)
    assert processors.granted(tmp_path / "list", mounted) == granted


def test_without_control_groups_the_mask_counts(tmp_path: Path) -> None:
    assert processors.granted(tmp_path / "none", tmp_path) == math.inf
    assert 1 <= processors.count() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("affine", "granted", "trainings", "threads"),
    [(64, 2, 1, 2), (64, 2, 2, 1), (64, 2, 4, 1), (64, math.inf, 1, None), (4, 8, 2, 2)],
)
def test_trainings_share_what_is_granted(
    affine: int,
    granted: float,
    trainings: int,
    threads: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processors, "affine", lambda: affine)
    monkeypatch.setattr(processors, "granted", lambda: granted)
    assert jobs.threads(trainings) == threads
