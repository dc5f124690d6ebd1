"""The HTTP port without REST: /metrics, /healthz, /readyz. It runs on its own thread and event loop and never delays
inference.

A slow or silent client holds a connection, not a thread, and only for a bounded time. When the server has too many
connections, it closes the one that has been silent longest. Metrics are rendered on a worker thread, so that the health
pages answer meanwhile.
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

from inferd.server.access.rules import AccessRules
from inferd.server.access.tls import TlsFiles
from inferd.server.errors import ServingError
from inferd.server.http.acceptor import Acceptor
from inferd.server.http.admission import HttpCredentials, admit_page, names_in, peer_of
from inferd.server.http.binding import bound_address, listen, watch_writes
from inferd.server.http.message import MOST_HEAD, BadRequest, Request, answer, read_head
from inferd.server.http.pages import Pages, ReadinessLike, access_refusal, error_page
from inferd.server.observability.events import event, get


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """`connections`: the most open at once. The other fields are times in seconds: `head` to receive a whole request
    head (and to finish a TLS handshake), `idle` between two requests, `write` for the client to take the response,
    `page` to render a page."""

    connections: int = 256
    head: float = 5.0
    idle: float = 60.0
    write: float = 10.0
    page: float = 10.0


class HttpServer:
    """Serves from `start` to `stop`; an instance is used once. `start` and `stop` are thread-safe.

    `metrics` is called on a worker thread, `ready` on the server's event loop: `ready` must not block.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Callable[[], bytes],
        ready: Callable[[], ReadinessLike],
        *,
        limits: HttpLimits | None = None,
        rules: AccessRules | None = None,
        shared: bool = False,
        tls: TlsFiles | None = None,
    ) -> None:
        self._shared = shared
        self._addresses = tuple(addresses)
        self._limits = limits or HttpLimits()
        self._tls = tls
        self._rules = rules
        self._pages = Pages(metrics, ready, self._limits.page)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._acceptor: Acceptor | None = None
        self._unlistened = False
        # Connections on which the server waits for the client, the one that has waited longest first.
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        self._open: set[asyncio.Task[None]] = set()

    def start(self) -> tuple[str, ...]:
        """Binds every address and serves. Returns the bound addresses, with the real port in place of 0. Raises
        OSError; then no address is bound."""
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
            bound = tuple(bound_address(sock) for sock in sockets)
            started = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(sockets, started), name="inferd-http", daemon=True)
            self._thread.start()
            started.wait()
            if self._loop is None:
                raise OSError(f"cannot serve on {', '.join(bound)}; the log says why")
            return bound

    def unlisten(self) -> None:
        """Accepts no new connections; each open connection is closed after its next response."""
        self._unlistened = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._unlisten)
            except RuntimeError:
                pass  # the event loop has ended

    def _unlisten(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()

    def refuse(self) -> None:
        """Does nothing: this port serves no inference. See `RestServer.refuse`."""

    def drain(self, grace: float) -> bool:
        """Returns True at once: this port serves no inference. See `RestServer.drain`."""
        return True

    def stop(self) -> None:
        """Closes every connection and waits until the thread has ended. Responses in progress get one second. May be
        called again."""
        with self._lock:
            if self._thread is None or self._loop is None or self._stopping is None:
                return
            if self._thread.is_alive():
                try:
                    self._loop.call_soon_threadsafe(self._stopping.set)
                except RuntimeError:
                    pass  # the event loop has just ended
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
        self._acceptor = Acceptor(
            sockets,
            self._protocol,
            context=None if self._tls is None else self._tls.server_context(),
            handshake=self._limits.head,
            handshakes=self._limits.connections,
        )
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stopping.wait()
        self._unlisten()
        for writer in list(self._waiting):
            writer.transport.abort()
        if self._open:
            await asyncio.wait(self._open, timeout=1.0)
        for task in self._open:
            task.cancel()
        self._pages.close()

    def _protocol(self) -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(MOST_HEAD), self._connection)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        # `drain` then waits until the kernel has taken the whole response, so `_send` notices a client that does not
        # read.
        watch_writes(writer.transport)
        try:
            if len(self._open) > self._limits.connections:
                self._make_room(writer)
            await self._requests(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client closed the connection or was too slow
        finally:
            self._open.discard(task)
            self._waiting.pop(writer, None)
            writer.close()

    def _make_room(self, newest: asyncio.StreamWriter) -> None:
        oldest = next(iter(self._waiting), newest)
        self._waiting.pop(oldest, None)
        oldest.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        timeout = self._limits.head
        certificate = names_in(writer.get_extra_info("peercert"))
        peer = peer_of(writer.get_extra_info("peername"))
        while self._stopping is not None and not self._stopping.is_set():
            self._waiting[writer] = None
            try:
                async with asyncio.timeout(timeout):
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
            # Read once: the response's Connection header and the close below must agree.
            last = request.close or self._unlistened
            await self._send(
                writer,
                await self._answer(HttpCredentials(request.headers.items(), certificate, peer), request, last=last),
            )
            if last:
                return
            timeout = self._limits.idle

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        try:
            async with asyncio.timeout(self._limits.write):
                await writer.drain()
        except TimeoutError:
            # A plain close waits for the client to read the rest, and the kernel keeps the unsent bytes. Linger 0
            # resets the connection and frees them.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise

    async def _answer(self, caller: HttpCredentials, request: Request, *, last: bool) -> bytes:
        try:
            admit_page(self._rules, request.path, lambda: caller)
            page = await self._pages.answer(request.method, request.path)
        except ServingError as error:
            page = access_refusal(error)
        return answer(
            page.status,
            page.body,
            page.kind,
            head_only=request.method == "HEAD",
            close=last,
            headers=page.headers,
        )


def _refused(status: HTTPStatus, text: str) -> bytes:
    page = error_page(status, text)
    return answer(page.status, page.body, page.kind, close=True)
