"""Long JSON texts, parsed in pieces of a few tens of kilobytes.

A JSON parser holds the interpreter lock for the whole text, and the gRPC port would not answer while a million small
objects are parsed. `parse` therefore finds the lists and objects that are long because they have many elements (not
because one element is long), by counting brackets outside of strings. It parses their elements a few at a time and
releases the lock in between. In the rest of the text, a placeholder stands for each of them.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson

from inferd.backends.api import Array

LONG: Final = 128 * 2**10  # bytes; shorter texts are parsed at once
_CHUNK: Final = 64 * 2**10  # bytes scanned for brackets at a time
_PIECE: Final = 4 * _CHUNK  # the most bytes parsed at a time, where the text can be cut
_REST: Final = 8 * 2**20  # the most bytes of text that may remain besides the pieces
_DEEPEST: Final = 12  # levels of nesting that are searched for long lists and objects
_OPEN: Final = np.zeros(256, np.int8)
_OPEN[list(b"[{")] = 1
_OPEN[list(b"]}")] = -1
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)


def parse(text: bytes) -> Any:
    """The value of a JSON text, which may have the tokens NaN, Infinity and -Infinity. Raises ValueError."""
    if len(text) < LONG:
        return _parse(text)
    values: dict[str, Any] = {}  # parsed in pieces, by placeholder
    parts: list[bytes] = []
    done = 0
    for region in sorted(_regions(text), key=lambda region: region.start):
        if region.start < done or not region.divisible:
            continue
        name = f"\0{secrets.token_hex(16)}"
        values[name] = _parse_region(text, region)
        parts += [text[done : region.start], b'"\\u0000', name[1:].encode(), b'"']
        done = region.end
    rest = b"".join((*parts, text[done:]))
    if len(rest) > _REST:
        raise ValueError(f"more than {_REST} bytes lie deeper than {_DEEPEST} levels of lists and objects")
    value = _parse(rest)
    if isinstance(value, str):
        return values.get(value, value)
    _place(value, values)
    return value


@dataclass(slots=True)
class _Region:
    """A list or object: `start` is at its opening bracket, `end` just after its closing one. `cuts` are positions of
    commas between elements, about one for each chunk."""

    start: int
    end: int = 0
    cuts: list[int] = field(default_factory=list)

    @property
    def divisible(self) -> bool:
        """Whether the region is long and can be parsed in pieces."""
        edges = (self.start, *self.cuts, self.end)
        return self.end - self.start >= LONG and max(b - a for a, b in pairwise(edges)) <= _PIECE


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        # Only a text with these tokens is given to the slow parser: else every broken text would be parsed twice.
        if b"NaN" not in text and b"Infinity" not in text:
            raise
    try:
        value = json.loads(text.decode(), parse_float=_finite)
        if _SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair, which is no character
        return value
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _finite(text: str) -> float:
    """A number, which is infinity only where the text says so: 1e400 is refused, as orjson refuses it."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number is infinity when parsed as double: {text[:20]}")
    return value


def _parse_region(text: bytes, region: _Region) -> Any:
    opening, closing = text[region.start : region.start + 1], text[region.end - 1 : region.end]
    value: Any = [] if opening == b"[" else {}
    add = value.extend if opening == b"[" else value.update
    at = region.start + 1
    for stop in (*region.cuts, region.end - 1):
        piece = text[at:stop]
        if region.cuts and not piece.strip():
            raise ValueError(f"expected a value beside the comma at byte {stop}")
        add(_parse(b"".join((opening, piece, closing))))
        at = stop + 1
        time.sleep(0)
    return value


def _place(value: Any, values: dict[str, Any]) -> None:
    """Replaces the placeholders in `value` by their `values`, which hold no placeholders themselves."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str):
            if item[:1] == "\0" and item in values:
                value[key] = values[item]
        else:
            _place(item, values)


def _regions(text: bytes) -> list[_Region]:
    """Every list and object that spans more than one chunk of the text. Raises ValueError for a text that ends inside
    a list, object or string."""
    closed: list[_Region] = []
    open_regions: dict[int, _Region] = {}  # by level of nesting
    depth = quoted = 0
    escaped = False
    for place in range(0, len(text), _CHUNK):
        raw = text[place : place + _CHUNK]
        if escaped:
            raw = b"_" + raw[1:]
        if b"\\" in raw:
            raw = _ESCAPE.sub(b"__", raw)
        escaped = raw.endswith(b"\\")
        chars = np.frombuffer(raw, np.uint8)
        in_string = (np.cumsum(chars == ord('"'), dtype=np.uint8) + np.uint8(quoted)) & 1
        quoted = int(in_string[-1])
        steps = _OPEN[chars]
        steps[in_string == 1] = 0
        where = np.flatnonzero((steps != 0) | ((chars == ord(",")) & (in_string == 0)))
        steps = steps[where]
        depths = depth + np.cumsum(steps, dtype=np.int64)
        if len(depths):
            depth = int(depths[-1])
            _follow(place + where, steps, depths, open_regions, closed)
        time.sleep(0)
    if depth or quoted:
        raise ValueError("unexpected end of data")
    return closed


def _follow(where: Array, steps: Array, depths: Array, open_regions: dict[int, _Region], closed: list[_Region]) -> None:
    """Extends, closes and opens regions by one chunk. The arrays have one element for each bracket and comma: its
    position, what it adds to the depth, and the depth after it."""
    deepest = min(_DEEPEST, int(depths.max()) + 1)
    for level in range(1, deepest + 1):
        closes = where[(steps == -1) & (depths == level - 1)]
        commas = where[(steps == 0) & (depths == level)]
        region = open_regions.get(level)
        if region is not None:
            end = int(closes[0]) if len(closes) else None
            _cut(region, commas if end is None else commas[commas < end])
            if end is None:
                continue
            region.end = end + 1
            closed.append(open_regions.pop(level))
        opens = where[(steps == 1) & (depths == level)]
        if len(opens) and (not len(closes) or opens[-1] > closes[-1]):
            region = open_regions[level] = _Region(int(opens[-1]))
            _cut(region, commas[commas > opens[-1]])


def _cut(region: _Region, commas: Array) -> None:
    if len(commas):
        region.cuts.append(int(commas[-1]))
