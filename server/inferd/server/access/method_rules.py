"""What every method needs. A method that is not here is not served: building the table fails, and so do the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from inferd.server.access.grants import Grants, Scope

Need = Scope | Literal["health", "reflection"]
"""A scope; or one of the things that `auth.open` may open to everybody."""

_NEEDS: Final[Mapping[Need, Mapping[str, tuple[str, ...]]]] = {
    "health": {
        "grpc.health.v1.Health": ("Check", "Watch"),  # of the server; a model's needs `metadata`: see rpc.health
        "inference.GRPCInferenceService": ("ServerLive", "ServerReady"),
    },
    "reflection": {
        "grpc.reflection.v1.ServerReflection": ("ServerReflectionInfo",),
        "grpc.reflection.v1alpha.ServerReflection": ("ServerReflectionInfo",),
    },
    Scope.PREDICT: {
        "inferd.v1.PredictService": ("Predict", "PredictStream"),
        "inference.GRPCInferenceService": (
            "ModelInfer",
            "ModelStreamInfer",
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
        ),
        "tensorflow.serving.PredictionService": ("Predict", "Classify", "Regress", "MultiInference"),
    },
    Scope.METADATA: {
        "inferd.v1.ModelService": ("ListModels", "GetModelStatus", "GetModelMetadata", "WatchModels"),
        "inference.GRPCInferenceService": (
            "ModelReady",
            "ServerMetadata",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
            "TraceSetting",
            "LogSettings",
        ),
        "tensorflow.serving.PredictionService": ("GetModelMetadata",),
        "tensorflow.serving.ModelService": ("GetModelStatus",),
    },
    Scope.ADMIN: {
        "inferd.v1.ModelService": ("LoadModel", "UnloadModel", "SetLabel", "Rollback"),
        "inference.GRPCInferenceService": ("RepositoryModelLoad", "RepositoryModelUnload"),
        "tensorflow.serving.ModelService": ("HandleReloadConfigRequest",),
    },
}
NEEDS: Final[Mapping[str, Need]] = {
    f"/{service}/{method}": need
    for need, services in _NEEDS.items()
    for service, methods in services.items()
    for method in methods
}
"""By full path."""


def lacking(grants: Grants, need: Need, opened: frozenset[str]) -> bool:
    """Whether a caller with these grants has no model at all with which it could do this."""
    if isinstance(need, Scope):
        return need not in grants.scopes
    if need in opened:
        return False
    return Scope.METADATA not in grants.scopes if need == "reflection" else grants.anonymous


def scope_of(need: Need) -> Scope | None:
    """The scope to be named in a refusal."""
    if isinstance(need, Scope):
        return need
    return Scope.METADATA if need == "reflection" else None
