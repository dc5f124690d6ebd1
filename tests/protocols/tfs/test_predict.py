"""Predict with TensorFlow Serving's real stubs and tf.make_tensor_proto, as its users call it."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.foreign_models import add, scheduler_of
from support.rpc import Served, eventually, refused

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import ExecutionFailed, Overloaded
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
tf = pytest.importorskip("tensorflow")
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

ALL = [dtype.oip_name for dtype in DType]


def stub(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(name: str = "digits", **inputs: Any) -> Any:
    made = predict_pb2.PredictRequest()
    made.model_spec.name = name
    for key, value in (inputs or {"x": np.array([[1.0, 2.0]], np.float32)}).items():
        made.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return made


def test_predict_returns_the_models_outputs(channel: Any, server: Served) -> None:
    asked = request()
    asked.model_spec.signature_name = "serving_default"
    answer = stub(channel).Predict(asked, 10.0)
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [[2.0, 4.0]]
    assert set(answer.outputs) == {"y", "z"}
    assert list(answer.outputs["y"].float_val) == [2.0, 4.0]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("digits", 1, "serving_default")
    assert server.metrics.model("digits", 1).snapshot().requests == {("tfs", "OK"): 1}
    eventually(lambda: server.manager.servables[ServableId("digits", 1)].handles == 0)


def test_a_request_without_a_signature_means_serving_default(channel: Any, server: Served) -> None:
    """As in TensorFlow Serving: no other signature stands in for it."""
    spec = TensorSpec("x", DType.FP32, (-1, -1))
    signature = Signature("other", (spec,), (TensorSpec("y", DType.FP32, (-1, -1)),))
    add(server.manager, "named", (signature,), lambda inputs: {"y": inputs["x"]})
    for _ in range(3):  # the second is recognised by its form
        error = refused(lambda: stub(channel).Predict(request("named"), 10.0))
        assert error.code().name == "FAILED_PRECONDITION"
        assert error.details().startswith('Serving signature key "serving_default" not found.')
        assert "expected one of 'other'" in error.details()
    asked = request("named")
    asked.model_spec.signature_name = "other"
    assert stub(channel).Predict(asked, 10.0).model_spec.signature_name == "other"


VALUES: dict[str, Any] = {
    "BF16": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([[b"", b"nul\0in"]], object),
    "FP16": np.array([[0.5, np.inf]], np.float16),
    "FP32": np.array([[0.5, np.nan]], np.float32),
    "FP64": np.array([[0.5, -0.0]], np.float64),
}


@pytest.mark.parametrize("shape", [(1, 2), (1, 1), (0, 3)], ids=str)
@pytest.mark.parametrize("datatype", ALL)
def test_every_element_type_round_trips(channel: Any, datatype: str, shape: tuple[int, int]) -> None:
    array = VALUES.get(datatype)
    if array is None:
        numpy = DType[datatype].numpy
        array = np.array([[np.iinfo(numpy).min, np.iinfo(numpy).max]], numpy)
    array = np.resize(array, shape) if shape != (1, 2) else array
    answer = stub(channel).Predict(request("echo", **{f"in_{datatype}": array}))
    back = tf.make_ndarray(answer.outputs[f"out_{datatype}"])
    assert back.shape == shape
    if datatype != "BYTES":
        assert back.dtype == array.dtype
    assert repr(back.tolist()) == repr(array.tolist())


def test_the_last_value_is_repeated_to_fill_the_shape(channel: Any) -> None:
    asked = request("echo", in_FP32=np.zeros((2, 2), np.float32))
    tensor = asked.inputs["in_FP32"]
    tensor.tensor_content = b""
    tensor.float_val.append(7)
    answer = stub(channel).Predict(asked)
    assert tf.make_ndarray(answer.outputs["out_FP32"]).tolist() == [[7, 7], [7, 7]]


def test_repeated_values_count_in_bytes_while_the_request_waits(channel: Any, server: Served) -> None:
    scheduler = scheduler_of(server, "digits")
    scheduler.holding = True
    asked = request(x=np.zeros((1, 1), np.float32))
    tensor = asked.inputs["x"]
    tensor.ClearField("tensor_content")
    tensor.tensor_shape.dim[1].size = 2**17
    pending = stub(channel).Predict.future(asked)
    scheduler.wait_for(1)
    assert scheduler.held[0].nbytes == 4 * 2**17
    scheduler.release()
    pending.result(timeout=20)


def test_the_output_filter_selects_outputs(channel: Any) -> None:
    asked = request()
    asked.output_filter.append("z")
    assert set(stub(channel).Predict(asked).outputs) == {"z"}


def test_a_version_a_label_or_the_newest_is_used(channel: Any, server: Served) -> None:
    server.manager.available("digits", 2)
    server.manager.labels["digits"] = {"stable": 1}
    asked = request()
    assert stub(channel).Predict(asked).model_spec.version.value == 2
    asked.model_spec.version.value = 1
    assert stub(channel).Predict(asked).model_spec.version.value == 1
    asked.model_spec.version_label = "stable"
    assert stub(channel).Predict(asked).model_spec.version.value == 1


def _spec(name: str = "digits", **fields: Any) -> Any:
    made = request(name)
    version = fields.pop("version", None)
    if version is not None:
        made.model_spec.version.value = version
    for key, value in fields.items():
        setattr(made.model_spec, key, value)
    return made


def _filtered(*names: str) -> Any:
    made = request()
    made.output_filter.extend(names)
    return made


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (_spec("nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (_spec(version=9), "NOT_FOUND", "Servable not found for request: Specific(digits, 9)"),
        (_spec(version_label="canary"), "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        (_spec(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (_spec(signature_name="other"), "FAILED_PRECONDITION", 'Serving signature key "other" not found.'),
        (
            request(a=np.ones(1), x=np.ones(1)),
            "INVALID_ARGUMENT",
            "does not match signature: 2!=1 len({a,x}) != len({x}). Sent extra: {a}. Missing but required: {}.",
        ),
        (
            request(a=np.ones(1)),
            "INVALID_ARGUMENT",
            "does not match signature: 1!=1 len({a}) != len({x}). Sent extra: {a}. Missing but required: {x}.",
        ),
        (
            request("echo", a=np.ones(1)),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: a. Inputs expected to be in the set {in_BF16,",
        ),
        (request(x=np.ones((1, 2))), "INVALID_ARGUMENT", "input 'x': expected FP32 [-1, -1], got FP64 [1, 2]"),
        (request(x=np.ones((1, 2), np.complex64)), "INVALID_ARGUMENT", "tensor parsing error: x: "),
        (_filtered("w"), "INVALID_ARGUMENT", "output tensor alias not found in signature: w Outputs expected to be in"),
        (_filtered("y", "y"), "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_wrong_requests_are_refused_with_tensorflow_servings_texts(
    channel: Any, asked: Any, code: str, text: str
) -> None:
    error = refused(lambda: stub(channel).Predict(asked))
    assert error.code().name == code
    assert text in error.details()


def test_a_loading_version_is_not_found(channel: Any, server: Served) -> None:
    server.manager.change(VersionStatus(ServableId("digits", 3), State.LOADING))
    error = refused(lambda: stub(channel).Predict(_spec(version=3)))
    assert error.code().name == "NOT_FOUND"
    assert "Specific(digits, 3): digits:3 is loading" in error.details()


def test_failures_of_queue_and_model_have_their_codes(channel: Any, server: Served) -> None:
    scheduler = scheduler_of(server, "digits")
    scheduler.refusal = Overloaded("the queue holds 1024 requests")
    error = refused(lambda: stub(channel).Predict(request()))
    assert error.code().name == "UNAVAILABLE"
    assert error.details().startswith("The batch scheduling queue to which this task was submitted is full")
    scheduler.refusal = None

    def fail(_inputs: Any) -> Any:
        raise ExecutionFailed("the graph is broken")

    scheduler.run = fail
    error = refused(lambda: stub(channel).Predict(request()))
    assert (error.code().name, error.details()) == ("INTERNAL", "the graph is broken")


def test_deadline_and_cancel_reach_the_queue(channel: Any, server: Served) -> None:
    assert stub(channel).Predict(request())  # it is connected: all the time is the next request's
    scheduler = scheduler_of(server, "digits")
    scheduler.holding = True
    error = refused(lambda: stub(channel).Predict(request(), 0.5))
    assert error.code().name == "DEADLINE_EXCEEDED"
    assert scheduler.cancelled.wait(10)
    eventually(lambda: scheduler.held == [])


def test_the_priority_is_read_from_metadata(channel: Any, server: Served) -> None:
    scheduler = scheduler_of(server, "digits")
    scheduler.holding = True
    future = stub(channel).Predict.future(request(), metadata=[("inferd-priority", "7")])
    scheduler.wait_for(1)
    assert scheduler.held[0].priority == 7
    scheduler.step()
    assert future.result(timeout=10).model_spec.name == "digits"
    for wrong in ("high", "-1", "9" * 12, ""):
        error = refused(lambda wrong=wrong: stub(channel).Predict(request(), metadata=[("inferd-priority", wrong)]))
        assert error.code().name == "INVALID_ARGUMENT"
        assert "metadata inferd-priority: expected a whole number from 0 to 4294967295" in error.details()


def test_random_bytes_are_refused_and_the_server_keeps_serving(channel: Any) -> None:
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    random = np.random.default_rng(0)
    for size in range(0, 200, 7):
        error = refused(lambda size=size: call(random.bytes(size)))
        assert error.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert tf.make_ndarray(stub(channel).Predict(request()).outputs["y"]).tolist() == [[2.0, 4.0]]


def test_a_large_tensor_round_trips(server: Served) -> None:
    array = np.random.default_rng(0).random((4, 2**20), np.float32)
    asked = request("echo", in_FP32=array)
    asked.output_filter.append("out_FP32")
    answer = stub(server.channel(max_receive_message_length=-1)).Predict(asked)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["out_FP32"]), array)
