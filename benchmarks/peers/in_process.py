"""Measures the models without a server in the same rounds: the throughput of the framework alone on one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.h2load import LoadError, Round
from benchmarks.peers.peer import PROGRAMS, started
from benchmarks.peers.programs.sessions import MAX_BATCH

NAME = "in process, no server"
BATCHES = (1, 4, 8, 16, 32, MAX_BATCH)


class InProcess:
    """One model without a server, at its fastest batch size. Batches are at most as large as the number of requests in
    flight. See `Runner`."""

    def __init__(self, process: subprocess.Popen[str], model: str) -> None:
        self.pid = process.pid
        self._process = process
        self._model = model
        self._best: dict[int, tuple[int, float]] = {}

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        tried = {size: self._ask(size, seconds / 4) for size in BATCHES if size <= in_flight}
        size = max(tried, key=lambda batch: tried[batch].rate)
        self._best[in_flight] = size, seconds
        return int(tried[size].rate * seconds), tried[size]

    def run(self, in_flight: int, requests: int) -> Round:
        return self._ask(*self._best[in_flight])

    def batch(self, in_flight: int) -> int:
        """The fastest batch size for this number of requests in flight."""
        return self._best[in_flight][0]

    def _ask(self, batch: int, seconds: float) -> Round:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(self._model, batch, seconds, file=self._process.stdin, flush=True)
        words = self._process.stdout.readline().split()
        if len(words) != 3:
            raise LoadError("the process ended")
        rows, took = int(words[0]), float(words[1])
        return Round(rows / took, rows, 1000 * batch * took / rows, 1000 * batch * took / rows)


@contextmanager
def in_process(models: Path, logs: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded all models of the folder. Raises NotStarted."""
    command = [sys.executable, str(PROGRAMS / "in_process.py"), str(models)]
    with started(command, dict(os.environ), logs / "in_process.log", talks=True) as (process, _):
        yield process
