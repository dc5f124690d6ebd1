"""inference.GRPCInferenceService: the table of its methods and their handlers."""

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
from inferd.server.protocols.oip.metadata import MetadataMethods
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
    """Makes the handlers of the service. Thread-safe."""

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
        """`ready` is the server's readiness. `predicting` is the manager for inference: it shows the models that the
        caller may use for predictions, `manager` those whose metadata the caller may see."""
        extensions = (*EXTENSIONS, "system_shared_memory") if regions.enabled else EXTENSIONS
        self._boundary = ErrorBoundary(gate, failures, failure)
        inference = InferenceService(predicting, metrics, checked(check))
        metadata = MetadataMethods(manager, ready, __version__, extensions)
        repository = RepositoryMethods(manager, self._boundary)
        shared_memory = SharedMemory(regions, self._boundary)
        settings = SettingsMethods(config.log, manager)
        self._stream = StreamInfer(inference, predicting, self._boundary, inflight, regions)
        self._unary: dict[str, UnaryHandler] = {
            "ServerLive": metadata.server_live,
            "ServerReady": metadata.server_ready,
            "ModelReady": metadata.model_ready,
            "ServerMetadata": metadata.server_metadata,
            "ModelMetadata": metadata.model_metadata,
            "ModelConfig": metadata.model_config,
            "ModelInfer": ModelInfer(inference, predicting, self._boundary, regions),
            "ModelStatistics": Statistics(manager, metrics, metadata),
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
        """The unary handlers by method path, within the error boundary."""
        return {_PATH + name: self._boundary.unary(handler) for name, handler in self._unary.items()}

    def stream(self) -> Mapping[str, StreamHandler]:
        """The stream handlers by method path, within the error boundary."""
        return {f"{_PATH}ModelStreamInfer": self._boundary.stream(self._stream)}
