"""Encodes TensorFlow Serving's PredictResponse: cached heads and the arrays' own bytes, joined once.

Values are written into the typed fields, as TensorFlow Serving does by default: many clients read `float_val` directly.
Packed float, double and bool values are the array's own bytes. `content=True` writes tensor_content instead, as
TensorFlow Serving's flag --enable_serialization_as_tensor_content does. All functions are thread-safe; the caches are
bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from inferd.wire.dtypes import DType
from inferd.wire.reader import field, varint
from inferd.wire.tensors import Array, Buffer, TensorError, encodable_dtype, parts_of, raw, shares_of
from inferd.wire.tfs.dtypes import FIELD, NUMBER
from inferd.wire.varints import packed_varints

_CACHED = 1024
_CONTENT = b"\x22"
_TAGS = {
    "float_val": b"\x2a",
    "double_val": b"\x32",
    "int_val": b"\x3a",
    "int64_val": b"\x52",
    "bool_val": b"\x5a",
    "half_val": b"\x6a",
    "uint32_val": b"\x82\x01",
    "uint64_val": b"\x8a\x01",
}
_RAW = (DType.FP32, DType.FP64, DType.BOOL)  # their packed fields equal the array's bytes


def encode_response(
    model_name: str, version: int, signature: str, outputs: Mapping[str, Array], *, content: bool = False
) -> bytes:
    """An encoded PredictResponse. Raises WireError for values that cannot be sent."""
    parts: list[Buffer] = []
    for name, array in outputs.items():
        dtype = encodable_dtype(name, array)
        data: Buffer
        if dtype is DType.STRING:
            tag, data = b"", _strings(name, array)
        elif content:
            tag, data = _CONTENT, raw(name, array, dtype)
        else:
            tag, data = _TAGS[FIELD[dtype]], _typed(name, array, dtype)
        parts.append(_entry(name, dtype, array.shape, tag, len(data)))
        parts.append(data)
    parts.append(_spec(model_name, version, signature))
    return b"".join(parts)


def encode_responses(
    model_name: str, version: int, signature: str, outputs: Mapping[str, Array], rows: int, count: int
) -> list[bytes]:
    """Encoded PredictResponses of `count` requests that ran in one batch. `outputs` are the batch's outputs; each
    request has `rows` consecutive rows of them. Raises WireError for values that cannot be sent."""
    if len(outputs) == 1:
        for name, array in outputs.items():
            dtype = encodable_dtype(name, array)
            if dtype in _RAW and array.dtype.byteorder != ">":
                shares = shares_of(array, count)
                shape = (rows, *array.shape[1:])
                head = _entry(name, dtype, shape, _TAGS[FIELD[dtype]], len(shares[0]))
                tail = _spec(model_name, version, signature)
                return [b"".join((head, share, tail)) for share in shares]
    return [encode_response(model_name, version, signature, part) for part in parts_of(outputs, rows)]


def _typed(name: str, array: Array, dtype: DType) -> Buffer:
    if dtype in _RAW:
        return raw(name, array, dtype)
    if dtype in (DType.FP16, DType.BF16):
        return packed_varints(np.ascontiguousarray(array).view(np.uint16))
    return packed_varints(array)


def _strings(name: str, array: Array) -> bytes:
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        data = item.encode() if isinstance(item, str) else item
        if not isinstance(data, bytes):
            raise TensorError(f"tensor {name!r}: expected strings as bytes or str, got {type(item).__name__}")
        parts += (b"\x42", varint(len(data)), data)
    return b"".join(parts)


@lru_cache(_CACHED)
def _entry(name: str, dtype: DType, shape: tuple[int, ...], tag: bytes, size: int) -> bytes:
    """The bytes of an entry of `outputs` that come before its data. `tag` is empty if the data contains its own
    tags."""
    dims = b"".join(field(0x12, b"\x08" + varint(size)) if size else b"\x12\x00" for size in shape)
    head = b"".join((b"\x08", varint(NUMBER[dtype]), b"\x12", varint(len(dims)), dims))
    if tag and size:
        head = b"".join((head, tag, varint(size)))
    tensor = b"".join((b"\x12", varint(len(head) + size), head))
    key = field(0x0A, name.encode()) or b"\x0a\x00"
    return b"".join((b"\x0a", varint(len(key) + len(tensor) + size), key, tensor))


@lru_cache(_CACHED)
def _spec(name: str, version: int, signature: str) -> bytes:
    value = b"\x08" + varint(version) if version else b""
    number = b"".join((b"\x12", varint(len(value)), value))
    return field(0x12, b"".join((field(0x0A, name.encode()), number, field(0x1A, signature.encode()))))
