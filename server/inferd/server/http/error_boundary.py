"""The error boundary of the REST handlers: every exception becomes a response. Also runs inferences and compresses
responses for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from inferd.server.access.audit import Audit
from inferd.server.access.caller import Caller, Credentials
from inferd.server.access.client_limits import Lease
from inferd.server.access.method_rules import ROUTES
from inferd.server.access.rules import AccessRules
from inferd.server.errors import Code, RateLimited, ServingError
from inferd.server.http.content_coding import deflate, response_coding, worth_compressing
from inferd.server.http.exchange import BodyBounds, BodyRefused, ClientGone, HttpExchange
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.method_call import MethodFailed, RestCall
from inferd.server.http.reply import Reply, UnwrittenReply, error_reply, starlette_response
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import CUT_OFF, Failure, pushback, pushback_of
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.service import InferenceService
from inferd.server.inference.trace import trace_fields
from inferd.server.lifecycle.interfaces import MetricsLike

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class HttpCallLike(Credentials, Interface):
    """A request over HTTP; `started`: monotonic seconds."""

    @property
    def started(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol over REST: `name` in metrics, `failure` from an exception and a request id to code and text, `status`
    from a code to the HTTP status."""

    name: str
    failure: Callable[[BaseException, str], Failure]
    status: Callable[[Code], int]


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """A request whose route is known, over ASGI. `method`: the route, as the log names what was called; `model`: the
    name in its path, "" for none."""

    scope: Mapping[str, Any]
    receive: Callable[[], Awaitable[Any]]
    method: str
    model: str


class RestErrorBoundary:
    """Runs the handlers of one protocol and turns their exceptions into responses. Used on the event loop."""

    def __init__(
        self,
        protocol: Protocol,
        inference: InferenceService,
        metrics: MetricsLike,
        bounds: BodyBounds,
        rules: AccessRules,
        ids: RequestIds,
        failures: FailureLog,
        audit: Audit,
    ) -> None:
        self.protocol = protocol
        self._inference = inference
        self._metrics = metrics
        self._bounds = bounds
        self._rules = rules
        self._ids = ids
        self._failures = failures
        self._audit = audit

    async def answer(
        self,
        request: Request,
        work: Callable[[HttpExchange], Awaitable[Reply]],
        *,
        probe: bool = False,
    ) -> Response:
        """As `run`, for a handler that FastAPI has called."""
        return starlette_response(await self.run(routed(request), work, probe=probe))

    async def run(
        self,
        request: RoutedRequest,
        work: Callable[[HttpExchange], Awaitable[Reply]],
        *,
        probe: bool = False,
    ) -> Reply:
        """The response of `work`, or the error response for what it raises.

        Before anything of the body is read, the caller is admitted by the rule of the request's route
        (`method_rules.ROUTES`). `probe`: the request is answered even when the server is full or draining.
        """
        exchange = HttpExchange(request.scope, request.receive, self._bounds)
        try:
            exchange.caller, lease = self.admit(exchange, request.method, request.model)
            try:
                if probe:
                    return await work(exchange)
                async with exchange:
                    return await work(exchange)
            finally:
                if lease is not None:
                    lease.release()
        except ClientGone:
            return Reply(499)
        except asyncio.CancelledError:  # raised only when the server stops
            return self.cut_off()
        except MethodFailed as error:
            return self.method_failure(error)
        except Exception as error:
            return self.failed(exchange, request.method, request.model, error, counted=exchange.counted)

    def admit(self, call: Credentials, method: str, named: str) -> tuple[Caller, Lease | None]:
        """The caller of a request for the model of this name, and the lease on the client's limits, None without
        limits. Raises RateLimited, Unauthenticated, Forbidden. A refused admin operation is written to the audit log
        here; the method itself writes an admitted one."""
        rule = ROUTES[method]
        model = named if rule.model else None
        try:
            return self._rules.admit(call, rule, model)
        except ServingError as error:
            if rule.audited and not isinstance(error, RateLimited):
                failure = self.protocol.failure(error, "")
                who, request_id = self._rules.name(call), self._ids.request_id(call)
                self._audit.write(call, rule.rpc, who, failure.code, failure.text, request_id, {"model": model})
            raise

    @property
    def open(self) -> bool:
        """Whether `admit` admits everybody who wants to infer, as ANYBODY and without a lease."""
        return self._rules.open

    def method_failure(self, error: MethodFailed) -> Reply:
        """The error response for a failed call, which is logged already."""
        return error_reply(self.protocol.status(error.code), str(error), retry_after=pushback_of(error.trailing))

    def cut_off(self) -> Reply:
        """The error response for a request that was not answered before the server has stopped."""
        return error_reply(self.protocol.status(CUT_OFF.code), CUT_OFF.text, close=True)

    @property
    def closed(self) -> bool:
        """Whether the server admits no new requests, because it is shutting down."""
        return self._bounds.admission.closed

    async def infer(self, exchange: HttpExchange, body: bytes, target: InferTarget, parsed: Any) -> Reply:
        """The response to an inference request whose body has been read. `parsed`: see RestCall. Raises MethodFailed,
        DeadlineExceeded, ClientGone, ServingError."""
        call = RestCall(target.method, body, exchange, target, parsed)
        exchange.counted = True
        self._inference.handle((call,), exchange.started, exchange.caller)
        return await self.written(await call.wait(exchange), exchange.headers)

    async def written(self, reply: Reply | UnwrittenReply, headers: Mapping[str, str]) -> Reply:
        """The response with its body written, and compressed if the client accepts that and the body is long enough.
        `headers`: of the request. Raises ServingError."""
        run = self._bounds.workers.run
        if isinstance(reply, UnwrittenReply):
            reply = await run(reply.nbytes, reply.write)
        encoding = coding_of(reply, headers)
        if not encoding:
            return reply
        body = await run(len(reply.body), deflate, reply.body, encoding)
        more = {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        return Reply(reply.status, body, reply.kind, {**reply.headers, **more})

    def failed(self, call: HttpCallLike, method: str, model: str, error: Exception, *, counted: bool) -> Reply:
        """Counts and logs a failure; returns its error response. `counted`: it is counted in the metrics already."""
        request_id = self._ids.request_id(call)
        failure = self.protocol.failure(error, request_id)
        if not counted:
            self._metrics.unknown(self.protocol.name, failure.code.name, monotonic() - call.started)
        self._failures.write(
            method,
            failure,
            model=model,
            request_id=request_id,
            peer=call.peer,
            error=error,
            trace=trace_fields(call),
        )
        if isinstance(error, BodyRefused):
            return error_reply(error.status, failure.text, close=True)
        return error_reply(self.protocol.status(failure.code), failure.text, retry_after=pushback(failure))


def coding_of(reply: Reply, headers: Mapping[str, str]) -> str:
    """The coding in which a response is to be sent to the client that sent these headers; "" for none."""
    if not worth_compressing(len(reply.body)) or reply.status != HTTPStatus.OK:
        return ""
    accepted = headers.get("accept-encoding")
    return response_coding(accepted) if accepted else ""


def routed(request: Request) -> RoutedRequest:
    """The request that FastAPI has routed."""
    path = getattr(request.scope.get("route"), "path", "")
    return RoutedRequest(
        request.scope, request.receive, f"{request.method} {path}", request.path_params.get("model", "")
    )
