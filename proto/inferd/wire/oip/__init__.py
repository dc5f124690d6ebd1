"""The messages of inference.GRPCInferenceService's data plane, between bytes and plain values, without copies.

As in `inferd.wire.native`: a recogniser takes what unmodified clients send (raw contents, in the order of the inputs)
and hands any other form (typed contents, shared memory, unknown fields) to the generated class, which alone decides.

    values      the messages as plain values
    recognise   the usual form, read by hand
    fallback    every other form, through inferd.oip.v1
    compose     responses: cached heads, the arrays' own bytes, one join

Arrays that come out are read-only views of the message. All functions are thread-safe.
"""

from __future__ import annotations

from inferd.wire.oip.compose import encode_response, encode_stream_failure, encode_stream_response
from inferd.wire.oip.recognise import recognise_request
from inferd.wire.oip.values import OipRequest, Parameter, Parameters, SharedInput, WantedOutput
from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError

__all__ = [
    "OipRequest",
    "Parameter",
    "Parameters",
    "SharedInput",
    "WantedOutput",
    "WireError",
    "decode_request",
    "encode_response",
    "encode_stream_failure",
    "encode_stream_response",
]


def decode_request(message: bytes) -> OipRequest:
    """A ModelInferRequest. Raises WireError, worded as Triton words it."""
    try:
        return recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire.oip import fallback

        return fallback.decode_request(message)
