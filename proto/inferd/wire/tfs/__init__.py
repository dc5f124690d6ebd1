"""The messages of tensorflow.serving.PredictionService's Predict, between bytes and plain values.

As in `inferd.wire.native`: a recogniser takes what TensorFlow's own clients send (tensor_content, packed float_val and
double_val) and hands any other form to the generated class, which alone decides.

    dtypes      TensorFlow's numbers for the element types
    recognise   the usual form of a PredictRequest, read by hand
    fallback    every other form, through inferd.tfs.v1
    tensor      a TensorProto's values, by TensorFlow's rules
    compose     responses: cached heads, the arrays' own bytes, one join

Arrays that come out are read-only; where they were recognised they are views of the message. All functions are
thread-safe.
"""

from __future__ import annotations

from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError
from inferd.wire.tfs.compose import encode_response
from inferd.wire.tfs.recognise import recognise_request
from inferd.wire.values import DecodedRequest

__all__ = ["DecodedRequest", "WireError", "decode_request", "encode_response"]


def decode_request(message: bytes) -> DecodedRequest:
    """A PredictRequest of TensorFlow Serving. Raises WireError, worded for the caller."""
    try:
        return recognise_request(message)
    except (Unrecognised, IndexError, WireError, ImportError):
        from inferd.wire.tfs import fallback

        return fallback.decode_request(message)
