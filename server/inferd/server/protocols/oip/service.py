"""inference.GRPCInferenceService: which method is answered by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inferd.server import __version__
from inferd.server.access.call_checks import CallChecks
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import Check, InferenceService
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.oip.error_messages import checked
from inferd.server.protocols.oip.errors import failure
from inferd.server.protocols.oip.infer import ModelInfer
from inferd.server.protocols.oip.metadata import Describe
from inferd.server.protocols.oip.repository import RepositoryMethods
from inferd.server.protocols.oip.settings import SettingsMethods
from inferd.server.protocols.oip.shared_memory import SharedMemory
from inferd.server.protocols.oip.statistics import Statistics
from inferd.server.protocols.oip.stream import StreamInfer
from inferd.server.protocols.oip.unsupported import REASONS, refusing
from inferd.server.transport.calls import StreamHandler, UnaryHandler

SERVICE = "inference.GRPCInferenceService"
_PATH = f"/{SERVICE}/"
INFER = f"{_PATH}ModelInfer"
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


class Oip:
    """The service. Thread-safe."""

    def __init__(
        self,
        manager: ManagerLike,
        predicting: ManagerLike,
        metrics: MetricsLike,
        check: Check,
        inflight: InflightBounds,
        gate: CallChecks,
        failures: FailureLog,
        ready: Callable[[], bool],
        config: ServerConfig,
        regions: Regions,
    ) -> None:
        """`ready` is the server's readiness; `predicting` the manager as inference sees it."""
        extensions = (*EXTENSIONS, "system_shared_memory") if regions.enabled else EXTENSIONS
        self._edge = ErrorBoundary(gate, failures, failure)
        inference = InferenceService(predicting, metrics, checked(check))
        describe = Describe(manager, ready, __version__, extensions)
        repository = RepositoryMethods(manager, self._edge)
        shared_memory = SharedMemory(regions, self._edge)
        settings = SettingsMethods(config.log, manager)
        self._stream = StreamInfer(inference, predicting, self._edge, inflight, regions)
        self._unary: dict[str, UnaryHandler] = {
            "ServerLive": describe.server_live,
            "ServerReady": describe.server_ready,
            "ModelReady": describe.model_ready,
            "ServerMetadata": describe.server_metadata,
            "ModelMetadata": describe.model_metadata,
            "ModelConfig": describe.model_config,
            "ModelInfer": ModelInfer(inference, predicting, self._edge, regions),
            "ModelStatistics": Statistics(manager, metrics, describe),
            "RepositoryIndex": repository.index,
            "RepositoryModelLoad": repository.load,
            "RepositoryModelUnload": repository.unload,
            "SystemSharedMemoryRegister": shared_memory.register,
            "SystemSharedMemoryUnregister": shared_memory.unregister,
            "SystemSharedMemoryStatus": shared_memory.status,
            "TraceSetting": settings.trace,
            "LogSettings": settings.log,
            **{method: refusing(reason) for method, reason in REASONS.items()},
        }

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The unary methods by path, behind the wall."""
        return {_PATH + name: self._edge.unary(handler) for name, handler in self._unary.items()}

    def stream(self) -> Mapping[str, StreamHandler]:
        """The streams by path, behind the wall."""
        return {f"{_PATH}ModelStreamInfer": self._edge.stream(self._stream)}
