"""Methods that the server does not offer, each with the reason that a client gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inferd.server.access.caller import Caller
from inferd.server.errors import Unsupported
from inferd.server.transport.calls import UnaryCall

_CUDA = "CUDA shared memory is not offered: the server takes tensors from messages and from system shared memory"
REASONS = {
    "CudaSharedMemoryStatus": _CUDA,
    "CudaSharedMemoryRegister": _CUDA,
    "CudaSharedMemoryUnregister": _CUDA,
}


def refusing(reason: str) -> Callable[[UnaryCall, Any, Caller], None]:
    """A handler that refuses every call with UNIMPLEMENTED and the reason."""

    def handler(_call: UnaryCall, _request: Any, _caller: Caller) -> None:
        raise Unsupported(reason)

    return handler
