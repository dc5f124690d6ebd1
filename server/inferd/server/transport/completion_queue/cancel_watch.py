"""Watches the clients of calls that wait long for their answer.

Learning that a client has cancelled takes one more batch of core operations, and one more event. Most calls are
answered within milliseconds, and then the answer's batch receives the close. So only calls that have waited for
PATIENCE are watched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic, time

from inferd.server.transport.completion_queue.unary_call import CompletionQueueUnaryCall

PATIENCE = 0.01  # seconds


class CancelWatch:
    """The calls that wait for their answer, in the order of their arrival. For the loop's thread only."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: deque[tuple[float, CompletionQueueUnaryCall]] = deque()

    def add(self, calls: Iterable[CompletionQueueUnaryCall]) -> None:
        """Adds calls that were passed to a handler, except those that are answered."""
        now = monotonic()
        self._calls.extend([(now, call) for call in calls if not call.answered])

    @property
    def until(self) -> float | None:
        """Epoch seconds at which `look` must be called at the latest; None while no call waits."""
        calls = self._calls
        return time() + calls[0][0] + PATIENCE - monotonic() if calls else None

    def look(self) -> None:
        """Watches the calls that have waited for PATIENCE, and forgets those and the answered ones."""
        calls = self._calls
        limit = monotonic() - PATIENCE
        while calls:
            since, call = calls[0]
            if not call.answered:
                if since > limit:
                    return
                call.watch()
            calls.popleft()
