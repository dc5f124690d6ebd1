"""What one servable's requests add up to, in plain numbers: cheap to add to, read when somebody scrapes.

A bound prometheus_client child costs 1 to 2 µs an update and a request needs four; here requests and batches are noted
in lists, which are added up when they are long enough or when somebody asks: one lock in a hundred.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferd.server.observability.series import ROWS, SECONDS

_SECONDS: Final = (*map(repr, SECONDS), "+Inf")
_ROWS: Final = (*map(repr, ROWS), "+Inf")
_NOTED = 100  # requests, and batches, noted before they are added up


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's content: upper bounds as text, the last one "+Inf", and counts per bucket, not cumulative."""

    bounds: Sequence[str]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Everything at one moment. `succeeded` and `failed`: requests and their seconds. `batches`: by rows, runs of the
    model and their seconds. `last_batch`: seconds since 1970, 0 before the first."""

    requests: dict[tuple[str, str], int]
    seconds: Distribution
    queue: Distribution
    compute: Distribution
    rows: Distribution
    batched_requests: int
    batch_compute_seconds: float
    dropped: dict[str, int]
    succeeded: tuple[int, float]
    failed: tuple[int, float]
    batches: dict[int, tuple[int, float]]
    last_batch: float


class ModelMetrics:
    """The numbers of one (model, version). All methods are thread-safe, quick, and never raise.

    `batch` and `dropped` are what the scheduler's observer has to offer.
    """

    __slots__ = (
        "_batch_seconds", "_batched", "_batches", "_compute", "_compute_sum", "_dropped", "_failed_sum", "_last_batch",
        "_lock", "_noted", "_queue", "_queue_sum", "_ran", "_requests", "_rows", "_rows_sum", "_seconds",
        "_seconds_sum", "depth", "name", "version",
    )  # fmt: skip

    def __init__(self, name: str, version: str) -> None:
        self.name: Final = name
        self.version: Final = version
        self.depth: Callable[[], tuple[int, int]] | None = None
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str], int] = {}
        self._seconds = [0] * (len(SECONDS) + 1)
        self._queue = [0] * (len(SECONDS) + 1)
        self._compute = [0] * (len(SECONDS) + 1)
        self._rows = [0] * (len(ROWS) + 1)
        self._seconds_sum = self._queue_sum = self._compute_sum = self._rows_sum = 0.0
        self._batched = 0
        self._batch_seconds = self._failed_sum = self._last_batch = 0.0
        self._batches: dict[int, list[float]] = {}  # bounded: a batch has at most max_batch_size rows
        self._dropped: dict[str, int] = {}
        self._noted: list[tuple[str, str, float, float, float, int]] = []
        self._ran: list[tuple[int, int, float]] = []

    def request(
        self, protocol: str, code: str, seconds: float, queue_seconds: float = 0.0, compute_seconds: float = 0.0
    ) -> None:
        """A request was answered. 0 for the queue or the run says that it never got there."""
        self._note((protocol, code, seconds, queue_seconds, compute_seconds, 1))

    def requests(self, protocol: str, count: int, seconds: float, queue_seconds: float, compute_seconds: float) -> None:
        """So many requests that came and ran together were answered with OK. The seconds are those of the first."""
        noted = self._noted  # as `_note`, written out
        noted.append((protocol, "OK", seconds, queue_seconds, compute_seconds, count))
        if len(noted) >= _NOTED:
            with self._lock:
                self._add_up()

    def refused(self, protocol: str, code: str, count: int, seconds: float) -> None:
        """So many requests that came together were refused together."""
        self._note((protocol, code, seconds, 0.0, 0.0, count))

    def _note(self, entry: tuple[str, str, float, float, float, int]) -> None:
        noted = self._noted
        noted.append(entry)
        if len(noted) >= _NOTED:
            with self._lock:
                self._add_up()

    def _add_up(self) -> None:
        # Holds the lock. Others append meanwhile, at the end only: what is taken from the front is counted once.
        noted = self._noted
        taken = noted[:]
        del noted[: len(taken)]
        requests = self._requests
        for protocol, code, seconds, queued, computed, count in taken:
            key = (protocol, code)
            requests[key] = requests.get(key, 0) + count
            self._seconds[bisect_left(SECONDS, seconds)] += count
            self._seconds_sum += count * seconds
            if code != "OK":
                self._failed_sum += count * seconds
            if queued > 0.0:
                self._queue[bisect_left(SECONDS, queued)] += count
                self._queue_sum += count * queued
            if computed > 0.0:
                self._compute[bisect_left(SECONDS, computed)] += count
                self._compute_sum += count * computed
        ran = self._ran
        batches = ran[:]
        del ran[: len(batches)]
        for rows, count, seconds in batches:
            self._rows[bisect_left(ROWS, rows)] += 1
            self._rows_sum += rows
            self._batched += count
            self._batch_seconds += seconds
            runs = self._batches.get(rows)
            if runs is None:
                self._batches[rows] = [1, seconds]
            else:
                runs[0] += 1
                runs[1] += seconds

    def batch(self, signature: str, requests: Sequence[Any], rows: int, compute_seconds: float) -> None:
        """A batch has run."""
        ran = self._ran
        ran.append((rows, len(requests), compute_seconds))
        self._last_batch = time.time()
        if len(ran) >= _NOTED:
            with self._lock:
                self._add_up()

    def dropped(self, reason: str) -> None:
        """A request was dropped unserved: "expired", "cancelled" or "full"."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def snapshot(self) -> MetricsSnapshot:
        """A consistent copy."""
        with self._lock:
            self._add_up()
            failed = sum(count for (_, code), count in self._requests.items() if code != "OK")
            answered = sum(self._requests.values())
            return MetricsSnapshot(
                requests=dict(self._requests),
                seconds=Distribution(_SECONDS, tuple(self._seconds), self._seconds_sum),
                queue=Distribution(_SECONDS, tuple(self._queue), self._queue_sum),
                compute=Distribution(_SECONDS, tuple(self._compute), self._compute_sum),
                rows=Distribution(_ROWS, tuple(self._rows), self._rows_sum),
                batched_requests=self._batched,
                batch_compute_seconds=self._batch_seconds,
                dropped=dict(self._dropped),
                succeeded=(answered - failed, self._seconds_sum - self._failed_sum),
                failed=(failed, self._failed_sum),
                batches={rows: (int(count), seconds) for rows, (count, seconds) in self._batches.items()},
                last_batch=self._last_batch,
            )
