"""What every RPC, every REST route and every page needs, as data.

A method or route that is missing here is not served: building the method table fails, and so does the test that walks
both tables (`tests/access/test_access_table.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from inferd.server.access.grants import Scope

Need = Scope | Literal["health", "reflection", "metrics", "nothing"]
"""A scope; or one of the things that `auth.open` may open to everybody; or nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one RPC, route or page needs.

    need      what the caller must be allowed to do, with at least one model, before anything is decoded
    model     where the model's name is: of an RPC the path of the field in its request message ("model_spec.name";
              repeated fields give several names), of a route the name of its path parameter. "" where no model is named
    scope     the scope that the caller must have for the models that are named
    every     the caller must have the scope for every model, whatever its name: the method may change any of them
    browser   a page for browsers: the Host header must name this server
    charged   whether a call counts within `limits.clients`
    rpc       full path of the RPC whose rule this is; "" of a page
    """

    need: Need
    model: str = ""
    scope: Scope = Scope.METADATA
    every: bool = False
    browser: bool = False
    charged: bool = True
    rpc: str = ""

    @property
    def audited(self) -> bool:
        """Whether every call, allowed or refused, has its line in the audit log."""
        return self.need is Scope.ADMIN

    def models(self, request: Any) -> Iterator[str]:
        """The models that a request message names. An empty name is left out: the method itself says what is missing.
        Names of the server's own services, which health is asked for, are no models."""
        if not self.model:
            return
        for name in _values(request, self.model.split(".")):
            if name and (self.need != "health" or name not in SERVER_NAMES):
                yield name


def _values(message: Any, path: list[str]) -> Iterator[str]:
    found = getattr(message, path[0])
    if len(path) == 1:
        yield found
    elif hasattr(found, "DESCRIPTOR"):
        yield from _values(found, path[1:])
    else:
        for each in found:
            yield from _values(each, path[1:])


_NATIVE_MODELS = "inferd.v1.ModelService"
_OIP = "inference.GRPCInferenceService"
_TFS_PREDICTION = "tensorflow.serving.PredictionService"
_TFS_MODELS = "tensorflow.serving.ModelService"
_HEALTH = "grpc.health.v1.Health"

_RPCS: Final[Mapping[Need, Mapping[str, Mapping[str, str]]]] = {
    # need: service: method: where the model's name is
    "health": {
        _HEALTH: {"Check": "service", "Watch": "service"},  # of the server; for a model `metadata` is needed as well
        _OIP: {"ServerLive": "", "ServerReady": ""},
    },
    "reflection": {
        "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": ""},
        "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": ""},
    },
    Scope.PREDICT: {
        "inferd.v1.PredictService": {"Predict": "model.name", "PredictStream": "model.name"},
        _OIP: {
            "ModelInfer": "model_name",
            "ModelStreamInfer": "model_name",
            "SystemSharedMemoryStatus": "",
            "SystemSharedMemoryRegister": "",
            "SystemSharedMemoryUnregister": "",
            "CudaSharedMemoryStatus": "",
            "CudaSharedMemoryRegister": "",
            "CudaSharedMemoryUnregister": "",
        },
        _TFS_PREDICTION: {
            "Predict": "model_spec.name",
            "Classify": "model_spec.name",
            "Regress": "model_spec.name",
            "MultiInference": "tasks.model_spec.name",
        },
    },
    Scope.METADATA: {
        _NATIVE_MODELS: {
            "ListModels": "",
            "GetModelStatus": "name",
            "GetModelMetadata": "name",
            "WatchModels": "",  # its `name` is a filter: a model that the caller may not see is left out
        },
        _OIP: {
            "ModelReady": "name",
            "ServerMetadata": "",
            "ModelMetadata": "name",
            "ModelConfig": "name",
            "ModelStatistics": "name",
            "RepositoryIndex": "",
            "TraceSetting": "model_name",
            "LogSettings": "",
        },
        _TFS_PREDICTION: {"GetModelMetadata": "model_spec.name"},
        _TFS_MODELS: {"GetModelStatus": "model_spec.name"},
    },
    Scope.ADMIN: {
        _NATIVE_MODELS: {"LoadModel": "name", "UnloadModel": "name", "SetLabel": "name", "Rollback": "name"},
        _OIP: {"RepositoryModelLoad": "model_name", "RepositoryModelUnload": "model_name"},
        _TFS_MODELS: {"HandleReloadConfigRequest": "config.model_config_list.config.name"},
    },
}

SERVICES: Final = (
    "inferd.v1.PredictService", _NATIVE_MODELS, _HEALTH, _OIP, _TFS_PREDICTION, _TFS_MODELS,
)  # fmt: skip
"""The services that health answers for as the whole server, and that reflection describes."""
SERVER_NAMES: Final = frozenset({"", *SERVICES})

_EVERY: Final = frozenset({f"/{_TFS_MODELS}/HandleReloadConfigRequest"})

RULES: Final[Mapping[str, Rule]] = {
    f"/{service}/{method}": Rule(
        need,
        model,
        need if isinstance(need, Scope) else Scope.METADATA,
        every=f"/{service}/{method}" in _EVERY,
        charged=need != "health",
        rpc=f"/{service}/{method}",
    )
    for need, services in _RPCS.items()
    for service, methods in services.items()
    for method, model in methods.items()
}
"""RPCs by full path."""

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
_SHARED = "/v2/{kind}sharedmemory"
_TFS = ("/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}")

_ROUTES: Final[Mapping[str, tuple[str, ...]]] = {
    # the RPC whose rule applies: the routes
    f"/{_OIP}/ServerLive": ("GET /v2/health/live",),
    f"/{_OIP}/ServerReady": ("GET /v2/health/ready",),
    f"/{_OIP}/ServerMetadata": ("GET /v2",),
    f"/{_OIP}/ModelInfer": tuple(
        f"POST {model}/{verb}" for model in (_MODEL, _VERSION) for verb in ("infer", "generate", "generate_stream")
    ),
    f"/{_OIP}/ModelMetadata": (f"GET {_MODEL}", f"GET {_VERSION}"),
    f"/{_OIP}/ModelReady": (f"GET {_MODEL}/ready", f"GET {_VERSION}/ready"),
    f"/{_OIP}/ModelConfig": (f"GET {_MODEL}/config", f"GET {_VERSION}/config"),
    f"/{_OIP}/ModelStatistics": ("GET /v2/models/stats", f"GET {_MODEL}/stats", f"GET {_VERSION}/stats"),
    f"/{_OIP}/RepositoryIndex": ("POST /v2/repository/index",),
    f"/{_OIP}/RepositoryModelLoad": ("POST /v2/repository/models/{model}/load",),
    f"/{_OIP}/RepositoryModelUnload": ("POST /v2/repository/models/{model}/unload",),
    f"/{_OIP}/TraceSetting": tuple(
        f"{verb} {path}/trace/setting" for path in ("/v2", _MODEL) for verb in ("GET", "POST")
    ),
    f"/{_OIP}/LogSettings": ("GET /v2/logging", "POST /v2/logging"),
    f"/{_OIP}/SystemSharedMemoryStatus": (f"GET {_SHARED}/status", f"GET {_SHARED}/region/{{region}}/status"),
    f"/{_OIP}/SystemSharedMemoryRegister": (f"POST {_SHARED}/region/{{region}}/register",),
    f"/{_OIP}/SystemSharedMemoryUnregister": (
        f"POST {_SHARED}/unregister",
        f"POST {_SHARED}/region/{{region}}/unregister",
    ),
    f"/{_TFS_PREDICTION}/Predict": tuple(f"POST {model}:predict" for model in _TFS),
    f"/{_TFS_PREDICTION}/Classify": tuple(f"POST {model}:classify" for model in _TFS),
    f"/{_TFS_PREDICTION}/Regress": tuple(f"POST {model}:regress" for model in _TFS),
    f"/{_TFS_PREDICTION}/GetModelMetadata": tuple(f"GET {model}/metadata" for model in _TFS),
    f"/{_TFS_MODELS}/GetModelStatus": tuple(f"GET {model}" for model in _TFS),
}
# A full or draining server is still asked whether a model is ready.
_PROBES: Final = frozenset({f"/{_OIP}/ModelReady"})

ROUTES: Final[Mapping[str, Rule]] = {
    "GET /v1/models": Rule("nothing", charged=False),  # always the same refusal: no model is named
    **{
        route: replace(
            RULES[rpc],
            model="model" if "{model}" in route else "",
            charged=RULES[rpc].charged and rpc not in _PROBES,
        )
        for rpc, routes in _ROUTES.items()
        for route in routes
    },
}
"""REST routes by "VERB template"."""

_HEALTH_PAGE: Final = Rule("health", charged=False)
_METRICS_PAGE: Final = Rule("metrics", charged=False)
_DOCS_PAGE: Final = Rule("reflection", charged=False, browser=True)
PAGES: Final[Mapping[str, Rule]] = {
    "/healthz": _HEALTH_PAGE,
    "/readyz": _HEALTH_PAGE,
    "/metrics": _METRICS_PAGE,
    "/docs": _DOCS_PAGE,
    "/openapi.json": _DOCS_PAGE,
}
"""Pages of the HTTP port by path."""


def page_rule(path: str) -> Rule | None:
    """The rule of a page; None for a path that is not a page."""
    rule = PAGES.get(path)
    if rule is None and path.startswith(("/docs", "/openapi.json")):
        return _DOCS_PAGE
    return rule
