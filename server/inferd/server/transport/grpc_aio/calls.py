"""Calls on grpcio's public asyncio API: the seam's UnaryCall and StreamCall.

Everything of asyncio happens on the transport's loop; what other threads say (reply, fail, send) is posted to it. What
may happen only once is guarded by popping from a list of one: atomic without a lock.
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
from inferd.server.inference.failures import Failure
from inferd.server.transport.callbacks import tell_cancelled, tell_drained
from inferd.server.transport.calls import Metadata, certificate_names

STATUS = {code: next(s for s in grpc.StatusCode if s.value[0] == code.value) for code in Code}


class InboundMessages:
    """Runs functions on the loop's thread, woken once for many. Thread-safe."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._awake = False

    def post(self, fn: Callable[[Any], None], argument: Any) -> None:
        """Calls `fn(argument)` on the loop's thread: now, when this is it."""
        if threading.get_ident() == self._thread:
            fn(argument)
            return
        self._posted.append((fn, argument))
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._awake = False  # first: whoever posts from here on wakes the loop again
        while self._posted:
            fn, argument = self._posted.popleft()
            fn(argument)


class _Call:
    """What both kinds share."""

    def __init__(self, method: str, context: Any, mailbox: InboundMessages) -> None:
        now = time.monotonic()  # first: who is interrupted between the two must not get a later deadline by it
        remaining = context.time_remaining()
        self.method = method
        self.deadline: float | None = None if remaining is None else now + remaining
        self.cancelled = False
        # Asked now: once the call has ended grpcio has freed what the answer lies in, and asking ends the process.
        self.peer = str(context.peer())  # in gRPC's form
        self._certificate: Sequence[str] | None = None
        self._context = context
        self._mailbox = mailbox
        self._open = [None]
        self._cancel_fns: list[Callable[[], None]] = []

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key (lower case), values with commas between them, None where it is absent."""
        joined = None
        for found, value in self._context.invocation_metadata() or ():
            if found == key:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                joined = text if joined is None else f"{joined}, {text}"
        return joined

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate; of a call that has ended only where they were asked for before,
        for the same reason."""
        if self._certificate is None:
            self._certificate = certificate_names(self._context.auth_context()) if self._open else ()
        return self._certificate

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the call is cancelled; at once if it already is."""
        self._cancel_fns.append(fn)
        if self.cancelled:
            tell_cancelled(self._cancel_fns, self.method)

    def cancel(self) -> None:
        """The client is gone, or the server cuts the call off: nothing will be answered any more."""
        self.cancelled = True
        self._claim()
        tell_cancelled(self._cancel_fns, self.method)

    def _claim(self) -> bool:
        """Whether the caller may answer: True for exactly one."""
        try:
            self._open.pop()
        except IndexError:
            return False
        return True


class PublicUnaryCall(_Call):
    """One request, one answer."""

    def __init__(self, method: str, context: Any, mailbox: InboundMessages, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(method, context, mailbox)
        self.request = b""
        self.outcome: asyncio.Future[bytes | Failure] = loop.create_future()

    def reply(self, message: bytes) -> None:
        """Answers."""
        if self._claim():
            self._mailbox.post(self._settle, message)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Answers with a status."""
        if self._claim():
            self._mailbox.post(self._settle, Failure(code, text, trailing))

    def cut(self, failure: Failure) -> None:
        """Ends the call because the server stops. On the loop's thread."""
        if self._claim():
            self.cancel()
            self._settle(failure)

    def _settle(self, outcome: bytes | Failure) -> None:
        self._cancel_fns.clear()
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class PublicStreamCall(_Call):
    """Messages both ways."""

    def __init__(self, method: str, context: Any, mailbox: InboundMessages) -> None:
        super().__init__(method, context, mailbox)
        self._outgoing: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: Failure | None = None
        self._reader: asyncio.Task[None] | None = None
        self._drain_fn: Callable[[], None] | None = None
        self._draining = False

    @property
    def unsent(self) -> int:
        """Messages queued and not yet written."""
        return len(self._outgoing)

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        """Asks for one message."""
        self._mailbox.post(self._start_reading, fn)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queues a message."""
        if self._open:
            self._outgoing.append((message, sent))
            self._mailbox.post(self._woken, None)

    def end(self) -> None:
        """Ends the stream with OK after what is queued."""
        if self._claim():
            self._mailbox.post(self._finish, None)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends the stream with a status after what is queued."""
        if self._claim():
            self._mailbox.post(self._finish, Failure(code, text, trailing))

    def on_drain(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the server begins to stop."""
        if self._draining:
            fn()
        else:
            self._drain_fn = fn

    def drain(self) -> None:
        """The server begins to stop. On the loop's thread."""
        self._draining = True
        fn, self._drain_fn = self._drain_fn, None
        tell_drained(self, fn)

    def cut(self, failure: Failure) -> None:
        """Ends the stream because the server stops, what is queued left unsent. On the loop's thread."""
        self._outgoing.clear()
        if self._claim():
            self.cancel()
            self._finish(failure)

    async def pump(self) -> Failure | None:
        """Writes what is queued until the stream ends; gives the failure it ends with. On the loop's thread."""
        try:
            while True:
                while self._outgoing:
                    message, sent = self._outgoing.popleft()
                    await self._context.write(message)
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
        try:
            message = await self._context.read()
        except (asyncio.CancelledError, Exception):  # the call is over; whoever ended it has said so
            return
        if self.cancelled or self._ended:
            return
        fn(None if message is grpc.aio.EOF else message)

    def _finish(self, failure: Failure | None) -> None:
        self._cancel_fns.clear()
        self._failure = failure
        self._ended = True
        self._wake.set()

    def _woken(self, _nothing: None) -> None:
        self._wake.set()
