"""Answers that clients do not read are counted, bounded and given up."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from support.http2 import RawClient, message
from support.rpc import PREDICT, PREDICT_STREAM, Served, eventually, request

from inferd.server.config.schema import Grpc, Inflight, ServerConfig
from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.write_timeout import WriteTimeout

ANSWER = np.zeros((1, 250_000), np.float32)  # 1 MB


def answers_much(server: Served) -> None:
    server.scheduler.run = lambda inputs: {"y": ANSWER, "z": np.zeros((1, 1), np.float32)}


def nothing_held(server: Served) -> bool:
    held = (server.inflight.calls, server.inflight.nbytes, server.inflight.streams, server.transport.open_calls)
    return held == (0, 0, 0, 0)


def ask(client: RawClient, path: str, count: int, *, streaming: bool) -> None:
    body = message(request())
    if streaming:
        client.send(client.call(path), count * body)
        return
    for _ in range(count):
        client.send(client.call(path), body, end=True)


def answered(server: Served) -> bool:
    try:
        return server.predict().outputs["y"].nbytes == ANSWER.nbytes
    except grpc.RpcError:  # the server is full
        return False


@pytest.mark.parametrize("path", [PREDICT, PREDICT_STREAM])
def test_unread_answers_count_and_end_after_the_write_timeout(serve, path: str) -> None:
    server = serve(config=ServerConfig(grpc=Grpc(write_timeout="400ms")))
    answers_much(server)
    with RawClient(server.port, window=0) as client:
        ask(client, path, 5, streaming=path == PREDICT_STREAM)
        eventually(lambda: server.inflight.nbytes >= 5 * ANSWER.nbytes, 60)
        eventually(lambda: nothing_held(server), 60)


def test_small_unread_answers_end_after_the_write_timeout(serve) -> None:
    server = serve(config=ServerConfig(grpc=Grpc(write_timeout="400ms")))
    with RawClient(server.port, window=0) as client:
        ask(client, PREDICT, 20, streaming=False)
        eventually(lambda: server.inflight.calls == 20, 60)
        eventually(lambda: nothing_held(server), 60)


@pytest.mark.parametrize("path", [PREDICT, PREDICT_STREAM])
def test_clients_that_do_not_read_give_way_before_the_bound_is_reached(serve, path: str) -> None:
    server = serve(config=ServerConfig(inflight=Inflight(bytes="16MiB"), grpc=Grpc(write_timeout="600s")))
    answers_much(server)
    with RawClient(server.port, window=0) as client:
        ask(client, path, 30, streaming=path == PREDICT_STREAM)
        eventually(lambda: server.inflight.nbytes > 0, 60)
        eventually(lambda: answered(server), 60)  # a client that reads
    eventually(lambda: nothing_held(server), 60)


def test_a_client_that_reads_slowly_is_served(serve) -> None:
    server = serve(config=ServerConfig(grpc=Grpc(write_timeout="600s")))
    answers_much(server)
    with RawClient(server.port, window=65535) as client:
        stream = client.call(PREDICT)
        client.send(stream, message(request()), end=True)
        eventually(lambda: server.inflight.nbytes >= ANSWER.nbytes, 60)
        client.open_window(stream, 2 * ANSWER.nbytes)
        assert client.ended(stream)
        assert client.data[stream] > ANSWER.nbytes
    eventually(lambda: nothing_held(server), 60)


class Slow:
    """A call that waits to be written."""

    def __init__(self, unwritten: int) -> None:
        self.writing: int | None = 0
        self.unwritten = unwritten
        self.failure: Failure | None = None

    def drop(self, failure: Failure) -> None:
        self.failure = failure


def sweep(calls: list[Slow], held: int) -> WriteTimeout:
    inflight = InflightBounds(Inflight(bytes=1000))
    inflight.count(held)
    return WriteTimeout(calls, 60.0, inflight, threading.Event())


def test_progress_starts_the_time_anew() -> None:
    call = Slow(0)
    timeout = sweep([call], 0)
    for second in (0, 50, 100, 150):
        timeout.look(float(second))
        call.writing = second
    timeout.look(200.0)
    timeout.look(259.0)
    assert call.failure is None
    timeout.look(260.0)
    assert call.failure is not None
    assert "not read within 60 s" in call.failure.text


def test_half_of_the_bound_makes_the_time_short() -> None:
    call = Slow(600)
    timeout = sweep([call], 600)
    timeout.look(0.0)
    timeout.look(0.9)
    assert call.failure is None
    timeout.look(1.0)
    assert call.failure is not None


def test_near_the_bound_the_oldest_give_way_until_there_is_room() -> None:
    calls = [Slow(100) for _ in range(8)]
    timeout = sweep(calls, 0)
    for moment in range(8):
        calls[moment].writing = 1
        timeout.look(moment / 100)
    timeout._inflight.count(800)
    late = Slow(100)
    calls.append(late)
    timeout.look(0.09)
    # 800 of 1000 are held, 625 may be: two give way.
    assert [call.failure is not None for call in calls] == [True] * 2 + [False] * 7
