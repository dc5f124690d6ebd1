"""JSON values to arrays of an element type that is known. What does not fit is an error, never a silent change.

numbers   whole numbers stay whole and must be within range; strings and null are no numbers
strings   text becomes UTF-8; TensorFlow Serving's {"b64": ...} stands for any bytes
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.numbers import Numbers
from inferd.server.http.json.text import fragment
from inferd.wire.dtypes import DType

_DEEPEST: Final = 32
_SLICE: Final = 4096  # elements of a list that are read at a time
_FEW: Final = 16
_RAGGED: Final = "expected lists of one length on each level, got ragged ones"
_WORDS: Final = {"b": "true or false", "u": "whole numbers", "i": "whole numbers", "f": "numbers", "V": "numbers"}
_TYPES: Final[dict[str, set[type]]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}, "V": {int, float}}

Text = Callable[[Any, str], bytes]


def array_of(value: Any, dtype: DType, where: str, text: Text | None = None) -> Array:
    """An array with the shape of the nesting. `where` names the tensor in errors; `text` makes bytes of one element,
    by default of strings only. A long list is emptied on the way. Raises InvalidRequest."""
    if isinstance(value, Numbers):
        return _narrow(value.array, dtype, where)
    if isinstance(value, list) and (len(value) > _SLICE or _holds_long(value)):
        return _in_slices(value, dtype, where, text)
    shape, items = _flat(value, where)
    if dtype is DType.STRING:
        make = text or utf8
        found = np.empty(len(items), object)
        found[:] = [make(item, where) for item in items]
        return found.reshape(shape)
    return _numbers(items, dtype, where).reshape(shape)


def _holds_long(value: list[Any]) -> bool:
    return len(value) <= _FEW and any(isinstance(item, list) and len(item) > _SLICE for item in value)


def _in_slices(value: list[Any], dtype: DType, where: str, text: Text | None) -> Array:
    """A few thousand elements at a time: the interpreter is given away in between, and what was read is freed, which
    would hold it just as long at the end."""
    long = len(value) > _SLICE
    parts: list[Array] = []
    for start in range(0, len(value), _SLICE if long else 1):
        stop = min(len(value), start + _SLICE) if long else start + 1
        parts.append(array_of(value[start:stop] if long else value[start], dtype, where, text))
        value[start:stop] = [None] * (stop - start)
        time.sleep(0)
    if len({part.shape[long:] for part in parts}) != 1:
        raise InvalidRequest(f"{where}: {_RAGGED}")
    return np.concatenate(parts) if long else np.stack(parts)


def _flat(value: Any, where: str) -> tuple[list[int], list[Any]]:
    """Shape and elements of nested lists, level by level and never element by element."""
    shape: list[int] = []
    items = [value]
    while items and isinstance(items[0], list):
        lengths = set(map(len, items)) if set(map(type, items)) == {list} else {0, 1}
        if len(lengths) != 1:
            raise InvalidRequest(f"{where}: {_RAGGED}")
        shape.append(lengths.pop())
        if len(shape) > _DEEPEST:
            raise InvalidRequest(f"{where}: expected at most {_DEEPEST} levels of lists")
        items = list(chain.from_iterable(items))
    return shape, items


def _wanted(dtype: DType, where: str) -> np.dtype[Any]:
    try:
        return dtype.numpy
    except ImportError as error:
        raise InvalidRequest(f"{where}: {error}") from None


def _check_range(low: int, high: int, wanted: np.dtype[Any], dtype: DType, where: str) -> None:
    limits = np.iinfo(wanted)
    if low < limits.min or high > limits.max:
        wrong = low if low < limits.min else high
        raise InvalidRequest(f"{where}: {wrong} is out of the range of {dtype.name}")


def _numbers(items: list[Any], dtype: DType, where: str) -> Array:
    wanted = _wanted(dtype, where)
    kind = wanted.kind
    if not set(map(type, items)) <= _TYPES[kind]:
        odd = next(item for item in items if type(item) not in _TYPES[kind])
        raise InvalidRequest(f"{where}: expected {_WORDS[kind]} for {dtype.name}, got {_shown(odd)}")
    if kind in "iu" and items:
        _check_range(min(items), max(items), wanted, dtype, where)
    try:
        with np.errstate(over="ignore"):  # past the largest number lies infinity, as for every float
            return np.array(items, wanted)
    except OverflowError:
        raise InvalidRequest(f"{where}: a number is out of the range of {dtype.name}") from None


def _narrow(found: Array, dtype: DType, where: str) -> Array:
    wanted = _wanted(dtype, where)
    kind = wanted.kind
    if dtype is DType.STRING or kind == "b" or (kind in "iu" and found.dtype.kind != "i"):
        words = "strings" if dtype is DType.STRING else _WORDS[kind]
        raise InvalidRequest(f"{where}: expected {words} for {dtype.oip_name}, got {found.dtype.type(found.flat[0])!s}")
    if kind in "iu":
        _check_range(int(found.min()), int(found.max()), wanted, dtype, where)
    with np.errstate(over="ignore"):
        return found.astype(wanted)


def _shown(item: Any) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    names = {dict: "an object", list: "a list where others are none", type(None): "null"}
    return names.get(type(item)) or f"{item!r:.60}"


def utf8(item: Any, where: str) -> bytes:
    """A string's bytes. Raises InvalidRequest for anything else."""
    if not isinstance(item, str):
        raise InvalidRequest(f"{where}: expected strings, got {_shown(item)}")
    try:
        return item.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{where}: a string cannot be written as UTF-8: {error.reason}") from None


def b64_or_utf8(item: Any, where: str) -> bytes:
    """A string's bytes, or those that {"b64": ...} stands for. Raises InvalidRequest."""
    if not isinstance(item, dict):
        return utf8(item, where)
    if not is_b64(item):
        raise InvalidRequest(f'{where}: expected a string or {{"b64": "..."}}, got another object')
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}: Unable to base64 decode {item['b64']!r:.60}") from None


def is_b64(item: Any) -> bool:
    """Whether an object stands for bytes."""
    return isinstance(item, dict) and len(item) == 1 and isinstance(item.get("b64"), str)


def strings_of(array: Array, element: Callable[[bytes], Any]) -> Any:
    """An array of strings as nested lists; `element` makes the JSON value of one."""

    def nested(part: Any) -> Any:
        if isinstance(part, list):
            return [nested(item) for item in part]
        return element(part if isinstance(part, bytes) else str(part).encode(errors="replace"))

    return nested(array.tolist())


def b64(item: bytes) -> dict[str, str]:
    """Bytes as TensorFlow Serving writes them."""
    return {"b64": base64.b64encode(item).decode("ascii")}


def text_or_b64(item: bytes) -> str | dict[str, str]:
    """Text where the bytes are UTF-8, else base64: nothing is lost."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return b64(item)


def value_of(array: Array, element: Callable[[bytes], Any]) -> Any:
    """An array as a value for `json_text.dumps`."""
    return strings_of(array, element) if array.dtype.kind in "OSU" else fragment(array)
