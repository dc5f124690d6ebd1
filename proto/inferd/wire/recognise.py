"""Reads the messages of inferd.v1.PredictService by hand, in the encoding that every protobuf library writes.

Accepted are known fields, singular fields at most once, canonical varints, lengths that fit, UTF-8 text, and tensors
whose fields are in the order of their numbers. Anything else raises Unrecognised, IndexError (the message ends early)
or WireError (a tensor does not fit its bytes); the caller then uses the generated class. For every message that is
accepted, the result equals that of the generated class. Thread-safe.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType
from inferd.wire.reader import FIELDS, Unrecognised, read_field, read_text, read_varint, signed
from inferd.wire.tensors import MAX_RANK, Array, count_of, decode_strings, valid_bool, view
from inferd.wire.values import DecodedRequest, DecodedResponse

_CACHED = 1024
_CACHE_KEY = 256  # longest head that is cached, in bytes: without a bound, callers could fill the memory


def recognise_request(message: bytes) -> DecodedRequest:
    """Reads a PredictRequest. Raises Unrecognised, IndexError or WireError."""
    i, end = 0, len(message)
    spec: tuple[str, int | None, str | None, str] | None = None
    inputs: dict[str, Array] = {}
    outputs: list[str] = []
    request_id: str | None = None
    priority = timeout = -1
    for _ in FIELDS:
        if i >= end:
            break
        tag = message[i]
        if tag == 0x12:
            i, stop = read_field(message, i + 1, end)
            name, array = _tensor(message, i, stop)
            if name in inputs:
                raise Unrecognised
            inputs[name] = array
            i = stop
        elif tag == 0x0A and spec is None:
            i, stop = read_field(message, i + 1, end)
            part = message[i:stop]
            spec = _cached_spec(part) if stop - i <= _CACHE_KEY else _spec(part)
            i = stop
        elif tag == 0x22 and request_id is None:
            request_id, i = read_text(message, i + 1, end)
        elif tag == 0x1A:
            name, i = read_text(message, i + 1, end)
            outputs.append(name)
        elif tag == 0x28 and priority < 0:
            priority, i = read_varint(message, i + 1)
            if priority > 0xFFFFFFFF:
                raise Unrecognised
        elif tag == 0x30 and timeout < 0:
            timeout, i = read_varint(message, i + 1)
        else:
            raise Unrecognised
    if i != end:
        raise Unrecognised
    name, version, label, signature = spec or ("", None, None, "")
    return DecodedRequest(
        name, version, label, signature, inputs, tuple(outputs), request_id or "", max(priority, 0), max(timeout, 0)
    )


def recognise_response(message: bytes, i: int, end: int) -> DecodedResponse:
    """Reads the PredictResponse at `message[i:end]`. Raises Unrecognised, IndexError or WireError."""
    outputs: dict[str, Array] = {}
    model: str | None = None
    signature: str | None = None
    request_id: str | None = None
    version: int | None = None
    while i < end:
        tag = message[i]
        if tag == 0x22:
            i, stop = read_field(message, i + 1, end)
            name, array = _tensor(message, i, stop)
            if name in outputs:
                raise Unrecognised
            outputs[name] = array
            i = stop
        elif tag == 0x0A and model is None:
            model, i = read_text(message, i + 1, end)
        elif tag == 0x10 and version is None:
            version, i = read_varint(message, i + 1)
        elif tag == 0x1A and signature is None:
            signature, i = read_text(message, i + 1, end)
        elif tag == 0x2A and request_id is None:
            request_id, i = read_text(message, i + 1, end)
        else:
            raise Unrecognised
    if i != end:
        raise Unrecognised
    return DecodedResponse(model or "", signed(version or 0), signature or "", outputs, request_id or "")


def recognise_stream_head(message: bytes) -> tuple[str, int]:
    """The id of a PredictStreamResponse, and the start of its PredictResponse, which extends to the end of the message.
    Raises Unrecognised or IndexError."""
    # Failures are not recognised: they are rare, and the generated class reads them. Nor are fields in another order.
    i, end = 0, len(message)
    request_id = ""
    if message[0] == 0x0A:
        request_id, i = read_text(message, 1, end)
    if message[i] != 0x12:
        raise Unrecognised
    i, stop = read_field(message, i + 1, end)
    if stop != end:
        raise Unrecognised
    return request_id, i


def _spec(part: bytes) -> tuple[str, int | None, str | None, str]:
    i, end = 0, len(part)
    name: str | None = None
    label: str | None = None
    signature: str | None = None
    version: int | None = None
    while i < end:
        tag = part[i]
        if tag == 0x0A and name is None:
            name, i = read_text(part, i + 1, end)
        elif tag == 0x10 and version is None and label is None:
            version, i = read_varint(part, i + 1)
            version = signed(version)
        elif tag == 0x1A and version is None and label is None:
            label, i = read_text(part, i + 1, end)
        elif tag == 0x22 and signature is None:
            signature, i = read_text(part, i + 1, end)
        else:
            raise Unrecognised
    if i != end:
        raise Unrecognised
    return name or "", version, label, signature or ""


_cached_spec = lru_cache(_CACHED)(_spec)


def _tensor(message: bytes, start: int, end: int) -> tuple[str, Array]:
    # The end of the head (name, dtype, shape) is found by skipping its fields. `_head` then reads the head strictly,
    # once for each distinct head. The data, if there is any, must fill the rest exactly.
    i = start
    if i < end and message[i] == 0x0A:
        size = message[i + 1]
        i = i + 2 + size if size < 128 else read_field(message, i + 1, end)[1]
    if i < end and message[i] == 0x10:
        i += 2
    if i < end and message[i] == 0x1A:
        size = message[i + 1]
        i = i + 2 + size if size < 128 else read_field(message, i + 1, end)[1]
    part = message[start:i]
    name, dtype, shape, count, size, numpy = _cached_head(part) if i - start <= _CACHE_KEY else _head(part)
    if i < end:
        if message[i] != 0x22:
            raise Unrecognised
        i, stop = read_field(message, i + 1, end)
        if stop != end:
            raise Unrecognised
    elif i > end:
        raise Unrecognised
    if numpy is None:
        return name, decode_strings(name, shape, count, message, start=i, end=end)
    if end - i != size:
        raise Unrecognised
    array = view(message, numpy, shape, count, i)
    if dtype is DType.BOOL and not valid_bool(array):
        raise Unrecognised
    return name, array


def _head(part: bytes) -> tuple[str, DType, tuple[int, ...], int, int, np.dtype[Any] | None]:
    """The first fields of a Tensor: name, element type, shape, number of elements, size in bytes, numpy type (None for
    STRING)."""
    i, end = 0, len(part)
    name = ""
    shape: list[int] = []
    if i < end and part[i] == 0x0A:
        name, i = read_text(part, i + 1, end)
    if i + 1 >= end or part[i] != 0x10 or not 0 < part[i + 1] <= max(DType):
        raise Unrecognised
    dtype = DType(part[i + 1])
    i += 2
    if i < end and part[i] == 0x1A:
        i, end = read_field(part, i + 1, end)
        while i < end and len(shape) <= MAX_RANK:
            size, i = read_varint(part, i)
            shape.append(signed(size))
    if i != len(part):
        raise Unrecognised
    count = count_of(shape, dtype.itemsize, name)
    numpy = None if dtype is DType.STRING else dtype.numpy
    return name, dtype, tuple(shape), count, count * dtype.itemsize, numpy


_cached_head = lru_cache(_CACHED)(_head)
