"""The HTTP port: /metrics, /healthz, /readyz. On a thread and an event loop of its own: it never delays a model.

Slow or silent clients hold a connection, not a thread, and only for a while; when connections run out, the one that has
been silent longest makes room. Metrics are written on a worker thread, so that health answers meanwhile.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from inferd.server.http.binding import listen, shown
from inferd.server.http.message import MOST_HEAD, BadRequest, Request, answer, as_json, read_head
from inferd.server.observability.events import event, get
from inferd.server.observability.metrics import CONTENT_TYPE

_JSON: Final = "application/json"
_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether traffic should come; if not, why, in words. `details` are further fields of the answer."""

    ready: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: `head` for a whole request to come, `idle` between two, `write` to take the answer, `page` to
    make it. `connections`: most at once."""

    connections: int = 256
    head: float = 5.0
    idle: float = 60.0
    write: float = 10.0
    page: float = 10.0


class HttpServer:
    """Serves until stopped; used once. `start` and `stop` are thread-safe.

    `metrics` is called on a worker thread, `ready` on the server's loop: it must only look, and be quick.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Callable[[], bytes],
        ready: Callable[[], Readiness],
        *,
        limits: Limits | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._metrics = metrics
        self._ready = ready
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._pages: Final = {
            "/metrics": self._metrics_page,
            "/healthz": self._health_page,
            "/readyz": self._ready_page,
        }
        # Connections whose client has the turn to send, the one that has had it longest first.
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._rendering: asyncio.Future[bytes] | None = None

    def start(self) -> tuple[str, ...]:
        """Binds every address and serves. Gives the bound ones, port 0 filled in. Raises OSError; then none is."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("an HttpServer is used once")
            sockets: list[socket.socket] = []
            try:
                for address in self._addresses:
                    sockets.extend(listen(address))
            except BaseException:
                for sock in sockets:
                    sock.close()
                raise
            bound = tuple(shown(sock) for sock in sockets)
            started = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(sockets, started), name="inferd-http", daemon=True)
            self._thread.start()
            started.wait()
            if self._loop is None:
                raise OSError(f"cannot serve on {', '.join(bound)}; the log says why")
            return bound

    def stop(self) -> None:
        """Ends every connection and waits until the thread is gone; answers under way have a second. Repeatable."""
        with self._lock:
            if self._thread is None or self._loop is None or self._stopping is None:
                return
            if self._thread.is_alive():
                try:
                    self._loop.call_soon_threadsafe(self._stopping.set)
                except RuntimeError:
                    pass  # its loop has just ended
            self._thread.join()

    def _run(self, sockets: list[socket.socket], started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(sockets, started))
        except Exception as error:
            event(get("http"), logging.ERROR, "the HTTP port has stopped", error=error)
        finally:
            started.set()

    async def _serve(self, sockets: list[socket.socket], started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        servers = [await asyncio.start_server(self._connection, sock=sock, limit=MOST_HEAD) for sock in sockets]
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stopping.wait()
        for server in servers:
            server.close()
        for writer in list(self._waiting):
            writer.transport.abort()
        if self._open:
            await asyncio.wait(self._open, timeout=1.0)
        for task in self._open:
            task.cancel()
        if self._rendering is not None:
            self._rendering.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        # `drain` then waits until the answer is with the kernel: whoever does not read is found out.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            if len(self._open) > self._limits.connections:
                self._make_room(writer)
            await self._requests(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client went away, or took too long
        finally:
            self._open.discard(task)
            self._waiting.pop(writer, None)
            writer.close()

    def _make_room(self, newest: asyncio.StreamWriter) -> None:
        oldest = next(iter(self._waiting), newest)
        self._waiting.pop(oldest, None)
        oldest.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience = self._limits.head
        while self._stopping is not None and not self._stopping.is_set():
            self._waiting[writer] = None
            try:
                async with asyncio.timeout(patience):
                    first = await reader.readexactly(1)
                async with asyncio.timeout(self._limits.head):
                    head = first + await reader.readuntil(b"\r\n\r\n")
                request = read_head(head)
            except asyncio.LimitOverrunError:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                await self._send(
                    writer, self._error(status, f"expected at most {MOST_HEAD} bytes of headers", close=True)
                )
                return
            except BadRequest as error:
                await self._send(writer, self._error(error.status, str(error), close=True))
                return
            finally:
                self._waiting.pop(writer, None)
            await self._send(writer, await self._answer(request))
            if request.close:
                return
            patience = self._limits.idle

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        try:
            async with asyncio.timeout(self._limits.write):
                await writer.drain()
        except TimeoutError:
            # Closing would wait for the client to take the rest, and the kernel would keep what it has for it.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise

    async def _answer(self, request: Request) -> bytes:
        page = self._pages.get(request.path)
        head_only = request.method == "HEAD"
        if page is None:
            text = f"no such page: expected one of {', '.join(self._pages)}"
            return self._error(HTTPStatus.NOT_FOUND, text, head_only=head_only, close=request.close)
        if request.method not in _METHODS:
            text = f"expected {' or '.join(_METHODS)}, got {request.method}"
            allow = {"Allow": ", ".join(_METHODS)}
            return self._error(HTTPStatus.METHOD_NOT_ALLOWED, text, close=request.close, headers=allow)
        try:
            status, body, kind = await page()
        except TimeoutError:
            text = f"{request.path} was not made within {self._limits.page:g} seconds"
            return self._error(HTTPStatus.SERVICE_UNAVAILABLE, text, head_only=head_only, close=request.close)
        except Exception as error:
            event(get("http"), logging.ERROR, "a page failed", error=error, path=request.path)
            text = f"{request.path} failed; the log says why"
            return self._error(HTTPStatus.INTERNAL_SERVER_ERROR, text, head_only=head_only, close=request.close)
        return answer(status, body, kind, head_only=head_only, close=request.close)

    def _error(self, status: HTTPStatus, text: str, **options: Any) -> bytes:
        return answer(status, as_json({"error": text}), _JSON, **options)

    async def _health_page(self) -> tuple[HTTPStatus, bytes, str]:
        return HTTPStatus.OK, as_json({"status": "ok"}), _JSON

    async def _ready_page(self) -> tuple[HTTPStatus, bytes, str]:
        now = self._ready()
        status = HTTPStatus.OK if now.ready else HTTPStatus.SERVICE_UNAVAILABLE
        reason = {"reason": now.reason} if now.reason else {}
        return status, as_json({"ready": now.ready, **reason, **now.details}), _JSON

    async def _metrics_page(self) -> tuple[HTTPStatus, bytes, str]:
        # Scrapers that come while one rendering runs share it: one thread at most is ever busy with metrics.
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.wrap_future(_in_thread(self._metrics))
            self._rendering.add_done_callback(_look)
        async with asyncio.timeout(self._limits.page):
            body = await asyncio.shield(self._rendering)
        return HTTPStatus.OK, body, CONTENT_TYPE


def _look(future: asyncio.Future[bytes]) -> None:
    # Whoever waited has given up: a failure is not news to asyncio any more.
    if not future.cancelled():
        future.exception()


def _in_thread(fn: Callable[[], bytes]) -> concurrent.futures.Future[bytes]:
    """Runs `fn` on a daemon thread: unlike an executor's, it cannot hold up the end of the process."""
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            result = fn()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="inferd-http-metrics", daemon=True).start()
    return future
