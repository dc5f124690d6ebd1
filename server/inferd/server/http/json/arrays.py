"""JSON values to arrays of a known element type. A value that does not fit is an error; nothing is converted silently.

numbers   integers must be integers; every number must be within the range of the type; strings and null are no numbers
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
from inferd.wire.numbers import narrowed, out_of_range
from inferd.wire.tensors import TensorError

_DEEPEST: Final = 32
_SLICE: Final = 4096  # elements of a list that are converted at a time
_FEW: Final = 16  # the longest outer list that is searched for long inner ones
_RAGGED: Final = "expected lists of one length on each level, got ragged ones"
_WORDS: Final = {"b": "true or false", "u": "whole numbers", "i": "whole numbers", "f": "numbers", "V": "numbers"}
_TYPES: Final[dict[str, set[type]]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}, "V": {int, float}}

Text = Callable[[Any, str], bytes]


def array_of(value: Any, dtype: DType, where: str, text: Text | None = None) -> Array:
    """An array whose shape is the nesting of `value`. `where` names the tensor in errors. `text` converts one element
    of a string tensor to bytes; by default it takes strings only. Empties a long list while converting it, to free its
    memory early. Raises InvalidRequest."""
    if isinstance(value, Numbers):
        return _narrow(value.array, dtype, where)
    if isinstance(value, list) and (len(value) > _SLICE or _holds_long(value)):
        return _in_slices(value, dtype, where, text)
    shape, items = _flat(value, where)
    if dtype is DType.STRING:
        to_bytes = text or utf8
        array = np.empty(len(items), object)
        array[:] = [to_bytes(item, where) for item in items]
        return array.reshape(shape)
    return _numbers(items, dtype, where).reshape(shape)


def _holds_long(value: list[Any]) -> bool:
    return len(value) <= _FEW and any(isinstance(item, list) and len(item) > _SLICE for item in value)


def _in_slices(value: list[Any], dtype: DType, where: str, text: Text | None) -> Array:
    """Converts a few thousand elements at a time and releases the interpreter lock in between. Each converted part is
    freed at once: freeing the whole list at the end would hold the lock as long as converting it."""
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
    """Shape and elements of nested lists. Works level by level, because a loop over elements would be slow. A list
    that begins with no list is flat: whoever converts its elements finds a list among them."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return [len(value)], value
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


def _numbers(items: list[Any], dtype: DType, where: str) -> Array:
    wanted = _wanted(dtype, where)
    kind = wanted.kind
    if not set(map(type, items)) <= _TYPES[kind]:
        wrong = next(item for item in items if type(item) not in _TYPES[kind])
        raise InvalidRequest(f"{where}: expected {_WORDS[kind]} for {dtype.name}, got {_described(wrong)}")
    if kind in "iu" and items:
        limits = np.iinfo(wanted)
        low, high = min(items), max(items)
        if low < limits.min or high > limits.max:
            raise InvalidRequest(str(out_of_range(low if low < limits.min else high, dtype, where)))
    if kind in "biu":
        return np.array(items, wanted)
    try:
        return _fitted(np.array(items, np.float64), dtype, where)
    except OverflowError:  # a whole number beyond FP64
        raise InvalidRequest(str(out_of_range(max(items, key=abs), dtype, where))) from None


def _fitted(wide: Array, dtype: DType, where: str) -> Array:
    try:
        return narrowed(wide, dtype, where)
    except TensorError as error:
        raise InvalidRequest(str(error)) from None


def _narrow(array: Array, dtype: DType, where: str) -> Array:
    """An INT64 or FP64 array from `Numbers`, as `dtype`."""
    wanted = _wanted(dtype, where)
    kind = wanted.kind
    if dtype is DType.STRING or kind == "b" or (kind in "iu" and array.dtype.kind != "i"):
        words = "strings" if dtype is DType.STRING else _WORDS[kind]
        raise InvalidRequest(f"{where}: expected {words} for {dtype.oip_name}, got {array.dtype.type(array.flat[0])!s}")
    return _fitted(array, dtype, where)


def _described(item: Any) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    names = {dict: "an object", list: "a list where others are none", type(None): "null"}
    return names.get(type(item)) or f"{item!r:.60}"


def utf8(item: Any, where: str) -> bytes:
    """The UTF-8 bytes of a string. Raises InvalidRequest for anything else."""
    if not isinstance(item, str):
        raise InvalidRequest(f"{where}: expected strings, got {_described(item)}")
    try:
        return item.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{where}: a string cannot be written as UTF-8: {error.reason}") from None


def b64_or_utf8(item: Any, where: str) -> bytes:
    """The UTF-8 bytes of a string, or the bytes of {"b64": ...}. Raises InvalidRequest."""
    if not isinstance(item, dict):
        return utf8(item, where)
    if not is_b64(item):
        raise InvalidRequest(f'{where}: expected a string or {{"b64": "..."}}, got another object')
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}: Unable to base64 decode {item['b64']!r:.60}") from None


def is_b64(item: Any) -> bool:
    """Whether a JSON value is TensorFlow Serving's object for bytes, {"b64": ...}."""
    return isinstance(item, dict) and len(item) == 1 and isinstance(item.get("b64"), str)


def strings_of(array: Array, element: Callable[[bytes], Any]) -> Any:
    """An array of strings as nested lists; `element` converts the bytes of one string to a JSON value."""

    def nested(part: Any) -> Any:
        if isinstance(part, list):
            return [nested(item) for item in part]
        return element(part if isinstance(part, bytes) else str(part).encode(errors="replace"))

    return nested(array.tolist())


def b64(item: bytes) -> dict[str, str]:
    """Bytes as TensorFlow Serving's object {"b64": ...}."""
    return {"b64": base64.b64encode(item).decode("ascii")}


def text_or_b64(item: bytes) -> str | dict[str, str]:
    """The text if the bytes are UTF-8, else {"b64": ...}. No byte is lost."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return b64(item)


def value_of(array: Array, element: Callable[[bytes], Any]) -> Any:
    """An array of any element type as a value for `text.dumps`; `element` as for `strings_of`."""
    return strings_of(array, element) if array.dtype.kind in "OSU" else fragment(array)
