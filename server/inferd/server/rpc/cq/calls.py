"""Calls on the completion queue: the seam's UnaryCall and StreamCall over batches of core operations.

Every operation object is used once (sharing one between calls is a double free in the core). Every batch has a tag,
which the loop calls with the finished event; the two batches that every unary call has are tagged with the call itself,
so that the loop knows them without a bound method for each. What must happen once (the answer, the watch) is guarded by
deleting a slot: one step of the interpreter, which fails for everyone but the first, so it needs no lock.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any, Protocol

from grpc._cython import cygrpc

from inferd.server.core.status import GONE, Failure, header_text, refusal
from inferd.server.errors import Code
from inferd.server.rpc.transport import BurstHandler, Metadata, UnaryHandler, certificate_names

_log = logging.getLogger(__name__)

NO_FLAGS = 0
_OK = 0
NO_MESSAGE = refusal(Code.INVALID_ARGUMENT, "expected one message, got none")


class Service:
    """A unary method as the transport serves it.

    handle     takes a call whose request is there
    together   takes several that came in one turn of the loop, gives those that it has left unanswered; None: there is
               no such thing
    arrived    calls kept for it until the turn
    exempt     taken even when the bounds are reached, and while the server drains
    """

    __slots__ = ("arrived", "exempt", "handle", "method", "together")

    def __init__(self, method: str, handle: UnaryHandler, together: BurstHandler | None, *, exempt: bool) -> None:
        self.method = method
        self.handle = handle
        self.together = together
        self.arrived: list[UnaryCall] = []
        self.exempt = exempt


class Home(Protocol):
    """What a call needs of its transport."""

    def gone(self, call: UnaryCall | StreamCall) -> None:
        """The call is over: nothing of it is left to be sent."""
        ...


def monotonic(epoch_seconds: float) -> float | None:
    """The core's deadline (wall clock) on the monotonic clock; None for none."""
    if epoch_seconds > 1e11:  # the core says infinity with a time in the far future
        return None
    return time.monotonic() + (epoch_seconds - time.time())


class Call:
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
    def deadline(self) -> float | None:
        """Monotonic seconds, None where the client set none."""
        return monotonic(self.event.call_details.deadline)

    @property
    def peer(self) -> str:
        """The client's address in gRPC's form."""
        peer = self._call.peer()
        return peer.decode() if isinstance(peer, bytes) else str(peer)

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key (lower case), None where it is absent."""
        for found, value in self.event.invocation_metadata:
            if found == key:
                return value.decode("latin-1") if isinstance(value, bytes) else str(value)
        return None

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate."""
        return certificate_names(cygrpc.auth_context(self._call))

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the call is cancelled; at once if it already is."""
        self._cancel_fns.append(fn)
        if self.cancelled:
            self._run_cancel_fns()

    def _run_cancel_fns(self) -> None:
        # Two threads may come here at once: each function is popped, and so run, by one of them.
        while self._cancel_fns:
            try:
                fn = self._cancel_fns.pop()
            except IndexError:
                return
            try:
                fn()
            except Exception:
                _log.exception("a cancellation callback of %s raised", self.method)

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self.cancelled = True
            self._abandon()
            self._run_cancel_fns()

    def _abandon(self) -> None:
        """The client is gone: nothing will be sent."""
        raise AssertionError("each kind of call has its own")

    def cut(self, failure: Failure) -> None:
        """Ends the call because the server stops: whoever works on it is told to drop that."""
        waiting, self._cancel_fns = self._cancel_fns, []
        self.fail(failure.code, failure.text, failure.trailing)
        self._cancel_fns = waiting
        self._run_cancel_fns()

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


class UnaryCall(Call):
    """One request, one answer. The transport fills it in, asks for the request and hears of both batches' ends: the
    call is their tag, and `waits` says which one it is.

    A call that is answered at once asks for its close together with its answer: one batch and one event less. One that
    has to wait for its answer is watched meanwhile.

    service     who answers it
    request     the message, b"" until it is there
    waits       for its message
    """

    __slots__ = ("request", "service", "waits")

    def __init__(self, home: Home, event: Any, service: Service) -> None:
        # As Call's own, written out, and the first batch begun: this is made for every request.
        self._home = home
        self.event = event
        self._call = call = event.call
        self._unanswered = self._unwatched = self.waits = True
        self._cancel_fns = []
        self.method = service.method
        self.cancelled = False
        self.entered = False
        self.held = 0
        self.service = service
        self.request = b""
        call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self)

    def reply(self, message: bytes) -> None:
        """Answers with OK. Thread-safe; the first answer counts."""
        try:  # as `_claim` and `_send`, written out: most calls end here
            del self._unanswered
        except AttributeError:
            return
        if self._cancel_fns:
            self._cancel_fns.clear()
        operations: tuple[Any, ...]
        try:
            del self._unwatched
        except AttributeError:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), _OK, b"", NO_FLAGS),
            )
        else:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), _OK, b"", NO_FLAGS),
                cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
            )
        self._call.start_server_batch(operations, self)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Answers with an error. Thread-safe; the first answer counts."""
        if not self._claim():
            return
        self._cancel_fns.clear()
        operations: tuple[Any, ...] = (
            cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(tuple(trailing), code.value, header_text(text).encode(), NO_FLAGS),
        )
        try:
            del self._unwatched
        except AttributeError:  # it is watched already
            pass
        else:
            operations = (*operations, cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS))
        # While it waits for its message, the call is the tag of that.
        self._call.start_server_batch(operations, self._sent if self.waits else self)

    def _sent(self, _event: Any) -> None:
        self._home.gone(self)

    @property
    def unheard(self) -> bool:
        """Whether the request has not come, and nobody has answered without it."""
        return self.waits and not self.answered

    @property
    def answered(self) -> bool:
        """Whether somebody has answered, or nobody needs to any more."""
        return not hasattr(self, "_unanswered")

    def _abandon(self) -> None:
        if self._claim():
            self._home.gone(self)


class StreamCall(Call):
    """Messages both ways. The core takes one send at a time, so that later ones queue here."""

    __slots__ = ("_drain_fn", "_draining", "_end", "_headers_sent", "_lock", "_outbox", "_reader", "_sending")

    def __init__(self, home: Home, event: Any, method: str) -> None:
        self._lock = RLock()  # a callback that runs under it may send again
        self._outbox: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._sending = False
        self._headers_sent = False
        self._end: tuple[int, str, Metadata] | None = None  # status code, text, trailing metadata
        self._reader: Callable[[bytes | None], None] | None = None
        self._drain_fn: Callable[[], None] | None = None
        self._draining = False
        super().__init__(home, event, method)
        self.watch()

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        """Asks for one message; `fn` gets it on the transport's thread, or None at the end."""
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
            over = self.cancelled or self._end is not None
        if fn is not None and not over:
            fn(event.batch_operations[0].message())

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queues a message. Does nothing after the end or a cancel."""
        with self._lock:
            if self._end is None and not self.cancelled:
                self._outbox.append((message, sent))
                self._pump()

    @property
    def unsent(self) -> int:
        """Messages queued and not yet handed to the core."""
        return len(self._outbox)

    def end(self) -> None:
        """Ends with OK after what is queued."""
        self._finish(_OK, "", ())

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends with a status after what is queued."""
        self._finish(code.value, header_text(text), trailing)

    def on_drain(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the server begins to stop; at once if it already does."""
        with self._lock:
            if not self._draining:
                self._drain_fn = fn
                return
        fn()

    def cut(self, failure: Failure) -> None:
        """The same, what is queued left unsent."""
        with self._lock:
            self._outbox.clear()
        super().cut(failure)

    def drain(self) -> None:
        """The server begins to stop. On the transport's thread."""
        with self._lock:
            self._draining = True
            fn, self._drain_fn = self._drain_fn, None
        if fn is None:
            self.fail(GONE.code, GONE.text, GONE.trailing)
            return
        try:
            fn()
        except Exception:
            _log.exception("draining a stream of %s raised", self.method)
            self.fail(GONE.code, GONE.text, GONE.trailing)

    def _finish(self, code: int, text: str, trailing: Metadata) -> None:
        with self._lock:
            if self._end is None and not self.cancelled:
                self._end = (code, text, trailing)
                self._cancel_fns.clear()
                self._pump()

    def _pump(self) -> None:
        # Holds the lock: hands the next thing to the core unless it is busy with one.
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
            gone = self.cancelled and self._claim()
            if not self.cancelled:
                self._pump()
                if sent is not None:
                    sent()
        if gone:
            self._home.gone(self)

    def _ended(self, _event: Any) -> None:
        self._home.gone(self)

    def _abandon(self) -> None:
        with self._lock:
            self._outbox.clear()
            gone = not self._sending and self._claim()
        if gone:
            self._home.gone(self)
