"""A rolling restart: every worker is replaced, one after the other. The supervisor's thread only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class RollingRestart:
    """`replace` is given the id of the next worker, and says whether it will be replaced. Ids are never used twice."""

    def __init__(self, replace: Callable[[int], bool]) -> None:
        self._replace = replace
        self._left: deque[int] = deque()
        self._now: int | None = None

    @property
    def under_way(self) -> bool:
        """Whether a restart has begun and not ended."""
        return self._now is not None

    def begin(self, workers: Iterable[int]) -> None:
        """Replaces these."""
        self._left.extend(workers)
        self._next()

    def gone(self, worker: int) -> None:
        """This one is gone: it left, as it was to, or died before."""
        if worker == self._now:
            self._next()

    def _next(self) -> None:
        self._now = None
        while self._left and self._now is None:
            worker = self._left.popleft()
            if self._replace(worker):
                self._now = worker
