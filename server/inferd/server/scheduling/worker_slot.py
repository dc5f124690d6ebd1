"""Where threads sleep until there is something for them: a worker until it gets a batch, the deadline expirer until a
time or an alarm."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd.server.scheduling.batch_former import Batch


class WorkerSlot:
    """Where one worker sleeps, and what it has in hand: `taken` requests, those of `batch` among them."""

    __slots__ = ("batch", "taken", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.taken = 0
        self.batch: Batch | None = None

    def empty(self) -> int:
        """What was in the worker's hands is done. Gives how many requests that were."""
        taken = self.taken
        self.taken = 0
        self.batch = None
        return taken


class IdleWorkers(list[WorkerSlot]):
    """Workers that sleep, or are about to. For callers that hold the batcher's lock, except `park`."""

    def park(self, slot: WorkerSlot, timeout: float, lock: threading.Lock) -> None:
        """One of them sleeps until it is woken, at most `timeout` seconds; -1: without an end. On its own thread,
        without the lock."""
        if slot.wake.acquire(timeout=timeout):
            return
        with lock:
            if slot in self:
                self.remove(slot)
                return
        slot.wake.acquire()  # picked in the last moment: whoever did it is about to release

    def wake_all(self) -> None:
        """None of them sleeps any longer."""
        for slot in self:
            slot.wake.release()
        self.clear()


class Alarm:
    """Wakes one thread that waits. `ring` and `hush` are for callers that hold the batcher's lock."""

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
        """Forgets an alarm: the waiting thread is about to look."""
        if self._rung:
            self._rung = False
            self._bell.acquire(blocking=False)

    def wait(self, timeout: float) -> None:
        """Until it rings, or for `timeout` seconds; -1: without an end. The waiting thread only, without the lock."""
        self._bell.acquire(timeout=timeout)
