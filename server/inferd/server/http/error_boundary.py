"""The error boundary of the REST handlers: every exception becomes a response. Also runs inferences and compresses
responses for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from inferd.server.access.audit import Audit
from inferd.server.access.client_limits import Lease
from inferd.server.access.method_rules import ROUTES
from inferd.server.access.rules import AccessRules
from inferd.server.errors import Code, RateLimited, ServingError
from inferd.server.http.admission import CHALLENGE
from inferd.server.http.content_coding import deflate, response_coding, worth_compressing
from inferd.server.http.exchange import BodyBounds, BodyRefused, ClientGone, HttpExchange
from inferd.server.http.json.text import dumps
from inferd.server.http.method_call import MethodFailed, RestCall
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import CUT_OFF, Failure, pushback, pushback_of
from inferd.server.inference.interfaces import Call, Codec, DecodedCall
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.service import InferenceService
from inferd.server.inference.trace import trace_fields
from inferd.server.lifecycle.interfaces import MetricsLike

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol over REST: `name` in metrics, `failure` from an exception and a request id to code and text, `status`
    from a code to the HTTP status."""

    name: str
    failure: Callable[[BaseException, str], Failure]
    status: Callable[[Code], int]


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
        work: Callable[[HttpExchange], Awaitable[Response]],
        *,
        probe: bool = False,
    ) -> Response:
        """The response of `work`, or the error response for what it raises.

        Before anything of the body is read, the caller is admitted by the rule of the request's route
        (`method_rules.ROUTES`). `probe`: the request is answered even when the server is full or draining.
        """
        exchange = HttpExchange(request.scope, request.receive, self._bounds)
        try:
            lease = self._admit(request, exchange)
            try:
                if probe:
                    return await work(exchange)
                async with exchange:
                    return await work(exchange)
            finally:
                if lease is not None:
                    lease.release()
        except ClientGone:
            return Response(status_code=499)
        except asyncio.CancelledError:  # raised only when the server stops
            return self._error_response(self.protocol.status(CUT_OFF.code), CUT_OFF.text, close=True)
        except MethodFailed as error:
            return self.method_failure(error)
        except Exception as error:
            return self._log_failure(request, exchange, error)

    def _admit(self, request: Request, exchange: HttpExchange) -> Lease | None:
        """Admits the caller and stores it in the exchange. Returns the lease on the client's limits, None without
        limits. Raises RateLimited, Unauthenticated, Forbidden. A refused admin operation is written to the audit log
        here; the method itself writes an admitted one."""
        rule = ROUTES[f"{request.method} {request.scope['route'].path}"]
        model = request.path_params[rule.model] if rule.model else None
        try:
            exchange.caller, lease = self._rules.admit(exchange, rule, model)
        except ServingError as error:
            if rule.audited and not isinstance(error, RateLimited):
                failure = self.protocol.failure(error, "")
                who = self._rules.name(exchange)
                request_id = self._ids.request_id(exchange)
                self._audit.write(exchange, rule.rpc, who, failure.code, failure.text, request_id, {"model": model})
            raise
        return lease

    def method_failure(self, error: MethodFailed) -> Response:
        """The error response for a failed call, which is logged already."""
        status, retry_after = self.protocol.status(error.code), pushback_of(error.trailing)
        return self._error_response(status, str(error), retry_after=retry_after)

    @property
    def closed(self) -> bool:
        """Whether the server admits no new requests, because it is shutting down."""
        return self._bounds.admission.closed

    async def infer(
        self, exchange: HttpExchange, method: str, codec: Codec, decode: Callable[[Call], DecodedCall]
    ) -> Any:
        """What the codec's `encode` gives for one request. `method` names the route in the log; `decode` gives the
        request on behalf of a call. Raises what `decode` raises, MethodFailed, DeadlineExceeded, ClientGone."""
        call = RestCall(method, b"", exchange)
        decoded = decode(call)
        exchange.counted = True
        self._inference.start((decoded,), codec, exchange.started)
        return await call.wait(exchange)

    async def compressed(self, exchange: HttpExchange, body: bytes, kind: str, headers: dict[str, str]) -> Response:
        """A response with status 200, compressed if the client accepts that and the body is long enough."""
        accepted = exchange.headers.get("accept-encoding", "")
        encoding = response_coding(accepted) if worth_compressing(len(body)) else ""
        if encoding:
            body = await exchange.run(len(body), deflate, body, encoding)
            headers = {**headers, "Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        return Response(body, 200, headers, kind)

    def _log_failure(self, request: Request, exchange: HttpExchange, error: Exception) -> Response:
        """Counts and logs a failure; returns its error response."""
        request_id = self._ids.request_id(exchange)
        failure = self.protocol.failure(error, request_id)
        if not exchange.counted:
            self._metrics.unknown(self.protocol.name, failure.code.name, monotonic() - exchange.started)
        self._failures.write(
            method_of(request),
            failure,
            model=request.path_params.get("model", ""),
            request_id=request_id,
            peer=exchange.peer,
            error=error,
            trace=trace_fields(exchange),
        )
        if isinstance(error, BodyRefused):
            return self._error_response(error.status, failure.text, close=True)
        return self._error_response(self.protocol.status(failure.code), failure.text, retry_after=pushback(failure))

    def _error_response(
        self, status: int, text: str, *, close: bool = False, retry_after: float | None = None
    ) -> Response:
        headers = dict(CHALLENGE) if status == 401 else {}
        if status == 429 and retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(retry_after)))  # the header takes whole seconds only
        if close:
            headers["Connection"] = "close"
        return Response(dumps({"error": text}), status, headers, JSON)


def method_of(request: Request) -> str:
    """The verb and the route's path, as the log names what was called."""
    return f"{request.method} {getattr(request.scope.get('route'), 'path', '')}"
