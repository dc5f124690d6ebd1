"""When a thing on disk counts as written: two of our own looks, at least `settle` apart, that saw the same.

Modification times are not asked (cp -p and rsync -t write old ones, clocks differ): only what we saw ourselves, on a
monotonic clock. The one exception is a server's first scan, where everything older than `settle` counts at once, or
each start would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Sighting:
    value: object
    since: float


class Settle:
    """Remembers since when each key has shown the same value. One thread only.

    `settle` 0 trusts the first look: for repositories whose publishers rename whole directories into place.
    """

    def __init__(self, settle: float, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._settle = settle
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: dict[Hashable, _Sighting] = {}
        self._due: float | None = None

    def begin(self) -> None:
        """Starts a scan: `due` is counted anew."""
        self._due = None

    @property
    def due(self) -> float | None:
        """Monotonic time at which the earliest of the things observed in this scan will have settled, None if all
        have."""
        return self._due

    def observe(self, key: Hashable, value: object, *, newest_change: float | None = None) -> bool:
        """Whether `value`, seen now at `key`, has settled.

        `newest_change`: wall-clock time of its last change, given only where age may be trusted (the first scan).
        """
        now = self._clock()
        sighting = self._seen.get(key)
        if sighting is None or sighting.value != value:
            since = now
            if sighting is None and newest_change is not None and self._wall_clock() - newest_change >= self._settle:
                since = now - self._settle
            sighting = self._seen[key] = _Sighting(value, since)
        ready = sighting.since + self._settle
        if now >= ready:
            return True
        self._due = ready if self._due is None else min(self._due, ready)
        return False

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forgets every key but these."""
        wanted = set(keys)
        for key in [key for key in self._seen if key not in wanted]:
            del self._seen[key]
