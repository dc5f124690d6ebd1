"""TensorFlow Serving's REST API: requests and responses in full, against fake models."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from support.foreign_models import add
from support.rest import Rest

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import ExecutionFailed, Overloaded
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

PREDICT = "/v1/models/digits:predict"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def one(rest: Rest, name: str, dtype: DType, run: Any, shape: Any = None, output: str = "y") -> None:
    """A model with one input "x" and one output."""
    signature = Signature("serving_default", (TensorSpec("x", dtype, shape),), (TensorSpec(output, dtype, None),))
    add(rest.manager, name, (signature,), lambda inputs: {output: run(inputs["x"])})


def two(rest: Rest) -> None:
    """A model "two" that returns its inputs: "a" (FP32) as "n", and "b" (STRING) as "t_bytes"."""
    inputs = (TensorSpec("a", DType.FP32, None), TensorSpec("b", DType.STRING, None))
    outputs = (TensorSpec("n", DType.FP32, None), TensorSpec("t_bytes", DType.STRING, None))
    signature = Signature("serving_default", inputs, outputs)
    add(rest.manager, "two", (signature,), lambda given: {"n": given["a"], "t_bytes": given["b"]})


def test_a_request_with_rows_gets_rows(rest: Rest) -> None:
    answer = rest.post(PREDICT, {"instances": [[1, 2.5], [3, 4]]})
    assert answer.status == 200
    assert answer.json == {"predictions": [{"y": [2, 5], "z": [1, 2.5]}, {"y": [6, 8], "z": [3, 4]}]}


def test_a_request_with_columns_gets_columns(rest: Rest) -> None:
    expected = {"outputs": {"y": [[2, 4]], "z": [[1, 2]]}}
    assert rest.post(PREDICT, {"inputs": [[1, 2]]}).json == expected
    assert rest.post(PREDICT, {"inputs": {"x": [[1, 2]]}}).json == expected


def test_a_single_output_is_not_named(rest: Rest) -> None:
    one(rest, "neg", DType.INT32, lambda x: -x)
    assert rest.post("/v1/models/neg:predict", {"instances": [1, 2]}).json == {"predictions": [-1, -2]}
    assert rest.post("/v1/models/neg:predict", {"inputs": 5}).json == {"outputs": -5}
    assert rest.post("/v1/models/neg:predict", {"instances": [{"x": [1]}, {"x": [2]}]}).json == {
        "predictions": [[-1], [-2]]
    }


def test_several_inputs_are_named_in_rows_and_columns(rest: Rest) -> None:
    two(rest)
    rows = [{"a": 1.5, "b": "x"}, {"a": 2, "b": b64(b"\xff\0")}]
    assert rest.post("/v1/models/two:predict", {"instances": rows}).json == {
        "predictions": [{"n": 1.5, "t_bytes": b64(b"x")}, {"n": 2.0, "t_bytes": b64(b"\xff\0")}]
    }
    columns = {"a": [1, 2], "b": ["x", "y"]}
    assert rest.post("/v1/models/two:predict", {"inputs": columns}).json == {
        "outputs": {"n": [1, 2], "t_bytes": [b64(b"x"), b64(b"y")]}
    }


def test_bytes_that_are_not_utf8_are_returned_in_base64(rest: Rest) -> None:
    one(rest, "same", DType.STRING, lambda x: x)
    path = "/v1/models/same:predict"
    assert rest.post(path, {"instances": [b64(b"\xfe"), "text"]}).json == {"predictions": [b64(b"\xfe"), "text"]}
    assert rest.post(path, {"inputs": b64(b"\xfe")}).json == {"outputs": b64(b"\xfe")}


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (DType.BOOL, [True, False]),
        (DType.UINT8, [0, 255]),
        (DType.INT8, [-128, 127]),
        (DType.INT64, [-(2**63), 2**63 - 1]),
        (DType.UINT64, [0, 2**64 - 1]),
        (DType.FP16, [0.5, -2.0]),
        (DType.BF16, [0.5, -2.0]),
        (DType.FP64, [0.1, 1e300]),
    ],
)
def test_every_element_type_round_trips(rest: Rest, dtype: DType, values: list[Any]) -> None:
    one(rest, "same", dtype, lambda x: x)
    assert rest.post("/v1/models/same:predict", {"instances": values}).json == {"predictions": values}


def test_nan_and_infinity_are_json_tokens(rest: Rest) -> None:
    answer = rest.post(PREDICT, '{"inputs":[[NaN,-Infinity,Infinity]]}')
    assert b'"y":[[NaN,-Infinity,Infinity]]' in answer.body


def test_a_request_without_a_signature_means_serving_default(rest: Rest) -> None:
    signature = Signature("other", (TensorSpec("x", DType.FP32, (-1,)),), (TensorSpec("y", DType.FP32, (-1,)),))
    add(rest.manager, "named", (signature,), lambda inputs: {"y": inputs["x"]})
    refused = rest.post("/v1/models/named:predict", {"instances": [1]})
    assert refused.status == 400
    assert refused.error == "Serving signature name: \"serving_default\" not found in signature def; known: 'other'"
    assert rest.post("/v1/models/named:predict", {"signature_name": "other", "instances": [1]}).json == {
        "predictions": [1.0]
    }


def test_versions_labels_and_signatures_can_be_named(rest: Rest) -> None:
    other = Signature("other", (TensorSpec("x", DType.FP32, None),), (TensorSpec("w", DType.FP32, None),))
    rest.manager.available("digits", 2)
    rest.manager.labels["digits"] = {"stable": 1}
    for path in ("/versions/1", "/labels/stable", "/versions/2", ""):
        assert rest.post(f"/v1/models/digits{path}:predict", {"inputs": [[1]]}).status == 200
    add(rest.manager, "many", (other,), lambda given: {"w": given["x"] * 3})
    assert rest.post("/v1/models/many:predict", {"signature_name": "other", "inputs": 2}).json == {"outputs": 6}
    unknown = rest.post("/v1/models/many:predict", {"signature_name": "nope", "inputs": 2})
    assert unknown.status == 400
    assert unknown.error.startswith('Serving signature name: "nope" not found in signature def')


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/models/nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("/v1/models/digits/versions/9:predict", 404, "Servable not found for request: Specific(digits, 9)"),
        ("/v1/models/digits/labels/x:predict", 400, "Unrecognized servable version label: x"),
        ("/v1/models/digits/versions/x:predict", 400, "Malformed request: POST /v1/models/digits/versions/x:predict"),
        ("/v1/models/digits:guess", 400, "Malformed request: POST /v1/models/digits:guess"),
        ("/v1/models/digits", 400, "Malformed request: POST /v1/models/digits"),
        ("/v1/models/digits/labels/x:guess", 400, "Malformed request"),
        ("/v1/other", 400, "Malformed request: POST /v1/other"),
        ("/v1/models/", 400, "Malformed request"),
    ],
)
def test_unknown_models_and_malformed_paths_are_refused(rest: Rest, path: str, status: int, words: str) -> None:
    refused = rest.post(path, {"inputs": [[1]]})
    assert refused.status == status
    assert words in refused.error


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/digits:predict", "Malformed request: GET /v1/models/digits:predict"),
        ("/v1/models/digits/labels/x:predict", "Malformed request"),
        ("/v1/models", "Missing model name in request."),
    ],
)
def test_get_on_paths_of_other_methods_is_refused(rest: Rest, path: str, words: str) -> None:
    refused = rest.get(path)
    assert refused.status == 400
    assert words in refused.error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "failed to parse"),
        (b"[1]", "must be a JSON object"),
        ({}, "exactly one of the keys 'instances' or 'inputs', got neither"),
        ({"instances": [[1]], "inputs": [[1]]}, "got both"),
        ({"instances": []}, "got none"),
        ({"instances": 5}, "to be a list"),
        ({"instances": [[1], {"x": 1}]}, "Failed to process element: 1 of 'instances' list"),
        ({"instances": [{"x": [1]}, {"y": [1]}]}, "Failed to process element: 1 of 'instances' list"),
        ({"instances": [{"q": 1}]}, "input tensor alias not found in signature: q."),
        ({"inputs": {"q": 1}}, "input tensor alias not found in signature: q."),
        ({"instances": [[1], [1, 2]]}, "ragged"),
        ({"instances": [["a"]]}, "expected numbers for FP32, got 'a'"),
        ({"instances": [[{"b64": "AA=="}]]}, "expected numbers for FP32, got an object"),
        ({"inputs": {}}, "input size does not match signature"),
        ({"inputs": [1]}, "expected FP32 [-1, -1], got FP32 [1]"),
        ({"signature_name": 5, "inputs": [[1]]}, "'signature_name' must be a string"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(rest: Rest, body: Any, words: str) -> None:
    refused = rest.post(PREDICT, body)
    assert refused.status == 400
    assert words in refused.error


def test_invalid_base64_is_refused(rest: Rest) -> None:
    one(rest, "same", DType.STRING, lambda x: x)
    for item in ({"b64": "!"}, {"b65": ""}, {"b64": 5}, None, 1):
        assert rest.post("/v1/models/same:predict", {"inputs": [item]}).status == 400, item


def test_outputs_with_unequal_rows_are_refused_as_rows_and_returned_as_columns(rest: Rest) -> None:
    signature = Signature(
        "serving_default",
        (TensorSpec("x", DType.FP32, None),),
        (TensorSpec("y", DType.FP32, None), TensorSpec("n", DType.FP32, None)),
    )
    add(rest.manager, "odd", (signature,), lambda given: {"y": given["x"], "n": np.float32(3)[...]})
    refused = rest.post("/v1/models/odd:predict", {"instances": [1, 2]})
    assert refused.status == 400
    assert "inconsistent batch size" in refused.error
    assert rest.post("/v1/models/odd:predict", {"inputs": [1, 2]}).json == {"outputs": {"y": [1, 2], "n": 3}}


@pytest.mark.parametrize(("error", "status"), [(ExecutionFailed("it broke"), 500), (Overloaded("full"), 503)])
def test_failures_of_the_model_have_their_statuses(rest: Rest, error: Exception, status: int) -> None:
    rest.scheduler("digits").refusal = error
    assert rest.post(PREDICT, {"inputs": [[1]]}).status == status


def test_status_of_one_version_and_of_all(rest: Rest) -> None:
    rest.manager.available("digits", 2)
    ok = {"error_code": "OK", "error_message": ""}
    assert rest.get("/v1/models/digits").json == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }
    assert len(rest.get("/v1/models/digits/versions/1").json["model_version_status"]) == 1
    missing = rest.get("/v1/models/nope")
    assert missing.status == 404
    assert missing.error.startswith("Could not find any versions of model nope")


def test_metadata_has_the_signatures(rest: Rest) -> None:
    told = rest.get("/v1/models/digits/versions/1/metadata").json
    assert told["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}] * 2, "unknown_rank": False},
        "name": "x:0",
    }
    assert rest.get("/v1/models/nope/metadata").status == 404


def examples_model(rest: Rest, outputs: dict[str, np.ndarray]) -> list[Any]:
    """Adds the model "est", which takes serialized Examples and returns `outputs`. Returns the list of the Examples
    that it got."""
    seen: list[Any] = []

    def run(given: Any) -> dict[str, np.ndarray]:
        seen.append(list(given["inputs"]))
        return outputs

    specs = tuple(TensorSpec(key, DType.FP32, None) for key in outputs)
    signature = Signature("serving_default", (TensorSpec("inputs", DType.STRING, (-1,)),), specs)
    add(rest.manager, "est", (signature,), run)
    return seen


def test_classify_returns_labels_and_scores(rest: Rest) -> None:
    from inferd.tfs.v1.example_pb2 import Example

    scores = np.array([[0.25, 0.75]], np.float32)
    classes = np.array([[b"cat", b"dog"]], object)
    seen = examples_model(rest, {"classes": classes, "scores": scores})
    body = {"context": {"c": 1}, "examples": [{"a": 1.5, "b": [2, 3], "s": "x", "raw": b64(b"\xff")}]}
    assert rest.post("/v1/models/est:classify", body).json == {"results": [[["cat", 0.25], ["dog", 0.75]]]}
    feature = Example.FromString(seen[0][0]).features.feature
    assert feature["a"].float_list.value == [1.5]
    assert feature["b"].int64_list.value == [2, 3]
    assert feature["c"].int64_list.value == [1]
    assert (feature["s"].bytes_list.value[0], feature["raw"].bytes_list.value[0]) == (b"x", b"\xff")


def test_regress_returns_values(rest: Rest) -> None:
    examples_model(rest, {"outputs": np.array([[1.5], [2.5]], np.float32)})
    body: Any = {"examples": [{"a": 1}, {"a": 2}]}
    assert rest.post("/v1/models/est:regress", body).json == {"results": [1.5, 2.5]}
    refused = rest.post("/v1/models/est:classify", body)
    assert refused.status == 400
    assert '"classes" or "scores"' in refused.error


def test_results_that_are_not_finite_are_json_tokens(rest: Rest) -> None:
    examples_model(rest, {"outputs": np.array([[np.nan], [-np.inf]], np.float32)})
    body: Any = {"examples": [{"a": 1}, {"a": 2}]}
    assert rest.post("/v1/models/est:regress", body).body == b'{"results":[NaN,-Infinity]}'
    examples_model(rest, {"scores": np.array([[np.inf, 0.5]], np.float32)})
    answer = rest.post("/v1/models/est:classify", {"examples": [{"a": 1}]})
    assert answer.body == b'{"results":[[["",Infinity],["",0.5]]]}'


@pytest.mark.parametrize(("number", "kind"), [("1.25", "float_list"), ("123", "int64_list")])
def test_a_feature_with_many_numbers(rest: Rest, number: str, kind: str) -> None:
    """Long lists of numbers are parsed in pieces, and become features like short ones."""
    from inferd.tfs.v1.example_pb2 import Example

    seen = examples_model(rest, {"outputs": np.array([[1.5]], np.float32)})
    body = f'{{"examples": [{{"a": [{",".join([number] * 70_000)}]}}]}}'
    assert rest.post("/v1/models/est:regress", body).json == {"results": [1.5]}
    values = getattr(Example.FromString(seen[0][0]).features.feature["a"], kind).value
    assert (len(values), set(values)) == (70_000, {float(number)})


def test_a_request_is_parsed_again_when_the_version_changes_meanwhile(rest: Rest) -> None:
    """The version that the request was first parsed for is gone: the request is parsed for the new version's inputs."""
    one(rest, "moves", DType.FP32, lambda x: x)
    acquire = rest.manager.acquire

    def once(name: str, version: int | None = None, label: str | None = None) -> Any:
        handle = acquire(name, version, label)
        rest.manager.acquire = acquire  # type: ignore[method-assign]
        same = Signature(
            "serving_default", (TensorSpec("x", DType.INT64, None),), (TensorSpec("y", DType.INT64, None),)
        )
        add(rest.manager, "moves", (same,), lambda inputs: {"y": inputs["x"] + 1}, version=2)
        rest.manager.change(VersionStatus(ServableId("moves", 1), State.END))
        return handle

    rest.manager.acquire = once  # type: ignore[method-assign]
    assert rest.post("/v1/models/moves:predict", {"instances": [1, 2]}).json == {"predictions": [2, 3]}


@pytest.mark.parametrize(
    "examples", [None, [], [1], [{"a": None}], [{"a": ["x", 1]}], [{"a": 2**63}], [{"a": [[1]]}], [{"a": {"b64": "!"}}]]
)
def test_malformed_examples_are_refused(rest: Rest, examples: Any) -> None:
    examples_model(rest, {"outputs": np.zeros((1, 1), np.float32)})
    refused = rest.post("/v1/models/est:regress", {"examples": examples})
    assert refused.status == 400
    assert refused.error


def test_failed_requests_are_counted_under_their_protocol(rest: Rest) -> None:
    rest.post("/v1/models/digits:predict", b"{")
    rest.post(PREDICT, {"inputs": [[1.0]]})
    assert rest.metrics.counted == [("", None, "http-tfs", "INVALID_ARGUMENT")]
