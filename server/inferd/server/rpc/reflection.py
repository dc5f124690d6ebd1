"""Server reflection, v1 and v1alpha: the same messages, answered by grpcio-reflection's own servicer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer

from inferd.server.core.status import GONE
from inferd.server.errors import Code
from inferd.server.rpc.edge import Edge, parse
from inferd.server.rpc.transport import StreamCall, StreamHandler

V1 = "grpc.reflection.v1.ServerReflection"
METHODS = (f"/{V1}/ServerReflectionInfo", f"/{SERVICE_NAME}/ServerReflectionInfo")


class Reflection:
    """Describes `services` from `pool` (the default pool where None). Thread-safe.

    A pool of its own lets foreign names (inference, tensorflow.serving) be shown although our messages are called
    otherwise.
    """

    def __init__(self, services: Sequence[str], edge: Edge, pool: DescriptorPool | None = None) -> None:
        self._edge = edge
        self._servicer = ReflectionServicer((*services, V1, SERVICE_NAME), pool=pool)

    def stream(self) -> Mapping[str, StreamHandler]:
        """The methods."""
        return dict.fromkeys(METHODS, self._handle)

    def _handle(self, call: StreamCall) -> None:
        def received(message: bytes | None) -> None:
            if message is None:
                call.end()
                return
            request = parse(pb.ServerReflectionRequest, message)
            try:
                (response,) = self._servicer.ServerReflectionInfo(iter((request,)), None)
            except Exception:  # the library trips over odd names
                response = pb.ServerReflectionResponse(original_request=request)
                response.error_response.error_code = Code.INVALID_ARGUMENT.value
                response.error_response.error_message = "the request could not be answered"
            # The next one is read when this answer is on its way: a client that does not listen is not heard either.
            call.send(response.SerializeToString(), lambda: call.read(guarded))

        guarded = self._edge.guarded(call, received)
        call.on_drain(lambda: call.fail(GONE.code, GONE.text, GONE.trailing))
        call.read(guarded)
