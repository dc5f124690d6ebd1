"""Where threads sleep until there is something for them: a worker until it gets a batch, the watcher until a time or a
bell."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.request import InferRequest


class WorkerSlot:
    """Where one worker sleeps. `taken` requests are in its hands, `requests` those of its batch, of so many `rows` and
    of `bucket`."""

    __slots__ = ("bucket", "requests", "rows", "taken", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.taken = 0
        self.requests: Sequence[InferRequest] = ()
        self.bucket: Bucket | None = None
        self.rows = 0

    def empty(self) -> int:
        """What was in the worker's hands is done. Gives how many requests that were."""
        taken = self.taken
        self.taken = 0
        self.requests = ()
        return taken


class Idle(list[WorkerSlot]):
    """Workers that sleep, or are about to. For who holds the batcher's lock, but for `park`."""

    def park(self, parking: WorkerSlot, timeout: float, lock: threading.Lock) -> None:
        """One of them sleeps until it is woken, at most `timeout` seconds; -1: without an end. On its own thread,
        without the lock."""
        if parking.wake.acquire(timeout=timeout):
            return
        with lock:
            if parking in self:
                self.remove(parking)
                return
        parking.wake.acquire()  # picked in the last moment: whoever did it is about to release

    def wake_all(self) -> None:
        """None of them sleeps any longer."""
        for parking in self:
            parking.wake.release()
        self.clear()


class Alarm:
    """Wakes one thread that waits. Whoever rings or hushes holds the batcher's lock."""

    __slots__ = ("_bell", "_rung")

    def __init__(self) -> None:
        self._bell = threading.Lock()
        self._bell.acquire()
        self._rung = False

    def ring(self) -> None:
        """Ends the wait, or the next one."""
        if not self._rung:
            self._rung = True
            self._bell.release()

    def hush(self) -> None:
        """Forgets what has rung: the waiting thread is about to look."""
        if self._rung:
            self._rung = False
            self._bell.acquire(blocking=False)

    def wait(self, timeout: float) -> None:
        """Until it rings, or for `timeout` seconds; -1: without an end. The waiting thread only, without the lock."""
        self._bell.acquire(timeout=timeout)
