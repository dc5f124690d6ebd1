"""Long lists of numbers in a JSON text, read in pieces.

A parser holds the interpreter from the first byte to the last, and the gRPC port would stand still for the time that
tens of megabytes take. So lists of nothing but numbers are taken out of a long text first and read piece by piece, with
the interpreter given away in between; what is left of the text is short. Anything that is not as expected is left to
the parser, which then says what is wrong.
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

_BLOCK: Final = 32 * 2**10
_NUMERIC: Final = b"0123456789+-.eE,[] \t\r\n"
_NOT_STRUCTURE: Final = b"0123456789+-.eE \t\r\n"
_SPACE: Final = b" \t\r\n"
_NO_BRACKETS: Final = bytes.maketrans(b"[]", b"  ")
_DEEPEST: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Nested lists of numbers as an array of INT64, where all are whole, or FP64."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)


class _Unfit(Exception):
    """Not a list that is read here."""


def loads_long(text: bytes) -> Any:
    """The value of a JSON text, in which long lists of numbers that are values of objects are `Numbers`. Raises
    ValueError, for what this does not read too."""
    lists: dict[str, Numbers] = {}
    parts: list[bytes] = []
    done = 0
    for start, end in _runs(text):
        try:
            found = Numbers(_array(text, start, end))
        except (_Unfit, ValueError):
            continue
        # Ends any string that it might stand in, and makes it no JSON: the parser would notice.
        name = f"\0{secrets.token_hex(16)}"
        lists[name] = found
        parts += [text[done:start], b'"\\u0000', name[1:].encode(), b'"']
        done = end
    if not lists:
        raise ValueError("no long lists of numbers")
    value = parse(b"".join((*parts, text[done:])))
    _place(value, lists)
    return value


def _place(value: Any, lists: dict[str, Numbers]) -> None:
    """Puts the lists where their names are: only ever in objects."""
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
    """Parts of the text that may be long lists of numbers and that follow a colon: from "[" to behind "]"."""
    found: list[tuple[int, int]] = []
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
            found.append((opening, closing))
    return found


def _array(text: bytes, start: int, end: int) -> Array:
    """The list at these places. Raises _Unfit, ValueError."""
    shape = _shape(_structure(text, start, end))
    pieces: list[Array] = []
    place = start
    while place < end:
        comma = text.find(b",", place + _BLOCK, end)
        stop = end if comma < 0 else comma
        values = orjson.loads(b"".join((b"[", text[place:stop].translate(_NO_BRACKETS), b"]")))
        piece = np.array(values)
        whole = piece.dtype == np.int64
        if not whole and (piece.dtype != np.float64 or set(map(type, values)) == {int}):
            raise _Unfit  # whole numbers past 63 bits
        pieces.append(piece)
        place = stop + 1
        time.sleep(0)
    return np.concatenate(pieces).reshape(shape)


def _structure(text: bytes, start: int, end: int) -> bytes:
    """Brackets and commas only."""
    parts: list[bytes] = []
    for place in range(start, end, _BLOCK):
        parts.append(text[place : min(end, place + _BLOCK)].translate(None, _NOT_STRUCTURE))
        time.sleep(0)
    return b"".join(parts)


def _shape(structure: bytes) -> list[int]:
    """The shape that brackets and commas have, if all lists of a level are of one length. Raises _Unfit."""
    rank = len(structure) - len(structure.lstrip(b"["))
    if not 1 <= rank <= _DEEPEST:
        raise _Unfit
    shape: list[int] = []
    inner, width = b"", 0  # what stands for an element of the level, and its length
    for depth in range(1, rank + 1):
        close = structure.find(b"]" * depth)
        length = close + depth - (rank - depth)  # of the first list of this level
        count, odd = divmod(length - 1, width + 1)
        if close < 0 or odd or count < 1:
            raise _Unfit
        inner = b"".join((b"[", (inner + b",") * (count - 1), inner, b"]"))
        width = len(inner)
        shape.insert(0, count)
    if inner != structure:
        raise _Unfit
    return shape
