"""Answers reflection requests: grpcio-reflection's servicer, over the descriptor pool with the protocols' real names.

A module of its own, so that a server that is never asked does not build the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from inferd.server.errors import Code
from inferd.server.protocols.common.descriptor_names import real_names

Answer = Callable[[pb.ServerReflectionRequest], pb.ServerReflectionResponse]


def answers(services: Sequence[str]) -> Answer:
    """A function that answers reflection requests about `services`. It is thread-safe and raises nothing."""
    servicer = ReflectionServicer(services, pool=real_names())

    def answer(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        try:
            (response,) = servicer.ServerReflectionInfo(iter((request,)), None)
        except Exception:  # grpcio-reflection raises for malformed names
            response = pb.ServerReflectionResponse(original_request=request)
            response.error_response.error_code = Code.INVALID_ARGUMENT.value
            response.error_response.error_message = "the request could not be answered"
        return response

    return answer
