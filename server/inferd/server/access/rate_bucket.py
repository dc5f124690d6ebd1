"""A token bucket: a rate with a burst."""

from __future__ import annotations

from typing import Final


class RateBucket:
    """Begins with the whole burst. Times are seconds of one clock. Not thread-safe: the owner of a bucket locks it."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate: Final = rate
        self._burst: Final = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> float:
        """Takes one request and gives 0; if none is left, takes nothing and gives the seconds until one is."""
        left = self._left + (now - self._at) * self._rate
        left = min(left, self._burst)
        self._at = now
        if left >= 1.0:
            self._left = left - 1.0
            return 0.0
        self._left = left
        return (1.0 - left) / self._rate

    def give_back(self) -> None:
        """Undoes one `take`."""
        self._left = min(self._burst, self._left + 1.0)
