"""A number that its element type cannot hold, and data that is sent twice, are refused on every protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from support.protocols import PROTOCOLS, Callers, Outcome
from support.server import Served

from inferd.oip.v1 import infer_pb2 as oip
from inferd.tfs.v1 import prediction_service_pb2 as tfs
from inferd.wire.dtypes import DType
from inferd.wire.tfs.dtypes import FIELD, NUMBER

KINDS = {
    DType.FP32: TensorProto.FLOAT,
    DType.FP16: TensorProto.FLOAT16,
    DType.UINT8: TensorProto.UINT8,
    DType.INT8: TensorProto.INT8,
    DType.UINT16: TensorProto.UINT16,
    DType.INT32: TensorProto.INT32,
    DType.UINT64: TensorProto.UINT64,
}


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    root = tmp_path_factory.mktemp("numbers") / "models"
    for dtype, kind in KINDS.items():
        _identity(root / dtype.name / "1", kind)
    with Served(root) as served, Callers(served) as clients:
        yield clients


def _identity(directory: Path, kind: int) -> None:
    directory.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.refused, outcome
    for word in words:
        assert word in outcome.text, outcome


JSON = [
    (DType.FP32, 1e39, "1e+39 is out of the range of FP32"),
    (DType.FP32, -(10**50), "-1e+50 is out of the range of FP32"),
    (DType.UINT8, 300, "300 is out of the range of UINT8, expected 0 to 255"),
    (DType.INT8, -129, "-129 is out of the range of INT8"),
    (DType.UINT64, -1, "-1 is out of the range of UINT64"),
    (DType.INT32, 2**31, "2147483648 is out of the range of INT32"),
    (DType.INT32, 1.5, "expected whole numbers for INT32, got 1.5"),
    (DType.INT32, float("nan"), "expected whole numbers for INT32, got nan"),
    (DType.UINT8, float("inf"), "expected whole numbers for UINT8, got inf"),
    (DType.INT32, True, "expected whole numbers for INT32, got true"),
    (DType.FP32, False, "expected numbers for FP32, got false"),
]


@pytest.mark.parametrize(("dtype", "number", "text"), JSON)
def test_json(callers: Callers, dtype: DType, number: Any, text: str) -> None:
    given = {"name": "x", "datatype": dtype.name, "shape": [2], "data": [0, number]}
    refused(callers.rest_v2(dtype.name, [given]), text, "'x'")
    for body in ({"instances": [0, number]}, {"inputs": {"x": [0, number]}}, {"instances": [{"x": 0}, {"x": number}]}):
        refused(callers.rest_v1(dtype.name, body), text, "'x'")


def test_json_of_half_precision(callers: Callers) -> None:
    refused(callers.rest_v1("FP16", {"instances": [1.5, 65520]}), "65520 is out of the range of FP16")
    assert callers.rest_v1("FP16", {"instances": [1.5, 65504]}).outputs == {"": [1.5, 65504]}


@pytest.mark.parametrize(
    ("dtype", "number"), [(DType.UINT8, 300), (DType.INT8, 300), (DType.INT8, -129), (DType.UINT16, 2**16)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_typed_contents(callers: Callers, dtype: DType, number: int, stream: bool) -> None:
    request = oip.ModelInferRequest(model_name=dtype.name)
    tensor = request.inputs.add(name="x", datatype=dtype.name, shape=[2])
    contents = tensor.contents.int_contents if dtype is DType.INT8 else tensor.contents.uint_contents
    contents.extend([0, number])
    refused(callers.oip(request, stream=stream), f"{number} is out of the range of {dtype.name}", "'x'")


@pytest.mark.parametrize(
    ("dtype", "number", "text"),
    [
        (DType.UINT8, 300, "300 is out of the range of UINT8"),
        (DType.UINT8, -1, "-1 is out of the range of UINT8"),
        (DType.INT8, 128, "128 is out of the range of INT8"),
        (DType.UINT16, 2**16, "65536 is out of the range of UINT16"),
        (DType.FP16, 2**16, "half_val: 65536 is out of the range of UINT16"),
    ],
)
def test_values_of_a_tensor_proto(callers: Callers, dtype: DType, number: int, text: str) -> None:
    refused(callers.tfs(_predict(dtype, [0, number])), text, "'x'")
    request = _predict(dtype, [0, 1])
    request.inputs["x"].tensor_content = bytes(2 * dtype.itemsize)
    refused(callers.tfs(request), f"in one field, got them in tensor_content, {FIELD[dtype]}")


def _predict(dtype: DType, values: list[int]) -> tfs.PredictRequest:
    request = tfs.PredictRequest()
    request.model_spec.name = dtype.name
    tensor = request.inputs["x"]
    tensor.dtype = NUMBER[dtype]
    tensor.tensor_shape.dim.add(size=len(values))
    getattr(tensor, FIELD[dtype]).extend(values)
    return request


@pytest.mark.parametrize("stream", [False, True])
def test_data_that_is_sent_twice(callers: Callers, stream: bool) -> None:
    data = np.ones(1, np.float32).tobytes()
    request = oip.ModelInferRequest(model_name="FP32", raw_input_contents=[data, data])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    refused(callers.oip(request, stream=stream), "expected 1 entries in raw_input_contents", "got 2")
    request.raw_input_contents.pop()
    request.inputs[0].contents.fp32_contents.append(1)
    refused(callers.oip(request, stream=stream), "contents field must not be specified when using raw_input_contents")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_fits_is_served(callers: Callers, protocol: str) -> None:
    for dtype in KINDS:
        if protocol == "rest v2" and dtype is DType.FP16:
            continue  # not in JSON, as in Triton
        largest = np.finfo(dtype.numpy).max if dtype.numpy.kind == "f" else np.iinfo(dtype.numpy).max
        sent = np.array([0, largest], dtype.numpy)
        outcome = callers.send(protocol, dtype.name, {"x": sent})
        assert outcome.code == "OK", outcome
        (got,) = outcome.outputs.values()
        assert np.array_equal(np.array(got, dtype.numpy), sent)
