"""tensorflow.serving.PredictionService and ModelService: which method is answered by whom."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.server.core.failures import FailureLog
from inferd.server.core.gate import Gate
from inferd.server.core.inference import Check, Inference
from inferd.server.core.needs import ManagerLike, MetricsLike
from inferd.server.core.tfs.status import failure
from inferd.server.core.tfs.words import checked
from inferd.server.rpc.edge import Edge
from inferd.server.rpc.tfs.calls import Calls
from inferd.server.rpc.tfs.examples import Examples
from inferd.server.rpc.tfs.metadata import Metadata
from inferd.server.rpc.tfs.models import Models
from inferd.server.rpc.tfs.predict import Predict
from inferd.server.rpc.tfs.reload import Reload
from inferd.server.rpc.transport import UnaryHandler

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
        gate: Gate,
        failures: FailureLog,
    ) -> None:
        """`predicting` is the manager as inference sees it."""
        self._edge = Edge(gate, failures, failure)
        calls = Calls(Inference(predicting, metrics, checked(check)), predicting, self._edge)
        examples = Examples(calls)
        models = Models(manager)
        prediction, model = SERVICES
        self._unary: dict[str, UnaryHandler] = {
            PREDICT: Predict(calls),
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
