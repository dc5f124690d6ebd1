"""One request and its answer, with both clients."""

from __future__ import annotations

import math
import re

import grpc
import ml_dtypes
import numpy as np
import pytest
from support.client import Failure, Script, f32_signature, rows

from inferd.client import InvalidArgument, InvalidInput, NotFound, Prediction
from inferd.v1 import tensor_pb2


def test_outputs_are_arrays(client):
    answer = client.predict("m", {"x": rows(3)})
    assert isinstance(answer, Prediction)
    np.testing.assert_array_equal(answer["y"], rows(3))
    assert answer["y"].dtype == np.float32
    assert (answer.model, answer.version, answer.signature) == ("m", 3, "serving_default")


def test_every_argument_reaches_the_server(client, script: Script):
    answer = client.predict(
        "m",
        {"x": rows(), "z": rows()},
        version=7,
        signature="other",
        outputs=["y"],
        request_id="r-1",
        priority=2,
        queue_timeout=0.25,
        metadata={"tenant": "t"},
        timeout=5.0,
    )
    (request,) = script.requests
    assert request.model.version == 7
    assert request.model.signature == "other"
    assert list(request.outputs) == ["y"]
    assert (request.request_id, request.priority, request.queue_timeout_us) == ("r-1", 2, 250_000)
    assert script.metadata[0]["tenant"] == "t"
    assert list(answer) == ["y"]
    assert (answer.version, answer.request_id, answer.signature) == (7, "r-1", "other")


def test_a_label_reaches_the_server(client, script: Script):
    client.predict("m", {"x": rows()}, label="canary")
    assert script.requests[0].model.WhichOneof("choice") == "label"
    assert script.requests[0].model.label == "canary"


def test_a_single_output_can_be_given_as_a_string(client):
    assert list(client.predict("m", {"x": rows(), "z": rows()}, outputs="z")) == ["z"]


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array(7, dtype=np.int64),
        np.array(0.5, dtype=np.float16),
        np.zeros((0, 4), dtype=np.float32),
        np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16),
        np.arange(12, dtype=np.int32).reshape(3, 4).T,
        np.array([1, 2], dtype=">i4"),
        np.array([1.0, float("nan"), float("inf")]),
        np.array([2**64 - 1], dtype=np.uint64),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_of_every_element_type_are_returned_unchanged(client, array):
    answer = client.predict("m", {"x": array})["y"]
    assert answer.shape == array.shape
    assert answer.dtype == array.dtype.newbyteorder("=") or answer.dtype == array.dtype
    np.testing.assert_array_equal(answer.astype(np.float64), array.astype(np.float64))


@pytest.mark.parametrize(
    "value",
    [
        np.array([b"a", b"\x00\xff\x00", b""], dtype=object),
        np.array([["é", "x"]], dtype=object),
        np.array(["plain", "str"]),
        np.array(b"scalar", dtype=object),
        np.empty((0, 2), dtype=object),
    ],
    ids=["bytes", "text", "unicode dtype", "scalar", "none"],
)
def test_strings_are_returned_as_bytes(client, value):
    answer = client.predict("m", {"x": value})["y"]
    assert answer.shape == value.shape
    expected = [item.encode() if isinstance(item, str) else item for item in value.ravel().tolist()]
    assert answer.ravel().tolist() == expected


def test_numpy_scalars_and_array_likes_keep_their_type(client, script: Script):
    class Tensorish:
        def __array__(self, dtype=None, copy=None):
            return rows(2)

    answer = client.predict("m", {"x": np.int16(4), "z": Tensorish()})
    assert answer["y"].dtype == np.int16
    np.testing.assert_array_equal(answer["z"], rows(2))
    assert script.calls == ["Predict"]


def test_lists_get_the_signatures_element_type_which_is_fetched_once(client, script: Script):
    first = client.predict("m", {"x": [[1, 2], [3, 4]]})
    client.predict("m", {"x": [[5, 6]]})
    assert first["y"].dtype == np.float32
    assert script.calls == ["GetModelMetadataRequest", "Predict", "Predict"]


def test_metadata_is_remembered_per_version_and_label(client, script: Script):
    for choice in ({}, {"version": 1}, {"label": "a"}, {"version": 1}):
        client.predict("m", {"x": [[5, 6]]}, **choice)
    assert script.calls.count("GetModelMetadataRequest") == 3
    assert script.admin[1].version == 1
    assert script.admin[2].label == "a"


@pytest.mark.parametrize("lone", [rows(2), [[1.0, 2.0]]], ids=["array", "list"])
def test_the_input_of_a_model_with_one_input_needs_no_name(client, script: Script, lone):
    answer = client.predict("m", lone)
    assert script.requests[0].inputs[0].name == "x"
    np.testing.assert_array_equal(answer["y"], np.asarray(lone, np.float32))


def test_a_value_without_a_name_is_refused_for_two_inputs(client, script: Script):
    signature = f32_signature()
    signature.inputs.add(name="z", dtype=tensor_pb2.DATA_TYPE_FP32)
    script.signatures = [signature]
    with pytest.raises(InvalidInput, match="takes 2 inputs: x, z"):
        client.predict("m", rows())
    assert script.requests == []


def test_metadata_is_fetched_again_when_a_new_version_has_other_types(client, script: Script):
    client.predict("m", {"x": [[1, 2]]})
    script.signatures = [f32_signature(dtype=tensor_pb2.DATA_TYPE_INT64)]

    def refuse(request):
        if request.inputs[0].dtype != tensor_pb2.DATA_TYPE_INT64:
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, "input 'x': expected INT64, got FP32")
        return None

    script.refuse = refuse
    assert client.predict("m", {"x": [[1, 2]]})["y"].dtype == np.int64


def test_an_array_of_a_wrong_type_is_sent_once_and_refused(client, script: Script):
    script.refuse = lambda request: Failure(grpc.StatusCode.INVALID_ARGUMENT, "input 'x': expected FP32, got FP64")
    with pytest.raises(InvalidArgument, match="expected FP32, got FP64"):
        client.predict("m", {"x": np.zeros((1, 2))})
    with pytest.raises(InvalidArgument):
        client.predict("m", {"x": [[1, 2]]})
    assert script.calls == ["Predict", "GetModelMetadataRequest", "Predict", "GetModelMetadataRequest"]


def test_without_metadata_lists_get_numpys_element_type(client, script: Script):
    script.metadata_code = grpc.StatusCode.UNIMPLEMENTED
    assert client.predict("m", {"x": [1.5]})["y"].dtype == np.float64
    with pytest.raises(InvalidInput, match="mapping of name to array"):
        client.predict("m", [1.5])


def test_a_model_unknown_to_the_metadata_is_not_found(client, script: Script):
    script.metadata_code = grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFound):
        client.predict("m", [1.5])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"version": 1, "label": "a"}, "both given"),
        ({"priority": -1}, "priority is -1"),
        ({"queue_timeout": 0.0}, "queue_timeout is 0.0"),
        ({"timeout": -1.0}, "timeout is -1.0"),
        ({"metadata": {"key": b"bytes"}}, "'-bin'"),
        ({"metadata": {"two words": "a"}}, "'two words': a key is made of"),
        ({"metadata": {"": "a"}}, "a key is made of"),
        ({"metadata": {"key": "a\nb"}}, "'key': expected printable ASCII"),
        ({"metadata": {"key": "\u00fc"}}, "others travel under 'key-bin'"),
        ({"metadata": {"key": 5}}, "'-bin'"),
        ({"metadata": {5: "a"}}, "expected pairs"),
        ({"metadata": [("key",)]}, "expected pairs"),
        ({"metadata": 5}, "expected pairs"),
        ({"timeout": "5"}, "timeout is '5'; expected seconds"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"version": "1"}, "version is '1'; expected a whole number"),
        ({"version": 2**63}, "version: expected"),
        ({"label": 1}, "label is 1; expected text"),
        ({"signature": 3}, "signature is 3; expected text"),
        ({"outputs": 5}, "outputs is 5; expected names"),
        ({"outputs": ["y", 1]}, "expected names"),
        ({"request_id": b"a"}, "request_id is b'a'; expected text"),
        ({"priority": "1"}, "priority is '1'; expected a whole number"),
        ({"priority": None}, "priority is None; expected a whole number"),
        ({"queue_timeout": "1"}, "queue_timeout is '1'; expected seconds"),
    ],
    ids=str,
)
def test_invalid_arguments_are_not_sent(client, script: Script, arguments, told):
    with pytest.raises(InvalidInput, match=told):
        client.predict("m", {"x": rows()}, **arguments)
    assert script.calls == []


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"x": np.zeros(2, np.complex64)}, "complex64"),
        ({"x": np.array([1, None], dtype=object)}, "got int"),
        ({1: rows()}, "request to 'm'"),
    ],
    ids=["complex", "objects", "name"],
)
def test_arrays_that_cannot_be_sent_are_refused_by_the_client(client, script: Script, inputs, told):
    with pytest.raises(InvalidInput, match=told):
        client.predict("m", inputs)
    assert script.calls == []


@pytest.mark.skipif(not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="numpy 2 has them")
def test_numpys_own_strings_can_be_sent(client):
    array = np.array([["a", "\u00fc"]], dtype=np.dtypes.StringDType())
    assert client.predict("m", {"x": array})["y"].tolist() == [[b"a", "\u00fc".encode()]]


@pytest.mark.parametrize("model", ["", None, 5, b"m"], ids=repr)
def test_an_invalid_model_name_is_not_sent(client, script: Script, model):
    with pytest.raises(InvalidInput, match=re.escape(f"model is {model!r}")):
        client.predict(model, {"x": rows()})
    assert script.calls == []


@pytest.mark.parametrize("timeout", [1e9, 1e19, 1e300, 10**400, math.inf], ids=repr)
def test_a_timeout_beyond_grpcs_clock_means_no_timeout(client, timeout):
    assert client.predict("m", {"x": rows()}, timeout=timeout).version == 3


def test_the_error_for_a_missing_output_lists_the_outputs(client):
    answer = client.predict("m", {"x": rows()})
    with pytest.raises(KeyError, match="no output 'q'; 'm' answered y"):
        answer["q"]
    assert "q" not in answer
    assert len(answer) == 1


def test_a_large_tensor_can_be_sent(client):
    large = np.zeros(6_000_000, np.float32)
    assert client.predict("m", {"x": large})["y"].nbytes == large.nbytes
