"""Methods that the server does not offer, each with the reason that a client gets."""

from __future__ import annotations

from inferd.server.errors import Unsupported
from inferd.server.transport.calls import UnaryCall, UnaryHandler

_CUDA = "CUDA shared memory is not offered: the server takes tensors from messages and from system shared memory"
REASONS = {
    "CudaSharedMemoryStatus": _CUDA,
    "CudaSharedMemoryRegister": _CUDA,
    "CudaSharedMemoryUnregister": _CUDA,
}


def refusing(reason: str) -> UnaryHandler:
    """A handler that refuses every call with UNIMPLEMENTED and the reason."""

    def handler(_call: UnaryCall) -> None:
        raise Unsupported(reason)

    return handler
