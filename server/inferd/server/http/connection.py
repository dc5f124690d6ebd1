"""One connection of the REST server: uvicorn's, with bounds on what a client may take its time for.

uvicorn itself waits forever for the head of a request and for a client that does not read. Here a silent client is cut
off, one that stops reading is reset, a head that is too long is refused, and when connections run out the one that has
been silent longest makes room.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inferd.server.http.binding import watch_writes
from inferd.server.http.entrance import CERTIFICATE, names_in
from inferd.server.http.message import MOST_HEAD, answer
from inferd.server.http.pages import refusal
from inferd.server.http.server import Limits


class Bounds:
    """What the connections of one server share. Used on its event loop only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.count = 0
        # Connections whose client has the turn to send, the one that has had it longest first.
        self.waiting: dict[Connection, None] = {}


class Connection(HttpToolsProtocol):
    """See the module. `bounds` comes with the subclass that `bounded` makes."""

    bounds: Bounds

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
        super().data_received(data)
        if waits and self._head > MOST_HEAD and not self.transport.is_closing():
            self._long = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
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
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self._waits():
            self.bounds.waiting[self] = None

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
        return self.cycle is None or self.cycle.response_complete

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


def bounded(limits: Limits) -> type[Connection]:
    """The class for the connections of one server."""
    return type("BoundedConnection", (Connection,), {"bounds": Bounds(limits)})
