"""What all REST handlers of a protocol share: the wall that no exception passes, one inference, the answer's coding."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response

from inferd.server.access.call_checks import CallChecks
from inferd.server.access.grants import Scope
from inferd.server.errors import Code, ServingError
from inferd.server.http.admission import CHALLENGE, HttpAdmission
from inferd.server.http.content_coding import chosen, deflate, worth
from inferd.server.http.exchange import BodyBounds, BodyRefused, Gone, HttpExchange
from inferd.server.http.json.text import dumps
from inferd.server.http.method_call import Failed
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import CUT, Failure, pushback
from inferd.server.inference.service import Answer, InferenceService, Query
from inferd.server.inference.trace import trace_fields

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol's name in metrics, its table from errors to codes and texts, and that from codes to statuses."""

    name: str
    failure: Callable[[BaseException, str], Failure]
    status: Callable[[Code], int]


class RestErrorBoundary:
    """The wall around the handlers of one protocol. Used on the event loop."""

    def __init__(
        self,
        protocol: Protocol,
        inference: InferenceService,
        bounds: BodyBounds,
        gate: CallChecks,
        failures: FailureLog,
        entrance: HttpAdmission,
    ) -> None:
        self.protocol = protocol
        self._inference = inference
        self._bounds = bounds
        self._gate = gate
        self._failures = failures
        self.entrance = entrance

    async def answer(
        self,
        request: Request,
        work: Callable[[HttpExchange], Awaitable[Response]],
        *,
        model: str = "",
        scope: Scope | None = None,
    ) -> Response:
        """What `work` gives, or what its failure looks like. `scope` is what the caller must have for the model; None
        where `work` calls a method of the gRPC port, which asks for itself."""
        exchange = HttpExchange(request.scope, request.receive, self._bounds)
        try:
            if self._gate.limiter is None:
                return await self._admitted(exchange, work, model, scope)
            lease = self._gate.limiter.enter(self._gate.client(exchange))
            try:
                return await self._admitted(exchange, work, model, scope)
            finally:
                if lease is not None:
                    lease.release()
        except Gone:
            return Response(status_code=499)
        except asyncio.CancelledError:  # only the end of the server does that
            return self._told(self.protocol.status(CUT.code), CUT.text, close=True)
        except Failed as error:
            return self.told(error)
        except Exception as error:
            return self._failed(request, exchange, error, model)

    async def _admitted(
        self,
        exchange: HttpExchange,
        work: Callable[[HttpExchange], Awaitable[Response]],
        model: str,
        scope: Scope | None,
    ) -> Response:
        if scope is not None:
            self.entrance.need(exchange, scope, model)
        async with exchange:
            return await work(exchange)

    def probe(self, request: Request) -> HttpExchange:
        """An exchange that is taken whatever the bounds say; it must not be entered."""
        return HttpExchange(request.scope, request.receive, self._bounds)

    def told(self, error: Failed) -> Response:
        """What the failure of a gRPC method's call looks like."""
        return self._told(self.protocol.status(error.code), str(error))

    def refused(self, error: Exception) -> Response:
        """The refusal of a probe."""
        failure = self.protocol.failure(error, "")
        return self._told(self.protocol.status(failure.code), failure.text)

    @property
    def closed(self) -> bool:
        """Whether the server takes nothing new any more."""
        return self._bounds.door.closed

    async def infer(self, exchange: HttpExchange, query: Query) -> Answer:
        """Runs a query. Raises ServingError, Gone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer | ServingError] = loop.create_future()

        def settle(outcome: Answer | ServingError) -> None:
            if not future.done():
                future.set_result(outcome)

        def done(outcome: Answer | ServingError) -> None:
            try:
                loop.call_soon_threadsafe(settle, outcome)
            except RuntimeError:
                pass  # the port has closed: nobody waits

        exchange.counted = True
        cancel = self._inference.start(query, done, exchange)
        outcome = await exchange.wait(future, cancel)
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def coded(self, exchange: HttpExchange, body: bytes, kind: str, headers: dict[str, str]) -> Response:
        """An answer, compressed where the client takes that."""
        encoding = chosen(exchange.headers.get("accept-encoding", "")) if worth(len(body)) else ""
        if encoding:
            body = await exchange.run(len(body), deflate, body, encoding)
            headers = {**headers, "Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        return Response(body, 200, headers, kind)

    def _failed(self, request: Request, exchange: HttpExchange, error: Exception, model: str) -> Response:
        request_id = exchange.headers.get("x-request-id") or self._gate.new_id()
        failure = self.protocol.failure(error, request_id)
        if not exchange.counted:
            self._inference.refused(self.protocol.name, failure.code.name, monotonic() - exchange.started)
        route = getattr(request.scope.get("route"), "path", "")
        method = f"{request.method} {route}"
        self._failures.write(
            method,
            failure,
            model=model,
            request_id=request_id,
            peer=exchange.peer,
            error=error,
            trace=trace_fields(exchange),
        )
        if isinstance(error, BodyRefused):
            return self._told(error.status, failure.text, close=True)
        return self._told(self.protocol.status(failure.code), failure.text, wait=pushback(failure))

    def _told(self, status: int, text: str, *, close: bool = False, wait: float | None = None) -> Response:
        headers = dict(CHALLENGE) if status == 401 else {}
        if status == 429 and wait is not None:
            headers["Retry-After"] = str(max(1, math.ceil(wait)))  # whole seconds is all that it knows
        if close:
            headers["Connection"] = "close"
        return Response(dumps({"error": text}), status, headers, JSON)
