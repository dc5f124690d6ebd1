"""Reads a PredictRequest of TensorFlow Serving by hand, in the encoding that TensorFlow's own clients send.

Accepted are tensors whose data is in the message as raw bytes: tensor_content, and float_val or double_val with exactly
as many values as the shape has elements. The rules are those of `inferd.wire.recognise`: for every message that is
accepted, the result equals that of the generated class; everything else raises Unrecognised, IndexError or WireError.
Thread-safe.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType
from inferd.wire.reader import FIELDS, Unrecognised, read_field, read_text, read_varint, signed
from inferd.wire.tensors import MAX_RANK, Array, count_of, valid_bool, view
from inferd.wire.tfs.dtypes import DTYPE
from inferd.wire.values import DecodedRequest

_CACHED = 1024
_CACHE_KEY = 256  # longest head that is cached, in bytes: without a bound, callers could fill the memory
_RAW = {0x22: None, 0x2A: DType.FP32, 0x32: DType.FP64}  # tensor_content (any element type), float_val, double_val

_Spec = tuple[str, int | None, str | None, str]
_Head = tuple[DType, tuple[int, ...], int, int, "np.dtype[Any]"]


def recognise_request(message: bytes) -> DecodedRequest:
    """Reads a PredictRequest. Raises Unrecognised, IndexError or WireError."""
    i, end = 0, len(message)
    spec: _Spec | None = None
    inputs: dict[str, Array] = {}
    outputs: list[str] = []
    for _ in FIELDS:
        if i >= end:
            break
        tag = message[i]
        if tag == 0x12:
            i, stop = read_field(message, i + 1, end)
            if i >= stop or message[i] != 0x0A:
                raise Unrecognised
            name, i = read_text(message, i + 1, stop)
            if name in inputs or i >= stop or message[i] != 0x12:
                raise Unrecognised
            i, inner = read_field(message, i + 1, stop)
            if inner != stop:
                raise Unrecognised
            inputs[name] = _tensor(message, i, stop)
            i = stop
        elif tag == 0x0A and spec is None:
            i, stop = read_field(message, i + 1, end)
            part = message[i:stop]
            spec = _cached_spec(part) if stop - i <= _CACHE_KEY else _spec(part)
            i = stop
        elif tag == 0x1A:
            name, i = read_text(message, i + 1, end)
            outputs.append(name)
        else:
            raise Unrecognised
    if i != end:
        raise Unrecognised
    name, version, label, signature = spec or ("", None, None, "")
    return DecodedRequest(name, version, label, signature, inputs, tuple(outputs), "", 0, 0)


def _spec(part: bytes) -> _Spec:
    """A ModelSpec: name, version, label, signature."""
    i, end = 0, len(part)
    name: str | None = None
    label: str | None = None
    signature: str | None = None
    version: int | None = None
    while i < end:
        tag = part[i]
        if tag == 0x0A and name is None:
            name, i = read_text(part, i + 1, end)
        elif tag == 0x12 and version is None and label is None:
            i, stop = read_field(part, i + 1, end)
            version = 0
            if i < stop:
                if part[i] != 0x08:
                    raise Unrecognised
                version, i = read_varint(part, i + 1)
                version = signed(version)
            if i != stop:
                raise Unrecognised
        elif tag == 0x22 and version is None and label is None:
            label, i = read_text(part, i + 1, end)
        elif tag == 0x1A and signature is None:
            signature, i = read_text(part, i + 1, end)
        else:
            raise Unrecognised
    if i != end:
        raise Unrecognised
    return name or "", version, label, signature or ""


_cached_spec = lru_cache(_CACHED)(_spec)


def _tensor(message: bytes, start: int, end: int) -> Array:
    # The head (dtype, shape) is skipped; `_head` reads it strictly, once for each distinct head. One field of raw bytes
    # must fill the rest.
    i = start
    if i < end and message[i] == 0x08:
        i += 2
    if i < end and message[i] == 0x12:
        i = read_field(message, i + 1, end)[1]
    part = message[start:i]
    dtype, shape, count, size, numpy = _cached_head(part) if i - start <= _CACHE_KEY else _head(part)
    if i >= end:
        if i > end or count:  # a tensor without values is filled with zeros: left to the generated class
            raise Unrecognised
        return view(message, numpy, shape, 0, i)
    tag = message[i]
    if _RAW.get(tag, dtype) not in (None, dtype) or tag not in _RAW:
        raise Unrecognised
    i, stop = read_field(message, i + 1, end)
    if stop != end or end - i != size or not size:
        raise Unrecognised
    array = view(message, numpy, shape, count, i)
    if dtype is DType.BOOL and not valid_bool(array):
        raise Unrecognised
    return array


def _head(part: bytes) -> _Head:
    """The first fields of a TensorProto, except for STRING: element type, shape, number of elements, size in bytes,
    numpy type."""
    i, end = 0, len(part)
    if end < 2 or part[0] != 0x08:
        raise Unrecognised
    dtype = DTYPE.get(part[1])
    if dtype is None or dtype is DType.STRING:
        raise Unrecognised
    i = 2
    shape: list[int] = []
    if i < end and part[i] == 0x12:
        i, stop = read_field(part, i + 1, end)
        while i < stop and len(shape) <= MAX_RANK:
            if part[i] != 0x12:  # for example unknown_rank
                raise Unrecognised
            i, dim = read_field(part, i + 1, stop)
            size = 0
            if i < dim:
                if part[i] != 0x08:  # the name of the dimension
                    raise Unrecognised
                size, i = read_varint(part, i + 1)
            if i != dim:
                raise Unrecognised
            shape.append(signed(size))
    if i != end:
        raise Unrecognised
    count = count_of(shape, dtype.itemsize, "")
    return dtype, tuple(shape), count, count * dtype.itemsize, dtype.numpy


_cached_head = lru_cache(_CACHED)(_head)
