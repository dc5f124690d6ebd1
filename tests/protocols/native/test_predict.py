from __future__ import annotations

import logging
import threading
import time

import grpc
import numpy as np
import pytest
from support.rpc import PREDICT, FakeManager, Served, eventually, refused, request, trailing

from inferd.server.errors import DeadlineExceeded, ExecutionFailed, Overloaded, Unavailable
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.v1 import predict_service_pb2, predict_service_pb2_grpc, tensor_pb2
from inferd.wire.native import decode_response, encode_request


def test_predict_returns_the_models_outputs(server: Served):
    answer = server.predict([[1.0, 2.0]], request_id="mine")
    assert (answer.model_name, answer.version, answer.signature) == ("digits", 1, "serving_default")
    assert answer.request_id == "mine"
    assert list(answer.outputs) == ["y", "z"]
    np.testing.assert_array_equal(answer.outputs["y"], np.array([[2.0, 4.0]], np.float32))
    server.metrics.wait_for(("digits", 1, "grpc", "OK"))
    eventually(lambda: server.inflight.calls == 0 and server.inflight.nbytes == 0)
    assert server.manager.servables[ServableId("digits", 1)].handles == 0


def test_the_generated_stub_gets_the_same_answer(server: Served):
    stub = predict_service_pb2_grpc.PredictServiceStub(server.channel())
    tensor = tensor_pb2.Tensor(name="x", dtype="DATA_TYPE_FP32", shape=[1, 1], data=np.float32(3).tobytes())
    asked = predict_service_pb2.PredictRequest(model={"name": "digits", "version": 1}, inputs=[tensor], outputs=["y"])
    answer = stub.Predict(asked, timeout=30)
    assert [output.name for output in answer.outputs] == ["y"]
    assert answer.outputs[0].data == np.float32(6).tobytes()


def test_outputs_come_in_the_order_of_the_request(server: Served):
    assert list(server.predict(outputs=["z", "y"]).outputs) == ["z", "y"]


def test_a_version_a_label_or_the_newest_is_used(server: Served):
    server.manager.available("digits", 2)
    server.manager.labels["digits"] = {"stable": 1}
    assert server.predict().version == 2
    assert server.predict(version=1).version == 1
    assert server.predict(label="stable").version == 1


def test_the_request_id_is_from_metadata_or_a_new_one(server: Served):
    call = server.channel().unary_unary(PREDICT)
    given = decode_response(call(request(), metadata=[("x-request-id", "from-metadata")]))
    assert given.request_id == "from-metadata"
    first, second = (decode_response(call(request())).request_id for _ in range(2))
    assert first
    assert first != second


def test_concurrent_requests_get_their_own_answers(server: Served):
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    futures = [call.future(request([[float(i)]], request_id=str(i))) for i in range(100)]
    server.scheduler.wait_for(100)
    server.scheduler.step()
    for i, future in enumerate(futures):
        answer = decode_response(future.result(timeout=30))
        assert answer.request_id == str(i)
        assert answer.outputs["y"].tolist() == [[2.0 * i]]


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (request(name="nope"), grpc.StatusCode.NOT_FOUND, "nope"),
        (request(version=9), grpc.StatusCode.NOT_FOUND, "9"),
        (request(label="canary"), grpc.StatusCode.NOT_FOUND, "canary"),
        (request(signature="other"), grpc.StatusCode.INVALID_ARGUMENT, "'other'; expected one of 'serving_default'"),
        (request(outputs=["w"]), grpc.StatusCode.INVALID_ARGUMENT, "'w'"),
        (encode_request("digits", {"q": np.ones(1)}), grpc.StatusCode.INVALID_ARGUMENT, "'q'"),
        (request()[:-1], grpc.StatusCode.INVALID_ARGUMENT, "expected an inferd.v1.PredictRequest"),
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "1 bytes"),
        (b"", grpc.StatusCode.NOT_FOUND, "''"),
        (
            request().replace(b"\x1a\x02\x01\x02", b"\x1a\x02\x01\x03"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "tensor 'x': expected 12 bytes for FP32 of shape [1, 3], got 8",
        ),
    ],
)
def test_refusals_name_what_was_expected_and_what_came(
    server: Served, message: bytes, code: grpc.StatusCode, text: str
):
    error = refused(lambda: server.channel().unary_unary(PREDICT)(message))
    assert error.code() is code
    assert text in error.details()
    assert trailing(error)["inferd-accepted"] == "0"
    assert server.predict().version == 1


@pytest.mark.parametrize(
    ("refusal", "code", "accepted", "pushback"),
    [
        (Overloaded("queue full", retry_after=0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, "0", "250"),
        (Overloaded("queue full"), grpc.StatusCode.RESOURCE_EXHAUSTED, "0", "100"),
        (DeadlineExceeded("expired"), grpc.StatusCode.DEADLINE_EXCEEDED, "0", None),
        (Unavailable("draining"), grpc.StatusCode.UNAVAILABLE, "0", "100"),
        (ExecutionFailed("CUDA is sad"), grpc.StatusCode.INTERNAL, "1", None),
    ],
)
def test_the_schedulers_errors_are_mapped(
    server: Served, refusal: Exception, code: grpc.StatusCode, accepted: str, pushback: str | None
):
    server.scheduler.refusal = refusal
    error = refused(server.predict)
    assert (error.code(), error.details()) == (code, str(refusal))
    assert trailing(error).get("inferd-accepted") == accepted
    assert trailing(error).get("grpc-retry-pushback-ms") == pushback
    assert server.manager.servables[ServableId("digits", 1)].handles == 0
    assert server.metrics.counted == [("digits", 1, "grpc", code.name)]


def test_a_loading_model_is_unavailable(server: Served):
    server.manager.change(VersionStatus(ServableId("slow", 1), State.LOADING))
    error = refused(lambda: server.predict(name="slow", version=1))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "grpc-retry-pushback-ms" in trailing(error)
    assert server.metrics.counted == [("", None, "grpc", "UNAVAILABLE")]


def test_an_unexpected_exception_is_shown_in_the_log_only(server: Served, caplog: pytest.LogCaptureFixture):
    server.manager.crash = RuntimeError("secret path /etc/x")
    error = refused(lambda: server.predict(request_id="abc"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error (request id abc)"
    record = next(r for r in caplog.records if "request failed" in r.message)
    assert record.levelno == logging.ERROR
    assert "secret path" in str(record.exc_info)


def test_outputs_that_cannot_be_encoded_fail_as_the_models_error(server: Served):
    server.scheduler.run = lambda inputs: {"y": np.ones(1, np.complex64), "z": np.ones(1, np.float32)}
    error = refused(server.predict)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "complex64" in error.details()
    server.scheduler.run = lambda inputs: {"y": np.ones(1, np.float32)}
    assert "'z'" in refused(server.predict).details()


@pytest.mark.parametrize("letter", ["ü", "中", "\N{GRINNING FACE}", "%", "\n"])
def test_error_texts_with_any_characters_arrive(server: Served, letter: str):
    error = refused(lambda: server.predict(name=letter * 5000))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details().startswith(f"model '{repr(letter * 3)[1:-1]}")


def test_the_deadline_reaches_the_request(server: Served):
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    future = call.future(request(), timeout=60)
    server.scheduler.wait_for(1)
    deadline = server.scheduler.held[0].deadline
    assert deadline is not None
    assert 50 < deadline - time.monotonic() < 61  # gRPC sends a minute in tenths of a second, rounded up
    server.scheduler.step()
    future.result(timeout=30)
    future = call.future(request())
    server.scheduler.wait_for(1)
    assert server.scheduler.held[0].deadline is None


def test_priority_and_queue_timeout_reach_the_request(server: Served):
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    futures = [call.future(request(priority=7, queue_timeout_us=5_000_000)), call.future(request())]
    server.scheduler.wait_for(2)
    first, second = sorted(server.scheduler.held, key=lambda r: -r.priority)
    assert (first.priority, second.priority) == (7, 1)
    assert first.queue_deadline is not None
    assert second.queue_deadline is None
    assert first.nbytes > 8
    server.scheduler.step()
    assert all(future.result(timeout=30) for future in futures)


def test_a_deadline_that_passes_cancels_the_request(server: Served):
    server.scheduler.holding = True
    # gRPC sends this timeout as 1.01 s, so the client cancels before the server's deadline.
    error = refused(lambda: server.channel().unary_unary(PREDICT)(request(), timeout=1.001))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.scheduler.cancelled.wait(10)
    server.metrics.wait_for(("digits", 1, "grpc", "DEADLINE_EXCEEDED"))
    eventually(lambda: server.inflight.calls == 0)


def test_a_cancel_drops_only_its_own_request(server: Served):
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    victim, neighbour = call.future(request(), timeout=60), call.future(request([[5.0]]))
    server.scheduler.wait_for(2)
    victim.cancel()
    assert server.scheduler.cancelled.wait(10)
    server.metrics.wait_for(("digits", 1, "grpc", "CANCELLED"))
    assert len(server.scheduler.held) == 1
    server.scheduler.step()
    assert decode_response(neighbour.result(timeout=30)).outputs["y"].tolist() == [[10.0]]
    eventually(lambda: server.inflight.calls == 0 and server.transport.open_calls == 0)


def test_a_reply_from_another_thread_is_sent(server: Served):
    server.scheduler.holding = True
    future = server.channel().unary_unary(PREDICT).future(request())
    server.scheduler.wait_for(1)
    thread = threading.Thread(target=server.scheduler.step)
    thread.start()
    assert future.result(timeout=30)
    thread.join()


def test_a_gzip_request_is_accepted(server: Served):
    call = server.channel().unary_unary(PREDICT)
    answer = call(request(np.zeros((64, 64))), compression=grpc.Compression.Gzip)
    assert decode_response(answer).outputs["y"].shape == (64, 64)


def test_an_unknown_method_is_unimplemented(server: Served):
    for method in ("/inferd.v1.PredictService/Nope", "/a.B/C"):
        error = refused(lambda m=method: server.channel().unary_unary(m)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert error.details() == f"there is no method {method}"
    assert server.metrics.counted.count(("", None, "grpc", "UNIMPLEMENTED")) == 2


def test_several_addresses_and_a_unix_socket_are_served(serve, tmp_path):
    socket = f"unix:{tmp_path}/inferd.sock"
    served = serve(addresses=["127.0.0.1:0", "127.0.0.1:0", "[::]:0", socket])
    assert served.addresses[-1] == socket
    for address in served.addresses:
        target = address.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1")
        with grpc.insecure_channel(target) as channel:
            assert channel.unary_unary(PREDICT)(request(), timeout=30)


def test_another_manager_serves_its_models(serve):
    manager = FakeManager()
    manager.available("other", 3)
    assert serve(manager=manager).predict(name="other").version == 3
