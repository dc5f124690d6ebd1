"""The routes of the Open Inference Protocol over REST. The docstrings of the endpoints appear at /docs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from inferd.server.http.error_boundary import routed
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.reply import starlette_response
from inferd.server.protocols.common.openapi_bodies import INFER, INFER_ANSWER
from inferd.server.protocols.oip.rest.control import OipControl
from inferd.server.protocols.oip.rest.infer import RestInfer
from inferd.server.protocols.oip.rest.system import System

Kind = Literal["system", "cuda"]

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
_GENERATE = ("generate", "generate_stream")
_SHARED = "/v2/{kind}sharedmemory"


def oip_router(infer: RestInfer, control: OipControl, system: System) -> APIRouter:
    """A router with all paths under /v2."""
    router = APIRouter(tags=["Open Inference Protocol"])

    async def infer_newest(request: Request, model: str) -> Response:
        """Inference. Tensors as JSON, or as raw bytes behind the JSON (header Inference-Header-Content-Length)."""
        return await _inferred(infer, request, InferTarget(f"POST {_MODEL}/infer", infer, model))

    async def infer_version(request: Request, model: str, version: str) -> Response:
        """Inference by one version, by its number or a label."""
        return await _inferred(infer, request, InferTarget(f"POST {_VERSION}/infer", infer, model, version))

    described: dict[str, Any] = {
        "methods": ["POST"],
        "openapi_extra": INFER,
        "responses": INFER_ANSWER,
        "response_class": Response,
    }
    router.add_api_route(f"{_MODEL}/infer", infer_newest, summary="Infer", **described)
    router.add_api_route(f"{_VERSION}/infer", infer_version, summary="Infer by a version", **described)

    async def stats(request: Request) -> Response:
        """Request counts, times and batch sizes of each version of each model."""
        return await control.statistics(request)

    async def model_stats(request: Request, model: str) -> Response:
        """Request counts, times and batch sizes of each version of a model."""
        return await control.statistics(request, model)

    async def metadata(request: Request, model: str) -> Response:
        """The inputs and outputs of the default signature."""
        return await control.model_metadata(request, model)

    async def ready(request: Request, model: str) -> Response:
        """200 if the model can answer requests, else 400."""
        return await control.model_ready(request, model)

    async def config(request: Request, model: str) -> Response:
        """The configuration: a config.pbtxt as JSON."""
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
    _add_system(router, system)
    for prefix in (_MODEL, _VERSION):
        for name in _GENERATE:
            router.add_api_route(f"{prefix}/{name}", control.not_offered, methods=["POST"], include_in_schema=False)
    return router


async def _inferred(infer: RestInfer, request: Request, target: InferTarget) -> Response:
    # The HTTP port matches these routes itself (`http.infer_routes`); here they are described for /docs.
    return starlette_response(await infer(routed(request), target))


def _add_system(router: APIRouter, system: System) -> None:
    async def status(request: Request, kind: Kind) -> Response:
        """All registered regions of shared memory."""
        return await system.shared_status(request, kind)

    async def unregister(request: Request, kind: Kind) -> Response:
        """Unregisters all regions of shared memory."""
        return await system.shared_unregister(request, kind)

    async def one_status(request: Request, kind: Kind, region: str) -> Response:
        """One registered region of shared memory."""
        return await system.shared_status(request, kind, region)

    async def one_unregister(request: Request, kind: Kind, region: str) -> Response:
        """Unregisters one region of shared memory."""
        return await system.shared_unregister(request, kind, region)

    async def one_register(request: Request, kind: Kind, region: str) -> Response:
        """Registers a region of shared memory that the client has made."""
        return await system.shared_register(request, kind, region)

    async def trace(request: Request) -> Response:
        """Trace settings."""
        return await system.trace(request)

    for path, handler, methods in (
        (f"{_SHARED}/status", status, ["GET"]),
        (f"{_SHARED}/unregister", unregister, ["POST"]),
        (f"{_SHARED}/region/{{region}}/status", one_status, ["GET"]),
        (f"{_SHARED}/region/{{region}}/register", one_register, ["POST"]),
        (f"{_SHARED}/region/{{region}}/unregister", one_unregister, ["POST"]),
        ("/v2/trace/setting", trace, ["GET", "POST"]),
        (f"{_MODEL}/trace/setting", system.trace, ["GET", "POST"]),
        ("/v2/logging", system.log, ["GET", "POST"]),
    ):
        for method in methods:
            router.add_api_route(path, handler, methods=[method], response_class=Response)
