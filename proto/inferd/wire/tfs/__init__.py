"""Converts the messages of tensorflow.serving.PredictionService's Predict between bytes and plain values.

As in `inferd.wire.native`, a recogniser reads what TensorFlow's own clients send (tensor_content, packed float_val and
double_val). The generated class reads everything else.

    dtypes      TensorFlow's numbers for the element types
    recognise   the usual encoding of a PredictRequest, read by hand; repetitions are compared (`wire.message_forms`)
    fallback    every other encoding, read by inferd.tfs.v1
    tensor      a TensorProto's values, by TensorFlow's rules
    compose     responses: cached heads and the arrays' own bytes, joined once

Decoded arrays are read-only; those that the recogniser reads are views of the message. All functions are thread-safe.
"""

from __future__ import annotations

from inferd.wire.message_forms import MessageLayouts
from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError
from inferd.wire.tfs.compose import encode_response, encode_responses
from inferd.wire.tfs.recognise import recognise_request
from inferd.wire.values import DecodedRequest

__all__ = ["LAYOUTS", "DecodedRequest", "Facts", "WireError", "decode_request", "encode_response", "encode_responses"]


# The facts of a request form: name, version, label, signature, outputs.
Facts = tuple[str, int | None, str | None, str, tuple[str, ...]]
LAYOUTS: MessageLayouts[Facts] = MessageLayouts(0)  # its messages have no id


def decode_request(message: bytes) -> DecodedRequest:
    """Decodes a PredictRequest of TensorFlow Serving. Raises WireError, with a message for the caller."""
    layout = LAYOUTS.match(message)
    if layout is not None:
        inputs = layout.inputs(message)
        if inputs is not None:
            name, version, label, signature, outputs = layout.form.facts
            return DecodedRequest(name, version, label, signature, inputs, outputs, "", 0, 0, layout.form)
    try:
        request = recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire.tfs import fallback

        return fallback.decode_request(message)
    if layout is None:
        facts = (request.model_name, request.version, request.label, request.signature, request.outputs)
        learned = LAYOUTS.learn(message, request.inputs, "", facts)
        request.form = None if learned is None else learned.form
    return request
