"""The routes of TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from inferd.server.http.error_boundary import routed
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.reply import starlette_response
from inferd.server.protocols.common.openapi_bodies import EXAMPLES, PREDICT, PREDICT_ANSWER
from inferd.server.protocols.tfs.rest.control import TfsControl
from inferd.server.protocols.tfs.rest.predict import RestPredict

_MODEL = "/v1/models/{model}"
_NUMBER = re.compile(r"[0-9]{1,18}")

Handler = Callable[[Request, str, int | None, str | None], Awaitable[Response]]


def tfs_router(predict: RestPredict, control: TfsControl) -> APIRouter:
    """A router with all paths under /v1."""
    router = APIRouter(tags=["TensorFlow Serving"])

    async def predicted(request: Request, model: str, version: int | None, label: str | None) -> Response:
        # The HTTP port matches these routes itself (`http.infer_routes`); here they are described for /docs.
        found = routed(request)
        number = "" if version is None else str(version)
        return starlette_response(await predict(found, InferTarget(found.method, predict, model, number, label)))

    predicting: dict[str, Any] = {"openapi_extra": PREDICT, "responses": PREDICT_ANSWER}
    examples: dict[str, Any] = {"openapi_extra": EXAMPLES}
    _add(router, ":predict", "POST", "Predict", predicted, predicting)
    _add(router, ":classify", "POST", "Classify", control.classify, examples)
    _add(router, ":regress", "POST", "Regress", control.regress, examples)
    _add(router, "/metadata", "GET", "Signatures", control.metadata, {})
    _add(router, "", "GET", "Status", control.status, {})
    router.add_api_route("/v1/models", _nameless, methods=["GET"], include_in_schema=False)
    return router


async def _nameless(_: Request) -> Response:
    return _refused("Missing model name in request.")


def _add(
    router: APIRouter, ending: str, method: str, summary: str, handler: Handler, described: dict[str, Any]
) -> None:
    async def newest(request: Request, model: str) -> Response:
        if method == "GET" and ":" in model:  # ":" begins a verb, and this one does not exist, or not for GET
            return malformed(request)
        return await handler(request, model, None, None)

    async def by_version(request: Request, model: str, version: str) -> Response:
        if not _NUMBER.fullmatch(version):
            return malformed(request)
        return await handler(request, model, int(version), None)

    async def by_label(request: Request, model: str, label: str) -> Response:
        if ":" in label:
            return malformed(request)
        return await handler(request, model, None, label)

    for path, endpoint, which in (
        (f"{_MODEL}/versions/{{version}}{ending}", by_version, " of a version"),
        (f"{_MODEL}/labels/{{label}}{ending}", by_label, " by a label"),
        (f"{_MODEL}{ending}", newest, ""),
    ):
        router.add_api_route(
            path, endpoint, methods=[method], summary=summary + which, response_class=Response, **described
        )


def malformed(request: Request) -> Response:
    """The response to a path that does not exist, as TensorFlow Serving words it."""
    return _refused(f"Malformed request: {request.method} {request.scope['path'][:200]}")


def _refused(text: str) -> Response:
    from inferd.server.http.json.text import dumps
    from inferd.server.http.reply import JSON

    return Response(dumps({"error": text}), 400, media_type=JSON)
