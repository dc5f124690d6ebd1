"""What others bring to the manager's thread: the latest listing of the repository, and jobs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from inferd.server.observability.events import event, get
from inferd.server.repository.disk import Listing

Job = Callable[[], None]
Post = Callable[[Job], bool]
"""Brings a job to the manager's thread. False: it has ended, and the job will never run."""


class Mailbox:
    """`deliver` and `post` are for everyone, the rest for the thread that it wakes. No job is lost: each runs, or was
    refused."""

    def __init__(self) -> None:
        self._listing: deque[Listing] = deque(maxlen=1)
        self._jobs: deque[Job] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._wake = threading.Event()

    def deliver(self, listing: Listing) -> None:
        """The latest listing wins: one that was not yet taken is replaced."""
        self._listing.append(listing)
        self._wake.set()

    def post(self, job: Job) -> bool:
        """Jobs run in order, each once. See Post."""
        with self._lock:
            if self._closed:
                return False
            self._jobs.append(job)
        self._wake.set()
        return True

    @property
    def empty(self) -> bool:
        """Whether nothing has come that was not taken."""
        return not self._listing and not self._jobs

    def take_listing(self) -> Listing | None:
        """The listing, if one has come since."""
        return self._listing.pop() if self._listing else None

    def run_jobs(self) -> None:
        """Runs the jobs that are there, and those that come meanwhile. Raises what one raises: the others stay."""
        while self._jobs:
            self._jobs.popleft()()

    def close_if_done(self) -> bool:
        """Refuses jobs from now on, unless there are some. Whether it does."""
        with self._lock:
            self._closed = self._closed or not self._jobs
            return self._closed

    def end(self) -> None:
        """Refuses jobs from now on, and runs those that are there. Never raises."""
        with self._lock:
            self._closed = True
        while self._jobs:
            try:
                self.run_jobs()
            except Exception as error:
                event(get("lifecycle"), logging.ERROR, "the manager failed at something as it ended", error=error)

    def begin(self) -> None:
        """What comes from here on ends the next `wait`."""
        self._wake.clear()

    def wait(self, seconds: float | None) -> None:
        """Until something comes, or for so long; None: without an end."""
        self._wake.wait(seconds)
