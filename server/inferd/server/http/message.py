"""The part of HTTP/1.1 that three read-only pages need: parsing a request head, writing a response."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

MOST_HEAD: Final = 16 * 2**10
_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (\S{1,4096}) HTTP/1\.([01])")
_FORBIDDEN: Final = frozenset("\r\n\0")  # in the value of a header
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class BadRequest(Exception):
    """The bytes are not a request that this port takes. `status` and the text go to the client."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request, header names in lower case. `close`: no other request can follow on this connection."""

    method: str
    path: str
    close: bool
    headers: Mapping[str, str] = field(default_factory=dict)


def read_head(head: bytes) -> Request:
    """Parses the head of a request; `head` includes the blank line. Raises BadRequest."""
    line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "expected METHOD PATH HTTP/1.1")
    headers: dict[str, str] = {}
    hosts = 0
    for header in rest:
        name, colon, value = header.partition(":")
        if not colon or _NAME.fullmatch(name) is None or not _FORBIDDEN.isdisjoint(value):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "expected Name: value in every header line")
        name, value = name.lower(), value.strip(" \t")
        hosts += name == "host"
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if hosts > 1 or (match[3] == "1" and not hosts):
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"expected one Host header, got {hosts}")
    connection = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    keep = "close" not in connection if match[3] == "1" else "keep-alive" in connection
    # No page reads a body. The connection is closed after a request that has one, because the body would be parsed as
    # the next request.
    body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    target = match[2]
    if "://" in target:
        target = "/" + target.split("://", 1)[1].partition("/")[2]
    return Request(match[1], target.partition("?")[0], close=body or not keep, headers=headers)


def answer(
    status: HTTPStatus,
    body: bytes,
    kind: str,
    *,
    head_only: bool = False,
    close: bool = False,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A complete response: head and body, or the head alone for `head_only`. `kind` is the Content-Type."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        f"Connection: {'close' if close else 'keep-alive'}",
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body


def as_json(value: Mapping[str, Any]) -> bytes:
    """The body of a JSON response."""
    return json.dumps(value, default=str).encode() + b"\n"
