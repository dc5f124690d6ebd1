"""Calls that wait for their answer and are not watched yet.

To hear that a client has gone away takes a batch of its own at the core, and an event. Most calls are answered within
milliseconds, and then it comes with the answer; so only who has waited for PATIENCE is watched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic, time

from inferd.server.transport.completion_queue.unary_call import CompletionQueueUnaryCall

PATIENCE = 0.01  # seconds


class CancelWatch:
    """In the order in which they came. On the loop's thread only."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: deque[tuple[float, CompletionQueueUnaryCall]] = deque()

    def add(self, calls: Iterable[CompletionQueueUnaryCall]) -> None:
        """These wait from now on, unless they have been answered meanwhile."""
        now = monotonic()
        self._calls.extend([(now, call) for call in calls if not call.answered])

    @property
    def until(self) -> float | None:
        """When to look at the latest, in epoch seconds; None: there is nothing to look at."""
        calls = self._calls
        return time() + calls[0][0] + PATIENCE - monotonic() if calls else None

    def look(self) -> None:
        """Watches who has waited too long, and forgets who has been answered."""
        calls = self._calls
        late = monotonic() - PATIENCE
        while calls:
            since, call = calls[0]
            if not call.answered:
                if since > late:
                    return
                call.watch()
            calls.popleft()
