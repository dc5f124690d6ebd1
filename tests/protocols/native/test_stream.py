from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest
from support.rpc import PREDICT_STREAM, Served, eventually, refused, request

from inferd.server.config.schema import Inflight, ServerConfig
from inferd.server.errors import Overloaded
from inferd.server.lifecycle.state import ServableId
from inferd.server.protocols.native.predict_stream import MAX_IN_FLIGHT
from inferd.wire.native import DecodedResponse, StreamFailure, decode_stream_response


class Stream:
    """A client of PredictStream that sends its requests one by one."""

    def __init__(self, served: Served, **kwargs: object) -> None:
        self._outgoing: queue.Queue[bytes | None] = queue.Queue()
        self.call = served.channel().stream_stream(PREDICT_STREAM)(iter(self._outgoing.get, None), **kwargs)

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self._outgoing.put(message)

    def finish(self) -> None:
        self._outgoing.put(None)

    def receive(self) -> tuple[str, DecodedResponse | StreamFailure]:
        return decode_stream_response(next(self.call))

    def rest(self) -> Iterator[tuple[str, DecodedResponse | StreamFailure]]:
        return (decode_stream_response(message) for message in self.call)


@pytest.fixture
def stream(server: Served) -> Iterator[Stream]:
    stream = Stream(server, timeout=60)
    yield stream
    stream.finish()
    stream.call.cancel()


def test_answers_are_sent_as_they_are_ready(server: Served, stream: Stream):
    server.scheduler.holding = True
    stream.send(*(request([[float(i)]], request_id=str(i)) for i in range(3)))
    server.scheduler.wait_for(3)
    server.scheduler.held.reverse()
    for expected in ("2", "1", "0"):
        server.scheduler.step(1)
        request_id, answer = stream.receive()
        assert request_id == expected
        assert isinstance(answer, DecodedResponse)
        assert answer.outputs["y"].tolist() == [[2.0 * int(expected)]]
    stream.finish()
    assert list(stream.rest()) == []
    assert stream.call.code() is grpc.StatusCode.OK
    eventually(lambda: (server.inflight.calls, server.inflight.nbytes, server.inflight.streams) == (0, 0, 0))


def test_the_stream_ends_after_the_last_answer(server: Served, stream: Stream):
    server.scheduler.holding = True
    stream.send(request(request_id="a"))
    stream.finish()
    server.scheduler.wait_for(1)
    server.scheduler.step()
    assert [request_id for request_id, _ in stream.rest()] == ["a"]


def test_failures_are_messages_and_the_stream_continues(server: Served, stream: Stream):
    stream.send(request(name="nope", request_id="1"), b"\xff", request(signature="s", request_id="3"))
    wrong = request(request_id="4").replace(b"\x1a\x02\x01\x02", b"\x1a\x02\x01\x03")
    stream.send(wrong, request(request_id="5"))
    answers = [stream.receive() for _ in range(5)]
    codes = {request_id: answer.code for request_id, answer in answers if isinstance(answer, StreamFailure)}
    assert codes == {"1": 5, "": 3, "3": 3, "4": 3}
    assert isinstance(dict(answers)["5"], DecodedResponse)
    server.scheduler.refusal = Overloaded("full")
    stream.send(request(request_id="6"))
    assert stream.receive() == ("6", StreamFailure(8, "full"))


def test_an_unexpected_exception_is_a_message_without_traceback(server: Served, stream: Stream):
    server.manager.crash = RuntimeError("secret")
    stream.send(request(request_id="x"))
    assert stream.receive() == ("x", StreamFailure(13, "internal error (request id x)"))
    server.manager.crash = None
    stream.send(request(request_id="y"))
    assert isinstance(stream.receive()[1], DecodedResponse)


def test_a_request_without_an_id_gets_one(server: Served, stream: Stream):
    stream.send(request())
    request_id, answer = stream.receive()
    assert request_id
    assert isinstance(answer, DecodedResponse)


def test_a_stream_is_not_read_past_its_bound(server: Served, stream: Stream):
    server.scheduler.holding = True
    stream.send(*(request(request_id=str(i)) for i in range(MAX_IN_FLIGHT + 10)))
    server.scheduler.wait_for(MAX_IN_FLIGHT)
    assert server.inflight.calls == MAX_IN_FLIGHT
    assert not server.scheduler.arrived.acquire(timeout=0.2)
    server.scheduler.step(1)
    server.scheduler.wait_for(1)
    server.scheduler.release()
    assert sorted(int(stream.receive()[0]) for _ in range(MAX_IN_FLIGHT + 10)) == list(range(MAX_IN_FLIGHT + 10))


def test_cancelling_the_stream_cancels_its_requests(server: Served, stream: Stream):
    server.scheduler.holding = True
    stream.send(request(), request())
    server.scheduler.wait_for(2)
    stream.call.cancel()
    eventually(lambda: not server.scheduler.held)
    eventually(lambda: (server.inflight.calls, server.inflight.nbytes, server.inflight.streams) == (0, 0, 0))
    eventually(lambda: server.manager.servables[ServableId("digits", 1)].handles == 0)


def test_requests_of_a_stream_count_towards_inflight_calls(serve):
    server = serve(config=ServerConfig(inflight=Inflight(calls=2)))
    server.scheduler.holding = True
    stream = Stream(server, timeout=60)
    stream.send(*(request(request_id=str(i)) for i in range(3)))
    server.scheduler.wait_for(2)
    request_id, answer = stream.receive()
    assert request_id == "2", "a refusal must have the id of its request"
    assert isinstance(answer, StreamFailure)
    assert answer.code == 8
    assert "inflight.calls" in answer.message
    server.scheduler.step()
    assert {stream.receive()[0] for _ in range(2)} == {"0", "1"}
    stream.finish()


def test_a_drain_answers_running_requests_and_ends_the_stream(serve):
    import threading

    server = serve()
    server.scheduler.holding = True
    stream = Stream(server, timeout=60)
    stream.send(request(request_id="a"))
    server.scheduler.wait_for(1)
    stopped: list[bool] = []
    thread = threading.Thread(target=lambda: stopped.append(server.transport.stop(30)))
    thread.start()
    assert eventually_draining(server)
    server.scheduler.step()
    assert stream.receive()[0] == "a"
    error = refused(stream.receive)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    thread.join()
    assert stopped == [True]
    stream.finish()


def eventually_draining(server: Served) -> bool:
    channel = server.channel()

    def draining() -> bool:
        try:
            channel.unary_unary("/inferd.v1.ModelService/ListModels")(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    eventually(draining)
    return True
