"""Content-Encoding gzip and deflate: decodes request bodies, within a bound on the decoded size; encodes responses."""

from __future__ import annotations

import re
import zlib
from typing import Final

from inferd.server.errors import InvalidRequest

_WORTH: Final = 1024  # bytes; compression gains nothing for shorter responses
_STEP: Final = 2**20  # the most bytes decoded at a time
_SLICE: Final = 64 * 2**10  # encoded bytes given to the decoder at a time
_MOST_CODINGS: Final = 2  # each coding may inflate the body to the full bound
_MOST_MEMBERS: Final = 16384  # gzip members, one after the other, in one body
_NUMBER: Final = re.compile(r"[0-9]{1,8}(?:\.[0-9]{0,8})?")


class TooLong(Exception):
    """The decoded body is longer than allowed."""


def inflate(data: bytes, encoding: str, most: int) -> bytes:
    """The decoded body, of at most `most` bytes. `encoding` is the value of Content-Encoding. Raises InvalidRequest,
    TooLong."""
    names = [name for part in encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > _MOST_CODINGS:
        raise InvalidRequest(f"Content-Encoding: expected at most {_MOST_CODINGS} codings, got {len(names)}")
    for name in reversed(names):
        if name not in ("gzip", "x-gzip", "deflate"):
            raise InvalidRequest(f"Content-Encoding: expected gzip, deflate or identity, got {name!r:.40}")
        data = _inflated(data, name, most)
    return data


def _inflated(data: bytes, name: str, most: int) -> bytes:
    # Some clients send deflate without zlib's header; the low half of the first byte shows whether it is there.
    raw = name == "deflate" and not (data[:1] and data[0] & 0x0F == 8)
    parts: list[bytes] = []
    size = at = 0
    tail = b""  # encoded bytes that are not decoded yet; kept short, because every step copies them
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
        while not stream.eof:
            if not tail:
                tail = data[at : at + _SLICE]
                at += len(tail)
            last = not tail
            try:
                piece = stream.decompress(tail, _STEP)
            except zlib.error as error:
                raise InvalidRequest(f"the body is not {name}: {error}") from None
            tail = stream.unconsumed_tail
            size += len(piece)
            if size > most:
                raise TooLong
            parts.append(piece)
            if last and not piece and not stream.eof:
                raise InvalidRequest(f"the body is not {name}: it is cut short")
        tail = stream.unused_data
        if name == "deflate" or (not tail and at >= len(data)):
            return b"".join(parts)
    raise InvalidRequest(f"expected at most {_MOST_MEMBERS} parts in a body of {name}, got more")


def response_coding(accept: str) -> str:
    """The coding for a response, from the request's Accept-Encoding: "gzip", "deflate", or "" for none."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        name, more, weight = part.partition(";")
        key, _, number = weight.partition("=")
        if not more:
            found[name.strip().lower()] = 1.0
        elif key.strip().lower() == "q" and _NUMBER.fullmatch(number.strip()):
            found[name.strip().lower()] = float(number)
    offered = {name: found.get(name, found.get("*", 0.0)) for name in ("gzip", "deflate")}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 else ""


def deflate(data: bytes, encoding: str) -> bytes:
    """The encoded body. Prefers speed to size."""
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    return stream.compress(data) + stream.flush()


def worth_compressing(nbytes: int) -> bool:
    """Whether a body is long enough to be compressed."""
    return nbytes >= _WORTH
