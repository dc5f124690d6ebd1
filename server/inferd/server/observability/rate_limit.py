"""Log lines that others can cause at any rate: a few a second are written, and how many were left out."""

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
    """Lets `burst` events through and then `per_second`, for each key by itself. Thread-safe.

    Keys come from what is loaded or from our own code where possible; the 1,024 used last are kept, whatever comes.
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
        """None: leave this one out. A number: let it through; so many were left out since the last."""
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
                bucket.left_out += 1
                return None
            bucket.tokens -= 1
            left_out, bucket.left_out = bucket.left_out, 0
            return left_out

    def skip(self, name: str, count: int, key: Hashable = None) -> None:
        """So many events are left out without a look: of who has far more than can be let through."""
        with self._lock:
            bucket = self._buckets.get((name, key))
            if bucket is not None:
                bucket.left_out += count

    def event(self, logger: logging.Logger, level: int, name: str, /, key: Hashable = None, **fields: Any) -> None:
        """Logs an event, if its turn has come; `suppressed` counts those before it that had none.

        Events of one name share a turn; `key` (a model, a code) gives each of its values turns of its own.
        """
        if not logger.isEnabledFor(level):
            return
        left_out = self.take((name, key))
        if left_out is not None:
            event(logger, level, name, suppressed=left_out or None, **fields)


class _Bucket:
    __slots__ = ("at", "left_out", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.left_out = 0
