"""Decodes a ModelInferRequest with the generated class, if the recogniser does not take it (typed contents, ...).

This module defines what a message means, and the texts of the errors, which are Triton's. The tests compare the
recogniser with it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from inferd.oip.v1 import infer_pb2 as pb
from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.numbers import from_integers
from inferd.wire.oip.values import OipRequest, Parameter, Parameters, SharedInput, WantedOutput
from inferd.wire.tensors import (
    MOST_PARAMETERS,
    Array,
    MessageError,
    TensorError,
    WireError,
    check_fields,
    check_rank,
    count_of,
    decode,
)

SHARED_MEMORY = "shared_memory_region"
_LENGTH = struct.Struct("<I")
_FIELDS = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.STRING: "bytes_contents",
}
_NAMES = [d.oip_name for d in DType]


def decode_request(message: bytes) -> OipRequest:
    """Decodes a ModelInferRequest. Raises WireError."""
    parsed = pb.ModelInferRequest()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        raise MessageError(f"expected a ModelInferRequest, got {len(message)} bytes that are not one") from None
    try:
        return _request(parsed)
    except WireError as error:
        error.request_id = parsed.id
        raise


def _request(parsed: pb.ModelInferRequest) -> OipRequest:
    check_fields("inputs", len(parsed.inputs))
    check_fields("outputs", len(parsed.outputs))
    inputs: dict[str, Array] = {}
    shared: dict[str, SharedInput] = {}
    raws = iter(parsed.raw_input_contents)
    for tensor in parsed.inputs:
        name = tensor.name
        if name in inputs or name in shared:
            raise TensorError(f"input '{name}' already exists in request for model '{parsed.model_name}'")
        where = f"input '{name}' for model '{parsed.model_name}'"
        dtype = _dtype(tensor.datatype, where)
        check_rank(len(tensor.shape), name)
        shape = tuple(tensor.shape)
        if SHARED_MEMORY in tensor.parameters:
            if tensor.HasField("contents"):
                raise TensorError(f"unexpected 'content' provided when using shared memory for input tensor {where}")
            shared[name] = SharedInput(dtype, shape, _parameters(tensor.parameters))
            continue
        if tensor.HasField("contents"):
            if parsed.raw_input_contents:
                raise TensorError(f"contents field must not be specified when using raw_input_contents for {where}")
            inputs[name] = _typed(tensor.contents, dtype, shape, where)
            continue
        raw = next(raws, None)
        if raw is None:
            raise TensorError(
                f"unable to find data for input tensor '{name}' for model '{parsed.model_name}' in request."
            )
        inputs[name] = _raw(name, dtype, shape, raw, where)
    surplus = sum(1 for _ in raws)
    if surplus:
        given = len(parsed.raw_input_contents)
        raise TensorError(
            f"expected {given - surplus} entries in raw_input_contents for model '{parsed.model_name}', one for each "
            f"input that has neither contents nor shared memory, got {given}"
        )
    outputs = tuple(WantedOutput(output.name, _parameters(output.parameters)) for output in parsed.outputs)
    return OipRequest(
        parsed.model_name,
        parsed.model_version,
        parsed.id,
        _parameters(parsed.parameters),
        inputs,
        outputs,
        shared,
    )


def _dtype(datatype: str, where: str) -> DType:
    if datatype not in _NAMES:
        raise TensorError(f"unknown datatype '{datatype}' of {where}; expected one of {', '.join(_NAMES)}")
    return dtype_named(datatype)


def _raw(name: str, dtype: DType, shape: tuple[int, ...], raw: bytes, where: str) -> Array:
    count = count_of(shape, dtype.itemsize, name)
    if dtype is DType.STRING:
        _check_strings(raw, count, where)
    elif len(raw) != count * dtype.itemsize:
        raise TensorError(f"input byte size mismatch for {where}. Expected {count * dtype.itemsize}, got {len(raw)}")
    try:
        return decode(name, dtype, shape, raw)
    except ImportError as error:
        raise TensorError(f"{where}: {error}") from None


def _check_strings(raw: bytes, count: int, where: str) -> None:
    i = found = 0
    while i < len(raw):
        if found == count:
            raise TensorError(
                f"unexpected number of string elements {found + 1} for inference {where}, expecting {count}"
            )
        if len(raw) - i < 4:
            raise TensorError(
                f"incomplete string length indicator for inference {where}, expecting 4 bytes but only {len(raw) - i} "
                "bytes available"
            )
        length = _LENGTH.unpack_from(raw, i)[0]
        i += 4
        if len(raw) - i < length:
            raise TensorError(
                f"incomplete string data for inference {where}, expecting string of length {length} but only "
                f"{len(raw) - i} bytes available"
            )
        i += length
        found += 1
    if found != count:
        raise TensorError(f"expected {count} string elements for inference {where}, got {found}")


def _typed(contents: pb.InferTensorContents, dtype: DType, shape: tuple[int, ...], where: str) -> Array:
    expected = _FIELDS.get(dtype)
    if expected is None:
        raise TensorError(f"datatype {dtype.oip_name} of {where} has no typed contents: send it in raw_input_contents")
    given = [descriptor.name for descriptor, _ in contents.ListFields()]
    if len(given) > 1:
        raise TensorError(
            f"expected one kind of contents for {where}, got {', '.join(given)}: binary data was already supplied"
        )
    if given and given[0] != expected:
        raise TensorError(
            f"unexpected explicit tensor data for input tensor {where} of type '{given[0]}', expected datatype "
            f"'{dtype.oip_name}' in '{expected}'"
        )
    values = getattr(contents, expected)
    count = count_of(shape, dtype.itemsize, where)
    if dtype is DType.STRING:
        if len(values) != count:
            raise TensorError(f"expected {count} string elements for inference {where}, got {len(values)}")
        array: Array = np.empty(count, object)
        array[:] = list(values)
    else:
        if len(values) != count:
            size = dtype.itemsize
            raise TensorError(
                f"input byte size mismatch for {where}. Expected {count * size}, got {len(values) * size}"
            )
        array = _narrow(values, dtype, where)
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _narrow(values: Sequence[Any], dtype: DType, where: str) -> Array:
    # Triton takes the low bytes of each int32 or uint32, and so answers for another number than was sent.
    if dtype in (DType.INT8, DType.INT16, DType.UINT8, DType.UINT16):
        return from_integers(values, dtype, where)
    return np.fromiter(values, dtype.numpy, len(values))


def _parameters(given: Mapping[str, pb.InferParameter]) -> Parameters:
    found: Parameters = {}
    check_fields("parameters", len(given), MOST_PARAMETERS)
    for key, parameter in dict(given).items():
        field = parameter.WhichOneof("parameter_choice") or ""
        found[key] = Parameter(field, getattr(parameter, field) if field else "")
    return found
