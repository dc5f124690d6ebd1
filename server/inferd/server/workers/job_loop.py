"""The event loop of one thread: jobs that other threads post, and jobs with a time."""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Callable

Job = Callable[[], None]


class JobLoop:
    """Call `post` from any thread or signal handler, and everything else on the thread that runs the loop.

    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count(1)  # timers of the same time run in the order in which they were set

    def post(self, job: Job) -> None:
        """Queues a job for the loop's thread."""
        self._inbox.put(job)

    def after(self, seconds: float, job: Job) -> None:
        """Schedules a job to run in `seconds`."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), job))

    def turn(self, until: float | None = None) -> None:
        """Waits for a job or a timer, but not beyond `until`. Then runs one posted job and all timers that are due."""
        due = [at for at in (self._timers[0][0] if self._timers else None, until) if at]
        try:
            job = self._inbox.get(timeout=max(0.0, min(due) - time.monotonic()) if due else None)
        except queue.Empty:
            pass
        else:
            job()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
