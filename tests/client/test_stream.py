"""Many requests over one stream."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import grpc
import numpy as np
import pytest
from support.client import LONG, Failure, FakeServer, Script, rows

from inferd.client import Client, ClientClosed, InvalidArgument, InvalidInput, NotFound, Overloaded, Unavailable


def test_every_answer_belongs_to_its_request(client, script: Script):
    with client.stream() as stream:
        futures = [stream.submit("m", {"x": np.full((1, 2), i, np.float32)}) for i in range(200)]
        assert [int(future.result(LONG)["y"][0, 0]) for future in futures] == list(range(200))
    assert script.calls == ["PredictStream"]


def test_a_failed_request_fails_only_its_own_future(client, script: Script):
    script.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad row"))
    with client.stream() as stream:
        bad = stream.submit("m", {"x": rows()}, request_id="bad")
        good = stream.submit("m", {"x": rows()}, request_id="good")
        with pytest.raises(InvalidArgument, match="bad row") as caught:
            bad.result(LONG)
        assert good.result(LONG).request_id == "good"
    assert (caught.value.model, caught.value.request_id) == ("m", "bad")


def test_when_the_stream_breaks_futures_and_submit_fail_with_the_reason(client, script: Script):
    script.failures.append(Failure(grpc.StatusCode.UNAVAILABLE, "draining", drop=True))
    with client.stream() as stream:
        future = stream.submit("m", {"x": rows()}, request_id="r")
        with pytest.raises(Unavailable, match="draining") as caught:
            future.result(LONG)
        assert caught.value.request_id == "r"
        with pytest.raises(Unavailable, match="draining"):
            stream.submit("m", {"x": rows()})


def test_a_failure_without_a_request_id_ends_the_stream(client, script: Script):
    script.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", nameless=True))
    with client.stream() as stream:
        future = stream.submit("m", {"x": rows()}, request_id="r")
        with pytest.raises(Overloaded, match="full") as caught:
            future.result(LONG)
        assert caught.value.request_id == "r"


def test_lists_and_unnamed_arrays_work_as_in_predict(client):
    with client.stream() as stream:
        assert stream.submit("m", [[1, 2]]).result(LONG)["y"].dtype == np.float32


def test_two_requests_in_flight_cannot_have_the_same_id(client, script: Script):
    held = threading.Event()
    script.hold = lambda request: held.wait(LONG) and None
    with client.stream() as stream:
        first = stream.submit("m", {"x": rows()}, request_id="same")
        with pytest.raises(InvalidInput, match="already under way"):
            stream.submit("m", {"x": rows()}, request_id="same")
        held.set()
        first.result(LONG)
        assert stream.submit("m", {"x": rows()}, request_id="same").result(LONG).request_id == "same"


def test_options_of_a_call_are_refused_for_a_request_of_a_stream(client):
    with client.stream() as stream, pytest.raises(InvalidInput, match="timeout: not for a request of a stream"):
        stream.submit("m", {"x": rows()}, timeout=3.0)


def test_leaving_the_block_waits_for_requests_in_flight(client, script: Script):
    with client.stream() as stream:
        futures = [stream.submit("m", {"x": rows()}) for _ in range(20)]
    assert all(future.result(0).version == 3 for future in futures)


def test_a_cancelled_request_does_not_block_others(server: FakeServer):
    held = threading.Event()
    server.script.hold = lambda request: held.wait(LONG) and None
    with Client(server.address) as client:
        stream = client.stream()
        future = stream.submit("m", {"x": rows()})
        assert future.cancel()
        assert wait([future], LONG).done == {future}
        held.set()
        stream.close(LONG)
        assert not stream._reader.is_alive()


def test_an_id_of_the_caller_is_not_generated_again(client, script: Script):
    held = threading.Event()
    script.hold = lambda request: held.wait(LONG) and None
    with client.stream() as stream:
        futures = [stream.submit("m", {"x": rows()}, request_id="s1"), stream.submit("m", {"x": rows()})]
        held.set()
        assert [future.result(LONG).request_id for future in futures] == ["s1", "s2"]


def test_leaving_the_block_with_an_error_cancels(client, script: Script):
    arrived, held = threading.Event(), threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        held.wait(LONG)

    script.hold = hold
    future = None

    def leave() -> None:
        nonlocal future
        with client.stream() as stream:
            future = stream.submit("m", {"x": rows()})
            assert arrived.wait(LONG)
            raise NotFound(grpc.StatusCode.NOT_FOUND, "the caller's own")

    with pytest.raises(NotFound):
        leave()
    with pytest.raises(ClientClosed):
        future.result(LONG)
    held.set()


def test_requests_in_flight_are_bounded(server: FakeServer):
    script = server.script
    held = threading.Event()
    script.hold = lambda request: held.wait(LONG) and None
    with Client(server.address) as client, client.stream(in_flight=2) as stream:
        futures = [stream.submit("m", {"x": rows()}) for _ in range(2)]
        third = threading.Thread(target=lambda: futures.append(stream.submit("m", {"x": rows()})))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        held.set()
        third.join(LONG)
        assert len(futures) == 3
        assert [future.result(LONG).version for future in futures] == [3, 3, 3]


def test_the_stream_is_shared_between_threads(server: FakeServer):
    with Client(server.address) as client, client.stream(in_flight=16) as stream:
        wrong: list[float] = []

        def call(number: int) -> None:
            for i in range(50):
                value = number * 1000 + i
                answer = stream.submit("m", {"x": np.full((1, 2), value, np.float32)}).result(LONG)
                if answer["y"][0, 0] != value:
                    wrong.append(value)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert wrong == []


def test_a_closed_stream_and_a_closed_client_raise_client_closed(server: FakeServer):
    client = Client(server.address)
    stream = client.stream()
    stream.close()
    with pytest.raises(ClientClosed, match="the stream is closed"):
        stream.submit("m", {"x": rows()})
    open_stream = client.stream()
    server.script.hold = lambda request: server.script.cancelled.wait(LONG) and None
    future = open_stream.submit("m", {"x": rows()})
    client.close()
    with pytest.raises(ClientClosed):
        future.result(LONG)
    with pytest.raises(ClientClosed):
        client.stream()


def test_an_unreadable_answer_fails_the_requests_in_flight(connect):
    from concurrent import futures

    from inferd.client import InvalidResponse

    def babble(requests, context):
        next(requests)
        yield b"\xff\xff\xff"

    foreign = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.stream_stream_rpc_method_handler(babble)
    foreign.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inferd.v1.PredictService", {"PredictStream": handler}),)
    )
    port = foreign.add_insecure_port("127.0.0.1:0")
    foreign.start()
    try:
        with connect(f"127.0.0.1:{port}").stream() as stream:
            future = stream.submit("m", {"x": rows()})
            with pytest.raises(InvalidResponse):
                future.result(LONG)
    finally:
        foreign.stop(0).wait()
