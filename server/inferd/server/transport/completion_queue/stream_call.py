"""Streams on the completion queue: implements `transport.calls.StreamCall`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import ANSWERS_HELD, Failure, header_text
from inferd.server.transport.callbacks import run_drain_callback
from inferd.server.transport.calls import Metadata
from inferd.server.transport.completion_queue.call import NO_FLAGS, OK, CallOwner, CompletionQueueCall, monotonic
from inferd.server.transport.compression import COMPRESSED
from inferd.server.transport.write_timeout import COPIES, COUNTED


class CompletionQueueStreamCall(CompletionQueueCall):
    """One stream. The core accepts one send at a time; later messages wait in this object's queue. Thread-safe."""

    __slots__ = (
        "_drain_fn", "_draining", "_end", "_headers_sent", "_lock", "_outbox", "_reader", "_sending", "_written",
    )  # fmt: skip

    def __init__(self, owner: CallOwner, event: Any, method: str) -> None:
        self._lock = RLock()  # `sent` callbacks run under the lock and may call `send`
        # Messages, the callbacks for when they are written, and the bytes that are counted for them.
        self._outbox: deque[tuple[bytes, Callable[[], None] | None, int]] = deque()
        self._sending = False
        self._written = 0
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
        if fn is None or ended:
            return
        message = event.batch_operations[0].message()
        if self._owner.partial.watching and message is not None:
            self._owner.partial.delivered(self.peer, len(message))
        if message is None or not message.startswith(COMPRESSED):
            fn(message)
            return
        inflated = self._owner.inflater.short(message)
        if inflated is None:
            self._owner.inflater.inflate(message, 0, lambda: not self.cancelled, partial(self._inflated, fn))
        else:
            self._inflated(fn, inflated, 0)

    def _inflated(self, fn: Callable[[bytes | None], None], outcome: bytes | Failure, counted: int) -> None:
        with self._lock:
            ended = self.cancelled or self._end is not None
        if isinstance(outcome, Failure):
            self.fail(outcome.code, outcome.text, outcome.trailing)
        elif not ended:
            fn(outcome)
        if counted:  # `fn` has counted the message, if it is kept
            self._owner.inflight.release(counted)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """See StreamCall."""
        counted = COPIES * len(message) if len(message) > COUNTED else 0
        with self._lock:
            if self._end is not None or self.cancelled:
                return
            if not counted or self._owner.inflight.hold_answer(counted, self.held):
                self.held += counted
                self._outbox.append((message, sent, counted))
                self._pump()
                return
        self.drop(ANSWERS_HELD)

    @property
    def receiving(self) -> bool:
        """See CompletionQueueCall."""
        return self._reader is not None

    @property
    def unwritten(self) -> int:
        """See CompletionQueueCall."""
        return self.held

    @property
    def writing(self) -> int | None:
        """See CompletionQueueCall."""
        return self._written if self._sending and not self.cancelled else None

    def _release(self, counted: int) -> None:
        # The caller holds the lock.
        if counted:
            self.held -= counted
            self._owner.inflight.release(counted)

    def _clear(self) -> None:
        """Drops the messages that wait for their turn. The caller holds the lock."""
        self._release(sum(counted for _, _, counted in self._outbox))
        self._outbox.clear()

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
            self._clear()
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
            message, sent, counted = self._outbox.popleft()
            operations.append(cygrpc.SendMessageOperation(message, NO_FLAGS))
            tag: Callable[[Any], None] = partial(self._wrote, sent, counted)
        elif self._end is not None and self._claim():
            code, text, trailing = self._end
            operations.append(cygrpc.SendStatusFromServerOperation(tuple(trailing), code, text.encode(), NO_FLAGS))
            tag = self._ended
        else:
            return
        self._headers_sent = True
        self._sending = True
        self._call.start_server_batch(tuple(operations), tag)

    def _wrote(self, sent: Callable[[], None] | None, counted: int, _event: Any) -> None:
        with self._lock:
            self._sending = False
            self._written += 1
            self._release(counted)
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
            self._clear()
            ended = not self._sending and self._claim()
        if ended:
            self._owner.ended(self)
