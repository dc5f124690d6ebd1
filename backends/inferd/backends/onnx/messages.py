"""Reads protobuf messages field by field, without their classes: from memory, or from a file that is never read whole.

ValueError
├── Truncated      the file ends early, or holds zeros where a copy has not written yet
└── Malformed      the file is no ONNX model
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from inferd.backends.files import FileWindow

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 3_000_000  # of one file. Real models have some hundred thousand; these take ten seconds
_MOST_DIMS = 10_000  # bytes of a tensor's dimensions: no framework has more than 64 of them, with 10 bytes each


class Truncated(ValueError):
    """The file ends before its content is complete."""


class Malformed(ValueError):
    """The file is no ONNX model."""


class Source(Protocol):
    """A sequence of `size` bytes that can be read at any position. `fields_left`: how many fields may still be read."""

    size: int
    fields_left: int

    def read(self, start: int, count: int) -> bytes | memoryview:
        """`count` bytes from position `start` on; fewer at the end. Raises OSError."""
        ...


class MemorySource:
    """A model in memory."""

    def __init__(self, data: bytes) -> None:
        self.fields_left = MOST_FIELDS
        self._view = memoryview(data)
        self.size = len(data)

    def read(self, start: int, count: int) -> memoryview:
        return self._view[start : start + count]


class FileSource(FileWindow):
    """A model in a file. Not thread-safe."""

    def __init__(self, descriptor: int, size: int | None = None) -> None:
        """See FileWindow."""
        super().__init__(descriptor, size)
        self.fields_left = MOST_FIELDS


def typed_fields(source: Source, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (field number, wire type, start, end) for every field of the message at [start, end).

    For a length-delimited field, [start, end) is its content; for any other field, its encoded value.
    """
    read = source.read
    position = start
    while position < end:
        head = read(position, min(20, end - position))
        key, used = varint(head, 0)
        number, wire = key >> 3, key & 7
        source.fields_left -= 1
        if source.fields_left < 0:
            raise Malformed(f"it has more than {MOST_FIELDS} fields")
        if number == 0:
            raise Truncated("it holds zeros") if key == 0 else Malformed("field number 0")
        if wire == BYTES:
            length, used = varint(head, used)
            begin = position + used
            position = begin + length
        elif wire == VARINT:
            begin = position + used
            position += varint(head, used)[1]
        elif wire in (FIXED64, FIXED32):
            begin = position + used
            position = begin + (8 if wire == FIXED64 else 4)
        else:
            raise Malformed(f"wire type {wire}")
        if position > end:
            # At the end of the file, the file is cut short. Inside a complete message, the length is wrong.
            cut_short = end == source.size
            if cut_short:
                raise Truncated(f"{position - end} bytes are missing")
            raise Malformed("a field overlaps the next")
        yield number, wire, begin, position


def fields(source: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """As typed_fields, without the wire types."""
    for number, _, begin, stop in typed_fields(source, start, end):
        yield number, begin, stop


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for i in range(position, len(data)):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
        if shift > 63:
            raise Malformed("a number is too long")
    raise Truncated("it ends within a number")


def number(source: Source, start: int, end: int) -> int:
    return varint(source.read(start, end - start), 0)[0]


def text(source: Source, start: int, end: int) -> str:
    try:
        return bytes(source.read(start, end - start)).decode()
    except UnicodeDecodeError:
        raise Malformed("a name is no UTF-8") from None


def numbers(source: Source, start: int, end: int) -> list[int]:
    """The dimensions of a tensor. Packed or not, [start, end) holds nothing but varints."""
    if end - start > _MOST_DIMS:
        raise Malformed("a tensor has more dimensions than there can be")
    data = source.read(start, end - start)
    dims = []
    position = 0
    while position < len(data):
        dim, position = varint(data, position)
        dims.append(dim)
    return dims
