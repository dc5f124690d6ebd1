"""A bounded cache that keeps recently used entries."""

from __future__ import annotations

from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """A mapping that drops entries that were not used lately. It holds at most twice `size` entries.

    Entries are in two generations: one that is found in the old generation moves to the young one, and when the young
    one is full, the old one is dropped. So a hit costs one look-up and no lock. Thread-safe; of two threads that put
    the same key at once, each may use its own value for a moment.

    young   for reading only: `cache.young.get(key) or cache.get(key)` saves a call for keys that are in use
    """

    __slots__ = ("_old", "_size", "young")

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}

    def get(self, key: _K) -> _V | None:
        """The value of a key; None if it was never put or was dropped."""
        found = self.young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: _K, value: _V) -> None:
        """Sets the value of a key."""
        if len(self.young) >= self._size:
            self._old, self.young = self.young, {}
        self.young[key] = value

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
