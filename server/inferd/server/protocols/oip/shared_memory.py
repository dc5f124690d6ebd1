"""The SystemSharedMemory methods: register, unregister, status. They are for clients on the same machine."""

from __future__ import annotations

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.inference.shared_memory import Regions, admit_shared
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.transport.calls import UnaryCall


class SharedMemory:
    """Answers from the regions. Thread-safe."""

    def __init__(self, regions: Regions, boundary: ErrorBoundary) -> None:
        self._regions = regions
        self._boundary = boundary

    def register(self, call: UnaryCall) -> None:
        """Opens a region that the client has made."""
        request = parse(pb.SystemSharedMemoryRegisterRequest, call.request)
        if self._regions.enabled:
            admit_shared(self._boundary.gate, call)
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        call.reply(pb.SystemSharedMemoryRegisterResponse().SerializeToString())

    def unregister(self, call: UnaryCall) -> None:
        """Unregisters one region, or all."""
        request = parse(pb.SystemSharedMemoryUnregisterRequest, call.request)
        if self._regions.enabled:
            admit_shared(self._boundary.gate, call)
        self._regions.unregister(request.name)
        call.reply(pb.SystemSharedMemoryUnregisterResponse().SerializeToString())

    def status(self, call: UnaryCall) -> None:
        """The name, key, offset and size of one region, or of all."""
        request = parse(pb.SystemSharedMemoryStatusRequest, call.request)
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            entry = answer.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.size
        call.reply(answer.SerializeToString())
