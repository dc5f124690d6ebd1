"""Responses of the REST handlers, independent of any web framework."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from inferd.server.http.admission import CHALLENGE
from inferd.server.http.json.text import dumps

if TYPE_CHECKING:
    from starlette.responses import Response

JSON: Final = "application/json"


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Reply(NamedTuple):
    """One response. `kind` is its Content-Type, "" for none."""

    status: int
    body: bytes = b""
    kind: str = ""
    headers: Mapping[str, str] = _NO_HEADERS


class UnwrittenReply(NamedTuple):
    """A response whose body takes long to write: `write`, which may run on any thread, reads `nbytes` bytes. It raises
    ServingError."""

    nbytes: int
    write: Callable[[], Reply]


def error_reply(status: int, text: str, *, close: bool = False, retry_after: float | None = None) -> Reply:
    """A response whose JSON body has the text as its `error`. `close`: the connection ends with it. `retry_after`:
    seconds, for status 429."""
    headers = dict(CHALLENGE) if status == 401 else {}
    if status == 429 and retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))  # the header takes whole seconds only
    if close:
        headers["Connection"] = "close"
    return Reply(status, dumps({"error": text}), JSON, headers)


async def send_reply(reply: Reply, send: Callable[[Any], Awaitable[None]]) -> None:
    """Sends a response over ASGI."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    if reply.kind:
        headers.append((b"content-type", reply.kind.encode("latin-1")))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def starlette_response(reply: Reply) -> Response:
    """The response for a handler that FastAPI has called."""
    from starlette.responses import Response

    return Response(reply.body, reply.status, reply.headers, reply.kind or None)
