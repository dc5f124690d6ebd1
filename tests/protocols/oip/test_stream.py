"""ModelStreamInfer with the real tritonclient: answers in order, failures as messages, and cleanup."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.foreign_models import add
from support.rpc import DOUBLE, Served, double, eventually
from tritonclient.utils import InferenceServerException

from inferd.server.errors import ExecutionFailed

Client = triton.InferenceServerClient


def x(value: float = 1.0, name: str = "x") -> list[triton.InferInput]:
    found = triton.InferInput(name, [1, 1], "FP32")
    found.set_data_from_numpy(np.full((1, 1), value, np.float32))
    return [found]


@pytest.fixture
def answers(client: Client) -> queue.Queue[Any]:
    got: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    return got


def test_answers_come_in_the_order_of_their_requests(client: Client, server: Served, answers: queue.Queue[Any]) -> None:
    slow = add(server.manager, "slow", (DOUBLE,), double)
    slow.scheduler.holding = True
    client.async_stream_infer("slow", x(1), request_id="0")
    slow.scheduler.wait_for(1)
    for number in range(1, 6):
        client.async_stream_infer("digits", x(number), request_id=str(number))
    eventually(lambda: server.metrics.model("digits", 1).snapshot().requests.get(("oip", "OK")) == 5)
    assert answers.empty()
    slow.scheduler.step()
    for number in range(6):
        result, error = answers.get(timeout=10)
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param is True
    client.stop_stream()
    eventually(lambda: server.inflight.calls == 0)


def test_failures_are_messages_and_the_stream_continues(
    client: Client, server: Served, answers: queue.Queue[Any]
) -> None:
    def fail(inputs: Any) -> Any:
        if inputs["x"][0, 0] == 3:
            raise ExecutionFailed("three is too much")
        return double(inputs)

    server.scheduler.run = fail
    client.async_stream_infer("nope", x(), request_id="a")
    client.async_stream_infer("digits", x(name="q"), request_id="b")
    client.async_stream_infer("digits", x(3), request_id="c")
    client.async_stream_infer("digits", x(), request_id="d", sequence_id=3)
    client.async_stream_infer("digits", x(4), request_id="e")
    texts = []
    for _ in range(4):
        result, error = answers.get(timeout=10)
        assert result is None
        texts.append(error.message())
    assert texts[0].startswith("Request for unknown model: 'nope' is not found")
    assert texts[1].startswith("[request id: b] expected 1 inputs but got 1 inputs for model 'digits'")
    assert texts[2] == "[request id: c] three is too much"
    assert texts[3].startswith("sequences are not supported")
    result, error = answers.get(timeout=10)
    assert error is None
    assert result.get_response().id == "e"
    assert result.as_numpy("y").tolist() == [[8.0]]


def test_a_failure_has_the_id_of_its_request(server: Served) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel())
    requests = [
        service_pb2.ModelInferRequest(model_name="nope", id="a"),
        service_pb2.ModelInferRequest(
            model_name="digits",
            id="b",
            inputs=[service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2])],
            raw_input_contents=[b"1234"],
        ),
    ]
    first, second = stub.ModelStreamInfer(iter(requests), timeout=10)
    assert (first.infer_response.id, first.infer_response.model_name) == ("a", "nope")
    assert "not found" in first.error_message
    assert second.infer_response.id == "b"
    assert "input byte size mismatch for input 'x' for model 'digits'. Expected 8, got 4" in second.error_message


def test_triton_grpc_error_ends_the_stream_at_the_first_failure(client: Client) -> None:
    got: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)), headers={"triton_grpc_error": "true"})
    client.async_stream_infer("digits", x(), request_id="a")
    _, error = got.get(timeout=10)
    assert error is None
    client.async_stream_infer("nope", x(), request_id="b")
    _, error = got.get(timeout=10)
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.NOT_FOUND"


def test_a_client_that_goes_leaves_nothing_behind(client: Client, server: Served, answers: queue.Queue[Any]) -> None:
    server.scheduler.holding = True
    for number in range(3):
        client.async_stream_infer("digits", x(number))
    server.scheduler.wait_for(3)
    client.stop_stream(cancel_requests=True)
    eventually(lambda: server.scheduler.held == [])
    eventually(lambda: server.inflight.calls == 0 and server.inflight.nbytes == 0)


def test_requests_over_the_streams_bound_wait(client: Client, server: Served, answers: queue.Queue[Any]) -> None:
    for number in range(300):
        client.async_stream_infer("digits", x(number), request_id=str(number))
    for number in range(300):
        result, error = answers.get(timeout=20)
        assert error is None
        assert result.get_response().id == str(number)
        assert result.as_numpy("y").tolist() == [[2.0 * number]]


def test_answers_from_many_threads_keep_their_order(server: Served) -> None:
    """Answers are sent in the order of the requests, although several threads produce them in reverse order."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    server.scheduler.holding = True
    request = service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[np.ones(1, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    requests = []
    for number in range(60):
        copy = service_pb2.ModelInferRequest()
        copy.CopyFrom(request)
        copy.id = str(number)
        requests.append(copy)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel())
    responses = stub.ModelStreamInfer(iter(requests), timeout=30)
    server.scheduler.wait_for(60)
    held = list(reversed(server.scheduler.held))
    server.scheduler.held.clear()

    def run(part: list[Any]) -> None:
        for request in part:
            server.scheduler._execute(request)

    threads = [threading.Thread(target=run, args=(held[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    assert [response.infer_response.id for response in responses] == [str(number) for number in range(60)]
    for thread in threads:
        thread.join()
