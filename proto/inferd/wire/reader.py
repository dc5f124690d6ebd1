"""Reads and writes protobuf's wire format by hand: varints, strings, length-prefixed fields.

The readers are strict: they raise `Unrecognised` for everything that is not in the canonical encoding, and the caller
passes the message to the generated class. So the readers never decide what an unusual message means.
"""

from __future__ import annotations

# Most fields of a message that are read by hand; a message with more is left to the generated class.
FIELDS = range(4096)
_INT64_SIGN = 1 << 63
_UINT64 = 1 << 64


class Unrecognised(Exception):
    """This message is not in the encoding that is read by hand."""


def read_varint(message: bytes, i: int) -> tuple[int, int]:
    """The unsigned varint at `i`, and the index behind it. Raises Unrecognised if it is longer than needed or has more
    than 64 bits, IndexError if the message ends within it."""
    byte = message[i]
    i += 1
    if byte < 128:
        return byte, i
    value = byte & 127
    shift = 7
    while shift < 70:
        byte = message[i]
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 or value >= _UINT64:
                break
            return value, i
        shift += 7
    raise Unrecognised


def read_field(message: bytes, i: int, end: int) -> tuple[int, int]:
    """Start and end of the content of the length-prefixed field whose length is at `i`. Raises Unrecognised if it ends
    after `end`, IndexError if the message ends within the length."""
    size = message[i]
    i += 1
    if size > 127:
        size, i = read_varint(message, i - 1)
    stop = i + size
    if stop > end:
        raise Unrecognised
    return i, stop


def read_text(message: bytes, i: int, end: int) -> tuple[str, int]:
    """The length-prefixed string at `i`, and the index behind it. Raises Unrecognised if it is not UTF-8, and as
    `read_field`."""
    i, stop = read_field(message, i, end)
    try:
        return message[i:stop].decode(), stop
    except UnicodeDecodeError:
        raise Unrecognised from None


def occurrences(message: bytes, number: int) -> int:
    """How often the length-prefixed field `number` stands in a message that the generated class has accepted. It may be
    encoded in any way; fields of a group count as the message's own."""
    found = i = 0
    while i < len(message):
        tag, i = _any_varint(message, i)
        found += tag == (number << 3 | 2)
        kind = tag & 7
        if kind == 0:
            _, i = _any_varint(message, i)
        elif kind == 1:
            i += 8
        elif kind == 2:
            size, i = _any_varint(message, i)
            i += size
        elif kind == 5:
            i += 4
    return found


def _any_varint(message: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while i < len(message):
        byte = message[i]
        i += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return value, i


def signed(value: int) -> int:
    """The int64 with the same 64 bits as an unsigned number."""
    return value - _UINT64 if value >= _INT64_SIGN else value


def varint(value: int) -> bytes:
    """The varint of an int64 or uint64."""
    if value < 0:
        value += _UINT64
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: int, content: bytes) -> bytes:
    """A length-prefixed field; empty if the content is empty, because proto3 does not write default values."""
    return b"".join((bytes((tag,)), varint(len(content)), content)) if content else b""
