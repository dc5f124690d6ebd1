"""The counts of one version's requests, in plain numbers: cheap to update, read at a scrape.

One update of a prometheus_client metric costs 1 to 2 µs, and a request needs four. Here requests and batches are
appended to lists, which are added up when they are long or when they are read: one lock for a hundred requests.
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
_MAX_PENDING = 100  # entries (and batches) before they are added up


@dataclass(frozen=True, slots=True)
class Distribution:
    """The content of a histogram: upper bounds as text (the last one "+Inf") and the count of each bucket, not
    cumulative. `total` is the sum of the values."""

    bounds: Sequence[str]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """All counts of a version at one moment.

    requests     by (protocol, code)
    dropped      by reason
    succeeded    requests and their seconds; so is `failed`
    batches      rows of a batch → runs of the model and their seconds
    last_batch   seconds since 1970, 0 before the first batch
    verified     rows of batches that ran again alone, and how many of them differed
    """

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
    verified: tuple[int, int]


class ModelMetrics:
    """The counts of one version of a model. All methods are thread-safe, fast, and never raise.

    `batch`, `dropped` and `verified` implement the scheduler's BatchObserver.
    """

    __slots__ = (
        "_batch_seconds", "_batched", "_batches", "_compute", "_compute_sum", "_dropped", "_failed_sum", "_last_batch",
        "_lock", "_pending", "_pending_batches", "_queue", "_queue_sum", "_requests", "_rows", "_rows_sum", "_seconds",
        "_seconds_sum", "_verified", "batching", "depth", "name", "version",
    )  # fmt: skip

    def __init__(self, name: str, version: str) -> None:
        self.name: Final = name
        self.version: Final = version
        self.depth: Callable[[], tuple[int, int]] | None = None
        self.batching: Callable[[], tuple[int, str]] | None = None
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
        self._verified = (0, 0)
        self._pending: list[tuple[str, str, float, float, float, int]] = []
        self._pending_batches: list[tuple[int, int, float]] = []

    def request(
        self, protocol: str, code: str, seconds: float, queue_seconds: float = 0.0, compute_seconds: float = 0.0
    ) -> None:
        """Counts an answered request. 0 queue or compute seconds: it was not queued or not run."""
        self._add((protocol, code, seconds, queue_seconds, compute_seconds, 1))

    def requests(self, protocol: str, count: int, seconds: float, queue_seconds: float, compute_seconds: float) -> None:
        """Counts `count` requests that were received and run together and answered with OK. The seconds are those of
        the first one."""
        pending = self._pending  # the body of `_add`, to save a call
        pending.append((protocol, "OK", seconds, queue_seconds, compute_seconds, count))
        if len(pending) >= _MAX_PENDING:
            with self._lock:
                self._add_up()

    def refused(self, protocol: str, code: str, count: int, seconds: float) -> None:
        """Counts `count` requests that were received together and refused together."""
        self._add((protocol, code, seconds, 0.0, 0.0, count))

    def _add(self, entry: tuple[str, str, float, float, float, int]) -> None:
        pending = self._pending
        pending.append(entry)
        if len(pending) >= _MAX_PENDING:
            with self._lock:
                self._add_up()

    def _add_up(self) -> None:
        # The caller holds the lock. Other threads may append at the same time, but only at the end of the list; so each
        # entry is taken from its front exactly once.
        pending = self._pending
        taken = pending[:]
        del pending[: len(taken)]
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
        pending_batches = self._pending_batches
        batches = pending_batches[:]
        del pending_batches[: len(batches)]
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
        """Counts a batch that has run."""
        pending = self._pending_batches
        pending.append((rows, len(requests), compute_seconds))
        self._last_batch = time.time()
        if len(pending) >= _MAX_PENDING:
            with self._lock:
                self._add_up()

    def dropped(self, reason: str) -> None:
        """Counts a request that was dropped without a run. `reason`: see series.DROPPED."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def verified(self, rows: int, different: int) -> None:
        """Counts rows of batches that were verified."""
        with self._lock:
            before = self._verified
            self._verified = before[0] + rows, before[1] + different

    def snapshot(self) -> MetricsSnapshot:
        """A consistent copy of all counts."""
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
                verified=self._verified,
            )
