"""The recogniser of TensorFlow Serving's messages compared with the generated class, on any bytes."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.tfs.v1 import tensor_pb2
from inferd.wire import tfs
from inferd.wire.dtypes import DType
from inferd.wire.reader import varint
from inferd.wire.tensors import WireError
from inferd.wire.tfs import fallback
from inferd.wire.tfs.dtypes import DTYPE, FIELD, NUMBER
from inferd.wire.tfs.recognise import recognise_request
from inferd.wire.tfs.tensor import MAX_FILLED, array_of
from inferd.wire.varints import packed_varints

TEXT = st.text(max_size=6)
INT64 = st.integers(-(2**63), 2**63 - 1)
NUMBERS = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "string_val": st.binary(max_size=3),
    "int64_val": INT64,
    "bool_val": st.booleans(),
    "half_val": st.integers(-5, 2**16 + 5),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
}


def _shape(dims: list[int]) -> tensor_pb2.TensorShapeProto:
    return tensor_pb2.TensorShapeProto(dim=[tensor_pb2.TensorShapeProto.Dim(size=size) for size in dims])


@st.composite
def spec(draw: st.DrawFn) -> pb.ModelSpec:
    found = pb.ModelSpec(name=draw(TEXT), signature_name=draw(TEXT))
    choice = draw(st.integers(0, 2))
    if choice == 1:
        found.version.value = draw(INT64)
    elif choice == 2:
        found.version_label = draw(TEXT)
    return found


@st.composite
def honest(draw: st.DrawFn) -> bytes:
    """A request as TensorFlow's Python client encodes it for arrays of numbers."""
    request = pb.PredictRequest(model_spec=draw(spec()), output_filter=draw(st.lists(TEXT, max_size=2)))
    for name in draw(st.lists(TEXT, max_size=2, unique=True)):
        dtype = draw(st.sampled_from([d for d in DType if d is not DType.STRING]))
        dims = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(dims)) * dtype.itemsize
        bits = draw(st.binary(min_size=size, max_size=size))
        if dtype is DType.BOOL:
            bits = bytes(byte & 1 for byte in bits)
        tensor = request.inputs[name]
        tensor.dtype = NUMBER[dtype]
        tensor.tensor_shape.CopyFrom(_shape(dims))
        if dtype in (DType.FP32, DType.FP64) and draw(st.booleans()):
            values = np.frombuffer(bits, dtype.numpy)
            getattr(tensor, FIELD[dtype]).extend(np.nan_to_num(values).tolist())
        else:
            tensor.tensor_content = bits
    return request.SerializeToString()


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    request = pb.PredictRequest(model_spec=draw(spec()), output_filter=draw(st.lists(TEXT, max_size=2)))
    for name in draw(st.lists(TEXT, max_size=2)):
        tensor = request.inputs[name]
        tensor.dtype = draw(st.sampled_from([*DTYPE, 0, 8, 99]))
        tensor.tensor_shape.CopyFrom(_shape(draw(st.lists(st.integers(-1, 4), max_size=2))))
        tensor.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
        if draw(st.booleans()):
            tensor.tensor_content = draw(st.binary(max_size=16))
        field = FIELD.get(DTYPE.get(tensor.dtype, DType.FP32), "float_val")
        getattr(tensor, field).extend(draw(st.lists(NUMBERS[field], max_size=5)))
    return request.SerializeToString()


def plain(request: tfs.DecodedRequest) -> Any:
    def tensor(array: np.ndarray) -> Any:
        assert not array.flags.writeable
        content = array.tolist() if array.dtype == object else array.tobytes()
        return str(array.dtype), array.shape, content

    return (
        request.model_name,
        request.version,
        request.label,
        request.signature,
        {name: tensor(array) for name, array in request.inputs.items()},
        request.outputs,
        request.request_id,
        request.priority,
        request.queue_timeout_us,
    )


def outcome(decode: Any, message: bytes) -> Any:
    try:
        return plain(decode(message))
    except WireError as error:
        # Maps have no order: if several tensors are wrong, the error may name any of them.
        return str(error).split(":")[0]


def agree(message: bytes) -> None:
    assert outcome(tfs.decode_request, message) == outcome(fallback.decode_request, message)


@given(honest())
def test_messages_of_tensorflow_are_recognised(message: bytes) -> None:
    assert plain(recognise_request(message)) == plain(fallback.decode_request(message))


@given(anything())
def test_any_message_is_read_like_the_generated_class(message: bytes) -> None:
    agree(message)


@given(honest() | anything(), st.data())
@settings(max_examples=300)
def test_truncated_mutated_and_concatenated_messages_are_read_like_the_generated_class(
    message: bytes, data: st.DataObject
) -> None:
    agree(message[: data.draw(st.integers(0, len(message)))])
    mutable = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        if mutable:
            mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(mutable))
    agree(message + data.draw(honest() | anything() | st.binary(max_size=8)))


def _tensor(dtype: DType, dims: list[int], **fields: Any) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto(dtype=NUMBER[dtype], tensor_shape=_shape(dims), **fields)


def _request(**inputs: tensor_pb2.TensorProto) -> bytes:
    return pb.PredictRequest(model_spec=pb.ModelSpec(name="m"), inputs=inputs).SerializeToString()


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.STRING])
def test_raw_content_is_a_view_of_the_message(dtype: DType) -> None:
    array = np.ones(3, dtype.numpy)
    message = _request(x=_tensor(dtype, [3], tensor_content=array.tobytes()))
    with patch.object(fallback, "decode_request", side_effect=AssertionError("not recognised")):
        got = tfs.decode_request(message).inputs["x"]
    assert got.dtype == dtype.numpy
    assert got.tolist() == [1, 1, 1]
    start = message.index(array.tobytes())
    assert got.ctypes.data == np.frombuffer(message, np.uint8).ctypes.data + start


@pytest.mark.parametrize("dtype", [DType.FP32, DType.FP64])
def test_packed_floats_are_a_view_of_the_message(dtype: DType) -> None:
    array = np.arange(4, dtype=dtype.numpy)
    message = _request(x=_tensor(dtype, [2, 2], **{FIELD[dtype]: array.tolist()}))
    with patch.object(fallback, "decode_request", side_effect=AssertionError("not recognised")):
        got = tfs.decode_request(message).inputs["x"]
    assert got.tolist() == [[0, 1], [2, 3]]


VALUES = {
    DType.FP32: [0.5, -2.0],
    DType.FP64: [0.5, -2.0],
    DType.INT32: [-(2**31), 7],
    DType.UINT8: [255, 7],
    DType.INT16: [-(2**15), 7],
    DType.INT8: [-128, 7],
    DType.STRING: [b"a", b""],
    DType.INT64: [-(2**63), 7],
    DType.BOOL: [True, False],
    DType.UINT16: [2**16 - 1, 7],
    DType.UINT32: [2**32 - 1, 7],
    DType.UINT64: [2**64 - 1, 7],
}


@pytest.mark.parametrize("dtype", VALUES)
def test_missing_values_equal_the_last_one(dtype: DType) -> None:
    first, last = VALUES[dtype]
    field = FIELD[dtype]
    few = array_of("x", _tensor(dtype, [2, 2], **{field: [first, last]}))
    assert few.tolist() == [[first, last], [last, last]]
    assert few.dtype == dtype.numpy
    with pytest.raises(WireError, match=r"'x': expected 1 values for shape \[1\], got 3"):
        array_of("x", _tensor(dtype, [1], **{field: [first, last, last]}))
    none = array_of("x", _tensor(dtype, [2]))
    assert none.tolist() == [b"" if dtype is DType.STRING else 0] * 2
    assert array_of("x", _tensor(dtype, [0])).shape == (0,)
    assert array_of("x", _tensor(dtype, [], **{field: [first]})).shape == ()


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
def test_half_values_are_bit_patterns(dtype: DType) -> None:
    bits = np.array([1.5, -2], dtype.numpy).view(np.uint16).tolist()
    assert array_of("x", _tensor(dtype, [3], half_val=bits)).tolist() == [1.5, -2, -2]
    for wrong in (2**16, -1):
        with pytest.raises(WireError, match=f"'x': half_val: {wrong} is out of the range of UINT16, expected 0 to"):
            array_of("x", _tensor(dtype, [2], half_val=[bits[0], wrong]))


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(DType.UINT8, 300), (DType.UINT8, -1), (DType.INT8, 128), (DType.INT16, -(2**15) - 1), (DType.UINT16, 2**16)],
)
def test_numbers_that_do_not_fit_are_refused(dtype: DType, number: int) -> None:
    """TensorFlow takes the low bytes, and so answers for another number."""
    with pytest.raises(WireError, match=f"tensor parsing error: x: tensor 'x': {number} is out of the range of"):
        tfs.decode_request(_request(x=_tensor(dtype, [2], int_val=[0, number])))


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (
            _tensor(DType.FP32, [1], tensor_content=b"1234", float_val=[7]),
            "in one field, got them in tensor_content, f",
        ),
        (_tensor(DType.FP32, [1], float_val=[7], double_val=[7]), "in one field, got them in float_val, double_val"),
        (_tensor(DType.INT32, [1], float_val=[1.5]), "of DT_INT32 in int_val or tensor_content, got them in float_val"),
        (_tensor(DType.INT64, [1], int_val=[1]), "of DT_INT64 in int64_val or tensor_content, got them in int_val"),
    ],
)
def test_values_in_another_field_are_refused(tensor: tensor_pb2.TensorProto, text: str) -> None:
    with pytest.raises(WireError, match=text):
        tfs.decode_request(_request(x=tensor))


def test_an_input_given_twice_is_refused() -> None:
    once = _request(x=_tensor(DType.FP32, [1], float_val=[1]))
    twice = once + _request(x=_tensor(DType.FP32, [1], float_val=[2]))
    with pytest.raises(WireError, match="expected every input once, got 2 inputs with 1 different names"):
        tfs.decode_request(twice)
    other = once + _request(y=_tensor(DType.FP32, [1], float_val=[2]))
    assert sorted(tfs.decode_request(other).inputs) == ["x", "y"]


def test_strings_in_content() -> None:
    items = [b"a" * 200, b"", b"\0"]
    content = b"".join(varint(len(item)) for item in items) + b"".join(items)
    assert array_of("x", _tensor(DType.STRING, [3], tensor_content=content)).tolist() == items


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (_tensor(DType.FP32, [2], tensor_content=b"1234"), "tensor parsing error: x: tensor 'x': expected 8 bytes"),
        (_tensor(DType.FP32, [-1], float_val=[1]), "expected every dimension to be 0 or more"),
        (tensor_pb2.TensorProto(dtype=8), "element type DT_COMPLEX64 is not served; expected one of DT_FLOAT"),
        (tensor_pb2.TensorProto(dtype=77), "element type 77 is not served"),
        (tensor_pb2.TensorProto(), "element type DT_INVALID is not served"),
        (
            tensor_pb2.TensorProto(dtype=1, tensor_shape=tensor_pb2.TensorShapeProto(unknown_rank=True)),
            "expected a shape, got one of unknown rank",
        ),
        (_tensor(DType.BOOL, [1], tensor_content=b"\2"), "expected BOOL bytes to be 0 or 1, got 2"),
        (_tensor(DType.STRING, [2], tensor_content=b"\1"), "expected at least 2 bytes for 2 strings"),
        (_tensor(DType.STRING, [1], tensor_content=b"\5ab"), "expected 5 bytes of strings, got 2"),
        (_tensor(DType.STRING, [2], tensor_content=b"\5\xff"), "expected 2 string lengths as varints, got 1"),
        (_tensor(DType.FP32, [2**40], float_val=[1]), "what is filled up may take"),
        (_tensor(DType.STRING, [2**40], string_val=[b"a"]), "what is filled up may take"),
        (_tensor(DType.UINT8, [2**20, 2**10]), "what is filled up may take"),
        (_tensor(DType.STRING, [2**40], tensor_content=b"a"), "expected at least"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_refusals(tensor: tensor_pb2.TensorProto, text: str) -> None:
    with pytest.raises(WireError) as caught:
        tfs.decode_request(_request(x=tensor))
    assert str(caught.value).startswith("tensor parsing error: x: ")
    assert text in str(caught.value)


def test_filled_bytes_are_bounded_for_all_tensors_together() -> None:
    large = _tensor(DType.FP64, [MAX_FILLED // 16])
    whole = tfs.decode_request(_request(a=large, b=large))
    assert sum(array.nbytes for array in whole.inputs.values()) == MAX_FILLED
    with pytest.raises(WireError, match=r"what is filled up may take .* in all tensors of a message"):
        tfs.decode_request(_request(a=large, b=large, c=_tensor(DType.FP64, [1])))


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (0, 3)])
def test_responses_are_read_by_the_generated_class(dtype: DType, shape: tuple[int, ...], content: bool) -> None:
    array = np.full(shape, b"a\0", object) if dtype is DType.STRING else np.full(shape, 1, dtype.numpy)
    message = tfs.encode_response("m", 12, "serving_default", {"y": array, "": np.arange(3.0)}, content=content)
    got = pb.PredictResponse.FromString(message)
    assert (got.model_spec.name, got.model_spec.version.value, got.model_spec.signature_name) == (
        "m",
        12,
        "serving_default",
    )
    back = array_of("y", got.outputs["y"])
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert back.tolist() == array.tolist()
    assert array_of("", got.outputs[""]).tolist() == [0, 1, 2]
    assert bool(got.outputs["y"].tensor_content) == (content and array.size > 0 and dtype is not DType.STRING)


@given(st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64, np.bool_]), st.data())
def test_packed_varints_are_protobufs(kind: Any, data: st.DataObject) -> None:
    limits = np.iinfo(np.uint8 if kind is np.bool_ else kind)
    high = 1 if kind is np.bool_ else limits.max
    values = data.draw(st.lists(st.integers(int(limits.min), int(high)), max_size=40))
    array = np.array(values, kind)
    assert packed_varints(array) == b"".join(varint(int(value)) for value in array)


def test_many_varints_are_encoded_in_chunks() -> None:
    array = np.arange(-100_000, 100_000)
    assert packed_varints(array) == b"".join(varint(int(value)) for value in array)


def test_version_zero_is_a_version() -> None:
    zero = pb.ModelSpec(name="m")
    zero.version.SetInParent()
    message = pb.PredictRequest(model_spec=zero).SerializeToString()
    assert recognise_request(message).version == 0
    assert tfs.decode_request(_request()).version is None
    answer = pb.PredictResponse.FromString(tfs.encode_response("m", 0, "", {}))
    assert answer.model_spec.HasField("version")


def test_bfloat16_can_be_sent() -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    got = pb.PredictResponse.FromString(tfs.encode_response("m", 1, "", {"y": array}))
    assert array_of("y", got.outputs["y"]).tolist() == [1.5, -2.0]


def test_fields_of_an_unknown_kind_are_no_inputs() -> None:
    """A field with the number of `inputs` that is no message is unknown to the generated class, and skipped."""
    once = _request(x=_tensor(DType.FP32, [1], float_val=[1]))
    assert list(tfs.decode_request(once + b"\x10\x01").inputs) == ["x"]
