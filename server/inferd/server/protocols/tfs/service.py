"""tensorflow.serving.PredictionService and ModelService: the table of their methods and handlers."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.method import UnaryMethod
from inferd.server.protocols.tfs.metadata import Metadata
from inferd.server.protocols.tfs.models import ModelStatusMethods
from inferd.server.protocols.tfs.reload_config import ReloadConfig
from inferd.server.repository.configured_models import BasePaths
from inferd.tfs.v1 import model_service_pb2 as models_pb
from inferd.tfs.v1 import prediction_service_pb2 as pb

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class TfsControlPlane:
    """The methods of both services that do not infer. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary, places: BasePaths) -> None:
        """`places`: where base paths of a reload may lie."""
        prediction, model = SERVICES
        status = ModelStatusMethods(manager).status
        self._unary = {
            f"/{prediction}/GetModelMetadata": UnaryMethod(pb.GetModelMetadataRequest, Metadata(manager), boundary),
            f"/{model}/GetModelStatus": UnaryMethod(models_pb.GetModelStatusRequest, status, boundary),
            f"/{model}/HandleReloadConfigRequest": UnaryMethod(
                models_pb.ReloadConfigRequest, ReloadConfig(manager, boundary, places), boundary
            ),
        }

    def unary(self) -> Mapping[str, UnaryMethod]:
        """The methods by path."""
        return self._unary
