"""REST as one application: FastAPI with the routes of both protocols, and the documentation at /docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from inferd.server import __version__
from inferd.server.access.audit import Audit
from inferd.server.access.rules import AccessRules
from inferd.server.config.schema import Http
from inferd.server.http.exchange import BodyBounds, CallAdmission
from inferd.server.http.method_call import Methods
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.workers import BodyWorkers
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.finish import Finish
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.interfaces import Check
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.service import InferenceService
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.scheduling.inline import InlineLoop

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from starlette.responses import Response

    from inferd.server.http.infer_turns import Inference
    from inferd.server.protocols.oip.rest.infer import RestInfer
    from inferd.server.protocols.tfs.rest.predict import RestPredict

_ABOUT = (
    "Inference over REST. Unmodified clients of Triton (Open Inference Protocol) and of TensorFlow Serving find their "
    "paths here; gRPC has more and is faster."
)


@dataclass(frozen=True, slots=True)
class Core:
    """What REST shares with the gRPC port.

    methods   the unary handlers by full path, for admitted callers
    inline    runs short batches on the HTTP port's loop; None: all run on workers
    """

    manager: ManagerLike
    metrics: MetricsLike
    check: Check
    rules: AccessRules
    ids: RequestIds
    regions: Regions
    inflight: InflightBounds
    methods: Methods
    audit: Audit
    inline: InlineLoop | None = None


class RestApi:
    """The REST application, its bounds and its worker threads. `inference` and `app` are called on one thread at a
    time; the other methods are thread-safe."""

    def __init__(self, core: Core, config: Http, ready: Callable[[], ReadinessLike]) -> None:
        """`ready` is called on the event loop."""
        self._core = core
        self._ready = ready
        self._admission = CallAdmission()
        self._workers = BodyWorkers()
        self._bounds = BodyBounds(core.inflight, self._admission, self._workers, config.max_body, config.timeout)
        self._handlers: InferHandlers | None = None

    def inference(self) -> Inference:
        """Imports the handlers that infer, and builds them."""
        return self._made().inference

    def app(self) -> FastAPI:
        """Imports FastAPI, which takes a while, and builds the application."""
        return build_app(self._core, self._made(), self._ready)

    def _made(self) -> InferHandlers:
        if self._handlers is None:
            self._handlers = make_handlers(self._core, self._bounds)
        return self._handlers

    def refuse(self) -> None:
        """Refuses new requests from now on."""
        self._admission.close()

    def idle(self) -> Event:
        """An event that is set once new requests are refused and none is in progress."""
        return self._admission.drained

    def close(self) -> None:
        """Ends the worker threads."""
        self._workers.close()


@dataclass(frozen=True, slots=True)
class InferHandlers:
    """The handlers that infer, and what they share with the others."""

    inference: Inference
    infer: RestInfer
    predict: RestPredict


def make_handlers(core: Core, bounds: BodyBounds) -> InferHandlers:
    """The handlers of both protocols that infer."""
    from inferd.server.http.error_boundary import Protocol, RestErrorBoundary
    from inferd.server.http.infer_routes import InferRoutes
    from inferd.server.http.infer_turns import Inference
    from inferd.server.http.status_codes import oip_status, tfs_status
    from inferd.server.protocols.oip.errors import failure as oip_failure
    from inferd.server.protocols.oip.rest.infer import INFER_ROUTES, RestInfer, RestInferCodec
    from inferd.server.protocols.tfs.errors import failure as tfs_failure
    from inferd.server.protocols.tfs.rest.predict import PREDICT_ROUTES, RestPredict, RestPredictCodec

    failures = FailureLog()
    infer_codec = RestInferCodec(core.check, core.rules, core.manager, core.regions, "POST infer")
    predict_codec = RestPredictCodec(core.check, core.manager, "POST :predict")
    codecs = {
        **{f"POST {template}": infer_codec for template, _ in INFER_ROUTES},
        **{f"POST {template}": predict_codec for template, _ in PREDICT_ROUTES},
    }
    # The callers of what REST infers have been admitted by the error boundary.
    finish = Finish(core.metrics, core.ids, failures, core.inflight)
    inference = InferenceService(core.manager, core.metrics, core.rules, finish, codecs)
    boundary = partial(
        RestErrorBoundary,
        inference=inference,
        metrics=core.metrics,
        bounds=bounds,
        rules=core.rules,
        ids=core.ids,
        failures=failures,
        audit=core.audit,
    )
    infer = RestInfer(boundary(Protocol("http-oip", oip_failure, oip_status)), infer_codec)
    predict = RestPredict(boundary(Protocol("http-tfs", tfs_failure, tfs_status)), predict_codec)
    routes = InferRoutes(
        [
            *((template, pattern, infer) for template, pattern in INFER_ROUTES),
            *((template, pattern, predict) for template, pattern in PREDICT_ROUTES),
        ]
    )
    return InferHandlers(Inference(routes, inference, bounds, core.inline or InlineLoop()), infer, predict)


def build_app(core: Core, handlers: InferHandlers, ready: Callable[[], ReadinessLike]) -> FastAPI:
    """The application with the routes of both protocols."""
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    from inferd.server.protocols.oip.rest import control as oip_control
    from inferd.server.protocols.oip.rest.routes import oip_router
    from inferd.server.protocols.oip.rest.system import System
    from inferd.server.protocols.tfs.rest import control as tfs_control
    from inferd.server.protocols.tfs.rest.routes import tfs_router

    # FastAPI's own page at /docs loads its script from another host.
    app = FastAPI(
        title="inferd", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    infer, predict = handlers.infer, handlers.predict
    control = oip_control.OipControl(core.methods, infer.boundary, lambda: ready().ready)
    app.include_router(oip_router(infer, control, System(control)))
    app.include_router(tfs_router(predict, tfs_control.TfsControl(core.methods, predict.boundary)))
    _add_docs(app)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _no_route)
    return app


def _add_docs(app: FastAPI) -> None:
    from starlette.responses import HTMLResponse

    from inferd.server.http.docs_page import HEADERS, docs_page

    page: list[str] = []

    async def docs(_: Request) -> Response:
        if not page:  # made at the first request, so that the start does not wait for it
            page.append(docs_page(app.openapi()))
        return HTMLResponse(page[0], headers=HEADERS)

    app.add_route("/docs", docs, include_in_schema=False)


async def _no_route(request: Request, error: Exception) -> Response:
    """The error for an unknown path or verb, worded as the protocol with this beginning of paths words it."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    from inferd.server.http.json.text import dumps
    from inferd.server.http.reply import JSON
    from inferd.server.protocols.tfs.rest.routes import malformed

    path = request.scope["path"]
    # FastAPI validates only parameters of paths here: a path with an invalid one is an unknown path.
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (404, None)
    if path.startswith("/v1/"):
        return malformed(request)
    text = f"no such path: {path[:200]}"
    if status == 405:
        text = f"expected {(headers or {}).get('Allow', 'another verb')}, got {request.method}"
    return Response(dumps({"error": text}), status, headers, JSON)
