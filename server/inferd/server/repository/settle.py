"""The settle time: a file counts as completely written when two scans, at least `settle` seconds apart, see it equal.

Modification times are not used: `cp -p` and `rsync -t` write old ones, and clocks differ. Only observations by this
process count, on a monotonic clock. The exception is a server's first scan: whatever was last changed more than
`settle` seconds ago has settled at once, or each start would have to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Observation:
    value: object
    since: float


class Settle:
    """Remembers since when each key has had the same value. One thread only.

    With `settle` 0 everything has settled at the first scan: for repositories into which whole directories are renamed.
    """

    def __init__(self, settle: float, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._settle = settle
        self._clock = clock
        self._wall_clock = wall_clock
        self._observed: dict[Hashable, _Observation] = {}
        self._due: float | None = None

    def begin(self) -> None:
        """Starts a scan: resets `due`."""
        self._due = None

    @property
    def due(self) -> float | None:
        """The monotonic time at which the next value observed in this scan will have settled. None if all have."""
        return self._due

    def observe(self, key: Hashable, value: object, *, newest_change: float | None = None) -> bool:
        """Records that `key` has this value now. Returns whether the value has settled.

        `newest_change`: wall-clock time of the last change on disk. Given in the first scan only.
        """
        now = self._clock()
        observed = self._observed.get(key)
        if observed is None or observed.value != value:
            since = now
            if observed is None and newest_change is not None and self._wall_clock() - newest_change >= self._settle:
                since = now - self._settle
            observed = self._observed[key] = _Observation(value, since)
        ready = observed.since + self._settle
        if now >= ready:
            return True
        self._due = ready if self._due is None else min(self._due, ready)
        return False

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forgets all keys except these."""
        wanted = set(keys)
        for key in [key for key in self._observed if key not in wanted]:
            del self._observed[key]
