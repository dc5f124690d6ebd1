"""Decodes a PredictRequest of TensorFlow Serving with the generated class, if the recogniser does not take it.

This module defines what a message means, and the texts of the errors. The tests compare the recogniser with it.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.wire.reader import occurrences
from inferd.wire.tensors import Array, MessageError, TensorError, check_fields
from inferd.wire.tfs.tensor import Filling, array_of
from inferd.wire.values import DecodedRequest


def decode_request(message: bytes) -> DecodedRequest:
    """Decodes a PredictRequest. Raises WireError."""
    parsed = pb.PredictRequest()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        raise MessageError(f"expected a PredictRequest, got {len(message)} bytes that are not one") from None
    check_fields("inputs", len(parsed.inputs))
    check_fields("outputs", len(parsed.output_filter))
    entries = occurrences(message, pb.PredictRequest.INPUTS_FIELD_NUMBER)
    if entries > len(parsed.inputs):
        # The generated class keeps the last entry of a name. Which one the caller meant, nobody can tell.
        raise MessageError(f"expected every input once, got {entries} inputs with {len(parsed.inputs)} different names")
    inputs: dict[str, Array] = {}
    filling = Filling()
    for name, tensor in parsed.inputs.items():
        try:
            inputs[name] = array_of(name, tensor, filling)
        except TensorError as error:
            raise TensorError(f"tensor parsing error: {name}: {error}") from None
    name, version, label, signature = spec_of(parsed.model_spec)
    return DecodedRequest(name, version, label, signature, inputs, tuple(parsed.output_filter), "", 0, 0)


def spec_of(spec: pb.ModelSpec) -> tuple[str, int | None, str | None, str]:
    """The name, version, label and signature of a ModelSpec. A version or label that is not given is None, a signature
    that is not given is ""."""
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
        spec.signature_name,
    )
