"""What has arrived of messages that are not complete is counted, and bounded."""

from __future__ import annotations

import threading

import pytest
from support.http2 import RawClient, message
from support.rpc import PREDICT, PREDICT_STREAM, Served, eventually

from inferd.server.config.schema import Grpc, Inflight, ServerConfig
from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport import partial_messages
from inferd.server.transport.partial_messages import PartialMessages

MIB = 2**20
HALF = message(bytes(6 * MIB))[: 4 * MIB]


@pytest.mark.parametrize("path", [PREDICT, PREDICT_STREAM])
def test_half_sent_messages_count_and_give_way_before_the_bound_is_reached(serve, path: str) -> None:
    config = ServerConfig(inflight=Inflight(bytes="32MiB"), grpc=Grpc(max_message="8MiB", receive_timeout="600s"))
    server: Served = serve(config=config)
    clients = []
    try:
        for _ in range(14):  # 56 MiB
            client = RawClient(server.port)
            clients.append(client)
            client.send(client.call(path), HALF, timeout=60)
        eventually(lambda: server.inflight.nbytes > 0 and server.transport.open_calls < 14, 60)
        eventually(lambda: server.inflight.room > 0, 60)
        assert server.predict()
    finally:
        for client in clients:
            client.sock.close()
    eventually(lambda: (server.inflight.nbytes, server.transport.open_calls) == (0, 0), 60)


class Waiting:
    """A call that waits for its message."""

    receiving = True

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.failure: Failure | None = None

    def drop(self, failure: Failure) -> None:
        self.failure = failure
        self.receiving = False


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the kernel would tell, by client."""
    counts: dict[str, int] = {}
    monkeypatch.setattr(partial_messages, "_received", lambda peers: {peer: counts[peer] for peer in peers})
    return counts


def looking(calls: list[Waiting]) -> tuple[PartialMessages, InflightBounds]:
    inflight = InflightBounds(Inflight(bytes=1000))
    return PartialMessages(calls, 200, inflight, threading.Event()), inflight


def test_few_calls_are_not_measured(received: dict[str, int]) -> None:
    partial, inflight = looking([Waiting(str(number)) for number in range(5)])
    for moment in range(3):
        partial.look(float(moment))  # would raise KeyError
    assert (partial.watching, inflight.nbytes) == (False, 0)


def test_idle_streams_on_busy_connections_are_left_alone(received: dict[str, int]) -> None:
    calls = [Waiting(str(number)) for number in range(10)]
    partial, inflight = looking(calls)
    received.update({call.peer: 1_000_000 for call in calls})
    partial.look(0.0)
    for moment in range(1, 50):
        for call in calls:
            received[call.peer] += 1000
            partial.delivered(call.peer, 900)
        partial.look(float(moment))
    assert partial.watching
    assert inflight.nbytes == 0
    assert not any(call.failure for call in calls)


def test_the_client_that_has_sent_most_gives_way(received: dict[str, int]) -> None:
    calls = [Waiting(str(number)) for number in range(10)]
    partial, inflight = looking(calls)
    received.update({call.peer: 10 for call in calls})
    partial.look(0.0)
    partial.look(1.0)
    assert inflight.nbytes == 100
    inflight.count(700)
    received["3"] += 190
    received["4"] += 20
    partial.look(2.0)
    assert [call.peer for call in calls if call.failure] == ["3"]
    assert inflight.nbytes <= 1000
    for call in calls:
        call.receiving = False
    partial.look(3.0)
    assert (partial.watching, inflight.nbytes) == (False, 700)


def test_a_message_that_completes_is_taken_off(received: dict[str, int]) -> None:
    calls = [Waiting(str(number)) for number in range(10)]
    partial, inflight = looking(calls)
    received.update({call.peer: 50 for call in calls})
    partial.look(0.0)
    partial.look(1.0)
    assert inflight.nbytes == 500
    received["0"] += 100
    partial.delivered("0", 150)  # and the next one has not begun
    partial.look(2.0)
    assert inflight.nbytes == 450
