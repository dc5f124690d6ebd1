"""ModelInfer with the real tritonclient against a server in this process."""

from __future__ import annotations

import queue
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from support.foreign_models import add, scheduler_of
from support.rpc import Served, eventually
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, triton_to_np_dtype

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import ExecutionFailed, Overloaded, QueueTimeout
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

Client = triton.InferenceServerClient


def an_input(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def x(values: Any = ((1.0, 2.0),)) -> list[triton.InferInput]:
    return [an_input("x", np.asarray(values, np.float32), "FP32")]


def refused(client: Client, *args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(*args, **kwargs)
    return caught.value.status(), caught.value.message()


def test_infer_returns_the_models_outputs(client: Client, server: Served) -> None:
    answer = client.infer("digits", x(), request_id="mine")
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "mine")
    assert [output.name for output in response.outputs] == ["y", "z"]
    np.testing.assert_array_equal(answer.as_numpy("y"), np.array([[2.0, 4.0]], np.float32))
    assert server.metrics.model("digits", 1).snapshot().requests == {("oip", "OK"): 1}
    eventually(lambda: server.manager.servables[ServableId("digits", 1)].handles == 0)


VALUES: dict[str, Any] = {
    "BF16": np.array([[1.5, -2.0, np.nan]], ml_dtypes.bfloat16),
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([[b"", b"nul\0in", "häß".encode()]], object),
    "FP16": np.array([[0.5, np.nan, np.inf]], np.float16),
    "FP32": np.array([[0.5, np.nan, -np.inf]], np.float32),
    "FP64": np.array([[0.5, np.nan, -0.0]], np.float64),
}


@pytest.mark.parametrize("datatype", [dtype.oip_name for dtype in DType])
def test_every_datatype_round_trips(client: Client, datatype: str) -> None:
    numpy = triton_to_np_dtype(datatype)
    array = VALUES.get(datatype)
    if array is None:
        limits = np.iinfo(numpy)
        array = np.array([[limits.min, limits.max, 0]], numpy)
    answer = client.infer("echo", [an_input(f"in_{datatype}", array, datatype)])
    back = answer.as_numpy(f"out_{datatype}")
    assert back.shape == array.shape
    if datatype == "BYTES":
        assert back.tolist() == array.tolist()
    else:
        assert back.dtype == numpy
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_tensors_with_zero_dimensions_round_trip(client: Client, shape: tuple[int, int]) -> None:
    answer = client.infer("echo", [an_input("in_FP32", np.empty(shape, np.float32), "FP32")])
    assert answer.as_numpy("out_FP32").shape == shape


def test_large_tensors_round_trip(client: Client) -> None:
    array = np.random.default_rng(0).random((4, 2**20), np.float32)
    answer = client.infer("echo", [an_input("in_FP32", array, "FP32")], outputs=[_wanted("out_FP32")])
    np.testing.assert_array_equal(answer.as_numpy("out_FP32"), array)


def test_typed_contents_are_accepted(server: Served) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    response = service_pb2_grpc.GRPCInferenceServiceStub(server.channel()).ModelInfer(request)
    assert response.raw_output_contents[0] == np.array([2, 4], np.float32).tobytes()
    assert not any(output.HasField("contents") for output in response.outputs)


def _wanted(name: str, **kwargs: Any) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, **kwargs)


def test_outputs_come_in_the_order_of_the_request(client: Client) -> None:
    answer = client.infer("digits", x(), outputs=[_wanted("z"), _wanted("y"), _wanted("z")])
    assert [output.name for output in answer.get_response().outputs] == ["z", "y"]
    assert answer.as_numpy("nope") is None


def test_a_version_a_label_or_the_newest_is_used(client: Client, server: Served) -> None:
    server.manager.available("digits", 2)
    server.manager.labels["digits"] = {"stable": 1}
    assert client.infer("digits", x()).get_response().model_version == "2"
    assert client.infer("digits", x(), model_version="1").get_response().model_version == "1"
    assert client.infer("digits", x(), model_version="stable").get_response().model_version == "1"


@pytest.mark.parametrize(
    ("args", "kwargs", "status", "text"),
    [
        (("nope", x()), {}, "NOT_FOUND", "Request for unknown model: 'nope' is not found"),
        (("digits", x()), {"model_version": "9"}, "NOT_FOUND", "Request for unknown model: 'digits' version 9 is not"),
        (("digits", x()), {"model_version": "canary"}, "NOT_FOUND", "has no label 'canary'"),
        (
            ("digits", x()),
            {"model_version": "9" * 30},
            "INVALID_ARGUMENT",
            "failed to get model version from specified",
        ),
        (
            ("digits", [an_input("q", np.ones((1, 2), np.float32), "FP32")]),
            {},
            "INVALID_ARGUMENT",
            "for model 'digits'. Got input(s) ['q'], but missing required input(s) ['x']",
        ),
        (
            ("digits", [*x(), an_input("q", np.ones((1, 2), np.float32), "FP32")]),
            {},
            "INVALID_ARGUMENT",
            "expected 1 inputs but got 2 inputs for model 'digits'",
        ),
        (
            ("echo", [an_input("q", np.ones((1, 2), np.float32), "FP32")]),
            {},
            "INVALID_ARGUMENT",
            "unexpected inference input 'q' for model 'echo'",
        ),
        (
            ("digits", [an_input("x", np.ones((1, 2)), "FP64")]),
            {},
            "INVALID_ARGUMENT",
            "inference input 'x' data-type is 'FP64', but model 'digits' expects 'FP32'",
        ),
        (
            ("digits", [an_input("x", np.ones(2, np.float32), "FP32")]),
            {},
            "INVALID_ARGUMENT",
            "unexpected shape for input 'x' for model 'digits'. Expected [-1,-1], got [2].",
        ),
        (
            ("digits", x()),
            {"outputs": [_wanted("w")]},
            "INVALID_ARGUMENT",
            "unexpected inference output 'w' for model 'digits'",
        ),
        (
            ("digits", x()),
            {"sequence_id": 7, "sequence_start": True},
            "UNIMPLEMENTED",
            "sequences are not supported",
        ),
        (("digits", x()), {"sequence_id": "a", "sequence_end": True}, "UNIMPLEMENTED", "sequences are not supported"),
        (("digits", x()), {"timeout": -1}, "INVALID_ARGUMENT", "invalid value for parameter 'timeout'"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_wrong_requests_are_refused_with_tritons_texts(
    client: Client, args: Any, kwargs: Any, status: str, text: str
) -> None:
    got = refused(client, *args, **kwargs)
    assert got[0] == f"StatusCode.{status}"
    assert text in got[1]


def test_errors_after_decoding_begin_with_the_request_id(client: Client, server: Served) -> None:
    wrong = [an_input("x", np.ones((1, 2)), "FP64")]
    assert refused(client, "digits", wrong, request_id="a")[1].startswith("[request id: a] inference input 'x'")
    assert refused(client, "digits", wrong)[1].startswith("[request id: <id_unknown>] ")
    server.scheduler.refusal = Overloaded("the queue holds 1024 requests")
    status, text = refused(client, "digits", x(), request_id="b")
    assert status == "StatusCode.UNAVAILABLE"
    assert text.startswith("[request id: b] Exceeds maximum queue size")
    server.scheduler.refusal = QueueTimeout("3 ms in the queue")
    status, text = refused(client, "digits", x())
    assert (status, text) == ("StatusCode.UNAVAILABLE", "[request id: <id_unknown>] Request timeout expired")


def test_a_loading_version_is_not_at_ready_state(client: Client, server: Served) -> None:
    server.manager.change(VersionStatus(ServableId("digits", 3), State.LOADING))
    status, text = refused(client, "digits", x(), model_version="3")
    assert status == "StatusCode.UNAVAILABLE"
    assert text.startswith("Request for unknown model: 'digits' version 3 is not at ready state")


def test_a_failure_of_the_model_is_internal(client: Client, server: Served) -> None:
    def fail(_inputs: Any) -> Any:
        raise ExecutionFailed("the graph is broken")

    server.scheduler.run = fail
    status, text = refused(client, "digits", x(), request_id="q")
    assert (status, text) == ("StatusCode.INTERNAL", "[request id: q] the graph is broken")
    assert server.metrics.model("digits", 1).snapshot().failed[0] == 1


def _parameters(**values: Any) -> Any:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[np.ones(1, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    for key, (kind, value) in values.items():
        setattr(request.parameters[key], kind, value)
    return request


@pytest.mark.parametrize(
    ("key", "field", "value", "text"),
    [
        (
            "priority",
            "string_param",
            "1",
            "invalid value for parameter 'priority': expected int64_param or uint64_param",
        ),
        ("priority", "int64_param", -1, "expected int64_param or uint64_param of at least 0"),
        ("timeout", "uint64_param", 1, "invalid value for parameter 'timeout': expected int64_param"),
        ("sequence_start", "int64_param", 1, "invalid value for parameter 'sequence_start': expected bool_param"),
        ("sequence_id", "bool_param", True, "invalid value for parameter 'sequence_id'"),
        ("triton_enable_empty_final_response", "int64_param", 1, "expected bool_param"),
        ("triton_mine", "bool_param", True, "parameter keys starting with 'triton_' are reserved"),
    ],
)
def test_reserved_parameters_of_wrong_types_are_refused(
    server: Served, key: str, field: str, value: Any, text: str
) -> None:
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel())
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(_parameters(**{key: (field, value)}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


def test_priority_and_timeout_reach_the_request(client: Client, server: Served) -> None:
    scheduler = server.scheduler
    scheduler.holding = True
    answers: queue.Queue[Any] = queue.Queue()
    parameters = {"mine": 1, "yours": "s"}
    client.async_infer(
        "digits",
        x(),
        lambda result, error: answers.put((result, error)),
        priority=3,
        timeout=5_000_000,
        parameters=parameters,
    )
    scheduler.wait_for(1)
    (request,) = scheduler.held
    assert request.priority == 3
    assert request.queue_deadline is not None
    assert request.deadline is None
    assert 1.0 < request.queue_deadline - request.enqueued_at <= 5.0
    scheduler.step()
    result, error = answers.get(timeout=10)
    assert error is None
    assert result.as_numpy("y").tolist() == [[2.0, 4.0]]


def test_the_clients_deadline_cancels_the_request(client: Client, server: Served) -> None:
    assert client.is_server_live()  # it is connected: all the time is the request's
    server.scheduler.holding = True
    status, text = refused(client, "digits", x(), client_timeout=0.5)
    assert (status, text) == ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded")
    assert server.scheduler.cancelled.wait(10)


def test_a_cancelled_call_leaves_the_queue(client: Client, server: Served) -> None:
    server.scheduler.holding = True
    answers: queue.Queue[Any] = queue.Queue()
    context = client.async_infer("digits", x(), lambda result, error: answers.put((result, error)))
    server.scheduler.wait_for(1)
    context.cancel()
    assert server.scheduler.cancelled.wait(10)
    _, error = answers.get(timeout=10)
    assert error.status() == "StatusCode.CANCELLED"


def _scores(server: Served, values: np.ndarray, **kwargs: Any) -> None:
    dtype = DType.FP32 if values.dtype == np.float32 else DType.STRING if values.dtype == object else DType.INT64
    signature = Signature(
        "serving_default", (TensorSpec("x", DType.FP32, (-1, -1)),), (TensorSpec("s", dtype, (-1, -1)),)
    )
    add(server.manager, "scores", (signature,), lambda _inputs: {"s": values}, **kwargs)


def test_classification_returns_top_classes(client: Client, server: Served) -> None:
    _scores(server, np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.5]], np.float32))
    answer = client.infer("scores", x(), outputs=[_wanted("s", class_count=2)])
    assert answer.as_numpy("s").tolist() == [[b"0.700000:1", b"0.200000:2"], [b"0.500000:0", b"0.500000:2"]]
    every = client.infer("scores", x(), outputs=[_wanted("s", class_count=9)])
    assert every.as_numpy("s").shape == (2, 3)
    _scores(server, np.array([3, 9, 9], np.int64), max_batch_size=0)
    alone = client.infer("scores", x(), outputs=[_wanted("s", class_count=2)])
    assert alone.as_numpy("s").tolist() == [b"9:1", b"9:2"]


@pytest.mark.parametrize(("shape", "found"), [((0, 3), (0, 2)), ((2, 0), (2, 0))])
def test_classification_of_empty_outputs(client: Client, server: Served, shape: Any, found: Any) -> None:
    _scores(server, np.zeros(shape, np.float32))
    answer = client.infer("scores", x(), outputs=[_wanted("s", class_count=2)])
    assert answer.as_numpy("s").shape == found


def test_classification_has_the_labels_of_the_model(client: Client, server: Served) -> None:
    _scores(server, np.array([[0.1, 0.7, 0.2]], np.float32), class_labels={"s": ("cat", "dog")})
    answer = client.infer("scores", x(), outputs=[_wanted("s", class_count=3)])
    assert answer.as_numpy("s").tolist() == [[b"0.700000:1:dog", b"0.200000:2", b"0.100000:0:cat"]]
    _scores(server, np.array([[0.1, 0.7]], np.float32), class_labels={"s": ("cat", "")})
    answer = client.infer("scores", x(), outputs=[_wanted("s", class_count=2)])
    assert answer.as_numpy("s").tolist() == [[b"0.700000:1", b"0.100000:0:cat"]]


def test_classification_of_strings_is_refused(client: Client, server: Served) -> None:
    _scores(server, np.array([[b"a"]], object))
    status, text = refused(client, "scores", x(), outputs=[_wanted("s", class_count=1)])
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "class result not available for output 's'" in text


def test_shared_memory_is_off_by_default(client: Client) -> None:
    far = triton.InferInput("x", [1, 2], "FP32")
    far.set_shared_memory("region", 8)
    status, text = refused(client, "digits", [far])
    assert status == "StatusCode.UNIMPLEMENTED"
    assert text == "client shared memory is disabled: set server.shared_memory to the beginning that keys must have"
    out = _wanted("y")
    out.set_shared_memory("region", 8)
    status, text = refused(client, "digits", x(), outputs=[out])
    assert status == "StatusCode.UNIMPLEMENTED"
    assert "client shared memory is disabled" in text


def test_random_bytes_are_refused_and_the_server_keeps_serving(server: Served, client: Client) -> None:
    import grpc

    call = server.channel().unary_unary("/inference.GRPCInferenceService/ModelInfer")
    random = np.random.default_rng(0)
    for size in range(0, 200, 7):
        with pytest.raises(grpc.RpcError) as caught:
            call(random.bytes(size))
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert client.infer("digits", x()).as_numpy("y").tolist() == [[2.0, 4.0]]


def test_compressed_requests_are_accepted(client: Client) -> None:
    for algorithm in ("gzip", "deflate"):
        answer = client.infer("digits", x(np.ones((1, 5000))), compression_algorithm=algorithm)
        assert answer.as_numpy("y").shape == (1, 5000)


def test_strings_are_encoded_with_their_lengths(client: Client, server: Served) -> None:
    array = np.array([["a", "b"]], object)
    answer = client.infer("echo", [an_input("in_BYTES", array, "BYTES")])
    position = [output.name for output in answer.get_response().outputs].index("out_BYTES")
    assert answer.get_response().raw_output_contents[position] == serialize_byte_tensor(array).item()
    assert scheduler_of(server, "echo").held == []
