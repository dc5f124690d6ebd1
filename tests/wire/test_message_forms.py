"""Messages that repeat an earlier one are read by comparison, with the result of the generated class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from inferd.oip.v1 import infer_pb2 as oip_pb
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.v1 import predict_service_pb2 as pb
from inferd.wire import fallback, native, oip, tfs
from inferd.wire.dtypes import DType
from inferd.wire.message_forms import MessageLayout, MessageLayouts
from inferd.wire.oip import fallback as oip_fallback
from inferd.wire.tensors import WireError
from inferd.wire.tfs import fallback as tfs_fallback
from inferd.wire.tfs.dtypes import NUMBER
from inferd.wire.values import DecodedResponse

DTYPES = [DType.BOOL, DType.FP32, DType.INT64, DType.UINT8, DType.BF16, DType.STRING]
TEXT = st.text(max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, DType, list[int], bytes]]:
    found = []
    for name in draw(st.lists(TEXT, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=2))
        count = int(np.prod(shape, dtype=int))
        if dtype is DType.STRING:
            data = b"\1\0\0\0a" * count
        elif dtype is DType.BOOL:
            data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
        else:
            size = count * dtype.itemsize
            data = draw(st.binary(min_size=size, max_size=size))
        found.append((name, dtype, shape, data))
    return found


@st.composite
def native_messages(draw: st.DrawFn) -> bytes:
    spec: dict[str, Any] = {"name": draw(TEXT), "signature": draw(TEXT)}
    if draw(st.booleans()):
        spec["version"] = draw(st.integers(0, 300))
    return pb.PredictRequest(
        model=spec,
        inputs=[{"name": n, "dtype": d, "shape": s, "data": data} for n, d, s, data in draw(tensors())],
        outputs=draw(st.lists(TEXT, max_size=2)),
        request_id=draw(TEXT),
        priority=draw(st.integers(0, 3)),
    ).SerializeToString()


@st.composite
def native_answers(draw: st.DrawFn) -> bytes:
    return pb.PredictResponse(
        model_name=draw(TEXT),
        version=draw(st.integers(-1, 300)),
        signature=draw(TEXT),
        outputs=[{"name": n, "dtype": d, "shape": s, "data": data} for n, d, s, data in draw(tensors())],
        request_id=draw(TEXT),
    ).SerializeToString()


@st.composite
def oip_messages(draw: st.DrawFn) -> bytes:
    request = oip_pb.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for name, dtype, shape, data in draw(tensors()):
        request.inputs.add(name=name, datatype=dtype.oip_name, shape=shape)
        request.raw_input_contents.append(data)
    if draw(st.booleans()):
        request.parameters["timeout"].int64_param = draw(st.integers(0, 300))
    for name in draw(st.lists(TEXT, max_size=2)):
        request.outputs.add(name=name)
    return request.SerializeToString()


@st.composite
def tfs_messages(draw: st.DrawFn) -> bytes:
    spec: dict[str, Any] = {"name": draw(TEXT), "signature_name": draw(TEXT)}
    if draw(st.booleans()):
        spec["version"] = {"value": draw(st.integers(0, 300))}
    request = tfs_pb.PredictRequest(model_spec=spec, output_filter=draw(st.lists(TEXT, max_size=2)))
    for name, dtype, shape, data in draw(tensors()):
        tensor = request.inputs[name]
        tensor.dtype = NUMBER[dtype]
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        if dtype is DType.FP32 and draw(st.booleans()):
            tensor.float_val.extend(np.frombuffer(data, np.float32).tolist())
        else:
            tensor.tensor_content = data
    return request.SerializeToString()


def outcome(decode: Callable[[bytes], Any], message: bytes) -> Any:
    """The result of a decoder as values that can be compared."""
    try:
        decoded = decode(message)
    except WireError as error:
        return type(error), str(error), error.request_id
    said = {slot: getattr(decoded, slot) for slot in decoded.__slots__ if slot not in ("form", "inputs", "outputs")}
    tensors = decoded.outputs if isinstance(decoded, DecodedResponse) else decoded.inputs
    arrays = [(n, a.dtype, a.shape, a.tolist() if a.dtype == object else a.tobytes()) for n, a in tensors.items()]
    if not isinstance(decoded, DecodedResponse):
        said["outputs"] = decoded.outputs
    return said, sorted(arrays, key=lambda array: array[0])  # maps have no order


@pytest.mark.parametrize(
    ("decode", "oracle", "messages"),
    [
        (native.decode_request, fallback.decode_request, native_messages()),
        (native.decode_response, fallback.decode_response, native_answers()),
        (oip.decode_request, oip_fallback.decode_request, oip_messages()),
        (tfs.decode_request, tfs_fallback.decode_request, tfs_messages()),
    ],
    ids=["native", "native answer", "oip", "tfs"],
)
def test_a_message_read_by_comparison_equals_the_generated_class(
    decode: Any, oracle: Any, messages: st.SearchStrategy[bytes]
):
    @settings(max_examples=150, deadline=None)
    @given(messages, st.data())
    def check(message: bytes, data: st.DataObject) -> None:
        first = outcome(decode, message)
        assert first == outcome(oracle, message)
        assert outcome(decode, message) == first
        for _ in range(3):
            changed = bytearray(message)
            for _ in range(data.draw(st.integers(1, 4))):
                if changed:
                    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
            told = outcome(decode, bytes(changed))
            event("taken" if isinstance(told[0], dict) else "refused")
            assert told == outcome(oracle, bytes(changed))

    check()


@settings(max_examples=100, deadline=None)
@given(native_answers(), TEXT, st.booleans())
def test_a_stream_response_read_by_comparison_equals_the_generated_class(answer: bytes, request_id: str, large: bool):
    if large:
        x = np.arange(2000, dtype=np.float32)
        answer = native.encode_response("m", 1, "s", {"x": x}, request_id)
    message = native.encode_stream_response(request_id, answer)
    for _ in range(2):
        found, decoded = native.decode_stream_response(message)
        expected, oracle = fallback.decode_stream_response(message)
        assert found == expected == request_id
        assert outcome(lambda _, said=decoded: said, b"") == outcome(lambda _, said=oracle: said, b"")


def test_only_data_and_id_may_differ_within_a_form():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = native.decode_request(native.encode_request("f", {"x": x}, request_id="aa", outputs=("y",)))
    again = native.decode_request(native.encode_request("f", {"x": x + 1}, request_id="bb", outputs=("y",)))
    assert first.form is not None
    assert again.form is first.form
    assert (again.request_id, again.outputs) == ("bb", ("y",))
    np.testing.assert_array_equal(again.inputs["x"], x + 1)
    assert not again.inputs["x"].flags.writeable
    for other in (
        native.encode_request("g", {"x": x}, request_id="aa", outputs=("y",)),
        native.encode_request("f", {"x": x}, request_id="aa", outputs=("z",)),
        native.encode_request("f", {"x": x.reshape(3, 2)}, request_id="aa", outputs=("y",)),
        native.encode_request("f", {"x": x.view(np.int32)}, request_id="aa", outputs=("y",)),
    ):
        assert native.decode_request(other).form is not first.form


class Held(NamedTuple):
    """A message with its layout, as requests hold it."""

    layout: Any
    message: bytes


def test_messages_with_ids_of_other_lengths_have_the_same_form():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    messages = [native.encode_request("k", {"x": x + n, "i": x}, request_id="a" * n) for n in (1, 3, 0)]
    forms = [native.decode_request(message).form for message in messages]
    assert forms[0] is forms[1]
    assert forms[0] is forms[2]
    layouts = [native.LAYOUTS.match(message) for message in messages]
    assert len({id(layout) for layout in layouts}) == 3
    joined = layouts[0].form.joined([Held(*pair) for pair in zip(layouts, messages, strict=True)])
    assert list(joined) == ["x", "i"]
    np.testing.assert_array_equal(joined["x"], np.concatenate([x + 1, x + 3, x]))
    np.testing.assert_array_equal(joined["i"], np.concatenate([x] * 3))
    assert not joined["x"].flags.writeable


@pytest.mark.parametrize("length", range(9))
def test_aligned_gives_aligned_arrays_at_any_offset(length: int):
    x, i = np.arange(6, dtype=np.float64).reshape(2, 3), np.arange(2, dtype=np.int16)
    message = native.encode_request("m" * length, {"x": x, "i": i}, request_id="a")
    assert native.decode_request(message).form is not None
    layout = native.LAYOUTS.match(message)
    inputs = layout.aligned(message)
    assert list(inputs) == ["x", "i"]
    for name, array in (("x", x), ("i", i)):
        np.testing.assert_array_equal(inputs[name], array)
        assert inputs[name].flags.aligned
        assert not inputs[name].flags.writeable


def test_messages_with_an_invalid_bool_are_not_joined():
    yes = native.encode_request("b", {"x": np.ones(3, np.bool_)})
    assert native.decode_request(yes).form is not None
    layout = native.LAYOUTS.match(yes)
    assert layout.form.joined([Held(layout, yes), Held(layout, yes)])["x"].all()
    assert layout.form.joined([Held(layout, yes), Held(layout, yes[:-1] + b"\x02")]) is None
    assert layout.aligned(yes)["x"].all()
    assert layout.aligned(yes[:-1] + b"\x02") is None


def test_no_input_is_copied():
    x = np.zeros(1000, np.float32)
    message = native.encode_request("big", {"x": x, "y": x})
    for _ in range(2):
        for array in native.decode_request(message).inputs.values():
            assert np.may_share_memory(array, np.frombuffer(message, np.uint8))


def test_a_message_whose_id_occurs_twice_has_no_layout():
    data = b'"\x01a' + b"0"  # the field of the id
    decoded = [
        native.decode_request(native.encode_request("twice", {"x": np.frombuffer(data, np.uint8)}, request_id="a"))
        for _ in range(2)
    ]
    assert [d.form for d in decoded] == [None, None]
    assert decoded[1].request_id == "a"


def test_a_message_with_converted_values_has_no_layout():
    layouts: MessageLayouts[str] = MessageLayouts(0x22)
    assert layouts.learn(b"12345678", {"x": np.zeros(2, np.float32)}, "", "") is None
    assert layouts.learn(b"", {}, "", "") is None


def test_layouts_are_bounded():
    layouts: MessageLayouts[int] = MessageLayouts(0x22)

    def learn(head: bytes, number: int) -> MessageLayout[int] | None:
        message = head + bytes(4)
        return layouts.learn(message, {"x": np.frombuffer(message, np.float32, 1, len(head))}, "", number)

    for i in range(600):
        assert learn(b"%d" % i + b"." * (i % 90), i) is not None
    known = [i for i in range(600) if layouts.match(b"%d" % i + b"." * (i % 90) + bytes(4)) is not None]
    assert 599 in known
    assert 100 < len(known) <= 256
    assert learn(b"h" * 5000, 0) is None  # the shared bytes are too many to keep
    for i in range(20):
        learn(b"same%03d" % i, i)
    assert sum(layouts.match(b"same%03d" % i + bytes(4)) is not None for i in range(20)) == 8
