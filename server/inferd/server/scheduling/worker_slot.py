"""Objects on which threads wait: a worker until it gets a batch, the deadline expirer until a time or an alarm."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd.server.scheduling.batch_former import Batch


class WorkerSlot:
    """One worker's state.

    wake    a lock that the worker waits for while it is idle; releasing it wakes the worker
    taken   requests that the worker has in hand, including those of `batch`
    batch   the batch that was assigned to the worker
    """

    __slots__ = ("batch", "taken", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.taken = 0
        self.batch: Batch | None = None

    def empty(self) -> int:
        """The worker has ended its requests. Returns how many they were."""
        taken = self.taken
        self.taken = 0
        self.batch = None
        return taken


class IdleWorkers(list[WorkerSlot]):
    """The workers that wait, or are about to. For callers that hold the batcher's lock, except `park`."""

    def park(self, slot: WorkerSlot, timeout: float, lock: threading.Lock) -> None:
        """Waits until the worker is woken, at most `timeout` seconds; -1: without limit. Called on the worker's own
        thread, without the lock."""
        if slot.wake.acquire(timeout=timeout):
            return
        with lock:
            if slot in self:
                self.remove(slot)
                return
        slot.wake.acquire()  # another thread has just picked this worker and is about to release the lock

    def wake_all(self) -> None:
        """Wakes all workers."""
        for slot in self:
            slot.wake.release()
        self.clear()


class Alarm:
    """Wakes one waiting thread. `ring` and `hush` are for callers that hold the batcher's lock."""

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
        """Clears the alarm. The waiting thread calls it before it looks for work."""
        if self._rung:
            self._rung = False
            self._bell.acquire(blocking=False)

    def wait(self, timeout: float) -> None:
        """Waits until `ring`, or for `timeout` seconds; -1: without limit. For the waiting thread only, without the
        lock."""
        self._bell.acquire(timeout=timeout)
