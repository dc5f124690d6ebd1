"""tensorflow.serving.PredictionService and ModelService: the table of their methods and handlers."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.server.inference.service import Check, InferenceService
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.method import UnaryMethod
from inferd.server.protocols.tfs.calls import Calls
from inferd.server.protocols.tfs.error_messages import checked
from inferd.server.protocols.tfs.examples import Examples
from inferd.server.protocols.tfs.metadata import Metadata
from inferd.server.protocols.tfs.models import ModelStatusMethods
from inferd.server.protocols.tfs.predict import TfsPredict
from inferd.server.protocols.tfs.reload_config import ReloadConfig
from inferd.server.transport.calls import UnaryHandler
from inferd.tfs.v1 import model_service_pb2 as models_pb
from inferd.tfs.v1 import prediction_service_pb2 as pb

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
PREDICT = f"/{SERVICES[0]}/Predict"


class TfsControlPlane:
    """The methods of both services that do not infer. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary) -> None:
        prediction, model = SERVICES
        status = ModelStatusMethods(manager).status
        self._unary = {
            f"/{prediction}/GetModelMetadata": UnaryMethod(pb.GetModelMetadataRequest, Metadata(manager), boundary),
            f"/{model}/GetModelStatus": UnaryMethod(models_pb.GetModelStatusRequest, status, boundary),
            f"/{model}/HandleReloadConfigRequest": UnaryMethod(
                models_pb.ReloadConfigRequest, ReloadConfig(manager, boundary), boundary
            ),
        }

    def unary(self) -> Mapping[str, UnaryMethod]:
        """The methods by path."""
        return self._unary


class TfsInference:
    """The methods that infer. Thread-safe."""

    def __init__(self, manager: ManagerLike, metrics: MetricsLike, check: Check, boundary: ErrorBoundary) -> None:
        calls = Calls(InferenceService(manager, metrics, checked(check)), manager, boundary)
        examples = Examples(calls)
        handlers: dict[str, UnaryHandler] = {
            PREDICT: TfsPredict(calls),
            f"/{SERVICES[0]}/Classify": examples.classify,
            f"/{SERVICES[0]}/Regress": examples.regress,
            f"/{SERVICES[0]}/MultiInference": examples.multi_inference,
        }
        self._unary = {path: boundary.unary(handler) for path, handler in handlers.items()}

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The handlers by method path, within the error boundary."""
        return self._unary
