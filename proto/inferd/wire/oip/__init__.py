"""The messages of inference.GRPCInferenceService's data plane, between bytes and plain values, without copies.

As in `inferd.wire.native`: a recogniser takes what unmodified clients send (raw contents, in the order of the inputs)
and hands any other form (typed contents, shared memory, unknown fields) to the generated class, which alone decides.

    values      the messages as plain values
    recognise   the usual form, read by hand; what repeats it is read by comparison (`inferd.wire.forms`)
    fallback    every other form, through inferd.oip.v1
    compose     responses: cached heads, the arrays' own bytes, one join

Arrays that come out are read-only views of the message. All functions are thread-safe.
"""

from __future__ import annotations

from inferd.wire.forms import Forms
from inferd.wire.oip.compose import encode_response, encode_responses, encode_stream_failure, encode_stream_response
from inferd.wire.oip.recognise import recognise_request
from inferd.wire.oip.values import OipRequest, Parameter, Parameters, SharedInput, WantedOutput
from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError

__all__ = [
    "FORMS",
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


Facts = tuple[str, str, Parameters, tuple[WantedOutput, ...]]
FORMS: Forms[Facts] = Forms(0x1A)


def decode_request(message: bytes) -> OipRequest:
    """A ModelInferRequest. Raises WireError, worded as Triton words it."""
    form = FORMS.match(message)
    if form is not None:
        inputs = form.inputs(message)
        request_id = form.request_id(message) if form.identified else ""
        if inputs is not None and request_id is not None:
            name, version, parameters, outputs = form.kind.facts
            return OipRequest(name, version, request_id, parameters, inputs, outputs, {}, form.kind)
    try:
        request = recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire.oip import fallback

        return fallback.decode_request(message)
    if form is None:
        facts = (request.model_name, request.model_version, request.parameters, request.outputs)
        learned = FORMS.learn(message, request.inputs, request.request_id, facts)
        request.kind = None if learned is None else learned.kind
    return request
