"""What others bring to the manager's thread: the latest listing of the repository, and jobs."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

from inferd.server.lifecycle.disk import Listing


class Mailbox:
    """`deliver` and `post` are for everyone, the rest for the thread that it wakes."""

    def __init__(self) -> None:
        self._listing: deque[Listing] = deque(maxlen=1)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = threading.Event()

    def deliver(self, listing: Listing) -> None:
        """The latest listing wins: one that was not yet taken is replaced."""
        self._listing.append(listing)
        self._wake.set()

    def post(self, job: Callable[[], None]) -> None:
        """Jobs run in order, each once."""
        self._jobs.put(job)
        self._wake.set()

    @property
    def empty(self) -> bool:
        """Whether nothing has come that was not taken."""
        return not self._listing and self._jobs.empty()

    def take_listing(self) -> Listing | None:
        """The listing, if one has come since."""
        return self._listing.pop() if self._listing else None

    def run_jobs(self) -> None:
        """Runs the jobs that are there, and those that come meanwhile. Raises what one raises: the others stay."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            job()

    def begin(self) -> None:
        """What comes from here on ends the next `wait`."""
        self._wake.clear()

    def wait(self, seconds: float | None) -> None:
        """Until something comes, or for so long; None: without an end."""
        self._wake.wait(seconds)
