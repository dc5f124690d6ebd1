"""One stream of requests, for every protocol: what is in flight, how much of it there may be, and how it ends.

A dialect says what the messages mean; the session reads them, runs them and writes the answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from time import monotonic
from typing import Protocol

from inferd.server.errors import Overloaded, RateLimited, ServingError
from inferd.server.inference.failures import GONE, Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import Answer, InferenceService, Query
from inferd.server.inference.trace import trace_fields
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import StreamCall
from inferd.wire.tensors import WireError

MAX_IN_FLIGHT = 64  # per stream; past it the client is not read, so its own flow control holds it back


@dataclass(frozen=True, slots=True)
class StreamExchange:
    """One request of a stream, decoded. `encode` makes the stream's message of its answer."""

    request_id: str
    model: str
    query: Query
    encode: Callable[[Answer], bytes]


class Dialect(Protocol):
    """What the messages of one stream mean. Thread-safe.

    protocol   name in the metrics
    ordered    answers go out in the order of their requests, not as they are ready
    fatal      the first failure ends the stream with its status
    """

    @property
    def protocol(self) -> str: ...
    @property
    def ordered(self) -> bool: ...
    @property
    def fatal(self) -> bool: ...

    def decode(self, call: StreamCall, message: bytes, started: float) -> StreamExchange:
        """Raises WireError or ServingError."""
        ...

    def failure(self, error: Exception, exchange: StreamExchange | None) -> tuple[Failure, bytes]:
        """How a failure is said: as a status, and as a message. `exchange`: None where decoding failed."""
        ...


class _Pending:
    """One request of a stream. `outgoing` is its answer while it waits for its turn; `failure` ends the stream."""

    __slots__ = ("cancel", "entered", "failure", "nbytes", "outgoing")

    def __init__(self) -> None:
        self.cancel: Callable[[], None] | None = None
        self.entered = False
        self.nbytes = 0
        self.outgoing: bytes | None = None
        self.failure: Failure | None = None


class StreamSession:
    """One stream. A request is pending from its receipt until its answer has been written.

    The next message is asked for while there is room. The lock guards the fields only and is never held while anything
    else is called.
    """

    def __init__(
        self,
        call: StreamCall,
        dialect: Dialect,
        inference: InferenceService,
        edge: ErrorBoundary,
        inflight: InflightBounds,
        *,
        bound: int = MAX_IN_FLIGHT,
    ) -> None:
        self._call = call
        self._dialect = dialect
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound
        self._limiter = edge.gate.limiter
        self._client = "" if self._limiter is None else edge.gate.client(call)
        self._decode = dialect.decode if self._limiter is None else self._decode_within_bounds
        self._lock = Lock()
        self._pending: set[_Pending] = set()
        self._turns: deque[_Pending] = deque()  # of an ordered stream: whose answer is next
        self._flushing = False
        self._reading = False
        self._last = False
        self._draining = False

    def start(self) -> None:
        """Begins to read."""
        self._call.on_cancel(self._abandon)
        self._read_on()
        self._call.on_drain(self._drain)

    def _read_on(self) -> None:
        with self._lock:
            if self._reading or self._last or self._draining or len(self._pending) >= self._bound:
                return
            self._reading = True
        self._call.read(self._received)

    def _received(self, message: bytes | None) -> None:
        with self._lock:
            self._reading = False
            self._last = message is None
        try:
            if message is not None:
                self._run(message)
        except Exception as error:
            self._abandon()
            self._edge.fail(self._call, error)
            return
        self._end_when_done()
        self._read_on()

    def _run(self, message: bytes) -> None:
        started = monotonic()
        pending = _Pending()
        with self._lock:
            self._pending.add(pending)
            if self._dialect.ordered:
                self._turns.append(pending)
        exchange: StreamExchange | None = None
        asked = False
        try:
            # Decoded first: whoever is refused must be able to tell which of its requests that was.
            found = exchange = self._decode(self._call, message, started)
            self._admit(pending, len(message))
            asked = True

            def answer(outcome: Answer | ServingError) -> None:
                self._answer(pending, outcome, found)

            pending.cancel = self._inference.start(exchange.query, answer, self._call)
        except Exception as error:
            if not asked and isinstance(error, WireError | ServingError):
                # There was no query: the journey has not counted it.
                code = self._edge.status(error, "").code
                self._inference.refused(self._dialect.protocol, code.name, monotonic() - started)
            self._fail(pending, error, exchange)
        if self._call.cancelled:  # while it was being started
            self._abandon()

    def _decode_within_bounds(self, call: StreamCall, message: bytes, started: float) -> StreamExchange:
        """A message counts as a request of its client's. Decoded first: the refusal names the request."""
        exchange = self._dialect.decode(call, message, started)
        if self._limiter is not None:
            try:
                self._limiter.take(self._client)
            except RateLimited as error:
                error.request_id = exchange.request_id  # type: ignore[attr-defined]
                raise
        return exchange

    def _admit(self, pending: _Pending, nbytes: int) -> None:
        pending.entered = self._inflight.enter()
        if not pending.entered or not self._inflight.hold(nbytes):
            raise Overloaded(self._inflight.full)
        pending.nbytes = nbytes

    def _answer(self, pending: _Pending, outcome: Answer | ServingError, exchange: StreamExchange) -> None:
        error: Exception
        if isinstance(outcome, Answer):
            try:
                self._deliver(pending, exchange.encode(outcome))
                return
            except Exception as failed:
                error = failed
        else:
            error = outcome
        self._fail(pending, error, exchange)

    def _fail(self, pending: _Pending, error: Exception, exchange: StreamExchange | None) -> None:
        failure, message = self._dialect.failure(error, exchange)
        self._edge.failures.write(
            self._call.method,
            failure,
            model="" if exchange is None else exchange.model,
            request_id=getattr(error, "request_id", "") if exchange is None else exchange.request_id,
            peer=self._call.peer,
            error=error,
            trace=trace_fields(self._call),
        )
        if self._dialect.fatal:
            pending.failure = failure
        self._deliver(pending, message)

    def _deliver(self, pending: _Pending, message: bytes) -> None:
        if not self._dialect.ordered:
            self._send(pending, message)
            return
        with self._lock:
            pending.outgoing = message
            if self._flushing:  # who flushes will find it
                return
            self._flushing = True
        while True:
            with self._lock:
                if not self._turns or self._turns[0].outgoing is None:
                    self._flushing = False
                    return
                head = self._turns.popleft()
                message = head.outgoing or b""
            self._send(head, message)

    def _send(self, pending: _Pending, message: bytes) -> None:
        if pending.failure is None:
            self._call.send(message, partial(self._sent, pending))
            return
        self._abandon()
        self._call.fail(pending.failure.code, pending.failure.text, pending.failure.trailing)

    def _sent(self, pending: _Pending) -> None:
        self._release(pending)
        self._end_when_done()
        self._read_on()

    def _release(self, pending: _Pending) -> None:
        with self._lock:
            if pending not in self._pending:
                return
            self._pending.remove(pending)
        if pending.entered:
            self._inflight.leave(pending.nbytes)

    def _drain(self) -> None:
        with self._lock:
            self._draining = True
        self._end_when_done()

    def _end_when_done(self) -> None:
        with self._lock:
            if self._pending:
                return
            last, draining = self._last, self._draining
        if last:
            self._call.end()
        elif draining:
            self._call.fail(GONE.code, GONE.text, GONE.trailing)

    def _abandon(self) -> None:
        """Nobody waits for the answers any more."""
        with self._lock:
            left = list(self._pending)
        for pending in left:
            if pending.cancel is not None:
                pending.cancel()
            self._release(pending)
