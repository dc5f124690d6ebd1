"""Which path of the Open Inference Protocol is answered by whom."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from inferd.server.http.documents import INFER, INFER_ANSWER
from inferd.server.http.oip_control import Control
from inferd.server.http.oip_infer import Infer

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
_SHARED = "client shared memory is not offered: the server takes tensors from messages only"
_TRACE = "traces are not kept: figures are in /v2/models/stats and /metrics, failures in the log"
_LOG = "log settings are read at start (log.level, log.file): they cannot be changed while the server runs"
_GENERATE = "the generate extension is not offered: use infer"
_REFUSED = {
    "/v2/{kind}sharedmemory/{rest:path}": _SHARED,
    "/v2/trace/setting": _TRACE,
    f"{_MODEL}/trace/setting": _TRACE,
    "/v2/logging": _LOG,
    f"{_MODEL}/generate": _GENERATE,
    f"{_MODEL}/generate_stream": _GENERATE,
    f"{_VERSION}/generate": _GENERATE,
    f"{_VERSION}/generate_stream": _GENERATE,
}


def oip_router(infer: Infer, control: Control) -> APIRouter:
    """All paths under /v2."""
    router = APIRouter(tags=["Open Inference Protocol"])

    async def infer_newest(request: Request, model: str) -> Response:
        """Inference. Tensors as JSON, or as raw bytes behind the JSON (header Inference-Header-Content-Length)."""
        return await infer(request, model, "")

    async def infer_version(request: Request, model: str, version: str) -> Response:
        """Inference by one version, by its number or a label."""
        return await infer(request, model, version)

    described: dict[str, Any] = {
        "methods": ["POST"],
        "openapi_extra": INFER,
        "responses": INFER_ANSWER,
        "response_class": Response,
    }
    router.add_api_route(f"{_MODEL}/infer", infer_newest, summary="Infer", **described)
    router.add_api_route(f"{_VERSION}/infer", infer_version, summary="Infer by a version", **described)

    async def stats(request: Request) -> Response:
        """What each version of each model has served."""
        return await control.statistics(request)

    async def model_stats(request: Request, model: str) -> Response:
        """What each version of a model has served."""
        return await control.statistics(request, model)

    async def metadata(request: Request, model: str) -> Response:
        """Inputs and outputs."""
        return await control.model_metadata(request, model)

    async def ready(request: Request, model: str) -> Response:
        """200, or 400 while a request would not find the model."""
        return await control.model_ready(request, model)

    async def config(request: Request, model: str) -> Response:
        """The configuration, in the form of a config.pbtxt as JSON."""
        return await control.model_config(request, model)

    for path, handler, method in (
        ("/v2/health/live", control.live, "GET"),
        ("/v2/health/ready", control.ready, "GET"),
        ("/v2", control.server_metadata, "GET"),
        ("/v2/models/stats", stats, "GET"),
        (_MODEL, metadata, "GET"),
        (_VERSION, control.model_metadata, "GET"),
        (f"{_MODEL}/ready", ready, "GET"),
        (f"{_VERSION}/ready", control.model_ready, "GET"),
        (f"{_MODEL}/config", config, "GET"),
        (f"{_VERSION}/config", control.model_config, "GET"),
        (f"{_MODEL}/stats", model_stats, "GET"),
        (f"{_VERSION}/stats", control.statistics, "GET"),
        ("/v2/repository/index", control.index, "POST"),
        ("/v2/repository/models/{model}/load", control.load, "POST"),
        ("/v2/repository/models/{model}/unload", control.unload, "POST"),
    ):
        router.add_api_route(path, handler, methods=[method], response_class=Response)
    for path, reason in _REFUSED.items():
        router.add_api_route(path, control.refused(reason), methods=["GET", "POST"], include_in_schema=False)
    return router
