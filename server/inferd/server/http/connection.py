"""One connection of the REST server: uvicorn's protocol class, with bounds on slow clients.

uvicorn waits forever for the head of a request and for a client that does not read. This class cuts off a silent
client, resets the connection of a client that stops reading, and refuses a head that is too long. When the server has
too many connections, it closes the one that has been silent longest. A request to upgrade to another protocol (h2c:
Java's and curl's clients send one) is ignored, and the request is answered over HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inferd.server.http.admission import CERTIFICATE, names_in
from inferd.server.http.binding import watch_writes
from inferd.server.http.message import MOST_HEAD, answer
from inferd.server.http.pages import error_page
from inferd.server.http.server import HttpLimits

_UPGRADE_HEADERS: Final = (b"upgrade", b"http2-settings")


class ConnectionBounds:
    """State shared by the connections of one server. Used on its event loop only."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.count = 0
        # Connections on which the server waits for the client, the one that has waited longest first.
        self.waiting: dict[Connection, None] = {}


class _DelayedClose:
    """The transport that responses write to: `close` waits until the whole request has been received."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close_after_response()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.transport, name)


class Connection(HttpToolsProtocol):
    """See the module. `bounds` is set by the subclass that `connection_within` makes."""

    bounds: ConnectionBounds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = self.bounds.limits
        self.timeout_keep_alive = self._limits.idle  # type: ignore[assignment]  # uvicorn takes a float, too
        self._head = 0  # bytes received of a head that is not complete
        self._parsed = 0  # bytes of the head that the parser has reported
        self._head_too_long = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._certificate: tuple[str, ...] = ()
        self._body = False  # more of the newest request is still to come
        self._upgrade = False  # the newest request asks for another protocol
        self._close_when_received = False  # close once the newest request has been received

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._certificate = names_in(transport.get_extra_info("peercert"))
        # `pause_writing` is then called whenever the kernel has not taken everything, so a client that does not read
        # is noticed.
        watch_writes(transport)
        self.bounds.count += 1
        self._wait_for_head()
        if self.bounds.count > self._limits.connections:
            oldest = next(iter(self.bounds.waiting))
            self.bounds.waiting.pop(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.bounds.count -= 1
        self._has_head()
        self.resume_writing()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        waits = self._waits()
        if waits:
            self._head += len(data)
            if self._head_timer is None:
                self._wait_for_head()
        self._unset_keepalive_if_required()
        self._feed(data)
        if waits and self._head > MOST_HEAD and not self.transport.is_closing():
            self._head_too_long = True
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parses a head again without its upgrade headers: with them, the parser would not read the body. `rest` is
        what was received after the head."""
        self._upgrade = False
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_HEADERS]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in _UPGRADE_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed(b"\r\n".join((*lines, b"", rest)))

    def on_message_begin(self) -> None:
        # A new request may begin right behind the unread rest of a body: the client is no longer silent.
        self._unset_keepalive_if_required()
        if self._waits() and self._head_timer is None:
            self._wait_for_head()
        super().on_message_begin()
        self.scope["state"][CERTIFICATE] = self._certificate
        self._parsed = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._measure(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._measure(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._head = 0
        self._has_head()
        self._upgrade = self.parser.should_upgrade()
        if not self._upgrade:
            self._body = True
            super().on_headers_complete()
            self.cycle.transport = _DelayedClose(self)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        self._body = False
        super().on_message_complete()
        if self._close_when_received:
            self.transport.close()
        elif self._waits():  # the response was complete before the request was
            self._has_head()
            self.bounds.waiting[self] = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._close_when_received:
            return
        if self._waits():
            self.bounds.waiting[self] = None
        elif self._body and self.cycle.response_complete:  # the rest of the body is dropped, but must come in time, too
            self.bounds.waiting[self] = None
            self._head_timer = self.loop.call_later(self._limits.idle, self._took_too_long)

    def close_after_response(self) -> None:
        """Closes the connection, but not before the whole request has been received: closing earlier resets a client
        that is still sending, which then might never see the response."""
        if not self._body or self.transport.is_closing():
            self.transport.close()
            return
        self._close_when_received = True
        self.bounds.waiting[self] = None
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head, self._took_too_long)

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        text = "expected METHOD PATH HTTP/1.1 and headers, Name: value on each line"
        page = error_page(HTTPStatus.BAD_REQUEST, text)
        if self._head_too_long:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            page = error_page(status, f"expected at most {MOST_HEAD} bytes of headers")
        self._has_head()
        self.transport.write(answer(page.status, page.body, page.kind, close=True))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _waits(self) -> bool:
        return not self._body and (self.cycle is None or self.cycle.response_complete)

    def _wait_for_head(self) -> None:
        self.bounds.waiting[self] = None
        self._head_timer = self.loop.call_later(self._limits.head, self._took_too_long)

    def _has_head(self) -> None:
        self.bounds.waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _took_too_long(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _measure(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MOST_HEAD:
            self._head_too_long = True
            raise ValueError("the head is too long")  # the parser reports it as HttpParserError: see `_feed`

    def _watch_writing(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._limits.write, self._still_writing, unsent)

    def _still_writing(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_writing()
            return
        self._write_timer = None
        # A plain close waits for the client to read the rest, and the kernel keeps the unsent bytes. Linger 0 resets
        # the connection and frees them.
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def connection_within(limits: HttpLimits) -> type[Connection]:
    """A protocol class for uvicorn, for the connections of one server."""
    return type("BoundedConnection", (Connection,), {"bounds": ConnectionBounds(limits)})
