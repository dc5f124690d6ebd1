"""Calls on grpcio's public asyncio API: implements `transport.calls.UnaryCall` and `StreamCall`.

All asyncio work happens on the transport's loop; `reply`, `fail` and `send` from other threads are posted to it. The
answer must happen once: it is guarded by popping from a list of one item, which is atomic and needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from inferd.server.errors import Code
from inferd.server.inference.failures import ANSWERS_HELD, Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.callbacks import run_cancel_callbacks, run_drain_callback
from inferd.server.transport.calls import Metadata, certificate_names
from inferd.server.transport.compression import COMPRESSED, Inflater
from inferd.server.transport.connections import close_connections
from inferd.server.transport.partial_messages import PartialMessages
from inferd.server.transport.write_timeout import COPIES, COUNTED

STATUS = {code: next(s for s in grpc.StatusCode if s.value[0] == code.value) for code in Code}


class InboundMessages:
    """Runs functions on the loop's thread; one wake-up may serve several functions. Thread-safe."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._awake = False

    def post(self, fn: Callable[[Any], None], argument: Any) -> None:
        """Calls `fn(argument)` on the loop's thread: at once when called on that thread."""
        if threading.get_ident() == self._thread:
            fn(argument)
            return
        self._posted.append((fn, argument))
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no client waits for it
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._awake = False  # before the loop below, so that a later `post` wakes the loop again
        while self._posted:
            fn, argument = self._posted.popleft()
            fn(argument)


class _Call:
    """The base of both kinds of calls."""

    def __init__(self, method: str, context: Any, mailbox: InboundMessages) -> None:
        now = time.monotonic()  # before `time_remaining`: a pause between the two must not make the deadline later
        remaining = context.time_remaining()
        self.method = method
        self.deadline: float | None = None if remaining is None else now + remaining
        self.cancelled = False
        # Read now: after the call has ended grpcio has freed the memory behind it, and reading crashes the process.
        self.peer = str(context.peer())  # in gRPC's form
        self._certificate: Sequence[str] | None = None
        self._context = context
        self._mailbox = mailbox
        self._open = [None]
        self._cancel_fns: list[Callable[[], None]] = []
        self.held = 0  # bytes that are counted for the call

    @property
    def unwritten(self) -> int:
        """See WrittenCall. Of a unary call with its message."""
        return self.held

    def drop(self, _failure: Failure) -> None:
        """See WrittenCall. grpcio's public API cannot end a call whose answer is not read: the connection is closed,
        with all its calls. Connections over a unix socket are not found, and stay."""
        close_connections(self.peer)

    def metadata(self, key: str) -> str | None:
        """See UnaryCall."""
        joined = None
        for found, value in self._context.invocation_metadata() or ():
            if found == key:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                joined = text if joined is None else f"{joined}, {text}"
        return joined

    def certificate(self) -> Sequence[str]:
        """See UnaryCall. After the end of the call: empty unless the names were read before, for the reason given at
        `peer`."""
        if self._certificate is None:
            self._certificate = certificate_names(self._context.auth_context()) if self._open else ()
        return self._certificate

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """See UnaryCall."""
        self._cancel_fns.append(fn)
        if self.cancelled:
            run_cancel_callbacks(self._cancel_fns, self.method)

    def cancel(self) -> None:
        """The client is gone, or the server cuts the call off: no answer will be sent."""
        self.cancelled = True
        self._claim()
        run_cancel_callbacks(self._cancel_fns, self.method)

    def _claim(self) -> bool:
        """Claims the right to answer. True for exactly one thread."""
        try:
            self._open.pop()
        except IndexError:
            return False
        return True


class PublicUnaryCall(_Call):
    """One unary call. `outcome`: the answer, or the failure, for the coroutine that serves the call."""

    def __init__(self, method: str, context: Any, mailbox: InboundMessages, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(method, context, mailbox)
        self.request = b""
        self.received = False  # the whole message
        self._loop = loop
        self.outcome: asyncio.Future[bytes | Failure] = loop.create_future()

    @property
    def receiving(self) -> bool:
        """See ReceivingCall."""
        return not self.received and bool(self._open)

    @property
    def writing(self) -> int | None:
        """See WrittenCall. An answer is written as a whole."""
        return 0 if self.outcome.done() else None

    def reply(self, message: bytes) -> None:
        """See UnaryCall."""
        if self._claim():
            self._mailbox.post(self._settle, message)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """See UnaryCall."""
        if self._claim():
            self._mailbox.post(self._settle, Failure(code, text, trailing))

    def cut(self, failure: Failure) -> None:
        """Ends the call because the server stops. On the loop's thread."""
        if self._claim():
            self.cancel()
            self._settle(failure)

    def forget(self) -> None:
        """Drops message and answer: grpcio's context refers to the call, and the call to the context, so that both
        stay until the next full collection."""
        self.request = b""
        self.outcome = self._loop.create_future()

    def _settle(self, outcome: bytes | Failure) -> None:
        self._cancel_fns.clear()
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class PublicStreamCall(_Call):
    """One stream."""

    def __init__(
        self,
        method: str,
        context: Any,
        mailbox: InboundMessages,
        inflight: InflightBounds,
        inflater: Inflater,
        partial: PartialMessages,
    ) -> None:
        super().__init__(method, context, mailbox)
        self._inflight = inflight
        self._inflater = inflater
        self._partial = partial
        self._reading = False
        self._writing = False
        self._written = 0
        # Messages, the callbacks for when they are written, and the bytes that are counted for them.
        self._outgoing: deque[tuple[bytes, Callable[[], None] | None, int]] = deque()
        self._wake = asyncio.Event()
        self._gone = False
        self._ended = False
        self._failure: Failure | None = None
        self._reader: asyncio.Task[None] | None = None
        self._drain_fn: Callable[[], None] | None = None
        self._draining = False

    @property
    def unsent(self) -> int:
        """See StreamCall."""
        return len(self._outgoing)

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        """See StreamCall."""
        self._mailbox.post(self._start_reading, fn)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """See StreamCall."""
        if not self._open:
            return
        counted = COPIES * len(message) if len(message) > COUNTED else 0
        if counted and not self._inflight.hold_answer(counted, self.held):
            self.drop(ANSWERS_HELD)
            return
        self._mailbox.post(self._queue, (message, sent, counted))

    def _queue(self, outgoing: tuple[bytes, Callable[[], None] | None, int]) -> None:
        self.held += outgoing[2]
        if self._gone:
            self.release()
            return
        self._outgoing.append(outgoing)
        self._wake.set()

    def release(self) -> None:
        """Takes what is counted for the stream off the count: nothing will be written any more. On the loop's
        thread."""
        self._gone = True
        self._outgoing.clear()
        held, self.held = self.held, 0
        self._inflight.release(held)

    @property
    def receiving(self) -> bool:
        """See ReceivingCall."""
        return self._reading and not self.cancelled

    @property
    def writing(self) -> int | None:
        """See WrittenCall."""
        return self._written if self._writing else None

    def end(self) -> None:
        """See StreamCall."""
        if self._claim():
            self._mailbox.post(self._finish, None)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends the stream with a status after the queued messages have been written."""
        if self._claim():
            self._mailbox.post(self._finish, Failure(code, text, trailing))

    def on_drain(self, fn: Callable[[], None]) -> None:
        """See StreamCall."""
        if self._draining:
            fn()
        else:
            self._drain_fn = fn

    def drain(self) -> None:
        """Runs the drain callback: the server begins to stop. On the loop's thread."""
        self._draining = True
        fn, self._drain_fn = self._drain_fn, None
        run_drain_callback(self, fn)

    def cut(self, failure: Failure) -> None:
        """Ends the stream because the server stops; queued messages are dropped. On the loop's thread."""
        self._outgoing.clear()
        if self._claim():
            self.cancel()
            self._finish(failure)

    async def pump(self) -> Failure | None:
        """Writes queued messages until the stream ends. Returns the failure that ends it, None for OK. On the loop's
        thread."""
        try:
            while True:
                while self._outgoing:
                    message, sent, counted = self._outgoing.popleft()
                    self._writing = True
                    await self._context.write(message)
                    self._writing = False
                    self._written += 1
                    del message
                    self.held -= counted
                    self._inflight.release(counted)
                    if sent is not None:
                        sent()
                if self._ended:
                    return self._failure
                self._wake.clear()
                await self._wake.wait()
        finally:
            if self._reader is not None:
                self._reader.cancel()

    def _start_reading(self, fn: Callable[[bytes | None], None]) -> None:
        if not self._ended and not self.cancelled:
            self._reader = asyncio.get_running_loop().create_task(self._read(fn))

    async def _read(self, fn: Callable[[bytes | None], None]) -> None:
        self._reading = True
        try:
            message = await self._context.read()
        except (asyncio.CancelledError, Exception):  # the call has ended; its end is handled elsewhere
            return
        finally:
            self._reading = False
        if self._partial.watching and message is not grpc.aio.EOF:
            self._partial.delivered(self.peer, len(message))
        if self.cancelled or self._ended:
            return
        if message is grpc.aio.EOF or not message.startswith(COMPRESSED):
            fn(None if message is grpc.aio.EOF else message)
            return
        outcome, counted = await inflated(self._inflater, message, 0, self._mailbox)
        if isinstance(outcome, Failure):
            self.fail(outcome.code, outcome.text, outcome.trailing)
        elif not self.cancelled and not self._ended:
            fn(outcome)
        self._inflight.release(counted)  # `fn` has counted the message, if it is kept

    def _finish(self, failure: Failure | None) -> None:
        self._cancel_fns.clear()
        self._failure = failure
        self._ended = True
        self._wake.set()


async def inflated(
    inflater: Inflater, message: bytes, own: int, mailbox: InboundMessages
) -> tuple[bytes | Failure, int]:
    """What `Inflater` makes of a compressed message. `own`: see there."""
    short = inflater.short(message)
    if short is not None:
        return short, 0
    found: asyncio.Future[tuple[bytes | Failure, int]] = asyncio.get_running_loop().create_future()

    def settle(outcome: tuple[bytes | Failure, int]) -> None:
        if not found.done():
            found.set_result(outcome)
        else:
            inflater.release(outcome[1])

    def then(outcome: bytes | Failure, counted: int) -> None:
        mailbox.post(settle, (outcome, counted))

    inflater.inflate(message, own, lambda: not found.done(), then)
    return await found
