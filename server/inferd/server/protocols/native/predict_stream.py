"""inferd.v1.PredictService/PredictStream: many requests in flight on one stream; answers are sent as they are ready."""

from __future__ import annotations

from inferd.server.access.caller import Caller
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import InferenceService
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.stream_session import MAX_IN_FLIGHT, StreamSession
from inferd.server.transport.calls import StreamCall


class PredictStream:
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
        StreamSession(
            call, caller, self._inference, self._edge, self._inflight, ordered=False, bound=self._bound
        ).start()
