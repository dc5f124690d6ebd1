"""A call of a gRPC method made by a REST request: the handlers are the same, only the messages come from JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferd.server.errors import Code
from inferd.server.http.exchange import HttpExchange

Methods = Mapping[str, Callable[[Any], None]]
"""Handlers of unary gRPC methods by full path; what they take is a call as `rpc.transport` describes it."""


class Failed(Exception):
    """The handler has failed the call; it is logged already."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class RestCall:
    """One call. `reply`, `fail` and `on_cancel` are thread-safe."""

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
        """The client is gone."""
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()

    def reply(self, message: bytes) -> None:
        self._settle(lambda: self.outcome.set_result(message))

    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        self._settle(lambda: self.outcome.set_exception(Failed(code, text)))

    def _settle(self, fn: Callable[[], None]) -> None:
        def settle() -> None:
            if not self.outcome.done():
                fn()

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the port has closed: nobody waits


async def call(methods: Methods, method: str, request: bytes, exchange: HttpExchange) -> bytes:
    """The answer of a gRPC method. Raises Failed, Gone, DeadlineExceeded."""
    made = RestCall(method, request, exchange)
    methods[method](made)
    return await exchange.wait(made.outcome, made.cancel)
