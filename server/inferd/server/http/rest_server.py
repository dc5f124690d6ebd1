"""The HTTP port with REST: uvicorn on a thread and an event loop of its own, so that it never delays a gRPC call.

/metrics, /healthz and /readyz answer as they do without REST. What serves the rest is imported when the first request
for it comes: a server that nobody asks over REST does not pay for FastAPI.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import uvicorn

from inferd.server.access.tls import TlsFiles
from inferd.server.errors import ServingError
from inferd.server.http.admission import CERTIFICATE, HttpAdmission, Shown, peer_of
from inferd.server.http.binding import listen, shown
from inferd.server.http.connection import connection_within
from inferd.server.http.pages import Page, Pages, ReadinessLike, refusal, turned_away
from inferd.server.http.server import HttpLimits
from inferd.server.http.tls_server import TlsUvicornServer
from inferd.server.observability.events import event, get

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_BEGINNINGS: Final = ("/v1/", "/v2", "/docs", "/openapi.json")


class Rest(Protocol):
    """What answers the paths of REST. `app` is called once, on a worker thread, when the first request comes; `refuse`
    makes it turn away what is new, `idle` tells that nothing is under way."""

    def app(self) -> Asgi: ...
    def refuse(self) -> None: ...
    def idle(self) -> threading.Event: ...
    def close(self) -> None: ...


class RestServer:
    """Serves until stopped; used once. Thread-safe.

    `metrics` is called on a worker thread, `ready` on the server's loop: it must only look, and be quick.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Callable[[], bytes],
        ready: Callable[[], ReadinessLike],
        *,
        limits: HttpLimits | None = None,
        rest: Rest | None = None,
        entrance: HttpAdmission | None = None,
        shared: bool = False,
        tls: TlsFiles | None = None,
    ) -> None:
        self._shared = shared
        self._addresses = tuple(addresses)
        self._limits = limits or HttpLimits()
        self._pages = Pages(metrics, ready, self._limits.page)
        self._rest = rest
        self._tls = tls
        self._entrance = entrance or HttpAdmission(None)
        self._app: asyncio.Task[Asgi] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> tuple[str, ...]:
        """Binds every address and serves. Gives the bound ones, port 0 filled in. Raises OSError; then none is."""
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
            bound = tuple(shown(sock) for sock in sockets)
            config = uvicorn.Config(
                self._serve,
                http=connection_within(self._limits),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",  # what goes wrong is told below, in the form of our log
                access_log=False,
                proxy_headers=False,  # who calls is for the gate to judge, which looks at them itself
                server_header=False,
                timeout_graceful_shutdown=1,
            )
            self._server = (
                uvicorn.Server(config) if self._tls is None else TlsUvicornServer(config, self._tls, self._limits.head)
            )
            # Sockets listen already: whoever comes before the loop runs waits in their backlog.
            self._thread = threading.Thread(target=self._run, args=(sockets,), name="inferd-http", daemon=True)
            self._thread.start()
            return bound

    def unlisten(self) -> None:
        """Takes no new connections; each that is open ends with its next answer."""
        with self._lock:
            if self._server is None or self._loop is None:
                return
            try:
                self._loop.call_soon_threadsafe(self._close_servers)
            except RuntimeError:
                pass  # its loop has ended

    def _close_servers(self) -> None:
        assert self._server is not None
        for server in getattr(self._server, "servers", ()):  # there are none until it has started
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.app = _last(self._serve)  # type: ignore[union-attr]

    def refuse(self) -> None:
        """Takes no new requests over REST. The pages go on."""
        if self._rest is not None:
            self._rest.refuse()

    def drain(self, grace: float) -> bool:
        """After `refuse`: waits until the requests under way are answered. Gives whether they are."""
        return self._rest is None or self._rest.idle().wait(grace)

    def stop(self) -> None:
        """Ends every connection and waits until the thread is gone; answers under way have a second. Repeatable."""
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
            self._entrance.page(path, _shown(scope))
        except ServingError as error:
            await write(turned_away(error), send)
            return
        if self._rest is None or not path.startswith(_BEGINNINGS):
            await write(await self._pages.answer(scope["method"], path), send)
            return
        try:
            app = await self._loaded(self._rest)
        except Exception as error:
            event(get("http"), logging.ERROR, "REST cannot be served", error=error)
            await write(refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "REST failed; the log says why"), send)
            return
        try:
            await app(scope, receive, send)
        except Exception as error:
            event(get("http"), logging.ERROR, "a request over REST failed", error=error, path=path[:200])
            raise

    async def _loaded(self, rest: Rest) -> Asgi:
        if self._app is None or (self._app.done() and self._app.exception() is not None):
            self._app = asyncio.ensure_future(asyncio.to_thread(rest.app))
        return await asyncio.shield(self._app)


def _shown(scope: Scope) -> Shown:
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return Shown(headers, scope.get("state", {}).get(CERTIFICATE, ()), peer_of(scope.get("client")))


def _last(app: Asgi) -> Asgi:
    """The application for connections that end with their next answer."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, closing)

    return serve


async def write(page: Page, send: Send) -> None:
    """Sends a whole answer."""
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
