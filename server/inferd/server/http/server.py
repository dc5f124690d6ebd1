"""The HTTP port: /metrics, /healthz, /readyz. On a thread and an event loop of its own: it never delays a model.

Slow or silent clients hold a connection, not a thread, and only for a while; when connections run out, the one that has
been silent longest makes room. Metrics are written on a worker thread, so that health answers meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from inferd.server.access.tls import TlsFiles
from inferd.server.errors import ServingError
from inferd.server.http.admission import HttpAdmission, Shown, names_in, peer_of
from inferd.server.http.binding import listen, shown, watch_writes
from inferd.server.http.message import MOST_HEAD, BadRequest, Request, answer, read_head
from inferd.server.http.pages import Pages, ReadinessLike, refusal, turned_away
from inferd.server.observability.events import event, get


@dataclass(frozen=True, slots=True)
class HttpLimits:
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
        ready: Callable[[], ReadinessLike],
        *,
        limits: HttpLimits | None = None,
        entrance: HttpAdmission | None = None,
        shared: bool = False,
        tls: TlsFiles | None = None,
    ) -> None:
        self._shared = shared
        self._addresses = tuple(addresses)
        self._limits = limits or HttpLimits()
        self._tls = tls
        self._entrance = entrance or HttpAdmission(None)
        self._pages = Pages(metrics, ready, self._limits.page)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._servers: list[asyncio.Server] = []
        self._leaving = False
        # Connections whose client has the turn to send, the one that has had it longest first.
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        self._open: set[asyncio.Task[None]] = set()

    def start(self) -> tuple[str, ...]:
        """Binds every address and serves. Gives the bound ones, port 0 filled in. Raises OSError; then none is."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("an HttpServer is used once")
            sockets: list[socket.socket] = []
            try:
                for address in self._addresses:
                    sockets.extend(listen(address, shared=self._shared))
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

    def unlisten(self) -> None:
        """Takes no new connections; each that is open ends with its next answer."""
        self._leaving = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._close_servers)
            except RuntimeError:
                pass  # its loop has ended

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()

    def refuse(self) -> None:
        """Takes no new inference. There is none on this port: see `RestServer`."""

    def drain(self, grace: float) -> bool:
        """Waits for inference under way. Gives whether it has ended."""
        return True

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
        context = None if self._tls is None else self._tls.server_context()
        patience = None if context is None else self._limits.head
        self._servers = [
            await asyncio.start_server(
                self._connection, sock=sock, limit=MOST_HEAD, ssl=context, ssl_handshake_timeout=patience
            )
            for sock in sockets
        ]
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stopping.wait()
        self._close_servers()
        for writer in list(self._waiting):
            writer.transport.abort()
        if self._open:
            await asyncio.wait(self._open, timeout=1.0)
        for task in self._open:
            task.cancel()
        self._pages.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        # `drain` then waits until the answer is with the kernel: whoever does not read is found out.
        watch_writes(writer.transport)
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
        certificate = names_in(writer.get_extra_info("peercert"))
        peer = peer_of(writer.get_extra_info("peername"))
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
                await self._send(writer, _refused(status, f"expected at most {MOST_HEAD} bytes of headers"))
                return
            except BadRequest as error:
                await self._send(writer, _refused(error.status, str(error)))
                return
            finally:
                self._waiting.pop(writer, None)
            last = request.close or self._leaving  # one word for the answer and for what follows it
            await self._send(
                writer, await self._answer(Shown(request.headers.items(), certificate, peer), request, last=last)
            )
            if last:
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

    async def _answer(self, caller: Shown, request: Request, *, last: bool) -> bytes:
        try:
            self._entrance.page(request.path, caller)
            page = await self._pages.answer(request.method, request.path)
        except ServingError as error:
            page = turned_away(error)
        return answer(
            page.status,
            page.body,
            page.kind,
            head_only=request.method == "HEAD",
            close=last,
            headers=page.headers,
        )


def _refused(status: HTTPStatus, text: str) -> bytes:
    page = refusal(status, text)
    return answer(page.status, page.body, page.kind, close=True)
