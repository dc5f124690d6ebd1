"""How many CPU threads models may use: the machine's CPUs, within the process's affinity and the limits of its cgroups.

A container that is limited to two CPUs on a machine with 64 sees 64. A framework that starts a thread on each of them
is throttled by the kernel until it is many times slower.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def available_cpus(*, cgroup_root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> int:
    """CPUs that this process may keep busy, at least 1: within its affinity and the limits of all cgroups above it,
    rounded up."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    limit = _cgroup_limit(cgroup_root, proc)
    return max(1, count if limit is None else min(count, math.ceil(limit)))


def share(budget: int, instances: int) -> int:
    """Threads for each of `instances` instances that share `budget` threads, at least 1."""
    return max(1, budget // max(1, instances))


def _cgroup_limit(root: Path, proc: Path) -> float | None:
    """CPUs that the cgroups allow, None when there is no limit."""
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
        # A limit on any group above ours applies, too. In a container the path may be one of the host: then only the
        # top directory exists.
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
