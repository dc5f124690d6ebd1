"""The bytes that unary calls hold besides the message that was received."""

from __future__ import annotations

from collections.abc import Container
from threading import Lock

from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.completion_queue.call import CompletionQueueCall


class CallBytes:
    """Counted bytes by call: of its inflated message, and of its answer until that is written. Most calls have none.
    Thread-safe.

    held   whether this is empty is what the loop looks at when a call ends
    """

    __slots__ = ("_calls", "_inflight", "_lock", "held")

    def __init__(self, inflight: InflightBounds, calls: Container[CompletionQueueCall]) -> None:
        """`calls`: the open calls. A call is taken out before `drop` is called for it."""
        self._inflight = inflight
        self._calls = calls
        self._lock = Lock()
        self.held: dict[CompletionQueueCall, int] = {}

    def of(self, call: CompletionQueueCall) -> int:
        """The bytes of a call."""
        return self.held.get(call, 0)

    def take(self, call: CompletionQueueCall, nbytes: int) -> None:
        """Takes over bytes that are counted: they are released when the call ends, at once if it has ended."""
        with self._lock:
            self.held[call] = self.held.get(call, 0) + nbytes
        if call not in self._calls:
            self.drop(call)

    def drop(self, call: CompletionQueueCall) -> None:
        """Releases the bytes of a call that has ended."""
        with self._lock:
            nbytes = self.held.pop(call, 0)
        if nbytes:
            self._inflight.release(nbytes)
