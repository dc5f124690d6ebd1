"""The effect of a new version on callers: latencies while it is loaded and takes over, compared with those before."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from support.marked import BACKENDS, prepare_model, publish
from support.server import Served
from support.waiting import eventually

from benchmarks.report import Table
from inferd.client import NO_RETRIES, Client, InferdError

SWAPS, CALLERS, STEADY = 5, 4, 3.0
SETS = ("repository.poll=1s", "repository.settle=500ms")


class Callers:
    """Threads that call without pauses. `calls` has the start and the duration in milliseconds of each call."""

    def __init__(self, address: str, model: str) -> None:
        self.calls: list[tuple[float, float]] = []
        self.failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(address, model)) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self, address: str, model: str) -> None:
        x = np.zeros((1, 4), np.float32)
        with Client(address, retry=NO_RETRIES) as client:
            while not self._stop.is_set():
                began = time.perf_counter()
                try:
                    client.predict(model, {"x": x})
                except InferdError:
                    self.failed += 1
                self.calls.append((began, 1000 * (time.perf_counter() - began)))

    def between(self, begin: float, end: float) -> np.ndarray:
        """The durations in milliseconds of the calls that overlap this time."""
        return np.array([took for began, took in self.calls if began < end and began + took / 1000 > begin])

    def stop(self) -> None:
        """Ends the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def answers(client: Client, model: str, version: int) -> None:
    """Waits for the first answer of a version."""
    x = np.zeros((1, 4), np.float32)
    eventually(lambda: client.predict(model, {"x": x}).version == version, f"version {version}")


def measure() -> Table:
    """One server for each framework, several new versions each; medians."""
    table = Table(
        "A new version under load",
        ("backend", "p99 before, ms", "p99 during, ms", "ratio", "longest stall, ms", "failed"),
        how=f"{CALLERS} callers without pause; medians of {SWAPS} swaps; 'during' is from the rename to one second "
        "after the first answer of the new version, settle time (0.5 s) included; the generator shares the cores.",
    )
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            model = prepare_model(backend, Path(folder) / "models", "marked")
            publish(backend, model, 1, marker=1)
            with Served(Path(folder) / "models", sets=SETS, limit=120) as server, Client(server.address) as client:
                callers = Callers(server.address, model.name)
                pause = threading.Event()
                before, during, longest = [], [], []
                for version in range(2, 2 + SWAPS):
                    hidden = model.parent / f".ready-{version}"  # written before: only the renaming is measured
                    hidden.mkdir()
                    publish(backend, hidden, version, marker=version)
                    begin = time.perf_counter()
                    pause.wait(STEADY)
                    dropped = time.perf_counter()
                    (hidden / str(version)).rename(model / str(version))
                    answers(client, model.name, version)
                    pause.wait(1.0)
                    end = time.perf_counter()
                    calm, busy = callers.between(begin, dropped), callers.between(dropped, end)
                    before.append(float(np.percentile(calm, 99)))
                    during.append(float(np.percentile(busy, 99)))
                    longest.append(float(busy.max()))
                callers.stop()
            ratio = statistics.median(b / a for a, b in zip(before, during, strict=True))
            medians = [statistics.median(before), statistics.median(during), ratio, max(longest)]
            table.rows.append([backend, *medians, callers.failed])
    return table
