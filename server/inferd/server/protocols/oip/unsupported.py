"""Methods that are refused, each with its reason: a client learns at once what it cannot have, and why."""

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
    """A handler that refuses every call."""

    def handler(_call: UnaryCall) -> None:
        raise Unsupported(reason)

    return handler
