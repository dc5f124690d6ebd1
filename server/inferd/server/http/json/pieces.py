"""Long JSON texts, read in pieces of a few tens of kilobytes.

A parser holds the interpreter from the first byte to the last, and the gRPC port would stand still for as long as a
million small objects take. So lists and objects that are long because they hold much, not because one thing in them is
long, are found first, by counting brackets outside of strings; their elements are parsed a few at a time.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson

from inferd.backends.api import Array

LONG: Final = 128 * 2**10  # bytes of text that are worth it
_CHUNK: Final = 64 * 2**10
_PIECE: Final = 4 * _CHUNK  # the longest that is parsed in one go, where the text can be cut
_REST: Final = 8 * 2**20  # the longest text that is left when everything that can be cut is out
_DEEPEST: Final = 12  # levels that are looked at
_OPEN: Final = np.zeros(256, np.int8)
_OPEN[list(b"[{")] = 1
_OPEN[list(b"]}")] = -1
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)


def parse(text: bytes) -> Any:
    """The value of a JSON text, with the tokens NaN, Infinity and -Infinity. Raises ValueError."""
    if len(text) < LONG:
        return _parse(text)
    found: dict[str, Any] = {}
    parts: list[bytes] = []
    done = 0
    for region in sorted(_regions(text), key=lambda region: region.start):
        if region.start < done or not region.fits:
            continue
        name = f"\0{secrets.token_hex(16)}"
        found[name] = _read(text, region)
        parts += [text[done : region.start], b'"\\u0000', name[1:].encode(), b'"']
        done = region.end
    rest = b"".join((*parts, text[done:]))
    if len(rest) > _REST:
        raise ValueError(f"more than {_REST} bytes lie deeper than {_DEEPEST} levels of lists and objects")
    value = _parse(rest)
    if isinstance(value, str):
        return found.get(value, value)
    _place(value, found)
    return value


@dataclass(slots=True)
class _Region:
    """A list or object from its bracket to behind the other. `cuts`: commas between elements, about one per chunk."""

    start: int
    end: int = 0
    cuts: list[int] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether it is long, and can be read in pieces."""
        edges = (self.start, *self.cuts, self.end)
        return self.end - self.start >= LONG and max(b - a for a, b in pairwise(edges)) <= _PIECE


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        # Only what has the tokens goes the slow way, or every broken text would be read twice.
        if b"NaN" not in text and b"Infinity" not in text:
            raise
    try:
        value = json.loads(text.decode())
        if _SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()  # half a pair is no character, and cannot be sent back
        return value
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _read(text: bytes, region: _Region) -> Any:
    opening, closing = text[region.start : region.start + 1], text[region.end - 1 : region.end]
    whole: Any = [] if opening == b"[" else {}
    add = whole.extend if opening == b"[" else whole.update
    at = region.start + 1
    for stop in (*region.cuts, region.end - 1):
        piece = text[at:stop]
        if region.cuts and not piece.strip():
            raise ValueError(f"expected a value beside the comma at byte {stop}")
        add(_parse(b"".join((opening, piece, closing))))
        at = stop + 1
        time.sleep(0)
    return whole


def _place(value: Any, found: dict[str, Any]) -> None:
    """Puts what was read apart where its name is. What was read apart holds no names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str):
            if item[:1] == "\0" and item in found:
                value[key] = found[item]
        else:
            _place(item, found)


def _regions(text: bytes) -> list[_Region]:
    """Every list and object that reaches from one chunk of the text into another. Raises ValueError for a text that
    ends within one."""
    found: list[_Region] = []
    under_way: dict[int, _Region] = {}  # by level
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
        inside = (np.cumsum(chars == ord('"'), dtype=np.uint8) + np.uint8(quoted)) & 1
        quoted = int(inside[-1])
        turns = _OPEN[chars]
        turns[inside == 1] = 0
        where = np.flatnonzero((turns != 0) | ((chars == ord(",")) & (inside == 0)))
        turns = turns[where]
        depths = depth + np.cumsum(turns, dtype=np.int64)
        if len(depths):
            depth = int(depths[-1])
            _follow(place + where, turns, depths, under_way, found)
        time.sleep(0)
    if depth or quoted:
        raise ValueError("unexpected end of data")
    return found


def _follow(where: Array, turns: Array, depths: Array, under_way: dict[int, _Region], found: list[_Region]) -> None:
    """One chunk: its brackets and commas by place, what each adds to the depth, and the depth behind it."""
    deepest = min(_DEEPEST, int(depths.max()) + 1)
    for level in range(1, deepest + 1):
        closes = where[(turns == -1) & (depths == level - 1)]
        commas = where[(turns == 0) & (depths == level)]
        region = under_way.get(level)
        if region is not None:
            end = int(closes[0]) if len(closes) else None
            _cut(region, commas if end is None else commas[commas < end])
            if end is None:
                continue
            region.end = end + 1
            found.append(under_way.pop(level))
        opens = where[(turns == 1) & (depths == level)]
        if len(opens) and (not len(closes) or opens[-1] > closes[-1]):
            region = under_way[level] = _Region(int(opens[-1]))
            _cut(region, commas[commas > opens[-1]])


def _cut(region: _Region, commas: Array) -> None:
    if len(commas):
        region.cuts.append(int(commas[-1]))
