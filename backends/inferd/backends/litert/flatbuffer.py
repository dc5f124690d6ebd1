"""Reads flatbuffers table by table, within bounds: from memory, or from a file that is never read whole.

A flatbuffer is a tree of tables that refer to each other by offsets. A file from anywhere may hold any offset, so each
one is checked before it is followed, and the number of tables that one file makes the reader visit is bounded.

ValueError
├── Truncated      the file ends early
└── Malformed      the file is no LiteRT model
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MAGIC = b"TFL3"
MOST_TABLES = 1_000_000  # of one file. Large models have some ten thousand
MOST_ELEMENTS = 1 << 20  # of one vector that is read: quantisation has one scale for each channel
_MOST_DEPTH = 16
_MOST_SECONDS = 20.0
_SCALARS: Mapping[str, str] = {
    "i8": "b", "u8": "B", "bool": "?", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f",
}  # fmt: skip
_SIZES = {name: struct.calcsize(code) for name, code in _SCALARS.items()}


class Truncated(ValueError):
    """The file ends before its content is complete."""


class Malformed(ValueError):
    """The file is no LiteRT model."""


class Bytes(Protocol):
    """`size` bytes that can be read at any position."""

    size: int

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from position `start` on; fewer at the end. Raises OSError."""
        ...


class MemoryBytes:
    """A model in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, count: int) -> bytes:
        return self._data[start : start + count]


@dataclass(frozen=True, slots=True)
class Span:
    """Where the elements of a vector of bytes lie. The bytes are there, but are not read."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class FieldType:
    """A field of a table.

    kind      a scalar ("i32"), "str", "table" or "union"
    vector    a vector of it
    table     the table's name; of a union, the name of the list of its members
    default   of a scalar that is left out
    """

    name: str
    kind: str
    vector: bool = False
    table: str = ""
    default: int = 0


Schema = Mapping[str, tuple[FieldType | None, ...]]
Unions = Mapping[str, Mapping[int, str]]
Table = dict[str, Any]


class FlatbufferReader:
    """The tables of one flatbuffer. One thread only.

    A table becomes a dict of all fields of the schema: scalars with their defaults, vectors of scalars as arrays, those
    of bytes as Span, None for everything else that is left out.
    """

    def __init__(self, source: Bytes, schema: Schema, unions: Unions) -> None:
        self._source = source
        self._schema = schema
        self._unions = unions
        self._left = MOST_TABLES
        self._until = time.monotonic() + _MOST_SECONDS

    def root(self, table: str) -> Table:
        """The outermost table. Raises Truncated, Malformed, OSError."""
        head = self._source.read(0, 8)
        if len(head) < 8:
            raise Truncated(f"it has {self._source.size} bytes")
        if head[4:8] != MAGIC:
            raise Malformed(f"bytes 4 to 8 are {head[4:8]!r} instead of {MAGIC!r}")
        return self._table(int.from_bytes(head[:4], "little"), table, 0)

    def _table(self, start: int, name: str, depth: int) -> Table:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"it has more than {MOST_TABLES} tables")
        if depth > _MOST_DEPTH:
            raise Malformed("its tables nest too deeply")
        if not self._left % 1000 and time.monotonic() > self._until:
            raise Malformed(f"reading it takes more than {_MOST_SECONDS:g} s")
        types = start - self._number(start, "i")
        size, length = self._number(types, "H"), self._number(types + 2, "H")
        if size < 4 or size % 2 or length < 4:
            raise Malformed(f"the table at byte {start} has no valid list of fields")
        offsets = struct.unpack(f"<{size // 2}H", self._read(types, size))[2:]
        content = self._read(start, length)
        fields: Table = {}
        for i, field in enumerate(self._schema[name]):
            if field is None:
                continue
            offset = offsets[i] if i < len(offsets) else 0
            if not offset:
                scalar = field.kind in _SCALARS and not field.vector
                fields[field.name] = field.default if scalar else None
                continue
            width = 4 if field.vector else _SIZES.get(field.kind, 4)
            if offset + width > length:
                raise Malformed(f"the field {field.name!r} of {name} ends behind its table")
            if field.kind in _SCALARS and not field.vector:
                fields[field.name] = struct.unpack_from(f"<{_SCALARS[field.kind]}", content, offset)[0]
                continue
            at = start + offset + struct.unpack_from("<I", content, offset)[0]
            fields[field.name] = self._behind(at, field, fields, depth)
        return fields

    def _behind(self, at: int, field: FieldType, fields: Table, depth: int) -> Any:
        """What an offset leads to."""
        if field.vector:
            return self._vector(at, field, depth)
        if field.kind == "str":
            return self._string(at)
        if field.kind == "union":
            member = self._unions[field.table].get(fields.get(f"{field.name}_type") or 0)
            return None if member is None else self._table(at, member, depth + 1)
        return self._table(at, field.table, depth + 1)

    def _vector(self, at: int, field: FieldType, depth: int) -> Any:
        count = self._number(at, "I")
        width = _SIZES.get(field.kind, 4)
        if at + 4 + count * width > self._source.size:
            self._ends_behind(at + 4 + count * width)
        if field.kind == "u8":
            return Span(at + 4, count)
        if count > (MOST_ELEMENTS if field.kind in _SCALARS else self._left):
            raise Malformed(f"the list {field.name!r} has {count} elements")
        content = self._read(at + 4, count * width)
        if field.kind in _SCALARS:
            return np.frombuffer(content, np.dtype(_SCALARS[field.kind]).newbyteorder("<"))
        places = [at + 4 + 4 * i + offset for i, offset in enumerate(struct.unpack(f"<{count}I", content))]
        if field.kind == "str":
            return [self._string(place) for place in places]
        return [self._table(place, field.table, depth + 1) for place in places]

    def _string(self, at: int) -> str:
        count = self._number(at, "I")
        if count > MOST_ELEMENTS:
            raise Malformed(f"it has a name of {count} bytes")
        content = self._read(at + 4, count)
        if b"\0" in content:  # other readers end there
            raise Malformed("it has a name with a zero in it")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Malformed("it has a name that is no UTF-8") from None

    def _number(self, at: int, code: str) -> int:
        number: int = struct.unpack(f"<{code}", self._read(at, struct.calcsize(code)))[0]
        return number

    def _read(self, at: int, count: int) -> bytes:
        if at < 0:
            raise Malformed(f"it has an offset to byte {at}")
        content = self._source.read(at, count)
        if len(content) < count:
            self._ends_behind(at + count)
        return content

    def _ends_behind(self, end: int) -> None:
        raise Truncated(f"{end} bytes are announced, {self._source.size} are there")
