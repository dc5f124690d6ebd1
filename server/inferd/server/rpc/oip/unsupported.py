"""Methods that are refused, each with its reason: a client learns at once what it cannot have, and why."""

from __future__ import annotations

from inferd.server.errors import Unsupported
from inferd.server.rpc.transport import UnaryCall, UnaryHandler

_CUDA = "CUDA shared memory is not offered: the server takes tensors from messages only"
_SYSTEM = "system shared memory is not offered: the server takes tensors from messages only"
REASONS = {
    "SystemSharedMemoryStatus": _SYSTEM,
    "SystemSharedMemoryRegister": _SYSTEM,
    "SystemSharedMemoryUnregister": _SYSTEM,
    "CudaSharedMemoryStatus": _CUDA,
    "CudaSharedMemoryRegister": _CUDA,
    "CudaSharedMemoryUnregister": _CUDA,
    "TraceSetting": "traces are not kept: figures are in ModelStatistics and /metrics, failures in the log",
    "LogSettings": "log settings are read at start (log.level, log.file): they cannot be changed while the server runs",
}


def refusing(reason: str) -> UnaryHandler:
    """A handler that refuses every call."""

    def handler(_call: UnaryCall) -> None:
        raise Unsupported(reason)

    return handler
