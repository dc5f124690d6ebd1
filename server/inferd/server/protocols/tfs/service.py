"""tensorflow.serving.PredictionService and ModelService: which method is answered by whom."""

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
from inferd.server.protocols.tfs.reload_config import Reload
from inferd.server.transport.calls import UnaryHandler

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
PREDICT = f"/{SERVICES[0]}/Predict"


class Tfs:
    """Both services. Thread-safe."""

    def __init__(
        self,
        manager: ManagerLike,
        predicting: ManagerLike,
        metrics: MetricsLike,
        check: Check,
        gate: CallChecks,
        failures: FailureLog,
    ) -> None:
        """`predicting` is the manager as inference sees it."""
        self._edge = ErrorBoundary(gate, failures, failure)
        calls = Calls(InferenceService(predicting, metrics, checked(check)), predicting, self._edge)
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
            f"/{model}/HandleReloadConfigRequest": Reload(manager, self._edge),
        }

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The methods by path, behind the wall."""
        return {path: self._edge.unary(handler) for path, handler in self._unary.items()}
