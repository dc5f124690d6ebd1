"""inference.GRPCInferenceService: ModelStreamInfer. Answers come in the order of their requests, failures in band."""

from __future__ import annotations

from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import Answer, InferenceService
from inferd.server.inference.shared_memory import Regions, admit_shared
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.stream_session import MAX_IN_FLIGHT, StreamExchange, StreamSession
from inferd.server.protocols.oip.error_messages import unknown
from inferd.server.protocols.oip.errors import in_hand
from inferd.server.protocols.oip.infer import PROTOCOL, encode
from inferd.server.protocols.oip.request import query
from inferd.server.protocols.oip.request_options import request_options
from inferd.server.transport.calls import StreamCall
from inferd.wire.oip import decode_request, encode_stream_failure, encode_stream_response

_GRPC_ERROR = "triton_grpc_error"
"""Metadata key of a client that wants the first failure as the stream's own status."""


class StreamInfer:
    """Makes a session for each stream. Thread-safe."""

    def __init__(
        self,
        inference: InferenceService,
        manager: ManagerLike,
        edge: ErrorBoundary,
        inflight: InflightBounds,
        regions: Regions,
        bound: int = MAX_IN_FLIGHT,
    ) -> None:
        self._inference = inference
        self._manager = manager
        self._edge = edge
        self._inflight = inflight
        self._regions = regions
        self._bound = bound

    def __call__(self, call: StreamCall) -> None:
        """Handles one stream."""
        fatal = (call.metadata(_GRPC_ERROR) or "").lower() == "true"
        dialect = _Oip(self._manager, self._edge, self._regions, fatal=fatal)
        StreamSession(call, dialect, self._inference, self._edge, self._inflight, bound=self._bound).start()


class _Oip:
    """The messages of one stream."""

    protocol = PROTOCOL
    ordered = True

    def __init__(self, manager: ManagerLike, edge: ErrorBoundary, regions: Regions, *, fatal: bool) -> None:
        self._manager = manager
        self._edge = edge
        self._regions = regions
        self.fatal = fatal

    def decode(self, call: StreamCall, message: bytes, started: float) -> StreamExchange:
        request = decode_request(message)
        try:
            asked = request_options(request, self._regions)
            if asked.shared:
                admit_shared(self._edge.gate, call)
            wanted = query(PROTOCOL, request, asked, call.deadline, len(message), started)
        except Exception as error:
            error.request_id = request.request_id  # type: ignore[attr-defined]
            raise

        def encoded(answer: Answer) -> bytes:
            return encode_stream_response(encode(answer, request, asked, final=True))

        return StreamExchange(request.request_id, request.model_name, wanted, encoded)

    def failure(self, error: Exception, exchange: StreamExchange | None) -> tuple[Failure, bytes]:
        if exchange is None:
            request_id, model, version = getattr(error, "request_id", ""), "", ""
        else:
            request_id, model = exchange.request_id, exchange.model
            wanted = exchange.query
            version = wanted.label or ("" if wanted.version is None else str(wanted.version))
            error = in_hand(unknown(error, self._manager, model, version), request_id)
        failure = self._edge.status(error, request_id)
        return failure, encode_stream_failure(failure.text, request_id, model, version)
