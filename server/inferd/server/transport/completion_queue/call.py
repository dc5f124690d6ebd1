"""The base of unary and streaming calls on the completion queue: identity, metadata, close, cancellation.

A call consists of batches of core operations. Every operation object is used once: sharing one between calls is a
double free in the core. Every batch has a tag, which the loop calls with the finished event. The answer and the watch
must happen once: each is guarded by deleting a slot, which is atomic and fails for every thread but the first, so that
no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.callbacks import run_cancel_callbacks
from inferd.server.transport.calls import Metadata, certificate_names
from inferd.server.transport.completion_queue.statuses import Statuses
from inferd.server.transport.compression import Inflater
from inferd.server.transport.partial_messages import PartialMessages

NO_FLAGS = 0
NO_DEADLINE = 1e11  # epoch seconds: the core expresses "no deadline" as a time in the far future
OK = 0


class CallOwner(Protocol):
    """The part of the transport that a call uses."""

    @property
    def statuses(self) -> Statuses: ...

    @property
    def partial(self) -> PartialMessages: ...

    @property
    def inflater(self) -> Inflater: ...

    @property
    def inflight(self) -> InflightBounds: ...

    def hold_answer(self, call: CompletionQueueCall, nbytes: int) -> bool:
        """Counts the bytes of a unary answer until the call ends. False: they do not fit, and nothing is counted."""
        ...

    def more_bytes(self, call: CompletionQueueCall) -> int:
        """The bytes that are counted for a unary call besides its message."""
        ...

    def ended(self, call: CompletionQueueCall) -> None:
        """The call has ended: nothing remains to be sent. Called once for each call."""
        ...


def monotonic(epoch_seconds: float) -> float | None:
    """The core's deadline (wall clock) on the monotonic clock; None for no deadline."""
    if epoch_seconds >= NO_DEADLINE:
        return None
    return time.monotonic() + (epoch_seconds - time.time())


class CompletionQueueCall:
    """The base of unary calls and streams: identity, metadata, close, cancellation.

    event     the event that announced the call; metadata and deadline are read from it on demand
    entered   the transport has counted the call and must take it off the count when it ends
    held      bytes that are counted: of a unary call's message as it was received, of a stream's unwritten messages
    """

    __slots__ = (
        "_call", "_cancel_fns", "_owner", "_unanswered", "_unwatched", "cancelled", "entered", "event", "held",
        "method",
    )  # fmt: skip

    def __init__(self, owner: CallOwner, event: Any, method: str) -> None:
        self._owner = owner
        self.event = event
        self._call = event.call
        self._unanswered = self._unwatched = True  # deleted by the first thread that answers, or watches
        self._cancel_fns: list[Callable[[], None]] = []
        self.method = method
        self.cancelled = False
        self.entered = False
        self.held = 0

    def watch(self) -> None:
        """Asks the core to report a cancel or a disconnect of the client. Later calls do nothing. Thread-safe."""
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
        """See UnaryCall."""
        joined = None
        for found, value in self.event.invocation_metadata:
            if found == key:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                joined = text if joined is None else f"{joined}, {text}"
        return joined

    def certificate(self) -> Sequence[str]:
        """See UnaryCall."""
        return certificate_names(cygrpc.auth_context(self._call))

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """See UnaryCall."""
        self._cancel_fns.append(fn)
        if self.cancelled:
            run_cancel_callbacks(self._cancel_fns, self.method)

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self.cancelled = True
            self._abandon()
            run_cancel_callbacks(self._cancel_fns, self.method)

    def _abandon(self) -> None:
        """The client is gone: ends the call without sending anything."""
        raise AssertionError("each kind of call has its own")

    @property
    def receiving(self) -> bool:
        """Whether the call waits for a message of its client."""
        raise AssertionError("each kind of call has its own")

    @property
    def unwritten(self) -> int:
        """The bytes that are counted for what waits to be written."""
        raise AssertionError("each kind of call has its own")

    @property
    def writing(self) -> int | None:
        """A number that changes whenever something of the call has been written; None while nothing waits to be."""
        raise AssertionError("each kind of call has its own")

    def drop(self, failure: Failure) -> None:
        """Ends the call although what was sent before is not written, which is given up. Thread-safe."""
        self._call.cancel(failure.code.value, failure.text)

    def cut(self, failure: Failure) -> None:
        """Ends the call because the server stops, and runs the cancellation callbacks."""
        callbacks, self._cancel_fns = self._cancel_fns, []
        self.fail(failure.code, failure.text, failure.trailing)
        self._cancel_fns = callbacks
        run_cancel_callbacks(callbacks, self.method)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """See UnaryCall."""
        raise AssertionError("each kind of call has its own")

    def _claim(self) -> bool:
        """Claims the right to answer. True for exactly one thread."""
        try:
            del self._unanswered
        except AttributeError:
            return False
        return True
