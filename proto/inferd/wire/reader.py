"""Reading and writing protobuf's wire format by hand: varints, strings, length-prefixed fields.

Readers are strict: what is not written the one canonical way raises `Unrecognised`, and the caller hands the message to
the generated class, which alone decides. So these readers never have to judge a strange message.
"""

from __future__ import annotations

# Fields of a message that are walked by hand; one with more is left to the class.
FIELDS = range(4096)
_INT64_SIGN = 1 << 63
_UINT64 = 1 << 64


class Unrecognised(Exception):
    """This message is not in the form that is read by hand."""


def read_varint(message: bytes, i: int) -> tuple[int, int]:
    """The unsigned varint at `i` and the index behind it. Raises Unrecognised for a longer form than needed or
    more than 64 bits, IndexError at the end of the message."""
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
    """Start and end of the length-prefixed field whose length stands at `i`. Raises Unrecognised past `end`."""
    size = message[i]
    i += 1
    if size > 127:
        size, i = read_varint(message, i - 1)
    stop = i + size
    if stop > end:
        raise Unrecognised
    return i, stop


def read_text(message: bytes, i: int, end: int) -> tuple[str, int]:
    """The length-prefixed string at `i` and the index behind it. Raises Unrecognised when it is not UTF-8."""
    i, stop = read_field(message, i, end)
    try:
        return message[i:stop].decode(), stop
    except UnicodeDecodeError:
        raise Unrecognised from None


def signed(value: int) -> int:
    """An int64 from its 64 bits."""
    return value - _UINT64 if value >= _INT64_SIGN else value


def varint(value: int) -> bytes:
    """An int64 or uint64 as a varint."""
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
    """A length-prefixed field; nothing where the content is empty, as proto3 writes it."""
    return b"".join((bytes((tag,)), varint(len(content)), content)) if content else b""
