"""Processor time and memory of a process and its descendants."""

from __future__ import annotations

import re
from pathlib import Path

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants that are alive."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of the process tree so far, in seconds."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def peak_mb(pid: int) -> float:
    """The sum of the largest resident memory of each process of the tree, in MB. Memory that processes share is counted
    for each of them."""
    return sum(_status(process.pid, "VmHWM") for process in tree(pid))


def forget_peak(pid: int) -> None:
    """Resets the peaks of `peak_mb` to the memory that is resident now."""
    for process in tree(pid):
        try:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        except OSError:
            pass


def resident_mb(pid: int) -> float:
    """The resident memory of one process, in MB."""
    return _status(pid, "VmRSS")


def _status(pid: int, key: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def end(pid: int, seconds: float = 10.0) -> None:
    """Ends a process tree: SIGTERM to its root, so that it can clean up; after `seconds`, SIGKILL to the processes that
    are left."""
    processes = tree(pid)
    if processes:
        try:
            processes[0].terminate()
        except psutil.NoSuchProcess:
            pass
        _, left = psutil.wait_procs(processes, seconds)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(left, seconds)
