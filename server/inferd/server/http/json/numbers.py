"""Long lists of numbers in a JSON text, parsed in pieces.

A JSON parser holds the interpreter lock for the whole text, and the gRPC port would not answer while tens of megabytes
are parsed. `loads_long` therefore finds the long lists that hold nothing but numbers, parses them piece by piece,
releasing the lock in between, and parses the rest of the text, which is short, with a placeholder for each list. A list
that this module does not understand stays in the text, and the parser reports what is wrong with it.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from inferd.backends.api import Array
from inferd.server.http.json.pieces import parse

_BLOCK: Final = 32 * 2**10  # bytes of text processed between two releases of the interpreter lock
_NUMERIC: Final = b"0123456789+-.eE,[] \t\r\n"
_NOT_STRUCTURE: Final = b"0123456789+-.eE \t\r\n"
_SPACE: Final = b" \t\r\n"
_NO_BRACKETS: Final = bytes.maketrans(b"[]", b"  ")
_DEEPEST: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Nested lists of numbers, as an array: INT64 if all are integers, else FP64."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)


class _NotParsedHere(Exception):
    """This module cannot parse the list; the JSON parser must."""


def loads_long(text: bytes) -> Any:
    """The value of a JSON text. Long lists of numbers that are values of objects become `Numbers`. Raises ValueError
    for a text that is not JSON, and for one without such lists."""
    lists: dict[str, Numbers] = {}
    parts: list[bytes] = []
    done = 0
    for start, end in _runs(text):
        try:
            numbers = Numbers(_array(text, start, end))
        except (_NotParsedHere, ValueError):
            continue
        # The placeholder is a string with its quotes. If the list stands inside a string of the text, the quotes end
        # that string and the text is no longer JSON, which the parser reports.
        name = f"\0{secrets.token_hex(16)}"
        lists[name] = numbers
        parts += [text[done:start], b'"\\u0000', name[1:].encode(), b'"']
        done = end
    if not lists:
        raise ValueError("no long lists of numbers")
    value = parse(b"".join((*parts, text[done:])))
    _place(value, lists)
    return value


def _place(value: Any, lists: dict[str, Numbers]) -> None:
    """Replaces the placeholders in `value` by their lists. Placeholders are only ever values of objects."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str):
                if item[:1] == "\0" and item in lists:
                    value[key] = lists[item]
            else:
                _place(item, lists)
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        for item in value:
            _place(item, lists)


def _runs(text: bytes) -> list[tuple[int, int]]:
    """Start and end of the parts of the text that follow a colon and may be long lists of numbers: from "[" to just
    after "]"."""
    runs: list[tuple[int, int]] = []
    place, size = 0, len(text)
    while place < size:
        if text[place : place + _BLOCK].translate(None, _NUMERIC):
            place += _BLOCK
            continue
        before = text[max(0, place - _BLOCK) : place]
        start = place - len(before) + len(before.rstrip(_NUMERIC))
        place += _BLOCK
        while place < size and not text[place : place + _BLOCK].translate(None, _NUMERIC):
            place += _BLOCK
            time.sleep(0)
        after = text[place : place + _BLOCK]
        end = min(size, place) + len(after) - len(after.lstrip(_NUMERIC))
        opening = text.find(b"[", start, end)
        closing = text.rfind(b"]", start, end) + 1
        if text[start - 1 : start] == b":" and opening >= 0 and not text[start:opening].strip(_SPACE):
            runs.append((opening, closing))
    return runs


def _array(text: bytes, start: int, end: int) -> Array:
    """The list that is `text[start:end]`. Raises _NotParsedHere, ValueError."""
    shape = _shape(_structure(text, start, end))
    pieces: list[Array] = []
    place = start
    while place < end:
        comma = text.find(b",", place + _BLOCK, end)
        stop = end if comma < 0 else comma
        values = orjson.loads(b"".join((b"[", text[place:stop].translate(_NO_BRACKETS), b"]")))
        piece = np.array(values)
        integers = piece.dtype == np.int64
        if not integers and (piece.dtype != np.float64 or set(map(type, values)) == {int}):
            raise _NotParsedHere  # integers that do not fit INT64
        pieces.append(piece)
        place = stop + 1
        time.sleep(0)
    return np.concatenate(pieces).reshape(shape)


def _structure(text: bytes, start: int, end: int) -> bytes:
    """The brackets and commas of `text[start:end]`."""
    parts: list[bytes] = []
    for place in range(start, end, _BLOCK):
        parts.append(text[place : min(end, place + _BLOCK)].translate(None, _NOT_STRUCTURE))
        time.sleep(0)
    return b"".join(parts)


def _shape(structure: bytes) -> list[int]:
    """The shape of nested lists, from their brackets and commas. Raises _NotParsedHere for ragged, empty or deeply
    nested lists."""
    rank = len(structure) - len(structure.lstrip(b"["))
    if not 1 <= rank <= _DEEPEST:
        raise _NotParsedHere
    shape: list[int] = []
    inner, width = b"", 0  # the structure of one element of the level, and its length
    for depth in range(1, rank + 1):
        close = structure.find(b"]" * depth)
        length = close + depth - (rank - depth)  # of the first list of this level
        count, odd = divmod(length - 1, width + 1)
        if close < 0 or odd or count < 1:
            raise _NotParsedHere
        inner = b"".join((b"[", (inner + b",") * (count - 1), inner, b"]"))
        width = len(inner)
        shape.insert(0, count)
    if inner != structure:
        raise _NotParsedHere
    return shape
