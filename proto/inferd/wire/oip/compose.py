"""Encodes responses of the Open Inference Protocol, always with raw contents: one entry for each output, in order.

tritonclient reads no other contents. Fields are written in the order of their numbers. All functions are thread-safe;
the caches are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.oip.values import Parameter, Parameters
from inferd.wire.reader import field, varint
from inferd.wire.tensors import SMALL, Array, Buffer, encodable_dtype, parts_of, raw, shares_of

_CACHED = 1024


def _final(value: int) -> bytes:
    entry = field(0x0A, b"triton_final_response") + field(0x12, bytes((0x08, value)))
    return field(0x22, entry)


_FINAL = {None: b"", False: _final(0), True: _final(1)}


# Stores the bytes of an output outside the message (shared memory), and returns the parameters that say where.
Elsewhere = Callable[[str, Buffer], Parameters]
_HERE: Mapping[str, Elsewhere] = {}


def encode_response(
    model_name: str,
    version: int,
    outputs: Mapping[str, Array],
    request_id: str = "",
    *,
    final: bool | None = None,
    elsewhere: Mapping[str, Elsewhere] = _HERE,
) -> bytes:
    """An encoded ModelInferResponse.

    `final` is the parameter triton_final_response of an answer in a stream; None leaves it out. The outputs in
    `elsewhere` are not sent in the message: their bytes are passed to the function, which stores them. Raises WireError
    for values that cannot be sent.
    """
    if len(outputs) == 1 and final is None and not elsewhere:
        for name, array in outputs.items():
            head, tail, raw_bytes = _single_head(model_name, version, name, array.dtype, array.shape)
            if raw_bytes:
                only: Buffer = array.tobytes() if array.nbytes <= SMALL else raw(name, array, dtype_of(array))
                return b"".join((head, field(0x1A, request_id.encode()) if request_id else b"", tail, only))
    parts: list[Buffer] = [_head(model_name, version)]
    if request_id:
        parts.append(field(0x1A, request_id.encode()))
    parts.append(_FINAL[final])
    raws: list[Buffer] = []
    for name, array in outputs.items():
        dtype = encodable_dtype(name, array)
        data = raw(name, array, dtype)
        if name in elsewhere:
            parts.append(_output_elsewhere(name, dtype, array.shape, elsewhere[name](name, data)))
            raws.append(b"\x32\x00")
            continue
        parts.append(_output(name, dtype, array.shape))
        raws.append(b"\x32" + varint(len(data)))
        raws.append(data)
    parts += raws
    return b"".join(parts)


def encode_responses(
    model_name: str, version: int, outputs: Mapping[str, Array], rows: int, request_ids: Sequence[str]
) -> list[bytes]:
    """Encoded ModelInferResponses of requests that ran in one batch. `outputs` are the batch's outputs; each request
    has `rows` consecutive rows of them, in the order of `request_ids`. Raises WireError for values that cannot be
    sent."""
    if len(outputs) == 1:
        for name, array in outputs.items():
            shape = (rows, *array.shape[1:])
            head, tail, raw_bytes = _single_head(model_name, version, name, array.dtype, shape)
            if raw_bytes:
                without_id = head + tail
                return [
                    b"".join((head, field(0x1A, request_id.encode()), tail, share))
                    if request_id
                    else without_id + share
                    for share, request_id in zip(shares_of(array, len(request_ids)), request_ids, strict=True)
                ]
    return [
        encode_response(model_name, version, part, request_id)
        for part, request_id in zip(parts_of(outputs, rows), request_ids, strict=False)
    ]


def encode_stream_response(response: bytes) -> bytes:
    """An encoded ModelStreamInferResponse that holds an encoded ModelInferResponse."""
    return b"".join((b"\x12", varint(len(response)), response))


def encode_stream_failure(text: str, request_id: str = "", model_name: str = "", model_version: str = "") -> bytes:
    """An encoded ModelStreamInferResponse that holds the failure of one request."""
    names = (field(0x0A, model_name.encode()), field(0x12, model_version.encode()), field(0x1A, request_id.encode()))
    answer = b"".join((*names, _FINAL[True]))
    return b"".join((field(0x0A, text.encode(errors="replace")), b"\x12", varint(len(answer)), answer))


@lru_cache(_CACHED)
def _head(model_name: str, version: int) -> bytes:
    return field(0x0A, model_name.encode()) + field(0x12, str(version).encode())


def _output_elsewhere(name: str, dtype: DType, shape: tuple[int, ...], where: Parameters) -> bytes:
    entries = [field(0x22, field(0x0A, key.encode()) + field(0x12, _value(given))) for key, given in where.items()]
    return field(0x2A, b"".join((_output_fields(name, dtype, shape), *entries)))


def _value(given: Parameter) -> bytes:
    if given.kind == "int64_param":
        return b"\x10" + varint(int(given.value))
    return field(0x1A, str(given.value).encode())


@lru_cache(_CACHED)
def _single_head(
    model_name: str, version: int, name: str, numpy: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[bytes, bytes, bool]:
    """The bytes of a response with one output: those before its id, those between the id and the data; and whether the
    data is the array's bytes without conversion. If it is not, the bytes are empty."""
    if numpy.hasobject or numpy.kind in "SU" or numpy.byteorder == ">":
        return b"", b"", False
    dtype = encodable_dtype(name, np.empty(0, numpy))
    size = math.prod(shape) * numpy.itemsize
    return _head(model_name, version), _output(name, dtype, shape) + b"\x32" + varint(size), True


@lru_cache(_CACHED)
def _output(name: str, dtype: DType, shape: tuple[int, ...]) -> bytes:
    return field(0x2A, _output_fields(name, dtype, shape))


def _output_fields(name: str, dtype: DType, shape: tuple[int, ...]) -> bytes:
    fields = (
        field(0x0A, name.encode()),
        field(0x12, dtype.oip_name.encode()),
        field(0x1A, b"".join(map(varint, shape))),
    )
    return b"".join(fields)
