"""The recogniser of the Open Inference Protocol compared with the generated class, on any bytes."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.oip.v1 import infer_pb2 as pb
from inferd.wire import oip
from inferd.wire.dtypes import DType
from inferd.wire.oip import fallback
from inferd.wire.oip.recognise import recognise_request
from inferd.wire.reader import Unrecognised
from inferd.wire.tensors import WireError, raw

TEXT = st.text(max_size=6)
INT64 = st.integers(-(2**63), 2**63 - 1)
PARAMETER = st.one_of(
    st.builds(lambda v: pb.InferParameter(bool_param=v), st.booleans()),
    st.builds(lambda v: pb.InferParameter(int64_param=v), INT64),
    st.builds(lambda v: pb.InferParameter(string_param=v), TEXT),
    st.builds(lambda v: pb.InferParameter(double_param=v), st.floats(allow_nan=False)),
    st.builds(lambda v: pb.InferParameter(uint64_param=v), st.integers(0, 2**64 - 1)),
    st.just(pb.InferParameter()),
)
PARAMETERS = st.dictionaries(TEXT | st.just("shared_memory_region"), PARAMETER, max_size=2)
DATATYPE = st.sampled_from([d.oip_name for d in DType] + ["STRING", "FP8", ""])
CONTENTS = st.one_of(
    st.none(),
    st.builds(lambda v: pb.InferTensorContents(fp32_contents=v), st.lists(st.floats(width=32), max_size=4)),
    st.builds(lambda v: pb.InferTensorContents(int_contents=v), st.lists(st.integers(-300, 300), max_size=4)),
    st.builds(lambda v: pb.InferTensorContents(bytes_contents=v), st.lists(st.binary(max_size=3), max_size=4)),
    st.just(pb.InferTensorContents(bool_contents=[True], uint_contents=[3])),
)


@st.composite
def honest(draw: st.DrawFn) -> bytes:
    """A request as tritonclient encodes it."""
    request = pb.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for name in draw(st.lists(TEXT, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DType))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        count = int(np.prod(shape))
        if dtype is DType.STRING:
            array = np.empty(count, object)
            array[:] = draw(st.lists(st.binary(max_size=4), min_size=count, max_size=count))
        else:
            size = count * dtype.itemsize
            bits = draw(st.binary(min_size=size, max_size=size))
            if dtype is DType.BOOL:
                bits = bytes(byte & 1 for byte in bits)
            array = np.frombuffer(bits, dtype.numpy)
        request.inputs.add(name=name, datatype=dtype.oip_name, shape=shape)
        request.raw_input_contents.append(bytes(raw(name, array, dtype)))
    for name in draw(st.lists(TEXT, max_size=2)):
        request.outputs.add(name=name).parameters["classification"].int64_param = draw(st.integers(0, 5))
    for name, parameter in draw(st.dictionaries(TEXT, PARAMETER, max_size=2)).items():
        if parameter.WhichOneof("parameter_choice"):
            request.parameters[name].CopyFrom(parameter)
    return request.SerializeToString()


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """Any request, with raw or typed contents, which may or may not fit the shape."""
    request = pb.ModelInferRequest(model_name=draw(TEXT), id=draw(TEXT))
    for _ in range(draw(st.integers(0, 2))):
        shape = draw(st.lists(st.integers(-1, 3), max_size=2))
        tensor = request.inputs.add(name=draw(TEXT), datatype=draw(DATATYPE), shape=shape)
        contents = draw(CONTENTS)
        if contents is not None:
            tensor.contents.CopyFrom(contents)
        for key, value in draw(PARAMETERS).items():
            tensor.parameters[key].CopyFrom(value)
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=16), max_size=2)))
    for name in draw(st.lists(TEXT, max_size=2)):
        output = request.outputs.add(name=name)
        for key, value in draw(PARAMETERS).items():
            output.parameters[key].CopyFrom(value)
    for key, value in draw(PARAMETERS).items():
        request.parameters[key].CopyFrom(value)
    return request.SerializeToString()


def plain(request: oip.OipRequest) -> Any:
    """All fields of a request as values that can be compared; floats by their bits."""

    def tensor(array: np.ndarray) -> Any:
        assert not array.flags.writeable
        content = array.tolist() if array.dtype == object else array.tobytes()
        return str(array.dtype), array.shape, content

    def parameters(found: oip.Parameters) -> Any:
        return {key: (value.kind, repr(value.value)) for key, value in found.items()}

    return (
        request.model_name,
        request.model_version,
        request.request_id,
        parameters(request.parameters),
        {name: tensor(array) for name, array in request.inputs.items()},
        [(wanted.name, parameters(wanted.parameters)) for wanted in request.outputs],
        {name: (shared.dtype, shared.shape, parameters(shared.parameters)) for name, shared in request.shared.items()},
    )


def outcome(decode: Any, message: bytes) -> Any:
    try:
        return plain(decode(message))
    except WireError as error:
        return str(error)


def agree(message: bytes) -> None:
    assert outcome(oip.decode_request, message) == outcome(fallback.decode_request, message)


@given(honest())
def test_messages_of_tritonclient_are_recognised(message: bytes) -> None:
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


@given(st.binary(max_size=64))
def test_random_bytes_are_read_like_the_generated_class(message: bytes) -> None:
    agree(message)


@pytest.mark.parametrize("dtype", list(DType))
def test_raw_inputs_are_views_of_the_message(dtype: DType) -> None:
    array = np.array([b"a", b"", "\0ä".encode()], object) if dtype is DType.STRING else np.ones(3, dtype.numpy)
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=dtype.oip_name, shape=[3])
    request.raw_input_contents.append(bytes(raw("x", array, dtype)))
    message = request.SerializeToString()
    with patch.object(fallback, "decode_request", side_effect=AssertionError("not recognised")):
        got = oip.decode_request(message).inputs["x"]
    assert got.dtype == dtype.numpy
    assert got.tolist() == array.tolist()
    if dtype is not DType.STRING:
        start = message.index(array.tobytes())
        assert got.ctypes.data == np.frombuffer(message, np.uint8).ctypes.data + start


TYPED = {
    DType.BOOL: ("bool_contents", [True, False]),
    DType.INT8: ("int_contents", [-128, 127]),
    DType.INT16: ("int_contents", [-(2**15), 2**15 - 1]),
    DType.INT32: ("int_contents", [-(2**31), 2**31 - 1]),
    DType.INT64: ("int64_contents", [-(2**63), 2**63 - 1]),
    DType.UINT8: ("uint_contents", [0, 255]),
    DType.UINT16: ("uint_contents", [0, 2**16 - 1]),
    DType.UINT32: ("uint_contents", [0, 2**32 - 1]),
    DType.UINT64: ("uint64_contents", [0, 2**64 - 1]),
    DType.FP32: ("fp32_contents", [0.5, -2.0]),
    DType.FP64: ("fp64_contents", [0.5, -2.0]),
    DType.STRING: ("bytes_contents", [b"", b"\0x"]),
}


@pytest.mark.parametrize("dtype", TYPED)
def test_typed_contents(dtype: DType) -> None:
    field, values = TYPED[dtype]
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=dtype.oip_name, shape=[1, 2])
    getattr(tensor.contents, field).extend(values)
    got = oip.decode_request(request.SerializeToString()).inputs["x"]
    assert got.dtype == dtype.numpy
    assert got.tolist() == [values]


@pytest.mark.parametrize(
    ("datatype", "field", "number", "expected"),
    [
        ("INT8", "int_contents", 128, "128 is out of the range of INT8, expected -128 to 127"),
        ("INT8", "int_contents", -129, "-129 is out of the range of INT8"),
        ("INT16", "int_contents", 2**15, "32768 is out of the range of INT16"),
        ("UINT8", "uint_contents", 300, "300 is out of the range of UINT8, expected 0 to 255"),
        ("UINT16", "uint_contents", 2**16, "65536 is out of the range of UINT16"),
    ],
)
def test_narrow_integers_that_do_not_fit_are_refused(datatype: str, field: str, number: int, expected: str) -> None:
    """Triton takes the low bytes, and so answers for another number."""
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(tensor.contents, field).extend([0, number])
    with pytest.raises(WireError, match=f"input 'x' for model 'm': {expected}"):
        oip.decode_request(request.SerializeToString())


def _with(datatype: str = "FP32", shape: tuple[int, ...] = (1,), *raws: bytes, **typed: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="7", raw_input_contents=raws)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if typed:
        tensor.contents.CopyFrom(pb.InferTensorContents(**typed))
    return request


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (_with("FP32", (1,)), "unable to find data for input tensor 'x' for model 'm' in request."),
        (_with("FP32", (1,), b"1234", fp32_contents=[1]), "contents field must not be specified when using raw_input"),
        (_with("FP32", (2,), b"1234"), "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4"),
        (_with("FP32", (2,), fp32_contents=[1]), "input byte size mismatch for input 'x' for model 'm'. Expected 8"),
        (_with("FP32", (1,), int_contents=[1]), "unexpected explicit tensor data for input tensor input 'x' for model"),
        (_with("FP32", (1,), int_contents=[1], fp32_contents=[1]), "binary data was already supplied"),
        (_with("FP16", (1,), fp32_contents=[1]), "datatype FP16 of input 'x' for model 'm' has no typed contents"),
        (_with("FP8", (1,), b"1"), "unknown datatype 'FP8' of input 'x' for model 'm'; expected one of BOOL, UINT8"),
        (_with("STRING", (1,), b"\0\0\0\0"), "unknown datatype 'STRING'"),
        (_with("FP32", (-1,), b"1234"), "expected every dimension to be 0 or more"),
        (_with("BYTES", (1,), b"\1\0\0"), "incomplete string length indicator for inference input 'x' for model 'm'"),
        (_with("BYTES", (1,), b"\2\0\0\0a"), "expecting string of length 2 but only 1 bytes available"),
        (_with("BYTES", (1,), b"\0\0\0\0" * 2), "unexpected number of string elements 2 for inference input 'x'"),
        (_with("BYTES", (2,), b"\0\0\0\0"), "expected 2 string elements for inference input 'x' for model 'm', got 1"),
        (_with("BYTES", (2,), bytes_contents=[b"a"]), "expected 2 string elements for inference input 'x'"),
        (_with("BOOL", (1,), b"\2"), "expected BOOL bytes to be 0 or 1, got 2"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_errors_have_tritons_texts(request_: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(WireError) as caught:
        oip.decode_request(request_.SerializeToString())
    assert text in str(caught.value)
    assert caught.value.request_id == "7"


def test_the_claimed_size_is_not_allocated() -> None:
    for request in (_with("FP32", (2**40,), b"1234"), _with("BYTES", (2**40,), b"1234"), _with("BYTES", (2**40,))):
        with pytest.raises(WireError):
            oip.decode_request(request.SerializeToString())


def test_inputs_in_shared_memory_have_no_raw_entry() -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"\1\0\0\0"])
    region = request.inputs.add(name="far", datatype="FP32", shape=[2]).parameters
    region["shared_memory_region"].string_param = "r"
    region["shared_memory_byte_size"].int64_param = 8
    request.inputs.add(name="near", datatype="INT32", shape=[1])
    got = oip.decode_request(request.SerializeToString())
    assert got.inputs["near"].tolist() == [1]
    assert got.shared["far"].shape == (2,)
    assert got.shared["far"].parameters["shared_memory_byte_size"] == ("int64_param", 8)


def test_surplus_raw_entries_are_refused() -> None:
    expected = "expected 1 entries in raw_input_contents for model 'm', one for each input .*, got 2"
    with pytest.raises(WireError, match=expected):
        oip.decode_request(_with("INT32", (1,), b"\1\0\0\0", b"more").SerializeToString())
    none = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"1"])
    with pytest.raises(WireError, match="expected 0 entries in raw_input_contents"):
        oip.decode_request(none.SerializeToString())


def test_an_input_given_twice_is_refused() -> None:
    request = _with("INT32", (1,), b"\1\0\0\0", b"\1\0\0\0")
    request.inputs.add(name="x", datatype="INT32", shape=[1])
    with pytest.raises(WireError, match="input 'x' already exists in request for model 'm'"):
        oip.decode_request(request.SerializeToString())


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (0, 3)])
def test_responses_have_one_raw_entry_for_each_output(dtype: DType, shape: tuple[int, ...]) -> None:
    array = np.full(shape, b"a\0", object) if dtype is DType.STRING else np.ones(shape, dtype.numpy)
    message = oip.encode_response("m", 12, {"y": array, "z": np.zeros((0,), np.float32)}, "id")
    got = pb.ModelInferResponse.FromString(message)
    assert (got.model_name, got.model_version, got.id) == ("m", "12", "id")
    assert [(o.name, o.datatype, tuple(o.shape)) for o in got.outputs] == [
        ("y", dtype.oip_name, shape),
        ("z", "FP32", (0,)),
    ]
    assert not any(output.HasField("contents") for output in got.outputs)
    assert list(got.raw_output_contents) == [bytes(raw("y", array, dtype)), b""]
    assert message == got.SerializeToString(deterministic=True)


def test_stream_answers() -> None:
    response = oip.encode_response("m", 1, {"y": np.arange(3)}, "a", final=True)
    got = pb.ModelStreamInferResponse.FromString(oip.encode_stream_response(response))
    assert got.infer_response.id == "a"
    assert got.infer_response.parameters["triton_final_response"].bool_param is True
    assert got.error_message == ""
    failed = pb.ModelStreamInferResponse.FromString(oip.encode_stream_failure("no", "b", "m"))
    assert failed.error_message == "no"
    assert (failed.infer_response.id, failed.infer_response.model_name) == ("b", "m")
    not_final = pb.ModelInferResponse.FromString(oip.encode_response("m", 1, {}, final=False))
    assert not_final.parameters["triton_final_response"].bool_param is False


def test_bfloat16_can_be_sent() -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    got = pb.ModelInferResponse.FromString(oip.encode_response("m", 1, {"y": array}))
    request = _with("BF16", (2,), got.raw_output_contents[0])
    assert oip.decode_request(request.SerializeToString()).inputs["x"].tolist() == [1.5, -2.0]


def test_heads_too_long_for_the_cache_are_read() -> None:
    request = _with("INT32", (1,), b"\1\0\0\0")
    request.inputs[0].name = "n" * 1000
    request.outputs.add(name="o" * 1000)
    recognised = recognise_request(request.SerializeToString())
    assert recognised.inputs["n" * 1000].tolist() == [1]
    with pytest.raises(Unrecognised):
        recognise_request(request.SerializeToString() + b"\x0a\x01a")
