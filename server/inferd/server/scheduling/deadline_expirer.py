"""A servable's thread for answers that no worker sends: to requests that expire in the queue while every worker is
busy, and to batches whose answers a worker has passed on, so that it can run its next batch.

The expirer keeps only the earliest expiry in the queues and searches the queues at that time. So queueing a request
costs one comparison, and a request that is served in time needs no clean-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic

from inferd.server.scheduling.batch_former import BatchFormer
from inferd.server.scheduling.request import NEVER, InferenceRequest
from inferd.server.scheduling.worker_slot import Alarm

_TICK = 0.001  # seconds; expiries within one tick are answered together
_LONGEST = 3600.0  # seconds of one sleep


class DeadlineExpirer:
    """The expirer of one batcher. It shares the batcher's lock: all methods but `run` are for callers that hold it.

    expires_at   monotonic seconds at which it searches the queues; infinity: no waiting request expires
    in_hand      requests that it has taken and not answered
    """

    __slots__ = ("_alarm", "_drop", "_former", "_handed", "_lock", "_on_answered", "_stopped", "expires_at", "in_hand")

    def __init__(
        self,
        lock: Lock,
        former: BatchFormer,
        drop: Callable[[Sequence[InferenceRequest]], None],
        on_answered: Callable[[], None],
    ) -> None:
        """
        drop          answers requests that were taken from the queue without running; called without the lock
        on_answered   called with the lock whenever `in_hand` has decreased
        """
        self._lock = lock
        self._former = former
        self._drop = drop
        self._on_answered = on_answered
        self._alarm = Alarm()
        self._handed: tuple[Callable[[], None], int] | None = None  # sends an answer; the number of its requests
        self._stopped = False
        self.expires_at = NEVER
        self.in_hand = 0

    def expect(self, leaves_at: float) -> None:
        """A queued request expires at `leaves_at`, before all others."""
        self.expires_at = leaves_at
        self._alarm.ring()

    def take_over(self, answer: Callable[[], None], requests: int) -> bool:
        """Makes the thread call `answer`, which answers `requests` requests. Returns False, and does nothing, while the
        thread has another answer to send or is stopping."""
        if self._handed is not None or self._stopped:
            return False
        self._handed = answer, requests
        self.in_hand += requests
        self._alarm.ring()
        return True

    def stop(self) -> None:
        """Ends `run` after the answer that was taken over."""
        self._stopped = True
        self._alarm.ring()

    def run(self) -> None:
        """The thread's function: answers until `stop`."""
        while True:
            self._answer_handed()
            with self._lock:
                if self._handed is not None:
                    continue  # an answer was taken over in the meantime
                if self._stopped:
                    return
                self._alarm.hush()
                now = monotonic()
                expired = self._take_expired(now) if now >= self.expires_at else ()
                timeout = self.expires_at - now
            if expired:
                self._drop(expired)
                with self._lock:
                    self._over(len(expired))
            self._alarm.wait(-1 if timeout == NEVER else min(max(timeout, 0.0), _LONGEST))

    def _answer_handed(self) -> None:
        if self._handed is None:
            return
        answer, requests = self._handed
        answer()
        with self._lock:
            self._handed = None
            self._over(requests)

    def _take_expired(self, now: float) -> Sequence[InferenceRequest]:
        waiting = self._former.everything()
        expired = [(bucket, request) for bucket, request in waiting if request.leaves_at <= now]
        earliest = min((request.leaves_at for _, request in waiting if request.leaves_at > now), default=NEVER)
        for bucket, request in expired:
            self._former.remove(bucket, request)
        self.in_hand += len(expired)
        self.expires_at = max(earliest, now + _TICK)
        return [request for _, request in expired]

    def _over(self, requests: int) -> None:
        self.in_hand -= requests
        self._on_answered()
