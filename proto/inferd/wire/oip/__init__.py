"""Converts the inference messages of inference.GRPCInferenceService between bytes and plain values, without copies.

As in `inferd.wire.native`, a recogniser reads what unmodified clients send (raw contents, in the order of the inputs).
The generated class reads everything else: typed contents, shared memory, unknown fields.

    values      the messages as plain values
    recognise   the usual encoding, read by hand; repetitions are read by comparison (`inferd.wire.message_forms`)
    fallback    every other encoding, read by inferd.oip.v1
    compose     responses: cached heads and the arrays' own bytes, joined once

Decoded arrays are read-only views of the message. All functions are thread-safe.
"""

from __future__ import annotations

from inferd.wire.message_forms import MessageLayouts
from inferd.wire.oip.compose import encode_response, encode_responses, encode_stream_failure, encode_stream_response
from inferd.wire.oip.recognise import recognise_request
from inferd.wire.oip.values import OipRequest, Parameter, Parameters, SharedInput, WantedOutput
from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError

__all__ = [
    "LAYOUTS",
    "Facts",
    "OipRequest",
    "Parameter",
    "Parameters",
    "SharedInput",
    "WantedOutput",
    "WireError",
    "decode_request",
    "encode_response",
    "encode_responses",
    "encode_stream_failure",
    "encode_stream_response",
]


# The facts of a request form: name, version, parameters, outputs.
Facts = tuple[str, str, Parameters, tuple[WantedOutput, ...]]
LAYOUTS: MessageLayouts[Facts] = MessageLayouts(0x1A)


def decode_request(message: bytes) -> OipRequest:
    """Decodes a ModelInferRequest. Raises WireError, with Triton's error texts."""
    layout = LAYOUTS.match(message)
    if layout is not None:
        inputs = layout.inputs(message)
        request_id = layout.request_id(message) if layout.identified else ""
        if inputs is not None and request_id is not None:
            name, version, parameters, outputs = layout.form.facts
            return OipRequest(name, version, request_id, parameters, inputs, outputs, {}, layout.form)
    try:
        request = recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire.oip import fallback

        return fallback.decode_request(message)
    if layout is None:
        facts = (request.model_name, request.model_version, request.parameters, request.outputs)
        learned = LAYOUTS.learn(message, request.inputs, request.request_id, facts)
        request.form = None if learned is None else learned.form
    return request
