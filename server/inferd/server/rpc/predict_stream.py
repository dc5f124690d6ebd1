"""inferd.v1.PredictService: PredictStream, many requests in flight over one stream, each answered as it is ready."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from time import monotonic

from inferd.server.errors import Overloaded, ServingError
from inferd.server.rpc.edge import Edge
from inferd.server.rpc.inference import Answer, Inference
from inferd.server.rpc.inflight import Inflight
from inferd.server.rpc.predict import PROTOCOL, encode, query
from inferd.server.rpc.status import GONE, failure_of
from inferd.server.rpc.transport import StreamCall
from inferd.wire.native import StreamFailure, decode_request, encode_stream_failure, encode_stream_response
from inferd.wire.tensors import WireError

MAX_IN_FLIGHT = 64  # per stream; past it the client is not read, so its own flow control holds it back


class PredictStream:
    """Makes a session for each stream. Thread-safe."""

    def __init__(self, inference: Inference, edge: Edge, inflight: Inflight, bound: int = MAX_IN_FLIGHT) -> None:
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound

    def __call__(self, call: StreamCall) -> None:
        """Handles one stream."""
        _Session(call, self._inference, self._edge, self._inflight, bound=self._bound).start()


class _Pending:
    """One request of a stream."""

    __slots__ = ("cancel", "entered", "nbytes")

    def __init__(self) -> None:
        self.cancel: Callable[[], None] | None = None
        self.entered = False
        self.nbytes = 0


class _Session:
    """One stream. A request is pending from its receipt until its answer has been written.

    The next message is asked for while there is room. The lock guards the fields only and is never held while anything
    else is called.
    """

    def __init__(self, call: StreamCall, inference: Inference, edge: Edge, inflight: Inflight, *, bound: int) -> None:
        self._call = call
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound
        self._lock = Lock()
        self._pending: set[_Pending] = set()
        self._reading = False
        self._last = False
        self._draining = False

    def start(self) -> None:
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
        request_id = model = ""
        try:
            self._admit(pending, len(message))
            decoded = decode_request(message)
            request_id, model = self._edge.gate.request_id(self._call, decoded.request_id), decoded.model_name

            def answer(outcome: Answer | ServingError) -> None:
                self._answer(pending, outcome, request_id, model)

            infer = query(decoded, self._call.deadline, len(message), started)
            pending.cancel = self._inference.start(infer, answer)
        except (WireError, Overloaded) as error:
            if not model:  # with a model, the journey has counted it
                self._inference.refused(PROTOCOL, failure_of(error).code.name, monotonic() - started)
            self._fail(pending, error, request_id or getattr(error, "request_id", ""), model)
        except Exception as error:
            self._fail(pending, error, request_id, model)
        if self._call.cancelled:  # while it was being started
            self._abandon()

    def _admit(self, pending: _Pending, nbytes: int) -> None:
        pending.entered = self._inflight.enter()
        if not pending.entered or not self._inflight.hold(nbytes):
            raise Overloaded(self._inflight.full)
        pending.nbytes = nbytes

    def _answer(self, pending: _Pending, outcome: Answer | ServingError, request_id: str, model: str) -> None:
        error: Exception
        if isinstance(outcome, Answer):
            try:
                message = encode_stream_response(request_id, encode(outcome, request_id))
                self._call.send(message, partial(self._sent, pending))
                return
            except Exception as failed:
                error = failed
        else:
            error = outcome
        self._fail(pending, error, request_id, model)

    def _fail(self, pending: _Pending, error: Exception, request_id: str, model: str) -> None:
        failure = failure_of(error, request_id)
        self._edge.failures.write(
            self._call.method, failure, model=model, request_id=request_id, peer=self._call.peer, error=error
        )
        message = encode_stream_failure(request_id, StreamFailure(failure.code.value, failure.text))
        self._call.send(message, partial(self._sent, pending))

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
