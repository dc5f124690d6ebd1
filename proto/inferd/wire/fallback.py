"""Decodes the messages of inferd.v1.PredictService with the generated classes, if the recogniser does not take them.

This is slower: protobuf copies, and it is imported only for the first message of this sort. It defines what a message
means, and the texts of the errors. The tests compare the recogniser with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.v1 import predict_service_pb2 as pb
from inferd.v1 import tensor_pb2
from inferd.wire.tensors import (
    Array,
    MessageError,
    TensorError,
    WireError,
    check_fields,
    check_rank,
    decode,
    known_dtype,
)
from inferd.wire.values import DecodedRequest, DecodedResponse, StreamFailure

_M = TypeVar("_M", bound=Message)


def decode_request(message: bytes) -> DecodedRequest:
    """Decodes a PredictRequest. Raises WireError."""
    parsed = _parse(pb.PredictRequest, message)
    try:
        check_fields("inputs", len(parsed.inputs))
        check_fields("outputs", len(parsed.outputs))
        inputs = _tensors("input", parsed.inputs)
    except WireError as error:
        error.request_id = parsed.request_id
        raise
    spec = parsed.model
    choice = spec.WhichOneof("choice")
    return DecodedRequest(
        spec.name,
        spec.version if choice == "version" else None,
        spec.label if choice == "label" else None,
        spec.signature,
        inputs,
        tuple(parsed.outputs),
        parsed.request_id,
        parsed.priority,
        parsed.queue_timeout_us,
    )


def decode_response(message: bytes) -> DecodedResponse:
    """Decodes a PredictResponse. Raises WireError."""
    return _response(_parse(pb.PredictResponse, message))


def decode_stream_response(message: bytes) -> tuple[str, DecodedResponse | StreamFailure]:
    """Decodes a PredictStreamResponse. Raises WireError."""
    parsed = _parse(pb.PredictStreamResponse, message)
    result = parsed.WhichOneof("result")
    if result == "response":
        return parsed.request_id, _response(parsed.response)
    if result == "error":
        return parsed.request_id, StreamFailure(parsed.error.code, parsed.error.message)
    raise MessageError("the stream's answer holds neither a response nor an error")


def _parse(cls: type[_M], message: bytes) -> _M:
    parsed = cls()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        name = cls.DESCRIPTOR.full_name
        raise MessageError(f"expected an {name}, got {len(message)} bytes that are not one") from None
    return parsed


def _response(parsed: pb.PredictResponse) -> DecodedResponse:
    outputs = _tensors("output", parsed.outputs)
    return DecodedResponse(parsed.model_name, parsed.version, parsed.signature, outputs, parsed.request_id)


def _tensors(role: str, tensors: Iterable[tensor_pb2.Tensor]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for tensor in tensors:
        name = tensor.name
        if name in arrays:
            raise TensorError(f"{role} {name!r} is given more than once")
        dtype = known_dtype(tensor.dtype, name)
        check_rank(len(tensor.shape), name)
        try:
            arrays[name] = decode(name, dtype, tuple(tensor.shape), tensor.data)
        except ImportError as error:
            raise TensorError(f"tensor {name!r}: {error}") from None
    return arrays
