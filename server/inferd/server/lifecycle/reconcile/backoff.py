"""When a failed load is tried again: soon at first, then ever more seldom, for ever."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` seconds up to `most`."""

    first: float = 1.0
    most: float = 60.0

    def delay(self, tries: int) -> float:
        """Seconds to wait after the `tries`-th failure in a row (1 = the first)."""
        return min(self.most, self.first * 2.0 ** min(max(tries, 1) - 1, 60))

    def after_loss(self, losses: int) -> float:
        """Seconds to wait after the `losses`-th loss in a row: none after the first; with jitter, for what ends one
        server's worker may end those of its replicas at the same time."""
        return 0.0 if losses <= 1 else min(self.most, self.delay(losses - 1) * random.uniform(0.75, 1.25))


@dataclass(frozen=True, slots=True)
class Loss:
    """The worker process of a served version has gone. `next_at`: monotonic time at which another one is started."""

    reason: str
    next_at: float


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Content that could not be loaded. Other content is another story: it starts with no tries at all.

    `content` identifies what was tried (compared, never looked into); `next_at` is monotonic, `next_wall` its
    wall-clock time.
    """

    content: object
    reason: str
    tries: int
    next_at: float
    next_wall: float
