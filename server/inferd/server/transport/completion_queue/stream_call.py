"""Streams on the completion queue: implements `transport.calls.StreamCall`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import Failure, header_text
from inferd.server.transport.callbacks import run_drain_callback
from inferd.server.transport.calls import Metadata
from inferd.server.transport.completion_queue.call import NO_FLAGS, OK, CallOwner, CompletionQueueCall, monotonic


class CompletionQueueStreamCall(CompletionQueueCall):
    """One stream. The core accepts one send at a time; later messages wait in this object's queue. Thread-safe."""

    __slots__ = ("_drain_fn", "_draining", "_end", "_headers_sent", "_lock", "_outbox", "_reader", "_sending")

    def __init__(self, owner: CallOwner, event: Any, method: str) -> None:
        self._lock = RLock()  # `sent` callbacks run under the lock and may call `send`
        self._outbox: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._sending = False
        self._headers_sent = False
        self._end: tuple[int, str, Metadata] | None = None  # status code, text, trailing metadata
        self._reader: Callable[[bytes | None], None] | None = None
        self._drain_fn: Callable[[], None] | None = None
        self._draining = False
        super().__init__(owner, event, method)
        self.watch()

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds; None where the client set none."""
        return monotonic(self.event.call_details.deadline)

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        """See StreamCall. Raises RuntimeError while another read is outstanding."""
        with self._lock:
            if self._reader is not None:
                raise RuntimeError("one read at a time")
            if self.cancelled or self._end is not None:
                return
            self._reader = fn
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def _received(self, event: Any) -> None:
        with self._lock:
            fn, self._reader = self._reader, None
            ended = self.cancelled or self._end is not None
        if fn is not None and not ended:
            fn(event.batch_operations[0].message())

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """See StreamCall."""
        with self._lock:
            if self._end is None and not self.cancelled:
                self._outbox.append((message, sent))
                self._pump()

    @property
    def unsent(self) -> int:
        """Messages queued and not yet passed to the core."""
        return len(self._outbox)

    def end(self) -> None:
        """See StreamCall."""
        self._finish(OK, "", ())

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends the stream with a status after the queued messages have been written."""
        self._finish(code.value, header_text(text), trailing)

    def on_drain(self, fn: Callable[[], None]) -> None:
        """See StreamCall."""
        with self._lock:
            if not self._draining:
                self._drain_fn = fn
                return
        fn()

    def cut(self, failure: Failure) -> None:
        """As `CompletionQueueCall.cut`; queued messages are dropped."""
        with self._lock:
            self._outbox.clear()
        super().cut(failure)

    def drain(self) -> None:
        """Runs the drain callback: the server begins to stop."""
        with self._lock:
            self._draining = True
            fn, self._drain_fn = self._drain_fn, None
        run_drain_callback(self, fn)

    def _finish(self, code: int, text: str, trailing: Metadata) -> None:
        with self._lock:
            if self._end is None and not self.cancelled:
                self._end = (code, text, trailing)
                self._cancel_fns.clear()
                self._pump()

    def _pump(self) -> None:
        # Passes the next message, or the end, to the core unless a send is outstanding. The caller holds the lock.
        if self._sending:
            return
        operations: list[Any] = []
        if not self._headers_sent:
            operations.append(cygrpc.SendInitialMetadataOperation(None, NO_FLAGS))
        if self._outbox:
            message, sent = self._outbox.popleft()
            operations.append(cygrpc.SendMessageOperation(message, NO_FLAGS))
            tag: Callable[[Any], None] = partial(self._wrote, sent)
        elif self._end is not None and self._claim():
            code, text, trailing = self._end
            operations.append(cygrpc.SendStatusFromServerOperation(tuple(trailing), code, text.encode(), NO_FLAGS))
            tag = self._ended
        else:
            return
        self._headers_sent = True
        self._sending = True
        self._call.start_server_batch(tuple(operations), tag)

    def _wrote(self, sent: Callable[[], None] | None, _event: Any) -> None:
        with self._lock:
            self._sending = False
            ended = self.cancelled and self._claim()
            if not self.cancelled:
                self._pump()
                if sent is not None:
                    sent()
        if ended:
            self._owner.ended(self)

    def _ended(self, _event: Any) -> None:
        self._owner.ended(self)

    def _abandon(self) -> None:
        with self._lock:
            self._outbox.clear()
            ended = not self._sending and self._claim()
        if ended:
            self._owner.ended(self)
