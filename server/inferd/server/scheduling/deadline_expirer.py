"""The thread of a servable that answers what no worker gets to: requests whose time runs out in the queue while every
worker is busy, and answers that a worker hands off so as to run its next batch.

It knows one time only, the earliest deadline in the queues, and looks through them then: queueing costs a comparison,
and requests that are served in time leave nothing behind to clean up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic

from inferd.server.scheduling.batch_former import BatchFormer
from inferd.server.scheduling.request import NEVER, InferenceRequest
from inferd.server.scheduling.worker_slot import Alarm

_TICK = 0.001  # expiries closer together than this are answered together
_LONGEST = 3600.0  # seconds of one sleep


class DeadlineExpirer:
    """Of one batcher, whose lock it shares: everything but `run` is for who holds that.

    expires_at   monotonic seconds at which it looks for what has expired; infinity: nothing will
    in_hand      requests that it has taken and that have no answer yet
    """

    __slots__ = ("_alarm", "_drop", "_former", "_handed", "_lock", "_rested", "_stopped", "expires_at", "in_hand")

    def __init__(
        self,
        lock: Lock,
        former: BatchFormer,
        drop: Callable[[Sequence[InferenceRequest]], None],
        rested: Callable[[], None],
    ) -> None:
        """`drop` answers requests that have left the queue unserved, without the lock; `rested` hears, with it, when
        something is no longer in hand."""
        self._lock = lock
        self._former = former
        self._drop = drop
        self._rested = rested
        self._alarm = Alarm()
        self._handed: tuple[Callable[[], None], int] | None = None  # an answer, and how many requests it is for
        self._stopped = False
        self.expires_at = NEVER
        self.in_hand = 0

    def expect(self, leaves_at: float) -> None:
        """A request that waits from now on expires at that time, before all others."""
        self.expires_at = leaves_at
        self._alarm.ring()

    def take_over(self, answer: Callable[[], None], requests: int) -> bool:
        """Whether it answers so many requests, by calling `answer`: not while it is busy with others."""
        if self._handed is not None or self._stopped:
            return False
        self._handed = answer, requests
        self.in_hand += requests
        self._alarm.ring()
        return True

    def stop(self) -> None:
        """`run` ends, after what has been taken over."""
        self._stopped = True
        self._alarm.ring()

    def run(self) -> None:
        """Answers until `stop`. On a thread of its own."""
        while True:
            self._answer_handed()
            with self._lock:
                if self._handed is not None:
                    continue  # handed off since
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
        self._rested()
