"""What every call on the completion queue has, unary or stream: identity, metadata, the close, cancellation.

Calls are batches of core operations. Every operation object is used once (sharing one between calls is a double free in
the core). Every batch has a tag, which the loop calls with the finished event. What must happen once (the answer, the
watch) is guarded by deleting a slot: one step of the interpreter, which fails for everyone but the first, so it needs
no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import Failure
from inferd.server.transport.callbacks import tell_cancelled
from inferd.server.transport.calls import Metadata, certificate_names
from inferd.server.transport.completion_queue.statuses import Statuses

NO_FLAGS = 0
NO_DEADLINE = 1e11  # epoch seconds: the core says infinity with a time in the far future
OK = 0


class Home(Protocol):
    """What a call needs of its transport."""

    @property
    def statuses(self) -> Statuses: ...

    def gone(self, call: CompletionQueueCall) -> None:
        """The call is over: nothing of it is left to be sent."""
        ...


def monotonic(epoch_seconds: float) -> float | None:
    """The core's deadline (wall clock) on the monotonic clock; None for none."""
    if epoch_seconds >= NO_DEADLINE:
        return None
    return time.monotonic() + (epoch_seconds - time.time())


class CompletionQueueCall:
    """What unary calls and streams share: identity, metadata, the close, cancellation."""

    __slots__ = (
        "_call", "_cancel_fns", "_home", "_unanswered", "_unwatched", "cancelled", "entered", "event", "held", "method",
    )  # fmt: skip

    def __init__(self, home: Home, event: Any, method: str) -> None:
        self._home = home
        self.event = event  # that brought the call: metadata and deadline are read when somebody asks
        self._call = event.call
        self._unanswered = self._unwatched = True  # deleted by the first who answers, or watches
        self._cancel_fns: list[Callable[[], None]] = []
        self.method = method
        self.cancelled = False
        self.entered = False  # what the transport has counted for this call, and takes back when it is gone
        self.held = 0

    def watch(self) -> None:
        """Asks to be told when the client goes away, unless that is asked already. Thread-safe."""
        try:
            del self._unwatched
        except AttributeError:
            return
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)

    @property
    def peer(self) -> str:
        """The client's address in gRPC's form."""
        peer = self._call.peer()
        return peer.decode() if isinstance(peer, bytes) else str(peer)

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key (lower case), values with commas between them, None where it is absent."""
        joined = None
        for found, value in self.event.invocation_metadata:
            if found == key:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                joined = text if joined is None else f"{joined}, {text}"
        return joined

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate."""
        return certificate_names(cygrpc.auth_context(self._call))

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the call is cancelled; at once if it already is."""
        self._cancel_fns.append(fn)
        if self.cancelled:
            tell_cancelled(self._cancel_fns, self.method)

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self.cancelled = True
            self._abandon()
            tell_cancelled(self._cancel_fns, self.method)

    def _abandon(self) -> None:
        """The client is gone: nothing will be sent."""
        raise AssertionError("each kind of call has its own")

    def cut(self, failure: Failure) -> None:
        """Ends the call because the server stops: whoever works on it is told to drop that."""
        waiting, self._cancel_fns = self._cancel_fns, []
        self.fail(failure.code, failure.text, failure.trailing)
        self._cancel_fns = waiting
        tell_cancelled(waiting, self.method)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends the call with a status."""
        raise AssertionError("each kind of call has its own")

    def _claim(self) -> bool:
        """Whether the caller may answer: True for exactly one."""
        try:
            del self._unanswered
        except AttributeError:
            return False
        return True
