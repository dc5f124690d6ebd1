"""inference.GRPCInferenceService: the table of its methods and their handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from inferd.oip.v1 import control_pb2 as pb
from inferd.server import __version__
from inferd.server.access.caller import Caller
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.method import UnaryMethod
from inferd.server.protocols.oip.metadata import MetadataMethods
from inferd.server.protocols.oip.repository import RepositoryMethods
from inferd.server.protocols.oip.settings import SettingsMethods
from inferd.server.protocols.oip.shared_memory import SharedMemory
from inferd.server.protocols.oip.statistics import Statistics
from inferd.server.protocols.oip.unsupported import REASONS, refusing
from inferd.server.transport.calls import UnaryCall

SERVICE = "inference.GRPCInferenceService"
_PATH = f"/{SERVICE}/"
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "parameters",
    "statistics",
)
PROBES = frozenset({f"{_PATH}ServerLive", f"{_PATH}ServerReady"})


_Handle = Callable[[UnaryCall, Any, Caller], None]


class OipControlPlane:
    """The methods that do not infer. Thread-safe."""

    def __init__(
        self,
        manager: ManagerLike,
        metrics: MetricsLike,
        boundary: ErrorBoundary,
        ready: Callable[[], bool],
        config: ServerConfig,
        regions: Regions,
    ) -> None:
        """`ready` is the server's readiness."""
        extensions = (*EXTENSIONS, "system_shared_memory") if regions.enabled else EXTENSIONS
        metadata = MetadataMethods(manager, ready, __version__, extensions)
        repository = RepositoryMethods(manager, boundary)
        shared_memory = SharedMemory(regions, boundary.rules)
        settings = SettingsMethods(config.log, manager)
        self._boundary = boundary
        self._unary: dict[str, tuple[type[Message], _Handle]] = {
            "ServerLive": (pb.ServerLiveRequest, metadata.server_live),
            "ServerReady": (pb.ServerReadyRequest, metadata.server_ready),
            "ModelReady": (pb.ModelReadyRequest, metadata.model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, metadata.server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, metadata.model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, metadata.model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, Statistics(manager, metrics, metadata, boundary.rules)),
            "RepositoryIndex": (pb.RepositoryIndexRequest, repository.index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, repository.load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, repository.unload),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, shared_memory.register),
            "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, shared_memory.unregister),
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, shared_memory.status),
            "TraceSetting": (pb.TraceSettingRequest, settings.trace),
            "LogSettings": (pb.LogSettingsRequest, settings.log),
            **{name: (getattr(pb, f"{name}Request"), refusing(reason)) for name, reason in REASONS.items()},
        }

    def unary(self) -> Mapping[str, UnaryMethod]:
        """The methods by path."""
        return {_PATH + name: UnaryMethod(kind, fn, self._boundary) for name, (kind, fn) in self._unary.items()}
