"""The HTTP port with REST: uvicorn on its own thread and event loop, so that it never delays a gRPC call.

/metrics, /healthz and /readyz answer as they do without REST. The REST handlers are imported at the first REST request,
so a server that gets none does not pay for them; FastAPI at the first one that does not infer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn

from inferd.server.access.rules import AccessRules
from inferd.server.access.tls import TlsFiles
from inferd.server.errors import ServingError
from inferd.server.http.admission import CERTIFICATE, HttpCredentials, admit_page, peer_of
from inferd.server.http.binding import bound_address, listen
from inferd.server.http.bounded_server import BoundedUvicornServer
from inferd.server.http.connection import UnwrittenBytes, connection_within
from inferd.server.http.pages import Page, Pages, ReadinessLike, access_refusal, error_page
from inferd.server.http.server import HttpLimits
from inferd.server.observability.events import event, get

if TYPE_CHECKING:
    from inferd.server.http.infer_routes import InferTarget
    from inferd.server.http.infer_turns import Inference

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_REST_PREFIXES: Final = ("/v1/", "/v2", "/docs", "/openapi.json")


class Rest(Protocol):
    """The REST application. `inference` builds what infers, `app` all else. Each is called on a worker thread at the
    first request for it, and again only after it has failed. After `refuse`, new requests are refused; the event of
    `idle` is then set once none is in progress.
    """

    def inference(self) -> Inference: ...
    def app(self) -> Asgi: ...
    def refuse(self) -> None: ...
    def idle(self) -> threading.Event: ...
    def close(self) -> None: ...


class RestServer:
    """Serves from `start` to `stop`; an instance is used once. Thread-safe.

    `metrics` is called on a worker thread, `ready` on the server's event loop: `ready` must not block. `unwritten`
    counts the bytes of responses that clients have not read.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Callable[[], bytes],
        ready: Callable[[], ReadinessLike],
        *,
        limits: HttpLimits | None = None,
        rest: Rest | None = None,
        rules: AccessRules | None = None,
        shared: bool = False,
        tls: TlsFiles | None = None,
        unwritten: UnwrittenBytes | None = None,
    ) -> None:
        self._shared = shared
        self._addresses = tuple(addresses)
        self._limits = limits or HttpLimits()
        self._pages = Pages(metrics, ready, self._limits.page)
        self._rest = rest
        self._tls = tls
        self._rules = rules
        self._app: asyncio.Task[Asgi] | None = None
        self._inference: asyncio.Task[Inference] | None = None
        self._protocol = connection_within(self._limits, unwritten)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> tuple[str, ...]:
        """Binds every address and serves. Returns the bound addresses, with the real port in place of 0. Raises
        OSError; then no address is bound."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("a RestServer is used once")
            sockets: list[socket.socket] = []
            try:
                for address in self._addresses:
                    sockets.extend(listen(address, shared=self._shared))
            except BaseException:
                for sock in sockets:
                    sock.close()
                raise
            bound = tuple(bound_address(sock) for sock in sockets)
            config = uvicorn.Config(
                self._serve,
                http=self._protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",  # `_run` and `_serve` log the errors, in the form of our log
                access_log=False,
                proxy_headers=False,  # the access checks read forwarding headers themselves
                server_header=False,
                timeout_graceful_shutdown=1,
            )
            self._server = BoundedUvicornServer(config, self._tls, self._limits, self._cut_off)
            # The sockets listen already: clients that connect before the event loop runs wait in the backlog.
            self._thread = threading.Thread(target=self._run, args=(sockets,), name="inferd-http", daemon=True)
            self._thread.start()
            return bound

    def unlisten(self) -> None:
        """Accepts no new connections; each open connection is closed after its next response."""
        with self._lock:
            if self._server is None or self._loop is None:
                return
            try:
                self._loop.call_soon_threadsafe(self._close_servers)
            except RuntimeError:
                pass  # the event loop has ended

    def _close_servers(self) -> None:
        assert self._server is not None
        for server in getattr(self._server, "servers", ()):  # uvicorn sets `servers` when it has started
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.app = _closing_after_response(self._serve)  # type: ignore[union-attr]
            connection.close_after_next()  # type: ignore[union-attr]

    def refuse(self) -> None:
        """Refuses new REST requests. The pages are still served."""
        if self._rest is not None:
            self._rest.refuse()

    def drain(self, grace: float) -> bool:
        """After `refuse`: waits up to `grace` seconds until the requests in progress are answered. Returns whether they
        all are."""
        return self._rest is None or self._rest.idle().wait(grace)

    def stop(self) -> None:
        """Closes every connection and waits until the thread has ended. Responses in progress get one second. May be
        called again."""
        with self._lock:
            if self._thread is None or self._server is None:
                return
            self._server.should_exit = True
            self._thread.join()
            if self._rest is not None:
                self._rest.close()

    def _run(self, sockets: list[socket.socket]) -> None:
        assert self._server is not None
        try:
            asyncio.run(self._main(self._server, sockets))
        except Exception as error:
            event(get("http"), logging.ERROR, "the HTTP port has stopped", error=error)
        finally:
            for sock in sockets:
                sock.close()

    async def _main(self, server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        await server.serve(sockets)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            admit_page(self._rules, path, lambda: _caller(scope))
        except ServingError as error:
            await write(access_refusal(error), send)
            return
        if self._rest is None or not path.startswith(_REST_PREFIXES):
            await write(await self._pages.answer(scope["method"], path), send)
            return
        try:
            inference = await self._inferring(self._rest)
            target = inference.routes.match(path) if scope["method"] == "POST" else None
            app = await self._loaded(self._rest) if target is None else None
        except Exception as error:
            event(get("http"), logging.ERROR, "REST cannot be served", error=error)
            await write(error_page(HTTPStatus.INTERNAL_SERVER_ERROR, "REST failed; the log says why"), send)
            return
        try:
            if app is not None:
                await app(scope, receive, send)
            elif target is not None:
                await _infer(target, scope, receive, send)
        except Exception as error:
            event(get("http"), logging.ERROR, "a request over REST failed", error=error, path=path[:200])
            raise

    async def _inferring(self, rest: Rest) -> Inference:
        if self._inference is None or (self._inference.done() and self._inference.exception() is not None):
            self._inference = asyncio.ensure_future(asyncio.to_thread(rest.inference))
        inference = await asyncio.shield(self._inference)
        if self._protocol.bounds.turns is None:
            from inferd.server.http.infer_turns import InferTurns

            self._protocol.bounds.turns = InferTurns(inference)
        return inference

    def _cut_off(self) -> None:
        if self._protocol.bounds.turns is not None:
            self._protocol.bounds.turns.cut_off()

    async def _loaded(self, rest: Rest) -> Asgi:
        if self._app is None or (self._app.done() and self._app.exception() is not None):
            self._app = asyncio.ensure_future(asyncio.to_thread(rest.app))
        return await asyncio.shield(self._app)


async def _infer(target: InferTarget, scope: Scope, receive: Receive, send: Send) -> None:
    from inferd.server.http.error_boundary import RoutedRequest
    from inferd.server.http.reply import send_reply

    request = RoutedRequest(scope, receive, target.method, target.model)
    await send_reply(await target.endpoint(request, target), send)


def _caller(scope: Scope) -> HttpCredentials:
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return HttpCredentials(headers, scope.get("state", {}).get(CERTIFICATE, ()), peer_of(scope.get("client")))


def _closing_after_response(app: Asgi) -> Asgi:
    """The application for connections that are to be closed after their next response."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, closing)

    return serve


async def write(page: Page, send: Send) -> None:
    """Sends a page as a complete response."""
    headers = {
        "Content-Type": page.kind,
        "Content-Length": str(len(page.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **page.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": page.status.value,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": page.body})
