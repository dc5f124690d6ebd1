"""The Open Inference Protocol over REST: requests and responses in full, against fake models."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from support.foreign_models import add
from support.rest import Rest, tensor

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import ExecutionFailed, NotFound, Overloaded, QueueTimeout
from inferd.wire.dtypes import DType

INFER = "/v2/models/digits/infer"
X = {"inputs": [tensor("x", [[1.5, 2]])]}


def output(answer, name="y"):
    (found,) = [each for each in answer.json["outputs"] if each["name"] == name]
    return found


def with_binary(head, *tensors, **headers):
    text = json.dumps(head).encode()
    return b"".join((text, *tensors)), {"Inference_Header_Content_Length": str(len(text)), **headers}


def test_json_request_and_json_response(rest: Rest) -> None:
    answer = rest.post(INFER, {"id": "a", **X})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "model_name": "digits",
        "model_version": "1",
        "id": "a",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0]},
            {"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
        ],
    }


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]])
def test_data_may_be_flat_or_nested(rest: Rest, data: list) -> None:
    answer = rest.post(INFER, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": data}]})
    assert output(answer)["data"] == [2, 4, 6, 8]


def test_null_members_count_as_absent(rest: Rest) -> None:
    """Clients that serialize every field of a class send null for fields that are not set."""
    nothing = dict.fromkeys(("id", "parameters", "outputs"))
    x = {**X["inputs"][0], "parameters": None}
    assert rest.post(INFER, {**nothing, "inputs": [x]}).json == rest.post(INFER, X).json
    assert rest.post(INFER, {"inputs": [x], "outputs": [{"name": "y", "parameters": None}]}).status == 200
    assert "'inputs' of the request is missing" in rest.post(INFER, {"inputs": None}).error
    assert rest.post("/v2/repository/index", {"ready": None}).status == 200
    assert rest.post("/v2/repository/models/digits/load", {"parameters": None}).status == 200


def test_outputs_come_in_the_order_of_the_request(rest: Rest) -> None:
    answer = rest.post(INFER, {**X, "outputs": [{"name": "z"}, {"name": "y"}]})
    assert [each["name"] for each in answer.json["outputs"]] == ["z", "y"]
    assert "unexpected inference output 'q'" in rest.post(INFER, {**X, "outputs": [{"name": "q"}]}).error


def test_binary_request_and_binary_response(rest: Rest) -> None:
    x = np.array([[1, 2, 3]], "<f4")
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}],
    }
    body, headers = with_binary(head, x.tobytes())
    answer = rest.post(INFER, body, **headers)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    told = json.loads(answer.body[:length])
    assert told["outputs"][0] == {
        "name": "y",
        "datatype": "FP32",
        "shape": [1, 3],
        "parameters": {"binary_data_size": 12},
    }
    assert told["outputs"][1]["data"] == [1, 2, 3]
    np.testing.assert_array_equal(np.frombuffer(answer.body[length:], "<f4"), [2, 4, 6])


@pytest.mark.parametrize(("own", "expected"), [({}, True), ({"binary_data": False}, False)])
def test_an_outputs_binary_flag_overrides_the_requests(rest: Rest, own: dict, expected: bool) -> None:
    asked = {**X, "parameters": {"binary_data_output": True}, "outputs": [{"name": "y", "parameters": own}]}
    answer = rest.post(INFER, asked)
    assert ("Inference-Header-Content-Length" in answer.headers) == expected


def test_a_raw_binary_body_is_the_only_input(rest: Rest) -> None:
    signature = Signature("s", (TensorSpec("x", DType.FP32, (-1, -1)),), (TensorSpec("x", DType.FP32, (-1, -1)),))
    add(rest.manager, "raw", (signature,), dict)
    answer = rest.post("/v2/models/raw/infer", np.arange(5, dtype="<f4").tobytes(), Inference_Header_Content_Length="0")
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [1, 5]
    assert answer.body[length:] == np.arange(5, dtype="<f4").tobytes()
    refused = rest.post("/v2/models/raw/infer", b"123", Inference_Header_Content_Length="0")
    assert refused.status == 400
    assert "cannot be told from 3 bytes" in refused.error
    many = rest.post("/v2/models/echo/infer", b"123", Inference_Header_Content_Length="0")
    assert "has 14" in many.error


@pytest.mark.parametrize("dtype", [d for d in DType if d not in (DType.FP16, DType.BF16)])
def test_every_element_type_round_trips_as_json(rest: Rest, dtype: DType) -> None:
    values = {"b": [[True, False]], "O": [["a", "ü\0"]]}.get(dtype.numpy.kind, [[0, 100]])
    name = dtype.oip_name
    answer = rest.post(
        "/v2/models/echo/infer",
        {"inputs": [tensor(f"in_{name}", values, name)], "outputs": [{"name": f"out_{name}"}]},
    )
    assert output(answer, f"out_{name}") == {
        "name": f"out_{name}",
        "datatype": name,
        "shape": [1, 2],
        "data": values[0],
    }


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_fp16_and_bf16_are_binary_only(rest: Rest, name: str) -> None:
    asked = {"inputs": [tensor(f"in_{name}", [[1.0]], name)], "outputs": [{"name": f"out_{name}"}]}
    refused = rest.post("/v2/models/echo/infer", asked)
    assert refused.status == 400
    assert f"sending {name} data via JSON is not supported" in refused.error
    head = {
        "inputs": [{"name": f"in_{name}", "datatype": name, "shape": [1, 1], "parameters": {"binary_data_size": 2}}],
        "outputs": [{"name": f"out_{name}"}],
    }
    body, headers = with_binary(head, b"\x80\x3f")
    assert "Please use the binary data format" in rest.post("/v2/models/echo/infer", body, **headers).error
    head["outputs"][0]["parameters"] = {"binary_data": True}
    body, headers = with_binary(head, b"\x80\x3f")
    assert rest.post("/v2/models/echo/infer", body, **headers).body.endswith(b"\x80\x3f")


def test_nan_and_infinity_are_json_tokens(rest: Rest) -> None:
    text = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,Infinity,-Infinity,0.1]}]}'
    answer = rest.post(INFER, text)
    assert b"[NaN,Infinity,-Infinity,0.1]" in answer.body


def test_strings_that_are_not_utf8_need_the_binary_form(rest: Rest) -> None:
    head = {
        "inputs": [{"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 5}}],
        "outputs": [{"name": "out_BYTES"}],
    }
    body, headers = with_binary(head, b"\1\0\0\0\xff")
    refused = rest.post("/v2/models/echo/infer", body, **headers)
    assert refused.status == 400
    assert "not UTF-8" in refused.error


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests_and_responses(rest: Rest, encoding: str) -> None:
    text = json.dumps({"inputs": [tensor("x", [[1.0] * 600])]}).encode()
    body = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    answer = rest.post(INFER, body, Content_Encoding=encoding, Accept_Encoding=f"{encoding}, br")
    assert answer.headers["Content-Encoding"] == encoding
    unpacked = gzip.decompress(answer.body) if encoding == "gzip" else zlib.decompress(answer.body)
    assert json.loads(unpacked)["outputs"][0]["data"] == [2.0] * 600
    assert "Content-Encoding" not in rest.post(INFER, body, Content_Encoding=encoding).headers


def test_a_body_that_is_not_in_its_coding_is_refused(rest: Rest) -> None:
    for body, encoding in ((b"{}", "gzip"), (gzip.compress(b"{}")[:-9], "gzip"), (b"{}", "br"), (b"\x08", "deflate")):
        refused = rest.post(INFER, body, Content_Encoding=encoding)
        assert refused.status == 400, encoding
        assert refused.error


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip, gzip, gzip", gzip.compress(b"{}"), "expected at most 2 codings, got 3"),
        ("gzip", gzip.compress(b"") * 50_000, "expected at most 16384 parts in a body of gzip"),
    ],
    ids=["codings", "parts"],
)
def test_too_many_codings_or_gzip_members_are_refused(rest: Rest, encoding: str, body: bytes, words: str) -> None:
    refused = rest.post("/v2/models/digits/infer", body, Content_Encoding=encoding)
    assert refused.status == 400
    assert words in refused.error


def test_several_gzip_members_and_two_codings_are_decoded(rest: Rest) -> None:
    text = json.dumps({"inputs": [tensor("x", [[1.0, 2.0]])]}).encode()
    parts = b"".join(gzip.compress(text[n : n + 7]) for n in range(0, len(text), 7))
    answer = rest.post("/v2/models/digits/infer", zlib.compress(parts), Content_Encoding="gzip, deflate")
    assert answer.status == 200


def test_the_path_may_name_a_version_or_label(rest: Rest) -> None:
    rest.manager.available("digits", 2)
    rest.manager.labels["digits"] = {"stable": 1}
    for version, number in (("1", "1"), ("2", "2"), ("stable", "1")):
        answer = rest.post(f"/v2/models/digits/versions/{version}/infer", X)
        assert answer.json["model_version"] == number
    assert rest.post(INFER, X).json["model_version"] == "2"
    refused = rest.post("/v2/models/digits/versions/9/infer", X)
    assert refused.status == 404
    assert refused.error.startswith("Request for unknown model: 'digits' version 9 is not found")


def test_classification_returns_top_classes(rest: Rest) -> None:
    asked = {**X, "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    assert output(rest.post(INFER, asked))["data"] == ["4.000000:1"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "failed to parse"),
        (b"[", "failed to parse"),
        (b"[]", "expected a JSON object, got a list"),
        (b"\xff", "failed to parse"),
        ({}, "'inputs' of the request is missing"),
        ({"inputs": {}}, "'inputs' of the request must be a list, got an object"),
        ({"inputs": [1]}, "'inputs' must be a list of objects, got 1"),
        ({"inputs": [{"name": "x"}]}, "'datatype' of input 'x'"),
        ({"inputs": [{"name": "x", "datatype": "FP33", "shape": [1], "data": [1]}]}, "unknown datatype 'FP33'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1.5], "data": [1]}]}, "whole numbers"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "data": [1]}]}, "0 or more"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "has no data"),
        ({"inputs": [tensor("x", [[1.0]], shape=[2, 2])]}, "expected 4 for shape [2, 2], got 1"),
        ({"inputs": [tensor("x", [["1"]])]}, "expected numbers for FP32, got '1'"),
        ({"inputs": [tensor("x", [[True]])]}, "expected numbers for FP32, got true"),
        ({"inputs": [tensor("x", [[None]])]}, "expected numbers for FP32, got null"),
        ({"inputs": [{**tensor("x", [[1.0]]), "data": [[1.0], 2.0]}]}, "ragged"),
        ({"inputs": [tensor("x", [[1.5]], "INT32")]}, "expected whole numbers for INT32, got 1.5"),
        ({"inputs": [tensor("x", [[300]], "UINT8")]}, "300 is out of the range of UINT8"),
        ({"inputs": [tensor("x", [[-1]], "UINT64")]}, "-1 is out of the range of UINT64"),
        ({"inputs": [tensor("x", [[1]], "BYTES")]}, "expected strings, got 1"),
        ({"inputs": [tensor("x", [[1.0]]), tensor("x", [[1.0]])]}, "already exists"),
        ({"inputs": [tensor("x", [[1.0]], parameters=[])]}, "'parameters' of input 'x'"),
        ({"inputs": [tensor("x", [[1.0]], parameters={"binary_data_size": 4})]}, "unexpected 'data'"),
        ({"inputs": [tensor("x", [[1.0]], "FP64")]}, "data-type is 'FP64', but model 'digits' expects 'FP32'"),
        ({"inputs": [tensor("x", [1.0])]}, "unexpected shape for input 'x'"),
        ({"inputs": [tensor("y", [[1.0]])]}, "missing required input(s) ['x']"),
        ({**X, "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({**X, "parameters": {"priority": "high"}}, "invalid value for parameter 'priority'"),
        ({**X, "parameters": {"deep": {}}}, "parameter 'deep': expected a string"),
        ({**X, "parameters": {"triton_x": 1}}, "reserved for Triton usage"),
        ({**X, "id": 5}, "'id' of the request must be a string"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(rest: Rest, body: object, words: str) -> None:
    refused = rest.post(INFER, body)
    assert refused.status == 400
    assert words in refused.error
    assert rest.post(INFER, X).status == 200


@pytest.mark.parametrize(
    ("length", "size", "extra", "words"),
    [
        ("x", 8, b"", "expected a number of bytes, got 'x'"),
        ("99999", 8, b"", "expected at most"),
        (None, 9, b"", "that are left, got 9"),
        (None, -1, b"", "must be a number of bytes, got -1"),
        (None, 4, b"", "Expected 8, got 4"),
        (None, 8, b"123", "unexpected additional input data"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(rest: Rest, length: str | None, size: int, extra: bytes, words: str) -> None:
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}]}
    body, headers = with_binary(head, bytes(8), extra)
    if length is not None:
        headers["Inference_Header_Content_Length"] = length
    refused = rest.post(INFER, body, **headers)
    assert refused.status == 400
    assert words in refused.error


@pytest.mark.parametrize(
    ("error", "status"),
    [(ExecutionFailed("it broke"), 500), (Overloaded("full"), 503), (QueueTimeout("late"), 503)],
)
def test_failures_of_the_model_have_tritons_statuses(rest: Rest, error: Exception, status: int) -> None:
    rest.scheduler("digits").refusal = error
    refused = rest.post(INFER, {"id": "7", **X})
    assert refused.status == status
    assert refused.error.startswith("[request id: 7]")


def test_an_unexpected_error_reveals_no_details(rest: Rest) -> None:
    rest.manager.crash = RuntimeError("inner secret")
    refused = rest.post(INFER, X, X_Request_Id="q-1")
    assert refused.status == 500
    assert refused.error == "internal error (request id q-1)"


def test_failed_requests_are_counted_under_their_protocol(rest: Rest) -> None:
    rest.post("/v2/models/nope/infer", X)
    rest.post(INFER, b"{")
    assert rest.metrics.counted == [("", None, "http-oip", "NOT_FOUND"), ("", None, "http-oip", "INVALID_ARGUMENT")]


def test_a_model_unloaded_during_the_request_is_not_found(rest: Rest) -> None:
    rest.scheduler("digits").refusal = NotFound("it was unloaded")
    assert rest.post(INFER, X).status == 404


def test_priority_and_timeout_reach_the_scheduler(rest: Rest) -> None:
    scheduler = rest.scheduler("digits")
    seen = []
    scheduler.submit = replace_submit(scheduler.submit, seen)  # type: ignore[method-assign]
    rest.post(INFER, {**X, "parameters": {"priority": 3, "timeout": 5_000_000}})
    ((priority, wait),) = seen
    assert priority == 3
    assert 4.5 < wait < 5.5


def replace_submit(submit, seen):
    def spy(requests, *, alike):
        seen.extend((request.priority, request.queue_deadline - request.group.started) for request in requests)
        return submit(requests, alike=alike)

    return spy
