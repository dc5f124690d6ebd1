"""The agenda of one thread: jobs that others post to it, and jobs whose time comes."""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Callable

Job = Callable[[], None]


class JobLoop:
    """`post` from any thread and from signal handlers; the rest on the thread whose agenda it is. Times are monotonic
    seconds."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count(1)  # timers of the same time run in the order in which they were set

    def post(self, job: Job) -> None:
        """Has the thread run it soon."""
        self._inbox.put(job)

    def after(self, seconds: float, job: Job) -> None:
        """Has the thread run it in so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), job))

    def turn(self, until: float | None = None) -> None:
        """Waits for a job or a timer, at the longest `until` then, and runs one job and what is due."""
        due = [at for at in (self._timers[0][0] if self._timers else None, until) if at]
        try:
            job = self._inbox.get(timeout=max(0.0, min(due) - time.monotonic()) if due else None)
        except queue.Empty:
            pass
        else:
            job()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
