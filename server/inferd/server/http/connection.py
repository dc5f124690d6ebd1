"""One connection of the REST server: uvicorn's protocol class, with bounds on slow clients.

uvicorn waits forever for the head of a request and for a client that does not read. This class cuts off a silent
client, resets the connection of a client that stops reading, and refuses a head that is too long. When the server has
too many connections, it closes the one that has been silent longest. A request to upgrade to another protocol (h2c:
Java's and curl's clients send one) is ignored, and the request is answered over HTTP/1.1.

A short inference request with a plain head (`known_heads`) is passed on as a whole, and neither the parser nor ASGI
sees it. Every other request goes the way of uvicorn.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inferd.server.http.admission import CERTIFICATE, names_in, peer_of
from inferd.server.http.binding import watch_writes
from inferd.server.http.message import MOST_HEAD, answer
from inferd.server.http.pages import error_page
from inferd.server.http.server import HttpLimits

if TYPE_CHECKING:
    from inferd.server.http.http_call import HttpCall
    from inferd.server.http.infer_turns import InferTurns
    from inferd.server.http.reply import Reply

_UPGRADE_HEADERS: Final = (b"upgrade", b"http2-settings")
_MOST_PIPELINED: Final = 64  # requests that wait for the answers of earlier ones on their connection
# Bytes that a client must read within `HttpLimits.write`; the second while the server holds much.
_SLOWEST: Final = 10 * 2**10
_SLOWEST_CROWDED: Final = 10 * 2**20


class UnwrittenBytes(Protocol):
    """Counts the bytes of responses that clients have not read, with all else that the server holds for requests.
    Thread-safe."""

    @property
    def crowded(self) -> bool:
        """Whether so much is held that slow clients must give way."""
        ...

    def count(self, nbytes: int) -> None: ...
    def release(self, nbytes: int) -> None: ...


class ConnectionBounds:
    """State shared by the connections of one server. Used on its event loop only."""

    def __init__(self, limits: HttpLimits, unwritten: UnwrittenBytes | None) -> None:
        self.limits = limits
        self.unwritten = unwritten
        self.turns: InferTurns | None = None  # None until the first request over REST
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
        self.peer = ""
        self.certificate: tuple[str, ...] = ()
        self._call: HttpCall | None = None  # the request that was passed on and is not answered
        self._early = b""  # the beginning of a request that may be passed on as a whole
        self._behind = b""  # received behind the request that was passed on
        self._last = False  # the connection ends with its next response
        self._resting = False  # nothing has come since the last response by `respond`
        self._rests_until = 0.0
        self._rest_timer: asyncio.TimerHandle | None = None
        self._body = False  # more of the newest request is still to come
        self._upgrade = False  # the newest request asks for another protocol
        self._close_when_received = False  # close once the newest request has been received
        self._hosts = 0  # Host headers of the newest request
        self._refusal = ""  # why the newest request is no request, for its client
        self._closing = False  # nothing more is read: the connection ends with the response to the newest request
        self._unwritten = 0  # bytes that are counted

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = peer_of(self.client)
        self.certificate = names_in(transport.get_extra_info("peercert"))
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
        if self._call is not None and self.bounds.turns is not None:
            self.bounds.turns.gone(self._call)
            self._call = None
        self._forget_early()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._closing:
            return
        if self._call is not None:  # a client that does not wait for the response before its next request
            self._behind += data
            self.flow.pause_reading()
        elif not self._pass_on(data):
            self._parse(self._forget_early() + data)

    def _pass_on(self, data: bytes) -> bool:
        """Passes on a request that has come whole, with this data, or waits for its rest. False: the parser must have
        the data, or what has come before it."""
        turns = self.bounds.turns
        if self._early:
            data = self._early + data
        if turns is None or not data.startswith(b"POST /v") or self._head or not self._waits():
            return False
        end = data.find(b"\r\n\r\n", 0, MOST_HEAD)
        head = None if end < 0 else turns.heads.of(data[:end])
        if head is None or self.flow.write_paused:
            return False
        missing = end + 4 + head.length - len(data)
        if missing < 0:  # another request follows
            return False
        if not self._early:
            self._resting = False
            self._unset_keepalive_if_required()
            self._has_head()
        if missing:
            if not self._early:
                turns.wait_for_rest(self)
            self._early = data
            return True
        if self._early:
            self._early = b""
            turns.waits_no_more(self)
        self._call = call = turns.call(self, head, data[end + 4 :])
        turns.join(call, alone=self.bounds.count == 1)
        return True

    def wait_no_more(self) -> None:
        """The rest of a request has not come soon: the parser takes what has."""
        self._parse(self._forget_early())

    def _forget_early(self) -> bytes:
        early, self._early = self._early, b""
        if early and self.bounds.turns is not None:
            self.bounds.turns.waits_no_more(self)
        return early

    def respond(self, reply: Reply) -> None:
        """Sends the response to the request that was passed on."""
        self._call = None
        if self.transport.is_closing():
            return
        status, body, kind, headers = reply
        parts = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for key, text in headers.items():
            parts.append(f"{key.lower()}: {text}\r\n".encode("latin-1"))
        parts.append(b"content-length: %d\r\n" % len(body))
        if kind:
            parts.append(b"content-type: %b\r\n" % kind.encode("latin-1"))
        last = "Connection" in headers
        if self._last and not last:
            parts.append(b"connection: close\r\n")
            last = True
        parts += (b"\r\n", body)
        self.transport.write(b"".join(parts))
        self.server_state.total_requests += 1
        if last:
            self.transport.close()
            return
        self.bounds.waiting[self] = None
        self._rest()
        if self._behind:
            behind, self._behind = self._behind, b""
            self.flow.resume_reading()
            self.data_received(behind)

    def _rest(self) -> None:
        """Closes the connection after a while, unless a request begins. One timer serves many rests."""
        self._resting = True
        self._rests_until = self.loop.time() + self.timeout_keep_alive
        if self._rest_timer is None:
            self._rest_timer = self.loop.call_at(self._rests_until, self._has_rested)

    def _has_rested(self) -> None:
        self._rest_timer = None
        if self._resting:
            if self.loop.time() < self._rests_until:
                self._rest_timer = self.loop.call_at(self._rests_until, self._has_rested)
            else:
                self.timeout_keep_alive_handler()

    def close_after_next(self) -> None:
        """The connection ends with its next response."""
        self._last = True

    def shutdown(self) -> None:
        """Closes the connection once what is in progress is answered."""
        if self._call is None:
            super().shutdown()
        self._last = True

    def _parse(self, data: bytes) -> None:
        self._resting = False
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
        # A loop, because each of many pipelined requests may ask for an upgrade.
        more: bytes | None = data
        while more is not None and not self._closing:
            try:
                self.parser.feed_data(more)
                more = None
            except httptools.HttpParserUpgrade as upgrade:
                more = self._without_upgrade((more or b"")[upgrade.args[0] :])
            except httptools.HttpParserError:
                self._not_a_request()
                more = None

    def _without_upgrade(self, rest: bytes) -> bytes | None:
        """A head again without its upgrade headers, and what was received after it, `rest`: with these headers, the
        parser would not read the body. None: the request is refused."""
        self._upgrade = False
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._not_a_request()
            return None
        lines = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_HEADERS]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in _UPGRADE_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join((*lines, b"", rest))

    def _not_a_request(self) -> None:
        """Refuses what the parser has refused. Behind requests that are still being answered, a response would come
        before theirs: the connection ends with the last of those."""
        if self._body or self._waits():
            self.send_400_response("")
        else:
            self._end_with_responses()

    def _end_with_responses(self) -> None:
        self._closing = True
        self.flow.pause_reading()

    def _check_head(self) -> None:
        """Raises ValueError, which the parser reports as HttpParserError, for a head that RFC 9112 lets nobody
        accept."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refusal = f"expected HTTP/1.1 or HTTP/1.0, got HTTP/{version}"
        elif self._hosts > 1 or (version == "1.1" and not self._hosts):
            self._refusal = f"expected one Host header, got {self._hosts}"
        if self._refusal:
            raise ValueError(self._refusal)

    def on_message_begin(self) -> None:
        # A new request may begin right behind the unread rest of a body: the client is no longer silent.
        self._unset_keepalive_if_required()
        if self._waits() and self._head_timer is None:
            self._wait_for_head()
        super().on_message_begin()
        self.scope["state"][CERTIFICATE] = self.certificate
        self._parsed = self._hosts = 0
        self._refusal = ""

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._measure(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if self.headers[-1][0] == b"host":
            self._hosts += 1
        self._measure(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        if self._closing:
            raise ValueError("nothing more is read")
        self._check_head()
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._end_with_responses()
            raise ValueError("too many requests wait")
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
        if self._closing and self._waits():
            self.transport.close()
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
        page = error_page(HTTPStatus.BAD_REQUEST, self._refusal or text)
        if self._head_too_long:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            page = error_page(status, f"expected at most {MOST_HEAD} bytes of headers")
        self._has_head()
        self.transport.write(answer(page.status, page.body, page.kind, close=True))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._count_unwritten(self.transport.get_write_buffer_size())
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._count_unwritten(0)
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

    def _count_unwritten(self, nbytes: int) -> None:
        bounds, before = self.bounds.unwritten, self._unwritten
        if bounds is not None and nbytes != before:
            self._unwritten = nbytes
            if nbytes > before:
                bounds.count(nbytes - before)
            else:
                bounds.release(before - nbytes)

    def _watch_writing(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._limits.write, self._still_writing, unsent)

    def _still_writing(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._count_unwritten(unsent)
        crowded = self.bounds.unwritten is not None and self.bounds.unwritten.crowded
        # A buffer that has grown was empty in between.
        if not before - (_SLOWEST_CROWDED if crowded else _SLOWEST) < unsent <= before:
            self._watch_writing()
            return
        self._write_timer = None
        # A plain close waits for the client to read the rest, and the kernel keeps the unsent bytes. Linger 0 resets
        # the connection and frees them.
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def connection_within(limits: HttpLimits, unwritten: UnwrittenBytes | None) -> type[Connection]:
    """A protocol class for uvicorn, for the connections of one server."""
    return type("BoundedConnection", (Connection,), {"bounds": ConnectionBounds(limits, unwritten)})
