"""Encodes the messages of inferd.v1.PredictService: cached heads and the arrays' own bytes, joined once.

Fields are written in the order of their numbers, and default values are left out, so the bytes equal those of the
generated class. All functions are thread-safe; the caches are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.reader import field, varint
from inferd.wire.tensors import (
    SMALL,
    Array,
    Buffer,
    WireError,
    count_of,
    encodable_dtype,
    parts_of,
    raw,
    shares_of,
)
from inferd.wire.values import StreamFailure

_CACHED = 1024


def encode_request(
    name: str,
    inputs: Mapping[str, Array],
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "",
    outputs: Sequence[str] = (),
    request_id: str = "",
    priority: int = 0,
    queue_timeout_us: int = 0,
) -> bytes:
    """An encoded PredictRequest. At most one of `version` and `label` may be given. Raises WireError for values that
    cannot be sent."""
    parts: list[Buffer] = [_spec_field(name, version, label, signature)]
    for key, array in inputs.items():
        _append_tensor(parts, 0x12, key, array)
    for output in outputs:
        parts.append(_member(0x1A, output))
    if request_id:
        parts.append(field(0x22, _utf8(request_id)))
    if priority:
        parts.append(b"\x28" + varint(_within(priority, "priority", 0, 2**32 - 1)))
    if queue_timeout_us:
        parts.append(b"\x30" + varint(_within(queue_timeout_us, "queue_timeout_us", 0, 2**64 - 1)))
    return b"".join(parts)


def encode_response(
    model_name: str, version: int, signature: str, outputs: Mapping[str, Array], request_id: str = ""
) -> bytes:
    """An encoded PredictResponse. Raises WireError for values that cannot be sent."""
    if len(outputs) == 1:
        for key, array in outputs.items():
            head, raw_bytes = _single_head(model_name, version, signature, key, array.dtype, array.shape)
            if raw_bytes:
                data: Buffer = array.tobytes() if array.nbytes <= SMALL else raw(key, array, dtype_of(array))
                if request_id:
                    text = _utf8(request_id)
                    size = len(text)
                    return b"".join((head, data, b"\x2a", bytes((size,)) if size < 128 else varint(size), text))
                return head + data
    parts: list[Buffer] = [_response_head(model_name, version, signature)]
    for key, array in outputs.items():
        _append_tensor(parts, 0x22, key, array)
    if request_id:
        parts.append(field(0x2A, _utf8(request_id)))
    return b"".join(parts)


def encode_responses(
    model_name: str, version: int, signature: str, outputs: Mapping[str, Array], rows: int, request_ids: Sequence[str]
) -> list[bytes]:
    """Encoded PredictResponses of requests that ran in one batch. `outputs` are the batch's outputs; each request has
    `rows` consecutive rows of them, in the order of `request_ids`. Raises WireError for values that cannot be sent."""
    if len(outputs) == 1:
        for key, array in outputs.items():
            shape = (rows, *array.shape[1:])
            head, raw_bytes = _single_head(model_name, version, signature, key, array.dtype, shape)
            if raw_bytes:
                shares = shares_of(array, len(request_ids))
                return [
                    head + share + field(0x2A, _utf8(request_id)) if request_id else head + share
                    for share, request_id in zip(shares, request_ids, strict=True)
                ]
    return [
        encode_response(model_name, version, signature, part, request_id)
        for part, request_id in zip(parts_of(outputs, rows), request_ids, strict=False)
    ]


def encode_stream_response(request_id: str, response: bytes) -> bytes:
    """An encoded PredictStreamResponse that holds an encoded PredictResponse."""
    return b"".join((field(0x0A, _utf8(request_id)), b"\x12", varint(len(response)), response))


def encode_stream_failure(request_id: str, failure: StreamFailure) -> bytes:
    """An encoded PredictStreamResponse that holds the failure of one request."""
    code = b"\x08" + varint(failure.code) if failure.code else b""
    error = code + field(0x12, failure.message.encode(errors="replace"))
    return b"".join((field(0x0A, _utf8(request_id)), b"\x1a", varint(len(error)), error))


@lru_cache(_CACHED)
def _spec_field(name: str, version: int | None, label: str | None, signature: str) -> bytes:
    if version is not None and label is not None:
        raise WireError(f"expected a version or a label, got both: version {version} and label {label!r}")
    choice = b""
    if version is not None:
        choice = b"\x10" + varint(_within(version, "version", -(2**63), 2**63 - 1))
    elif label is not None:
        choice = _member(0x1A, label)
    spec = b"".join((field(0x0A, _utf8(name)), choice, field(0x22, _utf8(signature))))
    return field(0x0A, spec) or b"\x0a\x00"


@lru_cache(_CACHED)
def _response_head(model_name: str, version: int, signature: str) -> bytes:
    number = b"\x10" + varint(_within(version, "version", -(2**63), 2**63 - 1)) if version else b""
    return b"".join((field(0x0A, _utf8(model_name)), number, field(0x1A, _utf8(signature))))


@lru_cache(_CACHED)
def _single_head(
    model_name: str, version: int, signature: str, name: str, numpy: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[bytes, bool]:
    """The bytes of a response with one output that come before its data, and whether the data is the array's bytes
    without conversion. If it is not, the bytes are empty."""
    raw_bytes = not numpy.hasobject and numpy.kind not in "SU" and numpy.byteorder != ">"
    if not raw_bytes:
        return b"", False
    empty = np.empty(0, numpy)
    dtype = encodable_dtype(name, empty)
    size = math.prod(shape) * numpy.itemsize
    return _response_head(model_name, version, signature) + _tensor_prefix(0x22, name, dtype, shape, size), True


def _append_tensor(parts: list[Buffer], tag: int, name: str, array: Array) -> None:
    dtype = encodable_dtype(name, array)
    data = raw(name, array, dtype)
    parts.append(_tensor_prefix(tag, name, dtype, array.shape, len(data)))
    parts.append(data)


@lru_cache(_CACHED)
def _tensor_prefix(tag: int, name: str, dtype: DType, shape: tuple[int, ...], size: int) -> bytes:
    """The bytes of a Tensor field that come before its data."""
    count_of(shape, dtype.itemsize, name)  # raises TensorError for shapes that no server accepts
    head = b"".join((field(0x0A, _utf8(name)), b"\x10", varint(dtype), field(0x1A, b"".join(map(varint, shape)))))
    if size:
        head = b"".join((head, b"\x22", varint(size)))
    return b"".join((bytes((tag,)), varint(len(head) + size), head))


def _member(tag: int, text: str) -> bytes:
    """A string field that is written even if it is empty, because it is repeated or part of a oneof."""
    return field(tag, _utf8(text)) or bytes((tag, 0))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise WireError(f"{text!r} cannot be written as UTF-8: {error.reason}") from None


def _within(value: int, what: str, low: int, high: int) -> int:
    if not low <= value <= high:
        raise WireError(f"{what}: expected {low} to {high}, got {value}")
    return value
