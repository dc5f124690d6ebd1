"""Server reflection, v1 and v1alpha. Both have the same messages and get the same answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from grpc_reflection.v1alpha import reflection_pb2 as pb

from inferd.server.access.caller import Caller
from inferd.server.inference.failures import SHUTTING_DOWN
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.transport.calls import StreamCall

if TYPE_CHECKING:
    from inferd.server.protocols.common.reflection_answers import Answer

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
METHODS = (f"/{V1}/ServerReflectionInfo", f"/{V1ALPHA}/ServerReflectionInfo")


class Reflection:
    """Describes `services`, and reflection itself. Thread-safe."""

    def __init__(self, services: Sequence[str], boundary: ErrorBoundary) -> None:
        self._boundary = boundary
        self._services = (*services, V1, V1ALPHA)
        self._answer_lock = threading.Lock()
        self._answer: Answer | None = None

    def stream(self) -> Mapping[str, Callable[[StreamCall, Caller], None]]:
        """The stream handlers by method path. Their callers have been admitted."""
        return dict.fromkeys(METHODS, self._handle)

    def _handle(self, call: StreamCall, _caller: Caller) -> None:
        call.on_drain(lambda: call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing))
        if self._answer is not None:
            self._serve(call, self._answer)
            return
        # Not on the transport's thread: building the pool takes as long as many calls.
        begin = self._boundary.stream(lambda call: self._serve(call, self._make_answer()))
        threading.Thread(target=begin, args=(call,), name="inferd-reflection", daemon=True).start()

    def _make_answer(self) -> Answer:
        with self._answer_lock:
            if self._answer is None:
                # Built at the first request: the second pool of descriptors takes 1 MB, and few servers are ever asked.
                from inferd.server.protocols.common.reflection_answers import answers

                self._answer = answers(self._services)
            return self._answer

    def _serve(self, call: StreamCall, answer: Answer) -> None:
        def received(message: bytes | None) -> None:
            if message is None:
                call.end()
                return
            response = answer(parse(pb.ServerReflectionRequest, message))
            # The next request is read only after this response was sent: a client that does not read its responses
            # cannot make the server buffer them.
            call.send(response.SerializeToString(), lambda: call.read(guarded))

        guarded = self._boundary.guarded(call, received)
        call.read(guarded)
