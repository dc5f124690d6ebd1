"""inference.GRPCInferenceService/ModelStreamInfer: answers have the order of the requests; a failure is a message."""

from __future__ import annotations

from inferd.server.access.caller import Caller
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import InferenceService
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.stream_session import MAX_IN_FLIGHT, StreamSession
from inferd.server.transport.calls import StreamCall

_GRPC_ERROR = "triton_grpc_error"
"""Metadata key. With the value "true", the first failure ends the stream with its status."""


class StreamInfer:
    """Starts a StreamSession for each stream. Thread-safe."""

    def __init__(
        self, inference: InferenceService, edge: ErrorBoundary, inflight: InflightBounds, bound: int = MAX_IN_FLIGHT
    ) -> None:
        self._inference = inference
        self._edge = edge
        self._inflight = inflight
        self._bound = bound

    def __call__(self, call: StreamCall, caller: Caller) -> None:
        """Serves one stream of an admitted caller."""
        fatal = (call.metadata(_GRPC_ERROR) or "").lower() == "true"
        StreamSession(
            call, caller, self._inference, self._edge, self._inflight, ordered=True, fatal=fatal, bound=self._bound
        ).start()
