"""predict_many: order, bound of requests in flight, failures, leaving the loop early."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from support.client import LONG, Failure, FakeServer, Script, rows

from inferd.client import ClientClosed, InferdError, InvalidArgument, InvalidInput, RetryPolicy


class Gate:
    """Holds requests in the server, counts them, and lets each go on by its id."""

    def __init__(self, script: Script) -> None:
        self.lock = threading.Condition()
        self.held: set[str] = set()
        self.free: set[str] = set()
        self.all_free = False
        self.most = 0
        script.hold = self._hold

    def _hold(self, request: object) -> None:
        name = request.request_id  # type: ignore[attr-defined]
        with self.lock:
            self.held.add(name)
            self.most = max(self.most, len(self.held))
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.all_free or name in self.free, LONG)
            self.held.discard(name)

    def wait_for(self, count: int) -> None:
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.held) >= count, LONG), self.held

    def open(self, name: str | None = None) -> None:
        with self.lock:
            if name is None:
                self.all_free = True
            else:
                self.free.add(name)
            self.lock.notify_all()


def numbered(count: int) -> Iterator[dict[str, np.ndarray]]:
    return ({"x": np.full((1, 2), i, np.float32)} for i in range(count))


def test_predictions_are_in_the_order_of_the_items(client):
    answers = list(client.predict_many("m", numbered(100), in_flight=9))
    assert [int(answer["y"][0, 0]) for answer in answers] == list(range(100))
    assert [answer.request_id for answer in answers] == [str(i) for i in range(100)]


def test_lists_are_converted_and_options_reach_every_request(client, script: Script):
    answers = list(client.predict_many("m", [[[1, 2]], [[3, 4]]], version=5, priority=2, outputs="y"))
    assert [answer.version for answer in answers] == [5, 5]
    assert {request.priority for request in script.requests} == {2}


def test_ordered_answers_wait_for_the_first_even_when_it_is_last(client, script: Script):
    gate = Gate(script)
    results: list[str] = []

    def collect() -> None:
        results.extend(answer.request_id for answer in client.predict_many("m", numbered(4), in_flight=4))

    thread = threading.Thread(target=collect)
    thread.start()
    gate.wait_for(4)
    for name in ("3", "2", "1", "0"):
        assert results == []
        gate.open(name)
    thread.join(LONG)
    assert results == ["0", "1", "2", "3"]


def test_unordered_predictions_come_as_they_are_ready(client, script: Script):
    gate = Gate(script)
    results: list[str] = []
    arrived = threading.Condition()

    def collect() -> None:
        for answer in client.predict_many("m", numbered(3), in_flight=3, ordered=False):
            with arrived:
                results.append(answer.request_id)
                arrived.notify_all()

    thread = threading.Thread(target=collect)
    thread.start()
    gate.wait_for(3)
    for count, name in enumerate(("2", "0", "1"), 1):
        gate.open(name)
        with arrived:
            assert arrived.wait_for(lambda count=count: len(results) == count, LONG)
    thread.join(LONG)
    assert results == ["2", "0", "1"]


@pytest.mark.parametrize("ordered", [True, False])
def test_requests_in_flight_are_bounded_and_items_are_taken_only_when_there_is_room(client, script: Script, ordered):
    gate = Gate(script)
    drawn: list[int] = []

    def source() -> Iterator[dict[str, np.ndarray]]:
        for i, item in enumerate(numbered(20)):
            drawn.append(i)
            yield item

    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.extend(client.predict_many("m", source(), in_flight=5, ordered=ordered))
    )
    thread.start()
    gate.wait_for(5)
    assert len(drawn) == 5
    gate.open()
    thread.join(LONG)
    assert len(results) == 20
    assert gate.most <= 5


def test_a_failure_is_raised_in_its_place(client, script: Script):
    def refuse(request):
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad row") if request.request_id == "3" else None

    script.refuse = refuse
    seen = []
    answers = client.predict_many("m", numbered(10), in_flight=2)
    with pytest.raises(InvalidArgument, match="bad row"):
        seen.extend(answer.request_id for answer in answers)
    assert seen == ["0", "1", "2"]


def test_failures_can_be_yielded_in_their_place(client, script: Script):
    def refuse(request):
        return Failure(grpc.StatusCode.INVALID_ARGUMENT) if int(request.request_id) % 3 == 0 else None

    script.refuse = refuse
    outcomes = list(client.predict_many("m", numbered(9), errors="return"))
    assert [isinstance(outcome, InferdError) for outcome in outcomes] == [i % 3 == 0 for i in range(9)]


def test_an_item_that_cannot_be_sent_is_a_failure_in_its_place_too(client):
    items = [{"x": rows()}, {"x": np.zeros(1, np.complex64)}, {"x": rows()}]
    outcomes = list(client.predict_many("m", items, errors="return"))
    assert [type(outcome) is InvalidInput for outcome in outcomes] == [False, True, False]
    with pytest.raises(InvalidInput):
        list(client.predict_many("m", items))


def test_failed_requests_are_repeated_without_changing_the_order(connect, server: FakeServer):
    server.script.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)
    client = connect(server.address, retry=RetryPolicy(backoff=0.001, attempts=5))
    answers = list(client.predict_many("m", numbered(20), in_flight=4))
    assert [answer.request_id for answer in answers] == [str(i) for i in range(20)]


def test_leaving_early_cancels_what_is_in_flight(client, script: Script):
    gate = Gate(script)
    gate.open("0")
    answers = client.predict_many("m", numbered(50), in_flight=4)
    assert next(answers).request_id == "0"
    gate.wait_for(1)
    answers.close()
    assert script.cancelled.wait(LONG)
    gate.open()
    assert len(script.requests) <= 5


def test_no_items_give_no_predictions(client):
    assert list(client.predict_many("m", [])) == []


def test_in_flight_must_be_at_least_1(client):
    with pytest.raises(InvalidInput, match="in_flight is 0"):
        list(client.predict_many("m", [], in_flight=0))


def test_a_closed_client_sends_nothing(client):
    client.close()
    with pytest.raises(ClientClosed):
        list(client.predict_many("m", numbered(2)))


def test_an_async_iterable_is_accepted(server: FakeServer):
    import asyncio

    from inferd.client import AsyncClient

    async def source():
        for item in numbered(5):
            yield item

    async def main() -> list[str]:
        async with AsyncClient(server.address) as client:
            return [answer.request_id async for answer in client.predict_many("m", source(), in_flight=2)]

    assert asyncio.run(main()) == ["0", "1", "2", "3", "4"]
