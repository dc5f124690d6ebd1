"""Converts the messages of inferd.v1.PredictService between bytes and plain values, without protobuf and copies.

Decoding takes the first of these ways that accepts the message:

    message_forms   a message that repeats an earlier one, except for its data and id: read by comparison
    recognise       a message in its usual encoding: read by hand
    fallback        any other message: read by the generated class, which also defines the texts of the errors

Decoded arrays are read-only views of the message. Encoding (`compose`) joins cached heads and the arrays. All functions
are thread-safe.
"""

from __future__ import annotations

from inferd.wire.compose import (
    encode_request,
    encode_response,
    encode_responses,
    encode_stream_failure,
    encode_stream_response,
)
from inferd.wire.message_forms import MessageLayouts
from inferd.wire.reader import Unrecognised
from inferd.wire.recognise import recognise_request, recognise_response, recognise_stream_head
from inferd.wire.tensors import SMALL, WireError
from inferd.wire.values import DecodedRequest, DecodedResponse, StreamFailure

__all__ = [
    "LAYOUTS",
    "DecodedRequest",
    "DecodedResponse",
    "Facts",
    "StreamFailure",
    "WireError",
    "decode_request",
    "decode_response",
    "decode_stream_response",
    "encode_request",
    "encode_response",
    "encode_responses",
    "encode_stream_failure",
    "encode_stream_response",
]


# The facts of a request form: name, version, label, signature, outputs, priority, queue timeout.
Facts = tuple[str, int | None, str | None, str, tuple[str, ...], int, int]
LAYOUTS: MessageLayouts[Facts] = MessageLayouts(0x22)
_response_layouts: MessageLayouts[tuple[str, int, str]] = MessageLayouts(0x2A)  # name, version, signature


def decode_request(message: bytes) -> DecodedRequest:
    """Decodes a PredictRequest. Raises WireError, with a message for the caller."""
    layout = LAYOUTS.match(message)
    if layout is not None:
        inputs = layout.inputs(message)
        request_id = layout.request_id(message) if layout.identified else ""
        if inputs is not None and request_id is not None:
            name, version, label, signature, outputs, priority, timeout = layout.form.facts
            return DecodedRequest(
                name, version, label, signature, inputs, outputs, request_id, priority, timeout, layout.form
            )
    try:
        request = recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire import fallback

        return fallback.decode_request(message)
    if layout is None:
        facts = (
            request.model_name,
            request.version,
            request.label,
            request.signature,
            request.outputs,
            request.priority,
            request.queue_timeout_us,
        )
        learned = LAYOUTS.learn(message, request.inputs, request.request_id, facts)
        request.form = None if learned is None else learned.form
    return request


def decode_response(message: bytes) -> DecodedResponse:
    """Decodes a PredictResponse. Raises WireError."""
    try:
        return _read_response(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire import fallback

        return fallback.decode_response(message)


def _read_response(message: bytes) -> DecodedResponse:
    layout = _response_layouts.match(message)
    if layout is not None:
        outputs = layout.inputs(message)
        request_id = layout.request_id(message) if layout.identified else ""
        if outputs is not None and request_id is not None:
            name, version, signature = layout.form.facts
            return DecodedResponse(name, version, signature, outputs, request_id)
    response = recognise_response(message, 0, len(message))
    if layout is None:
        facts = (response.model_name, response.version, response.signature)
        _response_layouts.learn(message, response.outputs, response.request_id, facts)
    return response


def decode_stream_response(message: bytes) -> tuple[str, DecodedResponse | StreamFailure]:
    """Decodes a PredictStreamResponse: the id of its request, and the response or the failure. Raises WireError."""
    try:
        request_id, start = recognise_stream_head(message)
        if len(message) <= SMALL:  # to copy the response and compare it costs less than to recognise it
            return request_id, _read_response(message[start:])
        return request_id, recognise_response(message, start, len(message))
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire import fallback

        return fallback.decode_stream_response(message)
