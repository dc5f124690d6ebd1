"""Reads a ModelInferRequest by hand, in the encoding that unmodified clients send: raw inputs, no shared memory.

The rules are those of `inferd.wire.recognise`: for every message that is accepted, the result equals that of the
generated class; everything else raises Unrecognised, IndexError or WireError. Thread-safe.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.oip.values import OipRequest, Parameter, Parameters, WantedOutput
from inferd.wire.reader import FIELDS, Unrecognised, read_field, read_text, read_varint, signed
from inferd.wire.tensors import MAX_RANK, MOST_PARAMETERS, Array, count_of, decode_strings, valid_bool, view

_CACHED = 1024
_CACHE_KEY = 256  # longest head that is cached, in bytes: without a bound, callers could fill the memory
_DOUBLE = struct.Struct("<d")

_Head = tuple[str, DType, tuple[int, ...], int, int, "np.dtype[Any] | None"]


def recognise_request(message: bytes) -> OipRequest:
    """Reads a ModelInferRequest. Raises Unrecognised, IndexError or WireError."""
    i, end = 0, len(message)
    model: str | None = None
    version: str | None = None
    request_id: str | None = None
    parameters: Parameters = {}
    heads: list[_Head] = []
    outputs: list[WantedOutput] = []
    raws: list[tuple[int, int]] = []
    for _ in FIELDS:
        if i >= end:
            break
        tag = message[i]
        if tag == 0x3A:
            i, stop = read_field(message, i + 1, end)
            raws.append((i, stop))
            i = stop
        elif tag == 0x2A:
            i, stop = read_field(message, i + 1, end)
            part = message[i:stop]
            heads.append(_cached_input(part) if stop - i <= _CACHE_KEY else _input(part))
            i = stop
        elif tag == 0x0A and model is None:
            model, i = read_text(message, i + 1, end)
        elif tag == 0x32:
            i, stop = read_field(message, i + 1, end)
            part = message[i:stop]
            outputs.append(_cached_output(part) if stop - i <= _CACHE_KEY else _output(part))
            i = stop
        elif tag == 0x1A and request_id is None:
            request_id, i = read_text(message, i + 1, end)
        elif tag == 0x12 and version is None:
            version, i = read_text(message, i + 1, end)
        elif tag == 0x22:
            i, stop = read_field(message, i + 1, end)
            _parameter(message, i, stop, parameters)
            i = stop
        else:
            raise Unrecognised
    if i != end or len(heads) != len(raws):
        raise Unrecognised
    inputs: dict[str, Array] = {}
    for (name, dtype, shape, count, size, numpy), (start, stop) in zip(heads, raws, strict=True):
        if name in inputs:
            raise Unrecognised
        if numpy is None:
            inputs[name] = decode_strings(name, shape, count, message, start=start, end=stop)
            continue
        if stop - start != size:
            raise Unrecognised
        array = inputs[name] = view(message, numpy, shape, count, start)
        if dtype is DType.BOOL and not valid_bool(array):
            raise Unrecognised
    return OipRequest(model or "", version or "", request_id or "", parameters, inputs, tuple(outputs), {})


def _input(part: bytes) -> _Head:
    """An InferInputTensor: name, element type, shape, number of elements, size in bytes, numpy type (None for
    STRING)."""
    i, end = 0, len(part)
    name: str | None = None
    datatype: str | None = None
    shape: list[int] | None = None
    while i < end:
        tag = part[i]
        if tag == 0x0A and name is None:
            name, i = read_text(part, i + 1, end)
        elif tag == 0x12 and datatype is None:
            datatype, i = read_text(part, i + 1, end)
        elif tag == 0x1A and shape is None:
            i, stop = read_field(part, i + 1, end)
            shape = []
            while i < stop and len(shape) <= MAX_RANK:
                size, i = read_varint(part, i)
                shape.append(signed(size))
            if i != stop:
                raise Unrecognised
        else:
            raise Unrecognised
    if datatype == "STRING":  # inferd's own name; the protocol's is BYTES
        raise Unrecognised
    try:
        dtype = dtype_named(datatype or "")
    except KeyError:
        raise Unrecognised from None
    count = count_of(shape or (), dtype.itemsize, name or "")
    numpy = None if dtype is DType.STRING else dtype.numpy
    return name or "", dtype, tuple(shape or ()), count, count * dtype.itemsize, numpy


_cached_input = lru_cache(_CACHED)(_input)


def _output(part: bytes) -> WantedOutput:
    """An InferRequestedOutputTensor."""
    i, end = 0, len(part)
    name: str | None = None
    parameters: Parameters = {}
    while i < end:
        tag = part[i]
        if tag == 0x0A and name is None:
            name, i = read_text(part, i + 1, end)
        elif tag == 0x12:
            i, stop = read_field(part, i + 1, end)
            _parameter(part, i, stop, parameters)
            i = stop
        else:
            raise Unrecognised
    return WantedOutput(name or "", parameters)


_cached_output = lru_cache(_CACHED)(_output)


def _parameter(message: bytes, i: int, end: int, parameters: Parameters) -> None:
    """Adds the map entry (name, InferParameter) at `message[i:end]` to `parameters`. Raises Unrecognised."""
    if i >= end or message[i] != 0x0A:
        raise Unrecognised
    key, i = read_text(message, i + 1, end)
    if key in parameters or len(parameters) >= MOST_PARAMETERS or i >= end or message[i] != 0x12:
        raise Unrecognised
    i, stop = read_field(message, i + 1, end)
    if stop != end or i >= end:
        raise Unrecognised
    tag = message[i]
    if tag == 0x1A:
        text, i = read_text(message, i + 1, end)
        parameters[key] = Parameter("string_param", text)
    elif tag == 0x21 and i + 9 == end:
        parameters[key] = Parameter("double_param", _DOUBLE.unpack_from(message, i + 1)[0])
        i = end
    elif tag in (0x08, 0x10, 0x28):
        number, i = read_varint(message, i + 1)
        if tag == 0x10:
            parameters[key] = Parameter("int64_param", signed(number))
        elif tag == 0x28:
            parameters[key] = Parameter("uint64_param", number)
        elif number <= 1:
            parameters[key] = Parameter("bool_param", number == 1)
        else:
            raise Unrecognised
    else:
        raise Unrecognised
    if i != end:
        raise Unrecognised
