"""Server reflection, v1 and v1alpha: the same messages, the same answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from grpc_reflection.v1alpha import reflection_pb2 as pb

from inferd.server.inference.failures import GONE
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.transport.calls import StreamCall, StreamHandler

if TYPE_CHECKING:
    from inferd.server.protocols.common.reflection_answers import Answer

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
METHODS = (f"/{V1}/ServerReflectionInfo", f"/{V1ALPHA}/ServerReflectionInfo")


class Reflection:
    """Describes `services` and itself. Thread-safe."""

    def __init__(self, services: Sequence[str], edge: ErrorBoundary) -> None:
        self._edge = edge
        self._services = (*services, V1, V1ALPHA)
        self._making = threading.Lock()
        self._answer: Answer | None = None

    def stream(self) -> Mapping[str, StreamHandler]:
        """The methods."""
        return dict.fromkeys(METHODS, self._handle)

    def _handle(self, call: StreamCall) -> None:
        call.on_drain(lambda: call.fail(GONE.code, GONE.text, GONE.trailing))
        if self._answer is not None:
            self._serve(call, self._answer)
            return
        # Not on the transport's own thread: it takes as long as many calls.
        begin = self._edge.stream(lambda call: self._serve(call, self._made()))
        threading.Thread(target=begin, args=(call,), name="inferd-reflection", daemon=True).start()

    def _made(self) -> Answer:
        with self._making:
            if self._answer is None:
                # Few servers are ever asked, and the descriptors of all services once more would be kept by all: 1 MB.
                from inferd.server.protocols.common.reflection_answers import answers

                self._answer = answers(self._services)
            return self._answer

    def _serve(self, call: StreamCall, answer: Answer) -> None:
        def received(message: bytes | None) -> None:
            if message is None:
                call.end()
                return
            response = answer(parse(pb.ServerReflectionRequest, message))
            # The next one is read when this answer is on its way: a client that does not listen is not heard either.
            call.send(response.SerializeToString(), lambda: call.read(guarded))

        guarded = self._edge.guarded(call, received)
        call.read(guarded)
