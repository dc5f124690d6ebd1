"""Calls made for REST requests: of gRPC methods, for which only the messages are made from JSON, and inference calls
whose body was read by an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from inferd.server.access.caller import Caller
from inferd.server.errors import Code
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.infer_routes import InferTarget
from inferd.server.inference.interfaces import Call

Methods = Mapping[str, Callable[[Any, Caller], None]]
"""Handlers of unary gRPC methods by full path: each takes a `transport.calls.UnaryCall` and its admitted caller."""


class MethodFailed(Exception):
    """The gRPC handler has failed the call. The handler has logged the failure already."""

    def __init__(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.code = code
        self.trailing = trailing


class InferCall(Call, Protocol):
    """An inference call over REST. Its codec reads the body, unless `parsed` has what was read of it already.

    target   what its path names
    """

    target: InferTarget
    parsed: Any


class RestCall:
    """A `transport.calls.UnaryCall` whose caller is a REST request. `reply`, `fail` and `on_cancel` are thread-safe.

    target   of an inference call: what its path names
    parsed   of an inference call: what was read of the body already; None: nothing
    """

    def __init__(
        self,
        method: str,
        request: bytes,
        exchange: HttpExchange,
        target: InferTarget | None = None,
        parsed: Any = None,
    ) -> None:
        self.method = method
        self.request = request
        self.target = target
        self.parsed = parsed
        self.model = "" if target is None else target.model
        self.deadline = exchange.deadline
        self.peer = exchange.peer
        self.cancelled = False
        self._headers = exchange.headers
        self._certificate = exchange.certificate()
        self._loop = asyncio.get_running_loop()
        self._on_cancel: Callable[[], None] | None = None
        self._outcome: asyncio.Future[Any] = self._loop.create_future()

    def metadata(self, key: str) -> str | None:
        return self._headers.get(key)

    def certificate(self) -> Sequence[str]:
        return self._certificate

    def on_cancel(self, fn: Callable[[], None]) -> None:
        self._on_cancel = fn
        if self.cancelled:
            fn()

    def cancel(self) -> None:
        """Cancels the call: the client has disconnected, or its deadline has passed."""
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()

    async def wait(self, exchange: HttpExchange) -> Any:
        """The reply. Raises MethodFailed, ClientGone, DeadlineExceeded."""
        outcome = await exchange.wait(self._outcome, self.cancel)
        if isinstance(outcome, MethodFailed):
            raise outcome
        return outcome

    def reply(self, message: Any) -> None:
        self._settle(message)

    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        self._settle(MethodFailed(code, text, trailing))

    def _settle(self, outcome: Any) -> None:
        def settle() -> None:
            if not self._outcome.done():
                self._outcome.set_result(outcome)

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the event loop has ended with the port: nobody waits for the outcome


async def call(methods: Methods, method: str, request: bytes, exchange: HttpExchange) -> bytes:
    """The serialized response of a gRPC method to the serialized `request`. Raises MethodFailed, ClientGone,
    DeadlineExceeded."""
    rest_call = RestCall(method, request, exchange)
    methods[method](rest_call, exchange.caller)
    answer: bytes = await rest_call.wait(exchange)
    return answer
