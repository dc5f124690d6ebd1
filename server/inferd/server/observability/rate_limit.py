"""Limits the rate of log lines that clients or models can cause: a few each second are written, the others counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

from inferd.server.observability.events import event

_KEYS: Final = 1024


class RateLimit:
    """A token bucket for each key: allows `burst` events at once, and `per_second` in the long run. Thread-safe.

    Only the 1,024 most recently used keys are kept, so keys from clients cannot fill the memory.
    """

    def __init__(self, per_second: float = 1.0, burst: int = 5, *, clock: Callable[[], float] = time.monotonic) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError(f"expected a rate above 0 and a burst of at least 1, got {per_second}, {burst}")
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable = None) -> int | None:
        """Asks for permission for one event. None: skip it. A number: log it; so many have been skipped since the last
        one."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = _Bucket(self._burst, now)
                if len(self._buckets) > _KEYS:
                    self._buckets.popitem(last=False)
            else:
                self._buckets.move_to_end(key)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
            bucket.at = now
            if bucket.tokens < 1:
                bucket.skipped += 1
                return None
            bucket.tokens -= 1
            skipped, bucket.skipped = bucket.skipped, 0
            return skipped

    def skip(self, name: str, count: int, key: Hashable = None) -> None:
        """Counts `count` events as skipped, for a caller that has many more than would be allowed."""
        with self._lock:
            bucket = self._buckets.get((name, key))
            if bucket is not None:
                bucket.skipped += count

    def event(self, logger: logging.Logger, level: int, name: str, /, key: Hashable = None, **fields: Any) -> None:
        """Logs an event if the rate allows it. The field `suppressed` counts the events skipped since the last one.

        Events of one name share a bucket; with `key` (a model, a code) each value of it has a bucket of its own.
        """
        if not logger.isEnabledFor(level):
            return
        skipped = self.take((name, key))
        if skipped is not None:
            event(logger, level, name, suppressed=skipped or None, **fields)


class _Bucket:
    __slots__ = ("at", "skipped", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.skipped = 0
