"""What the proof of independent rows takes for granted holds in every batch, whichever way the requests come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from support.hot_calls import INFER, TFS_PREDICT, FakeCall

from inferd.backends.api import Array, Independence, Signature, TensorSpec, Traits
from inferd.oip.v1 import infer_pb2
from inferd.server.composition.grpc_methods import PREDICT
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.wire.dtypes import DType
from inferd.wire.native import decode_response, encode_request

LONG = TensorSpec("a", DType.FP32, (-1, -1))
SAME = TensorSpec("b", DType.FP32, (-1, -1))
SCALE = TensorSpec("s", DType.FP32, ())
Y = TensorSpec("y", DType.FP32, (-1, -1))
SIGNATURE = Signature("serving_default", (LONG, SAME, SCALE), (Y,))
EQUAL = Independence(True, equal=((("a", 1), ("b", 1)),))


def scaled(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["a"] * inputs["s"]}


def native(inputs: Mapping[str, Array]) -> FakeCall:
    return FakeCall(encode_request("digits", inputs), PREDICT)


def oip(inputs: Mapping[str, Array]) -> FakeCall:
    request = infer_pb2.ModelInferRequest(model_name="digits")
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return FakeCall(request.SerializeToString(), INFER)


def tfs(inputs: Mapping[str, Array]) -> FakeCall:
    request = tfs_pb.PredictRequest(model_spec={"name": "digits", "signature_name": SIGNATURE.name})
    for name, array in inputs.items():
        tensor = request.inputs[name]
        tensor.dtype = 1
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
    return FakeCall(request.SerializeToString(), TFS_PREDICT)


def answer(call: FakeCall) -> Array:
    message = call.wait().message
    assert message is not None, call.failed
    if call.method == PREDICT:
        return decode_response(message).outputs["y"]
    if call.method == INFER:
        found = infer_pb2.ModelInferResponse.FromString(message)
        return np.frombuffer(found.raw_output_contents[0], np.float32).reshape(tuple(found.outputs[0].shape))
    tensor = tfs_pb.PredictResponse.FromString(message).outputs["y"]
    values = np.frombuffer(tensor.tensor_content, np.float32) if tensor.tensor_content else np.array(tensor.float_val)
    return values.astype(np.float32).reshape([dim.size for dim in tensor.tensor_shape.dim])


def inputs(number: int, rows: int = 1, wide: int = 3, other: int = 3, scale: float = 1.0) -> dict[str, Array]:
    return {
        "a": np.full((rows, wide), number, np.float32),
        "b": np.zeros((rows, other), np.float32),
        "s": np.array(scale, np.float32),
    }


@pytest.mark.parametrize("traits", [Traits(), Traits(bounded=True, concurrent=True)], ids=["worker", "loop"])
@pytest.mark.parametrize("encode", [native, oip, tfs])
def test_only_requests_for_which_the_proof_holds_share_a_batch(
    serve_hot: Callable[..., Any], encode: Callable[[Mapping[str, Array]], FakeCall], traits: Traits
) -> None:
    server = serve_hot(scaled, signature=SIGNATURE, finding=EQUAL, traits=traits)
    assert server.scheduler.max_batch_size == 8
    server.model.forget()
    given = [
        wanted
        for n in range(4)  # requests of one form follow each other, and forms that are known come back
        for wanted in (
            inputs(4 * n),
            inputs(4 * n + 1, scale=2.0),
            inputs(4 * n + 2, other=4),
            inputs(4 * n + 3, wide=0, other=0),
            inputs(4 * n + 3, wide=5, other=5),
            inputs(4 * n, rows=3),
            inputs(4 * n, rows=11, other=2),  # more rows than a batch holds, and never in parts
            inputs(4 * n, rows=11),
        )
    ]
    calls = [encode(one) for one in given]
    for same in range(0, len(calls), 8):
        server.hand_over(*calls[same : same + 8])
    server.hand_over(*(again := [encode(one) for one in given]))
    # These are queued together, so they share a batch however fast the worker is.
    server.hand_over(*(together := [encode(one) for one in [inputs(n) for n in range(8)]]))
    for n, call in enumerate(together):
        np.testing.assert_array_equal(answer(call), inputs(n)["a"])
    for call, one in zip([*calls, *again], [*given, *given], strict=True):
        np.testing.assert_array_equal(answer(call), one["a"] * one["s"])
    shapes = [(ran["a"].shape, ran["b"].shape) for _, ran, _ in server.model.runs]
    assert any(a[0] > 3 for a, _ in shapes), "requests did share batches"
    for a, b in shapes:
        assert a[1] == b[1] or a[0] in (1, 11), "different sizes of one dimension run alone, whole"
        assert a[1] > 0 or a[0] == 1, "empty rows run alone"
        assert a[0] <= 8 or a[1] != b[1], "only what is proven is split, and then always"
