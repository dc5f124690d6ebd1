"""A stream of inference requests, for every protocol: the requests in flight, their bound, and the end of the stream.

Each message is a call (StreamedCall), which passes through the same pipeline as a unary call. The session reads the
messages and writes the answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from time import monotonic

from inferd.server.access.caller import Caller
from inferd.server.errors import Code, Overloaded
from inferd.server.inference.failures import SHUTTING_DOWN, Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.interfaces import Call
from inferd.server.inference.service import InferenceService
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import Metadata, StreamCall

MAX_IN_FLIGHT = 64  # per stream; at the bound the session stops reading, and HTTP/2 flow control slows the client


class StreamedCall:
    """One message of a stream as a call (`inference.interfaces.Call`). Its answer is one message of the stream.
    Thread-safe as UnaryCall.

    entered    the message counts towards `inflight.calls`
    nbytes     bytes of the message that count towards `inflight.bytes`
    outgoing   the answer, while an ordered stream has earlier answers to send
    failure    ends the stream when it is the turn of this message
    """

    __slots__ = ("_cancel", "entered", "failure", "nbytes", "open", "outgoing", "request", "session")

    def __init__(self, session: StreamSession, message: bytes) -> None:
        self.session = session
        self.request = message
        self._cancel: Callable[[], None] | None = None
        self.open = [None]
        self.entered = False
        self.nbytes = 0
        self.outgoing: bytes | None = None
        self.failure: Failure | None = None

    @property
    def method(self) -> str:
        """Of the stream."""
        return self.session.call.method

    @property
    def deadline(self) -> float | None:
        """Of the stream."""
        return self.session.call.deadline

    @property
    def peer(self) -> str:
        """Of the stream."""
        return self.session.call.peer

    def metadata(self, key: str) -> str | None:
        """Of the stream."""
        return self.session.call.metadata(key)

    def certificate(self) -> Sequence[str]:
        """Of the stream."""
        return self.session.call.certificate()

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Calls `fn` when the stream is cancelled; at once if it already is."""
        self._cancel = fn
        if self.session.call.cancelled:
            fn()

    def cancel(self) -> None:
        """Cancels the request: the client no longer waits for the answer."""
        if self._cancel is not None:
            self._cancel()

    def reply(self, message: bytes) -> None:
        """Sends the answer; in the order of the requests where the stream is ordered."""
        if self._claim():
            self.session.deliver(self, message)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Ends the stream with a status, for failures that no message can report."""
        self.session.call.fail(code, text, trailing)

    def fail_with(self, failure: Failure, message: bytes) -> None:
        """Sends a failure as `message`, or ends the stream with its status where the session is `fatal`."""
        if self._claim():
            if self.session.fatal:
                self.failure = failure
            self.session.deliver(self, message)

    def _claim(self) -> bool:
        try:
            self.open.pop()
        except IndexError:
            return False
        return True


def admit_streamed(call: Call) -> None:
    """Counts a decoded message like a call. It is counted after decoding, because a refusal must name the request.
    Raises RateLimited, Overloaded."""
    assert isinstance(call, StreamedCall)
    call.session.admit(call)


class StreamSession:
    """One stream. A request is pending from its receipt until its answer has been written. Thread-safe.

    The session reads the next message while fewer than `bound` requests are pending. The lock guards the fields only
    and is never held during calls of other objects.

    call      the stream
    fatal     the first failure ends the stream with its status
    """

    def __init__(
        self,
        call: StreamCall,
        caller: Caller,
        inference: InferenceService,
        edge: ErrorBoundary,
        inflight: InflightBounds,
        *,
        ordered: bool,
        fatal: bool = False,
        bound: int = MAX_IN_FLIGHT,
    ) -> None:
        """`caller` was admitted. `ordered`: answers are sent in the order of the requests, else as they are ready."""
        self.call = call
        self.fatal = fatal
        self._ordered = ordered
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound
        self._caller = caller
        self._lock = Lock()
        self._pending: set[StreamedCall] = set()
        self._turns: deque[StreamedCall] = deque()  # ordered streams: the requests whose answers are not sent, in order
        self._flushing = False
        self._reading = False
        self._last = False
        self._draining = False

    def start(self) -> None:
        """Starts reading."""
        self.call.on_cancel(self._abandon)
        self._read_on()
        self.call.on_drain(self._drain)

    def admit(self, streamed: StreamedCall) -> None:
        """Counts a message towards the client's limits and the server's bounds. Raises RateLimited, Overloaded."""
        self._edge.rules.charge_message(self._caller, self.call)
        nbytes = len(streamed.request)
        streamed.entered = self._inflight.enter()
        if not streamed.entered or not self._inflight.hold(nbytes):
            raise Overloaded(self._inflight.full)
        streamed.nbytes = nbytes

    def deliver(self, streamed: StreamedCall, message: bytes) -> None:
        """Sends the answer to a message, or keeps it until the earlier answers of an ordered stream are sent."""
        if not self._ordered:
            self._send(streamed, message)
            return
        with self._lock:
            streamed.outgoing = message
            if self._flushing:  # another thread is sending and will send this one
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

    def _read_on(self) -> None:
        with self._lock:
            if self._reading or self._last or self._draining or len(self._pending) >= self._bound:
                return
            self._reading = True
        self.call.read(self._received)

    def _received(self, message: bytes | None) -> None:
        with self._lock:
            self._reading = False
            self._last = message is None
        try:
            if message is not None:
                self._run(message)
        except Exception as error:
            self._abandon()
            self._edge.fail(self.call, error)
            return
        self._end_when_done()
        self._read_on()

    def _run(self, message: bytes) -> None:
        streamed = StreamedCall(self, message)
        with self._lock:
            self._pending.add(streamed)
            if self._ordered:
                self._turns.append(streamed)
        self._inference.handle((streamed,), monotonic(), self._caller)
        if self.call.cancelled:  # the stream was cancelled while the request was started
            self._abandon()

    def _send(self, streamed: StreamedCall, message: bytes) -> None:
        if streamed.failure is None:
            self.call.send(message, partial(self._sent, streamed))
            return
        self._abandon()
        self.call.fail(streamed.failure.code, streamed.failure.text, streamed.failure.trailing)

    def _sent(self, streamed: StreamedCall) -> None:
        self._release(streamed)
        self._end_when_done()
        self._read_on()

    def _release(self, streamed: StreamedCall) -> None:
        with self._lock:
            if streamed not in self._pending:
                return
            self._pending.remove(streamed)
        if streamed.entered:
            self._inflight.leave(streamed.nbytes)

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
            self.call.end()
        elif draining:
            self.call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing)

    def _abandon(self) -> None:
        """Cancels all pending requests: the client no longer waits for their answers."""
        with self._lock:
            pending = list(self._pending)
        for streamed in pending:
            streamed.cancel()
            self._release(streamed)
