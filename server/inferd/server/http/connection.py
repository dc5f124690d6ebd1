"""One connection of the REST server: uvicorn's, with bounds on what a client may take its time for.

uvicorn itself waits forever for the head of a request and for a client that does not read. Here a silent client is cut
off, one that stops reading is reset, a head that is too long is refused, and when connections run out the one that has
been silent longest makes room. A wish for another protocol (h2c: Java's and curl's clients have it) is not heard, and
its request answered as what it is.
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
from inferd.server.http.pages import refusal
from inferd.server.http.server import HttpLimits

_WISHES: Final = (b"upgrade", b"http2-settings")


class ConnectionBounds:
    """What the connections of one server share. Used on its event loop only."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.count = 0
        # Connections whose client has the turn to send, the one that has had it longest first.
        self.waiting: dict[Connection, None] = {}


class _Exit:
    """A transport as its answers see it: it closes once the request has come whole."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.transport, name)


class Connection(HttpToolsProtocol):
    """See the module. `bounds` comes with the subclass that `bounded` makes."""

    bounds: ConnectionBounds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = self.bounds.limits
        self.timeout_keep_alive = self._limits.idle  # type: ignore[assignment]  # any number does
        self._head = 0  # bytes that have come of a head that is not complete
        self._parsed = 0  # bytes of the head that is being read
        self._long = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._certificate: tuple[str, ...] = ()
        self._body = False  # of the newest request more is to come
        self._upgrade = False  # it asks for another protocol
        self._leaving = False  # closes when it has come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._certificate = names_in(transport.get_extra_info("peercert"))
        # `pause_writing` then comes whenever the kernel has not taken everything: who does not read is found out.
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
            self._long = True
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _stay(self, rest: bytes) -> None:
        """Reads a head again without its wish for another protocol, of which the parser leaves out the body."""
        self._upgrade = False
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _WISHES]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in _WISHES:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._feed(b"\r\n".join((*lines, b"", rest)))

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()  # what was silent begins to speak behind the rest of a body
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
            self.cycle.transport = _Exit(self)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        self._body = False
        super().on_message_complete()
        if self._leaving:
            self.transport.close()
        elif self._waits():  # it was answered before it had come
            self._has_head()
            self.bounds.waiting[self] = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._leaving:
            return
        if self._waits():
            self.bounds.waiting[self] = None
        elif self._body and self.cycle.response_complete:  # nobody reads the rest, which must not take for ever either
            self.bounds.waiting[self] = None
            self._head_timer = self.loop.call_later(self._limits.idle, self._took_too_long)

    def leave(self) -> None:
        """Closes after an answer. A client that is still sending would be reset, and might never see the answer."""
        if not self._body or self.transport.is_closing():
            self.transport.close()
            return
        self._leaving = True
        self.bounds.waiting[self] = None
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head, self._took_too_long)

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        page = refusal(HTTPStatus.BAD_REQUEST, "expected METHOD PATH HTTP/1.1 and headers, Name: value on each line")
        if self._long:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            page = refusal(status, f"expected at most {MOST_HEAD} bytes of headers")
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
            self._long = True
            raise ValueError("the head is too long")  # the parser makes a refusal of it

    def _watch_writing(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._limits.write, self._still_writing, left)

    def _still_writing(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_writing()
            return
        self._write_timer = None
        # Closing would wait for the client to take the rest, and the kernel would keep what it has for it.
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def connection_within(limits: HttpLimits) -> type[Connection]:
    """The class for the connections of one server."""
    return type("BoundedConnection", (Connection,), {"bounds": ConnectionBounds(limits)})
