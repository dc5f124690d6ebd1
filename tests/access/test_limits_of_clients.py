"""The limits of clients over every protocol: refusals have a pushback, and a lease is released however a call ends."""

from __future__ import annotations

import queue
from pathlib import Path

import grpc
import pytest
from support.access import WatchedManager, guarded_config, header, with_scopes
from support.rpc import PREDICT, PREDICT_STREAM, Served, eventually, refused, request, trailing
from support.security import Keys

from inferd.server.config.schema import ServerConfig
from inferd.wire.native import decode_stream_response

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def config(**clients: object) -> ServerConfig:
    return ServerConfig.model_validate({"limits": {"clients": clients}})


def test_a_client_over_its_rate_gets_the_time_of_its_next_request(serve):
    server = serve(config=config(rate=0.01, burst=2))
    call = server.channel().unary_unary(PREDICT)
    call(request(), timeout=20)
    call(request(), timeout=20)
    error = refused(lambda: call(request(), timeout=20))
    assert error.code() is FULL
    assert "limits.clients.rate" in error.details()
    assert trailing(error)["inferd-accepted"] == "0"
    assert 50_000 < int(trailing(error)["grpc-retry-pushback-ms"]) <= 100_000
    assert server.channel().unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)


@pytest.mark.parametrize(
    "method", ["/inference.GRPCInferenceService/ModelInfer", "/tensorflow.serving.PredictionService/Predict"]
)
def test_the_status_code_is_the_same_on_every_protocol(serve, method: str):
    server = serve(config=config(rate=0.01, burst=1))
    call = server.channel().unary_unary(method)
    refused(lambda: call(b"", timeout=20))
    assert refused(lambda: call(b"", timeout=20)).code() is FULL


def test_a_client_over_its_concurrency_is_refused(serve):
    server = serve(config=config(concurrency=2))
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    held = [call.future(request(), timeout=30) for _ in range(2)]
    server.scheduler.wait_for(2)
    error = refused(lambda: call(request(), timeout=20))
    assert error.code() is FULL
    assert int(trailing(error)["grpc-retry-pushback-ms"]) > 0
    assert len(server.scheduler.held) == 2
    server.scheduler.release()
    assert all(one.result(20) for one in held)
    assert call(request(), timeout=20)


def test_a_lease_is_released_however_a_call_ends(serve):
    server = serve(config=config(concurrency=1))
    call = server.channel().unary_unary(PREDICT)
    refused(lambda: call(b"\xff", timeout=20))
    refused(lambda: call(request(name="nosuch"), timeout=20))
    server.scheduler.holding = True
    cancelled = call.future(request(), timeout=30)
    server.scheduler.wait_for(1)
    cancelled.cancel()
    assert server.scheduler.cancelled.wait(20)
    server.scheduler.release()
    eventually(lambda: _answers(server))
    assert call(request(), timeout=20)


def _answers(server: Served) -> bool:
    return server.channel().unary_unary(PREDICT).future(request(), timeout=20).code() is grpc.StatusCode.OK


def test_a_stream_holds_one_lease_and_its_messages_count_for_the_rate(serve):
    server = serve(config=config(rate=0.01, burst=4, concurrency=1))
    messages: queue.Queue[bytes | None] = queue.Queue()
    answers = server.channel().stream_stream(PREDICT_STREAM)(iter(messages.get, None), timeout=30)
    told = []
    for number in range(5):  # the stream itself counts as one of the four
        messages.put(request(request_id=f"r{number}"))
        told.append(decode_stream_response(next(answers)))
    assert [request_id for request_id, _ in told] == [f"r{number}" for number in range(5)]
    codes = [getattr(answer, "code", 0) for _, answer in told]
    assert codes == [0, 0, 0, FULL.value[0], FULL.value[0]]
    messages.put(None)
    assert list(answers) == []


def test_a_stream_releases_its_lease(serve):
    server = serve(config=config(concurrency=1))
    for _ in range(3):
        messages: queue.Queue[bytes | None] = queue.Queue()
        answers = server.channel().stream_stream(PREDICT_STREAM)(iter(messages.get, None), timeout=30)
        messages.put(request())
        assert next(answers)
        assert refused(lambda: server.channel().unary_unary(PREDICT)(request(), timeout=20)).code() is FULL
        messages.put(None)
        assert list(answers) == []
        assert server.channel().unary_unary(PREDICT)(request(), timeout=20)


def test_each_caller_has_limits_of_its_own(serve, tmp_path: Path):
    keys = Keys()
    limits = {"clients": {"rate": 0.01, "burst": 1}}
    server = serve(config=guarded_config(tmp_path, keys, limits=limits), manager=WatchedManager())
    call = server.channel().unary_unary(PREDICT)
    for subject in ("a", "b"):
        token = header(f"Bearer {keys.token('hs', sub=subject)}")
        assert call(request(), metadata=token, timeout=20)
        assert refused(lambda t=token: call(request(), metadata=t, timeout=20)).code() is FULL
    # Bad credentials count for their address, which has one request.
    codes = [refused(lambda: call(request(), metadata=header("Bearer no"), timeout=20)).code() for _ in range(2)]
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, FULL]
    assert refused(lambda: call(request(), timeout=20)).code() is FULL
    assert call(request(), metadata=header(with_scopes(keys, ["predict"])), timeout=20)
