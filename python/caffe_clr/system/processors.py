"""Counts the processors that this process may use, as the patch parallel-for does."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


def count() -> int:
    """The number of processors in the affinity mask, limited by the control groups.

    In a container, `docker run --cpus 2` sets a limit but leaves the mask as it is.
    """
    return int(min(affine(), granted()))


def affine() -> int:
    """The number of processors in the affinity mask."""
    return len(os.sched_getaffinity(0))


def granted(groups: Path = _GROUPS, mounted: Path = _MOUNTED) -> float:
    """The smallest quota of this process's control groups and their parents, in processors.

    Args:
        groups: the file that lists the groups, each as hierarchy:controllers:path.
        mounted: the folder where control groups (version 2 or 1) are mounted.

    Returns:
        The quota, rounded up; inf if there is none.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return math.inf
    quotas = (quota for line in lines for quota in _quotas(line, mounted))
    return min(quotas, default=math.inf)


def _quotas(line: str, mounted: Path) -> Iterator[float]:
    _, controllers, path = line.split(":", 2)
    if not controllers:
        root, files = mounted, ["cpu.max"]
    elif "cpu" in controllers.split(","):
        root, files = mounted / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    else:
        return
    group = PurePosixPath(path)
    for folder in (group, *group.parents):
        try:
            texts = [(root / str(folder).lstrip("/") / file).read_text() for file in files]
            quota, period = map(int, " ".join(texts).split())
        except (OSError, ValueError):  # no such group here, or no limit
            continue
        if quota > 0 and period > 0:
            yield math.ceil(quota / period)
