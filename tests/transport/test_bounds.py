"""Bounds and faults: whatever a client does, it gets a precise status and the server stays healthy."""

from __future__ import annotations

import socket
import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rpc import PREDICT, PREDICT_STREAM, Served, eventually, refused, request, trailing

from inferd.server.config.schema import Grpc, Inflight, ServerConfig
from inferd.server.transport.completion_queue.receive_timeout import ReceiveTimeout
from inferd.wire.native import decode_response

LIST = "/inferd.v1.ModelService/ListModels"


def healthy(server: Served) -> bool:
    stub = health_pb2_grpc.HealthStub(server.channel())
    return bool(stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1)


def test_a_message_over_the_limit_is_refused_and_the_next_one_served(serve):
    server = serve(config=ServerConfig(grpc=Grpc(max_message="64KiB")))
    channel = server.channel()
    error = refused(lambda: channel.unary_unary(PREDICT)(bytes(70_000), timeout=30))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = refused(lambda: list(channel.stream_stream(PREDICT_STREAM)(iter([bytes(70_000)]), timeout=30)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert channel.unary_unary(PREDICT)(request(), timeout=30)
    eventually(lambda: (server.inflight.calls, server.inflight.streams, server.transport.open_calls) == (0, 0, 0))


def test_an_answer_over_the_limit_is_a_status_too(serve):
    server = serve(config=ServerConfig(grpc=Grpc(max_message="64KiB")))
    server.scheduler.run = lambda inputs: {"y": np.zeros(20_000, np.float32), "z": np.zeros(1, np.float32)}
    error = refused(server.predict)
    assert error.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
    assert healthy(server)
    eventually(lambda: server.inflight.calls == 0)


def test_a_gzip_bomb_is_refused(serve):
    server = serve(config=ServerConfig(grpc=Grpc(max_message="1MiB")))
    call = server.channel().unary_unary(PREDICT)
    error = refused(lambda: call(bytes(32 * 2**20), compression=grpc.Compression.Gzip, timeout=30))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert healthy(server)


def test_a_flood_past_the_bound_on_calls(serve):
    server = serve(config=ServerConfig(inflight=Inflight(calls=4)))
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    kept = [call.future(request(request_id=str(i)), timeout=60) for i in range(4)]
    server.scheduler.wait_for(4)
    flood = [call.future(request(), timeout=60) for _ in range(500)]
    for future in flood:
        assert future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "inflight.calls is 4" in flood[0].details()
    assert trailing(flood[0])["inferd-accepted"] == "0"
    assert int(trailing(flood[0])["grpc-retry-pushback-ms"]) > 0
    assert ("", None, "grpc", "RESOURCE_EXHAUSTED") in server.metrics.counted
    assert server.inflight.calls == 4
    assert healthy(server)  # health is taken when all else is refused
    server.scheduler.step()
    assert [decode_response(future.result()).request_id for future in kept] == ["0", "1", "2", "3"]
    eventually(lambda: server.inflight.calls == 0)
    server.scheduler.holding = False
    assert server.predict()


def test_a_flood_past_the_bound_on_bytes(serve):
    server = serve(config=ServerConfig(inflight=Inflight(bytes="1MiB")))
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    big = request(np.zeros((1, 100_000)))
    kept = [call.future(big, timeout=60) for _ in range(2)]
    server.scheduler.wait_for(2)
    future = call.future(big, timeout=60)
    assert future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "inflight.bytes" in future.details()
    assert server.inflight.nbytes == 2 * len(big)
    server.scheduler.step()
    assert all(future.result() for future in kept)
    eventually(lambda: server.inflight.nbytes == 0)


def test_thousands_of_calls_on_one_connection_are_all_answered(server: Served):
    # More than max_streams_per_connection and than the core's own limits on waiting calls.
    call = server.channel().unary_unary(PREDICT)
    message = request()
    futures = [call.future(message, timeout=110) for _ in range(3000)]
    assert {future.code() for future in futures} == {grpc.StatusCode.OK}


def test_500_idle_streams_starve_nobody(server: Served):
    release = threading.Event()

    def nothing():  # a stream that is open and says nothing
        release.wait(60)
        yield from ()

    watch = health_pb2.HealthCheckRequest().SerializeToString()
    channel = server.channel()
    streams = [channel.unary_stream("/grpc.health.v1.Health/Watch")(watch, timeout=100) for _ in range(490)]
    streams += [channel.stream_stream(PREDICT_STREAM)(nothing(), timeout=100) for _ in range(10)]
    eventually(lambda: server.inflight.streams == 500, 60)
    assert healthy(server)
    assert server.predict()
    for stream in streams:
        stream.cancel()
    release.set()
    eventually(lambda: server.transport.open_calls == 0, 60)
    assert server.inflight.streams == 0


def test_too_much_metadata_is_refused(serve):
    server = serve(config=ServerConfig(grpc=Grpc(max_metadata="4KiB")))
    call = server.channel().unary_unary(PREDICT)
    error = refused(lambda: call(request(), metadata=[("x-long", "a" * 20_000)], timeout=30))
    assert error.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE}
    assert healthy(server)


def test_a_call_without_a_message(server: Served):
    error = refused(lambda: server.channel().stream_unary(PREDICT)(iter(()), timeout=30))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected one message, got none" in error.details()
    eventually(lambda: server.transport.open_calls == 0)


def test_a_half_open_call_waits_and_its_cancel_is_noticed(server: Served):
    release = threading.Event()

    def late():
        release.wait(60)
        yield request()

    call = server.channel().stream_unary(PREDICT).future(late(), timeout=60)
    eventually(lambda: server.transport.open_calls == 1)
    call.cancel()
    eventually(lambda: server.transport.open_calls == 0 and server.inflight.calls == 0)
    release.set()


def test_a_half_open_call_is_answered_when_its_message_comes(server: Served):
    release = threading.Event()

    def late():
        release.wait(60)
        yield request()

    call = server.channel().stream_unary(PREDICT).future(late(), timeout=60)
    eventually(lambda: server.transport.open_calls == 1)
    release.set()
    assert call.result()


def test_a_call_whose_message_never_comes_is_ended(serve):
    server = serve(config=ServerConfig(grpc=Grpc(receive_timeout="200ms"), inflight=Inflight(calls=1)))
    release = threading.Event()

    def never():
        release.wait(60)
        yield request()

    try:
        error = refused(lambda: server.channel().stream_unary(PREDICT)(never(), timeout=60))
    finally:
        release.set()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the request did not come within 0.2 s (grpc.receive_timeout)" in error.details()
    eventually(lambda: (server.inflight.calls, server.transport.open_calls) == (0, 0))
    server.scheduler.holding = True  # one that has sent its message may wait as long as it likes
    waiting = server.channel().unary_unary(PREDICT).future(request(), timeout=60)
    server.scheduler.wait_for(1)
    sweep = ReceiveTimeout(server.transport._calls, 0.0, threading.Event())
    sweep.look(1.0)
    sweep.look(2.0)
    assert not waiting.done()
    server.scheduler.release()
    assert waiting.result()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01" + bytes(range(256)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        + b"\x00\x00\x05\x01\x25\x00\x00\x00\x01abcde",
    ],
)
def test_garbage_on_the_socket(server: Served, garbage: bytes):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        # An aborted connection: RST instead of FIN.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert healthy(server)
    assert server.predict()


def test_a_connection_that_is_reset_cancels_its_calls(server: Served):
    server.scheduler.holding = True
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        proxied = f"127.0.0.1:{listener.getsockname()[1]}"
        with grpc.insecure_channel(proxied, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            future = channel.unary_unary(PREDICT).future(request(), timeout=60)
            client, _ = listener.accept()
            upstream = socket.create_connection(("127.0.0.1", server.port))
            pumps = [threading.Thread(target=_pump, args=pair) for pair in ((client, upstream), (upstream, client))]
            for pump in pumps:
                pump.start()
            server.scheduler.wait_for(1)
            listener.close()
            for end in (upstream, client):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)
                end.close()
            assert future.code() is grpc.StatusCode.UNAVAILABLE
            for pump in pumps:
                pump.join()
    assert server.scheduler.cancelled.wait(30)
    eventually(lambda: server.transport.open_calls == 0)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=50), cut=st.integers(0, 60), at=st.integers(0, 60))
def test_random_and_truncated_messages(server: Served, data: bytes, cut: int, at: int):
    good = request(request_id="r")
    channel = _shared(server)
    for message in (data, good[:cut], good[:at] + data + good[at:]):
        for method in (PREDICT, LIST, "/inferd.v1.ModelService/LoadModel", "/grpc.health.v1.Health/Check"):
            ended = channel.unary_unary(method).future(message, timeout=30)
            assert ended.code() in {
                grpc.StatusCode.OK,
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
            }


def _shared(server: Served) -> grpc.Channel:
    if not server._channels:
        server.channel()
    return server._channels[0]


def test_connections_are_bounded(serve):
    server = serve(config=ServerConfig(grpc=Grpc(max_connections=1)))
    first = server.channel()
    assert first.unary_unary(PREDICT)(request(), timeout=30)
    error = refused(lambda: server.channel().unary_unary(PREDICT)(request(), timeout=30))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert first.unary_unary(PREDICT)(request(), timeout=30)
