"""JSON as bytes: strict and fast where it can be, with the tokens NaN, Infinity and -Infinity in both directions.

No call here holds the interpreter for long when arrays are large: they are written in pieces, between which the threads
of the gRPC port get their turn.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final

import numpy as np
import orjson

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.numbers import loads_long
from inferd.server.http.json.pieces import LONG, parse

_PIECE: Final = 16384  # elements written at a time
_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


def loads(text: bytes) -> Any:
    """The value of a JSON text; in long ones, long lists of numbers are `Numbers`. Raises InvalidRequest."""
    if len(text) >= LONG:
        try:
            return loads_long(text)
        except ValueError:
            pass  # what is wrong, if anything, is said below
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from None


def dumps(value: Any) -> bytes:
    """A JSON text. `value` holds no arrays but as `fragment`s. Raises TypeError for what JSON cannot say."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def fragment(array: Array) -> orjson.Fragment:
    """An array of numbers or truth values as nested JSON lists."""
    return orjson.Fragment(array_text(array))


def number(value: float) -> Any:
    """A number as a value for `dumps`: what is not finite becomes its token."""
    return value if math.isfinite(value) else orjson.Fragment(_token(value))


def array_text(array: Array) -> bytes:
    """The same as text. FP32 and FP64 are written with as few digits as tell them apart; BF16 as FP32."""
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 0:
        return array_text(array.reshape(1))[1:-1]
    array = np.ascontiguousarray(array)
    if array.size <= _PIECE or array.shape[0] == 1:
        return _piece(array)
    rows = max(1, _PIECE * len(array) // array.size)
    pieces: list[bytes] = []
    for start in range(0, len(array), rows):
        pieces.append(_piece(array[start : start + rows])[1:-1])
        time.sleep(0)
    return b"".join((b"[", b",".join(pieces), b"]"))


def _piece(array: Array) -> bytes:
    text: bytes = orjson.dumps(array, option=_NUMPY)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return text
    # What is not finite is written as null, and nothing else is.
    odd = array[~np.isfinite(array)].ravel()
    tokens = [_token(value) for value in odd]
    parts = text.split(b"null")
    woven = [part for pair in zip(parts, tokens, strict=False) for part in pair]
    return b"".join((*woven, parts[-1]))


def _token(value: float) -> bytes:
    return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
