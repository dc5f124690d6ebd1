"""Calls of gRPC methods made for REST requests: the gRPC handler answers, and only the messages are made from JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferd.server.access.caller import Caller
from inferd.server.errors import Code
from inferd.server.http.exchange import HttpExchange

Methods = Mapping[str, Callable[[Any, Caller], None]]
"""Handlers of unary gRPC methods by full path: each takes a `transport.calls.UnaryCall` and its admitted caller."""


class MethodFailed(Exception):
    """The gRPC handler has failed the call. The handler has logged the failure already."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class RestCall:
    """A `transport.calls.UnaryCall` whose caller is a REST request. `outcome` gets the reply, or MethodFailed. `reply`,
    `fail` and `on_cancel` are thread-safe."""

    def __init__(self, method: str, request: bytes, exchange: HttpExchange) -> None:
        self.method = method
        self.request = request
        self.deadline = exchange.deadline
        self.peer = exchange.peer
        self.cancelled = False
        self._headers = exchange.headers
        self._certificate = exchange.certificate()
        self._loop = asyncio.get_running_loop()
        self._on_cancel: Callable[[], None] | None = None
        self.outcome: asyncio.Future[bytes] = self._loop.create_future()

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

    def reply(self, message: bytes) -> None:
        self._settle(lambda: self.outcome.set_result(message))

    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        self._settle(lambda: self.outcome.set_exception(MethodFailed(code, text)))

    def _settle(self, fn: Callable[[], None]) -> None:
        def settle() -> None:
            if not self.outcome.done():
                fn()

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the event loop has ended with the port: nobody waits for the outcome


async def call(methods: Methods, method: str, request: bytes, exchange: HttpExchange) -> bytes:
    """The serialized response of a gRPC method to the serialized `request`. Raises MethodFailed, ClientGone,
    DeadlineExceeded."""
    rest_call = RestCall(method, request, exchange)
    methods[method](rest_call, exchange.caller)
    return await exchange.wait(rest_call.outcome, rest_call.cancel)
