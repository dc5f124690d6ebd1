"""A rolling restart: every worker is replaced, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class RollingRestart:
    """The supervisor's thread only. `replace` gets the id of the next worker and returns whether that worker will be
    replaced. Ids are never used twice."""

    def __init__(self, replace: Callable[[int], bool]) -> None:
        self._replace = replace
        self._remaining: deque[int] = deque()
        self._current: int | None = None

    @property
    def under_way(self) -> bool:
        """Whether a restart has begun and not ended."""
        return self._current is not None

    def begin(self, workers: Iterable[int]) -> None:
        """Replaces these workers, in this order."""
        self._remaining.extend(workers)
        self._next()

    def gone(self, worker: int) -> None:
        """A worker has ended, because it was replaced or because it died. The next one is replaced if this one was
        the current one."""
        if worker == self._current:
            self._next()

    def _next(self) -> None:
        self._current = None
        while self._remaining and self._current is None:
            worker = self._remaining.popleft()
            if self._replace(worker):
                self._current = worker
