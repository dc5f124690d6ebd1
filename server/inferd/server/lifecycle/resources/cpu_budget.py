"""How many CPU threads models may use: what the machine has, less what the scheduler's affinity and the cgroup take
away.

A container limited to two CPUs on a 64-core machine sees 64 cores; frameworks that start a thread on each are throttled
to a crawl.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def available_cpus(*, cgroup_root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> int:
    """CPUs that this process may keep busy, at least 1: affinity and every cgroup limit above us, rounded up."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    limit = _cgroup_limit(cgroup_root, proc)
    return max(1, count if limit is None else min(count, math.ceil(limit)))


def share(budget: int, instances: int) -> int:
    """Threads of each of `instances` copies that share `budget`, at least 1."""
    return max(1, budget // max(1, instances))


def _cgroup_limit(root: Path, proc: Path) -> float | None:
    """CPUs that the cgroups allow, None for no limit."""
    found = [limit for directory, read in _directories(root, proc) if (limit := read(directory)) is not None]
    return min(found, default=None)


def _directories(root: Path, proc: Path) -> Iterator[tuple[Path, Callable[[Path], float | None]]]:
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, read = root, _v2
        elif "cpu" in controllers.split(","):
            base, read = root / "cpu", _v1
        else:
            continue
        # A limit on any group above ours binds too. In a container the path may be one of the host: then only the top
        # is there.
        directory = base / path.lstrip("/")
        while True:
            yield directory, read
            if directory in (base, base.parent) or ".." in directory.parts:
                break
            directory = directory.parent
    if not lines:
        yield root, _v2
        yield root / "cpu", _v1


def _v2(directory: Path) -> float | None:
    try:
        quota, _, period = (directory / "cpu.max").read_text().strip().partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _v1(directory: Path) -> float | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
