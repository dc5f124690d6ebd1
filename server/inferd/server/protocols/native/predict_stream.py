"""inferd.v1.PredictService: PredictStream, many requests in flight over one stream, each answered as it is ready."""

from __future__ import annotations

from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import Answer, InferenceService
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.stream_session import MAX_IN_FLIGHT, StreamExchange, StreamSession
from inferd.server.protocols.native.predict import PROTOCOL, encode, query
from inferd.server.transport.calls import StreamCall
from inferd.wire.native import StreamFailure, decode_request, encode_stream_failure, encode_stream_response


class PredictStream:
    """Makes a session for each stream. Thread-safe."""

    def __init__(
        self, inference: InferenceService, edge: ErrorBoundary, inflight: InflightBounds, bound: int = MAX_IN_FLIGHT
    ) -> None:
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound

    def __call__(self, call: StreamCall) -> None:
        """Handles one stream."""
        StreamSession(call, _Native(self._edge), self._inference, self._edge, self._inflight, bound=self._bound).start()


class _Native:
    """The messages of the native API."""

    protocol = PROTOCOL
    ordered = False
    fatal = False

    def __init__(self, edge: ErrorBoundary) -> None:
        self._edge = edge

    def decode(self, call: StreamCall, message: bytes, started: float) -> StreamExchange:
        decoded = decode_request(message)
        request_id = self._edge.gate.request_id(call, decoded.request_id)

        def encoded(answer: Answer) -> bytes:
            return encode_stream_response(request_id, encode(answer, request_id))

        return StreamExchange(
            request_id, decoded.model_name, query(decoded, call.deadline, len(message), started), encoded
        )

    def failure(self, error: Exception, exchange: StreamExchange | None) -> tuple[Failure, bytes]:
        request_id = getattr(error, "request_id", "") if exchange is None else exchange.request_id
        failure = self._edge.status(error, request_id)
        return failure, encode_stream_failure(request_id, StreamFailure(failure.code.value, failure.text))
