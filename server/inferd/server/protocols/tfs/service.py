"""tensorflow.serving.PredictionService and ModelService: the table of their methods and handlers."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.server.access.call_checks import CallChecks
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.service import Check, InferenceService
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.tfs.calls import Calls
from inferd.server.protocols.tfs.error_messages import checked
from inferd.server.protocols.tfs.errors import failure
from inferd.server.protocols.tfs.examples import Examples
from inferd.server.protocols.tfs.metadata import Metadata
from inferd.server.protocols.tfs.models import ModelStatusMethods
from inferd.server.protocols.tfs.predict import TfsPredict
from inferd.server.protocols.tfs.reload_config import ReloadConfig
from inferd.server.transport.calls import UnaryHandler

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
PREDICT = f"/{SERVICES[0]}/Predict"


class Tfs:
    """Makes the handlers of both services. Thread-safe."""

    def __init__(
        self,
        manager: ManagerLike,
        predicting: ManagerLike,
        metrics: MetricsLike,
        check: Check,
        gate: CallChecks,
        failures: FailureLog,
    ) -> None:
        """`predicting` is the manager for inference: it shows the models that the caller may use for predictions,
        `manager` those whose metadata the caller may see."""
        self._boundary = ErrorBoundary(gate, failures, failure)
        calls = Calls(InferenceService(predicting, metrics, checked(check)), predicting, self._boundary)
        examples = Examples(calls)
        models = ModelStatusMethods(manager)
        prediction, model = SERVICES
        self._unary: dict[str, UnaryHandler] = {
            PREDICT: TfsPredict(calls),
            f"/{prediction}/Classify": examples.classify,
            f"/{prediction}/Regress": examples.regress,
            f"/{prediction}/MultiInference": examples.multi_inference,
            f"/{prediction}/GetModelMetadata": Metadata(manager),
            f"/{model}/GetModelStatus": models.status,
            f"/{model}/HandleReloadConfigRequest": ReloadConfig(manager, self._boundary),
        }

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The handlers by method path, within the error boundary."""
        return {path: self._boundary.unary(handler) for path, handler in self._unary.items()}
