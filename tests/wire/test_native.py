"""The recogniser compared with the generated class: both read every message in the same way."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from inferd.v1 import predict_service_pb2 as pb
from inferd.wire import fallback, native, recognise
from inferd.wire.reader import Unrecognised, read_varint, varint
from inferd.wire.tensors import MessageError, TensorError, WireError

NAMES = st.text(max_size=5) | st.sampled_from(["x", "serving_default_x:0", "y" * 200])
INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5)


def same(a: Any, b: Any) -> bool:
    """Whether two decoded messages are equal. Arrays are compared by element type, shape and bytes."""
    if isinstance(a, native.DecodedRequest | native.DecodedResponse):
        return type(a) is type(b) and all(
            same(getattr(a, slot), getattr(b, slot)) for slot in a.__slots__ if slot != "form"
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
    return bool(a == b)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from([1, 6, 11, 13, 14, 9]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape, dtype=int))
    if dtype == 13:
        items = [draw(st.binary(max_size=3)) for _ in range(count)]
        data = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    elif dtype == 1:
        data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    else:
        size = {6: 1, 11: 4, 14: 2, 9: 8}[dtype] * count
        data = draw(st.binary(min_size=size, max_size=size))
    if draw(st.integers(0, 9)) == 0:  # sometimes a tensor whose data does not fit
        data = draw(st.binary(max_size=8))
        shape = draw(st.lists(INT64, max_size=3))
        dtype = draw(st.integers(-1, 20))
    return {"name": draw(NAMES), "dtype": dtype, "shape": shape, "data": data}


@st.composite
def requests(draw: st.DrawFn) -> pb.PredictRequest:
    spec: dict[str, Any] = {"name": draw(NAMES), "signature": draw(NAMES)}
    choice = draw(st.sampled_from(["", "version", "label"]))
    if choice:
        spec[choice] = draw(INT64 if choice == "version" else NAMES)
    return pb.PredictRequest(
        model=spec,
        inputs=draw(st.lists(tensors(), max_size=3)),
        outputs=draw(st.lists(NAMES, max_size=3)),
        request_id=draw(NAMES),
        priority=draw(st.integers(0, 2**32 - 1) | st.just(0)),
        queue_timeout_us=draw(st.integers(0, 2**64 - 1) | st.just(0)),
    )


@st.composite
def responses(draw: st.DrawFn) -> pb.PredictResponse:
    return pb.PredictResponse(
        model_name=draw(NAMES),
        version=draw(INT64),
        signature=draw(NAMES),
        outputs=draw(st.lists(tensors(), max_size=3)),
        request_id=draw(NAMES),
    )


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[Any]) -> bytes:
    """A message, unchanged, joined to another one, truncated, or with changed bytes."""
    data = draw(messages).SerializeToString()
    kind = draw(st.sampled_from(["whole", "joined", "cut", "changed", "inserted"]))
    if kind == "joined":
        return data + draw(messages).SerializeToString()
    if data and kind == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if data and kind == "changed":
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    if kind == "inserted":
        at = draw(st.integers(0, len(data)))
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at:]
    return data


def check(message: bytes, recognised: Any, oracle: Any) -> None:
    try:
        mine = recognised(message)
    except (Unrecognised, IndexError, WireError):
        event("not recognised")
        return
    event("recognised")
    assert same(mine, oracle(message))


@settings(max_examples=150)
@given(mutated(requests()))
@example(b"\x0a\x00")
@example(b"\x12\x00")
@example(b"\x0a\x02\x10\x80")
@example(b"\x28\x80\x00")
@example(b"\x28\xff\xff\xff\xff\x1f")
@example(b"\x30" + b"\xff" * 9 + b"\x02")
@example(b"\x12\x04\x10\x06\x22\x01")
@example(b"\x12\x06\x10\x06\x22\x01a\x00")
@example(b"\x12\x09\x10\x06\x1a\x02\x01\x80\x22\x01a")
def test_a_recognised_request_equals_the_generated_class(message: bytes):
    check(message, recognise.recognise_request, fallback.decode_request)


@settings(max_examples=150)
@given(mutated(responses()))
def test_a_recognised_response_equals_the_generated_class(message: bytes):
    check(message, lambda m: recognise.recognise_response(m, 0, len(m)), fallback.decode_response)


@settings(max_examples=80)
@given(
    mutated(
        st.builds(pb.PredictStreamResponse, request_id=NAMES, response=responses())
        | st.builds(
            pb.PredictStreamResponse, request_id=NAMES, error=st.builds(pb.StreamError, code=st.integers(0, 16))
        )
    )
)
def test_a_recognised_stream_response_equals_the_generated_class(message: bytes):
    def pair(function: Any) -> Any:
        return lambda m: dict(enumerate(function(m)))

    def recognised(m: bytes) -> Any:
        request_id, start = recognise.recognise_stream_head(m)
        return request_id, recognise.recognise_response(m, start, len(m))

    for function in (recognised, native.decode_stream_response):
        check(message, pair(function), pair(fallback.decode_stream_response))


@settings(max_examples=150)
@given(st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused_with_a_message(message: bytes):
    for decode in (native.decode_request, native.decode_response, native.decode_stream_response):
        with contextlib.suppress(WireError):
            decode(message)


@given(requests())
def test_usual_requests_take_the_fast_path(asked: pb.PredictRequest):
    message = asked.SerializeToString()
    try:
        oracle = fallback.decode_request(message)
    except WireError:
        return
    if any(len(tensor.shape) and not tensor.dtype for tensor in asked.inputs):
        return
    assert same(recognise.recognise_request(message), oracle)


ARRAYS = st.sampled_from(
    [
        np.float32(1.5).reshape(()),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.zeros((0, 4), np.float32),
        np.arange(9000, dtype=np.uint8).reshape(90, 100),
        np.array([[True, False]]),
        np.array([b"a", "ü", b""], object),
        np.ones(3, ml_dtypes.bfloat16),
        np.arange(6, dtype=">f8").reshape(2, 3).T,
    ]
)


@settings(max_examples=80)
@given(st.data())
def test_encoded_requests_equal_the_generated_class(data: st.DataObject):
    choice = data.draw(st.sampled_from(["", "version", "label"]))
    version = data.draw(INT64) if choice == "version" else None
    label = data.draw(NAMES) if choice == "label" else None
    inputs = data.draw(st.dictionaries(NAMES, ARRAYS, max_size=3))
    message = native.encode_request(
        data.draw(NAMES),
        inputs,
        version=version,
        label=label,
        signature=data.draw(NAMES),
        outputs=data.draw(st.lists(NAMES, max_size=2)),
        request_id=data.draw(NAMES),
        priority=data.draw(st.integers(0, 2**32 - 1)),
        queue_timeout_us=data.draw(st.integers(0, 2**64 - 1)),
    )
    parsed = pb.PredictRequest.FromString(message)
    assert parsed.SerializeToString() == message
    decoded = native.decode_request(message)
    assert (decoded.version, decoded.label) == (version, label)
    assert list(decoded.inputs) == list(inputs)
    for name, array in inputs.items():
        back = decoded.inputs[name]
        assert back.shape == array.shape
        if array.dtype != object:
            np.testing.assert_array_equal(back, array)


@given(NAMES, INT64, NAMES, st.dictionaries(NAMES, ARRAYS, max_size=3), NAMES)
def test_encoded_responses_equal_the_generated_class(
    model: str, version: int, signature: str, outputs: dict[str, np.ndarray], request_id: str
):
    message = native.encode_response(model, version, signature, outputs, request_id)
    assert pb.PredictResponse.FromString(message).SerializeToString() == message
    decoded = native.decode_response(message)
    assert (decoded.model_name, decoded.version, decoded.signature) == (model, version, signature)
    assert decoded.request_id == request_id
    stream = native.encode_stream_response(request_id, message)
    assert pb.PredictStreamResponse.FromString(stream).SerializeToString() == stream
    assert same(dict(enumerate(native.decode_stream_response(stream))), {0: request_id, 1: decoded})


@given(NAMES, st.integers(0, 16), st.text())
def test_stream_failures(request_id: str, code: int, text: str):
    failure = native.StreamFailure(code, text)
    message = native.encode_stream_failure(request_id, failure)
    assert pb.PredictStreamResponse.FromString(message).SerializeToString() == message
    assert native.decode_stream_response(message) == (request_id, failure)


@given(st.integers(-(2**63), 2**64 - 1))
def test_varints(value: int):
    data = varint(value)
    assert read_varint(data + b"\x01", 0) == (value % 2**64, len(data))
    assert len(data) <= 10


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80" * 11])
def test_non_canonical_varints_are_not_recognised(data: bytes):
    with pytest.raises(Unrecognised):
        read_varint(data, 0)


def test_unusual_but_valid_messages_are_read_by_the_generated_class():
    message = native.encode_request("m", {"x": np.ones(2, np.float32)})
    for odd in (
        message + b"\x0a\x03\x0a\x01n",  # the model twice: protobuf merges the fields
        message + b"\x7a\x01?",  # an unknown field
        message + b"\x28\x81\x00",  # a varint longer than needed
        b"\x12\x0c\x1a\x01\x02\x10\x06\x22\x01a\x22\x02ab",  # tensor fields out of order, data twice
    ):
        with pytest.raises(Unrecognised):
            recognise.recognise_request(odd)
        decoded = native.decode_request(odd)
        assert decoded.inputs
    assert native.decode_request(message + b"\x0a\x03\x0a\x01n").model_name == "n"


@pytest.mark.parametrize(
    ("tensors_", "text"),
    [
        ([{"name": "x", "dtype": 6, "shape": [1], "data": b"1"}] * 2, "input 'x' is given more than once"),
        ([{"name": "x", "dtype": 0, "shape": [1], "data": b"1"}], "tensor 'x': unknown element type 0"),
        ([{"name": "x", "dtype": 11, "shape": [2], "data": b"1"}], "tensor 'x': expected 8 bytes"),
        ([{"name": "x", "dtype": 1, "shape": [1], "data": b"\2"}], "tensor 'x': expected BOOL bytes"),
    ],
)
def test_errors_name_the_tensor_and_the_request(tensors_: list[dict[str, Any]], text: str):
    message = pb.PredictRequest(inputs=tensors_, request_id="r1").SerializeToString()
    with pytest.raises(TensorError, match="x") as caught:
        native.decode_request(message)
    assert text in str(caught.value)
    assert caught.value.request_id == "r1"


def test_a_broken_message_is_not_a_tensor_error():
    with pytest.raises(MessageError, match=r"expected an inferd.v1.PredictRequest, got 3 bytes"):
        native.decode_request(b"\xff\xff\xff")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"version": 1, "label": "a"},
        {"version": 2**63},
        {"priority": -1},
        {"priority": 2**32},
        {"queue_timeout_us": 2**64},
        {"request_id": "\ud800"},
        {"label": "\ud800"},
    ],
)
def test_values_that_cannot_be_sent_are_refused(kwargs: dict[str, Any]):
    with pytest.raises(WireError):
        native.encode_request("m", {}, **kwargs)


def test_arrays_that_cannot_be_sent_are_named():
    with pytest.raises(TensorError, match="tensor 'z': arrays of complex128"):
        native.encode_request("m", {"z": np.ones(1, complex)})
    with pytest.raises(TensorError, match="at most 32 dimensions"):
        native.encode_request("m", {"z": np.ones((1,) * 40)})


def test_the_fast_path_does_not_import_protobuf():
    code = (
        "import sys, numpy as np; from inferd.wire import native;"
        "m = native.encode_request('m', {'x': np.ones(2, np.float32)}); native.decode_request(m);"
        "r = native.encode_response('m', 1, 's', {'y': np.ones(2, np.float32)}); native.decode_response(r);"
        "sys.exit('google.protobuf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
