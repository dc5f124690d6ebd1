"""gzip and deflate, in both directions. Everything is bounded by the size that comes out."""

from __future__ import annotations

import re
import zlib
from typing import Final

from inferd.server.errors import InvalidRequest

_WORTH: Final = 1024  # shorter answers gain nothing
_STEP: Final = 2**20
_QUALITY: Final = re.compile(r"\s*([a-z0-9*-]+)\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*", re.IGNORECASE)


class TooLong(Exception):
    """More comes out than is allowed."""


def inflate(data: bytes, encoding: str, most: int) -> bytes:
    """The decoded body. `encoding` is the value of Content-Encoding. Raises InvalidRequest, TooLong."""
    for name in reversed([part.strip().lower() for part in encoding.split(",") if part.strip()]):
        if name in ("identity", ""):
            continue
        if name not in ("gzip", "x-gzip", "deflate"):
            raise InvalidRequest(f"Content-Encoding: expected gzip, deflate or identity, got {name!r:.40}")
        data = _inflated(data, name, most)
    return data


def _inflated(data: bytes, name: str, most: int) -> bytes:
    # Some send deflate without zlib's header; its first byte tells.
    raw = name == "deflate" and not (data[:1] and data[0] & 0x0F == 8)
    parts: list[bytes] = []
    size = 0
    while True:
        stream = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
        while not stream.eof:
            try:
                piece = stream.decompress(data, _STEP)
            except zlib.error as error:
                raise InvalidRequest(f"the body is not {name}: {error}") from None
            data = stream.unconsumed_tail
            size += len(piece)
            if size > most:
                raise TooLong
            parts.append(piece)
            if not piece and not data and not stream.eof:
                raise InvalidRequest(f"the body is not {name}: it is cut short")
        data = stream.unused_data
        if not data or name == "deflate":
            return b"".join(parts)


def chosen(accept: str) -> str:
    """The encoding to answer in, by Accept-Encoding: "gzip", "deflate" or "" for none."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        match = _QUALITY.fullmatch(part)
        if match:
            try:
                found[match[1].lower()] = float(match[2]) if match[2] else 1.0
            except ValueError:
                continue
    offered = {name: found.get(name, found.get("*", 0.0)) for name in ("gzip", "deflate")}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 else ""


def deflate(data: bytes, encoding: str) -> bytes:
    """The encoded body, quickly rather than small."""
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    return stream.compress(data) + stream.flush()


def worth(nbytes: int) -> bool:
    """Whether a body is long enough to be compressed."""
    return nbytes >= _WORTH
