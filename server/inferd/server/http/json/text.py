"""JSON values to bytes and back: strict, and with the tokens NaN, Infinity and -Infinity in both directions.

No function here holds the interpreter for long. Large arrays are written in pieces, and the threads of the gRPC port
can run between two pieces.
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
    """The value of a JSON text. In a long text, long lists of numbers may become `Numbers`. Raises InvalidRequest."""
    if len(text) >= LONG:
        try:
            return loads_long(text)
        except ValueError:
            pass  # no long lists of numbers, or not JSON: `parse` decides, and words the error
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from None


def dumps(value: Any) -> bytes:
    """A JSON text. Arrays in `value` must be passed through `fragment` first. Raises TypeError for values that JSON
    cannot represent."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def fragment(array: Array) -> orjson.Fragment:
    """An array of numbers or booleans, as a value for `dumps`: nested JSON lists."""
    return orjson.Fragment(array_text(array))


def number(value: float) -> Any:
    """A number as a value for `dumps`: NaN and the infinities become their tokens."""
    return value if math.isfinite(value) else orjson.Fragment(_token(value))


def array_text(array: Array) -> bytes:
    """An array of numbers or booleans as the text of nested JSON lists. FP32 and FP64 are written with the fewest
    digits that read back as the same number; BF16 is written as FP32."""
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":
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


def row_texts(rows: Array) -> list[bytes]:
    """The text of each row of an array with two axes, both longer than 0, as `array_text` writes it but without its
    brackets. One call for many rows is several times as fast."""
    texts: list[bytes] = []
    step = max(1, _PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        texts += array_text(rows[start : start + step])[2:-2].split(b"],[")
    return texts


def _piece(array: Array) -> bytes:
    text: bytes = orjson.dumps(array, option=_NUMPY)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return text
    # orjson writes exactly the non-finite numbers as null: each null is replaced by the token of its number.
    not_finite = array[~np.isfinite(array)].ravel()
    tokens = [_token(value) for value in not_finite]
    parts = text.split(b"null")
    interleaved = [part for pair in zip(parts, tokens, strict=False) for part in pair]
    return b"".join((*interleaved, parts[-1]))


def _token(value: float) -> bytes:
    return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
