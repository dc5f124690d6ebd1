"""When a failed load is tried again: soon at first, then ever more seldom, for ever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` seconds up to `most`."""

    first: float = 1.0
    most: float = 60.0

    def delay(self, tries: int) -> float:
        """Seconds to wait after the `tries`-th failure in a row (1 = the first)."""
        return min(self.most, self.first * 2.0 ** min(max(tries, 1) - 1, 60))


@dataclass(frozen=True, slots=True)
class Failure:
    """Content that could not be loaded. Other content is another story: it starts with no tries at all.

    `content` identifies what was tried (compared, never looked into); `next_at` is monotonic, `next_wall` its
    wall-clock time.
    """

    content: object
    reason: str
    tries: int
    next_at: float
    next_wall: float
