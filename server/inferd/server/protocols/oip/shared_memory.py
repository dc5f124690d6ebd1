"""The SystemSharedMemory methods: register, unregister, status. They are for clients on the same machine."""

from __future__ import annotations

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.access.caller import Caller
from inferd.server.access.rules import AccessRules
from inferd.server.inference.shared_memory import Regions
from inferd.server.transport.calls import UnaryCall


class SharedMemory:
    """Answers from the regions. Thread-safe."""

    def __init__(self, regions: Regions, rules: AccessRules) -> None:
        self._regions = regions
        self._rules = rules

    def register(self, call: UnaryCall, request: pb.SystemSharedMemoryRegisterRequest, _caller: Caller) -> None:
        """Opens a region that the client has made."""
        if self._regions.enabled:
            self._rules.authorize_shared_memory(call)
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        call.reply(pb.SystemSharedMemoryRegisterResponse().SerializeToString())

    def unregister(self, call: UnaryCall, request: pb.SystemSharedMemoryUnregisterRequest, _caller: Caller) -> None:
        """Unregisters one region, or all."""
        if self._regions.enabled:
            self._rules.authorize_shared_memory(call)
        self._regions.unregister(request.name)
        call.reply(pb.SystemSharedMemoryUnregisterResponse().SerializeToString())

    def status(self, call: UnaryCall, request: pb.SystemSharedMemoryStatusRequest, _caller: Caller) -> None:
        """The name, key, offset and size of one region, or of all."""
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            entry = answer.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.size
        call.reply(answer.SerializeToString())
