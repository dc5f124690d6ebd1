"""A server with several worker processes, observed from outside: its processes and its metrics."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

from support.server import FAST, Served
from support.waiting import eventually

# Connections are renewed often, so that a worker that stops soon has none.
GROUP = (*FAST, "server.workers=2", "grpc.max_connection_age=1s")
LONG = 150.0  # seconds in which a worker must start, also on a busy machine


def workers(server: Served) -> set[int]:
    """The process ids of the workers."""
    return {int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()}


def running(pid: int) -> bool:
    """Whether a process with this id exists and has not ended."""
    try:
        return re.search(r"^State:\s+[^ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is not None
    except (FileNotFoundError, ProcessLookupError):
        return False


def metrics(server: Served) -> dict[str, float]:
    """All samples of the metrics, by name and labels as written. Repeats the request if the worker that received it has
    just been killed."""

    def page() -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
                return bytes(answer.read())
        except (ConnectionError, TimeoutError, urllib.error.URLError):
            return None

    lines = eventually(page, "a worker answers for metrics", server.tail).decode().splitlines()
    return {name: float(value) for line in lines if line[0] != "#" for name, _, value in [line.rpartition(" ")]}


def requests(server: Served) -> float:
    """The number of answered requests of all workers, including those that have ended."""
    return sum(value for name, value in metrics(server).items() if name.startswith("inferd_requests_total{"))


def by_worker(server: Served) -> dict[str, float]:
    """The number of answered requests, by worker."""
    found = re.compile(r'inferd_group_requests_total\{worker="(\d+)"\}')
    return {match[1]: value for name, value in metrics(server).items() if (match := found.fullmatch(name))}


def wait_all_serve(server: Served, size: int = 2) -> set[int]:
    """Waits until every worker serves. Returns their process ids."""
    eventually(
        lambda: metrics(server)["inferd_group_workers"] == size and len(workers(server)) == size, "all workers serve",
        server.tail, LONG,
    )  # fmt: skip
    return workers(server)
