"""Heads of requests that are answered without a parser's help, because the same bytes were parsed before.

A client repeats its heads: the same route, headers and length, again and again. The bytes of a head that was parsed
once find what was found in it. Only plain heads are taken: HTTP/1.1, one Host, one Content-Length and nothing that
changes how the body is framed, coded or awaited, or whether the connection is kept; and the body must be short, so that
reading it does not delay other requests. Every other head goes to the connection's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from inferd.server.http.admission import joined
from inferd.server.http.infer_routes import InferRoutes, InferTarget
from inferd.server.http.workers import SHORT

JSON_LENGTH: Final = "inference-header-content-length"
_MOST: Final = 64 * 2**10  # bytes of a short body
_KEPT: Final = 512
_LONGEST: Final = 2048  # bytes of a head that is kept
_LENGTH: Final = re.compile(rb"[0-9]{1,8}")
_NOT_PLAIN: Final = frozenset(
    (b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"http2-settings", b"te", b"trailer")
)


class KnownHead:
    """The head of a request that infers.

    target    what its path names
    headers   by lower-case name
    length    bytes of the body
    """

    __slots__ = ("headers", "length", "target")

    def __init__(self, target: InferTarget, headers: dict[str, str], length: int) -> None:
        self.target = target
        self.headers = headers
        self.length = length


class KnownHeads:
    """The heads that one server has seen. Used on its event loop."""

    def __init__(self, routes: InferRoutes, most: int) -> None:
        """`most`: the bytes of a body that the server takes."""
        self._routes = routes
        self._most = min(most, _MOST)
        self._known: dict[bytes, KnownHead | None] = {}

    def of(self, head: bytes) -> KnownHead | None:
        """What a head says, whose bytes end before the blank line. None: it is not plain, does not infer, or belongs to
        a long body."""
        try:
            return self._known[head]
        except KeyError:
            pass
        found = self._read(head)
        if len(head) <= _LONGEST:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[head] = found
        return found

    def _read(self, head: bytes) -> KnownHead | None:
        import httptools  # only here: a server without REST has no such library

        fields = _Fields()
        parser = httptools.HttpRequestParser(fields)
        try:
            parser.feed_data(head + b"\r\n\r\n")
            plain = (
                fields.complete
                and parser.get_http_version() == "1.1"
                and parser.get_method() == b"POST"
                and parser.should_keep_alive()
                and not parser.should_upgrade()
            )
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        headers = fields.headers
        names = [name for name, _ in headers]
        # The parser saw as many lines as there are line ends: the head ends where its caller thinks that it does.
        whole = head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r") == len(headers)
        if not (plain and whole and names.count(b"host") == names.count(b"content-length") == 1):
            return None
        if not _NOT_PLAIN.isdisjoint(names):
            return None
        values = joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        length = dict(headers)[b"content-length"]
        if values.get("connection", "keep-alive").lower() != "keep-alive" or _LENGTH.fullmatch(length) is None:
            return None
        nbytes = int(length)
        if nbytes > self._most or text_of(values, nbytes) > SHORT:
            return None
        path = httptools.parse_url(fields.url).path
        if path is None or not path.isascii():
            return None
        target = self._routes.match(unquote(path.decode("ascii")))
        return None if target is None else KnownHead(target, values, nbytes)


def text_of(headers: Mapping[str, str], nbytes: int) -> int:
    """How many bytes of a body of `nbytes` are JSON: tensors may lie behind it."""
    told = headers.get(JSON_LENGTH, "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 12 else nbytes


class _Fields:
    """What the parser reports."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True
