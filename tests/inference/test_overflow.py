"""Calls of one turn that find their model's queue full are refused together, each as it would be refused alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from support.hot_calls import INFER, TFS_PREDICT, FakeCall, Server, ask, classic, double, infer, servers
from support.rpc import eventually

from inferd.backends.api import Traits
from inferd.server.errors import Code

PLACES = 2


class Busy:
    """A server whose model runs one request, and whose queue is full."""

    def __init__(
        self, serve: Callable[..., Server], first: Callable[[float], FakeCall] = ask, **options: object
    ) -> None:
        self.free = threading.Event()
        running, armed = threading.Event(), threading.Event()

        def hold(name: str, inputs: object) -> object:
            if armed.is_set():
                running.set()
                assert self.free.wait(10)
            return double(name, inputs)  # type: ignore[arg-type]

        queue = {"requests": PLACES, **options.pop("queue", {})}  # type: ignore[dict-item]
        self.server = serve(hold, traits=Traits(), queue=queue, **options)
        armed.set()  # the proof is done
        handle = self.server.table.unary[first(0).method]
        self.kept = [first(n) for n in range(1 + PLACES)]
        handle((self.kept[0],), 0.0)
        assert running.wait(30)
        for call in self.kept[1:]:
            handle((call,), 0.0)
        eventually(lambda: self.server.scheduler.queue_depth[0] == PLACES)

    def finish(self) -> None:
        self.free.set()
        for call in self.kept:
            call.wait()


@pytest.fixture
def busy() -> Iterator[Callable[..., Busy]]:
    made: list[Busy] = []
    with servers() as serve:

        def start(*args: object, **options: object) -> Busy:
            made.append(Busy(serve, *args, **options))  # type: ignore[arg-type]
            return made[-1]

        yield start
        for one in made:
            one.free.set()


def test_calls_beyond_a_full_queue_are_refused_and_the_others_answered(busy):
    full = busy()
    server = full.server
    refused = server.count(code="RESOURCE_EXHAUSTED")
    calls = [ask(n) for n in range(9)]
    assert server.hand_over(*calls) == []
    codes = {call.failed for call in calls}
    assert len(codes) == 1
    code, text = codes.pop()
    assert code is Code.RESOURCE_EXHAUSTED
    assert f"{PLACES} of {PLACES} requests (queue.requests)" in text
    assert {dict(call.trailing)["inferd-accepted"] for call in calls} == {"0"}
    assert all(int(dict(call.trailing)["grpc-retry-pushback-ms"]) >= 50 for call in calls)
    assert server.count(code="RESOURCE_EXHAUSTED") == refused + 9
    assert server.recorder.drops.count("full") == 9
    assert server.servable.handles == 1 + PLACES
    full.finish()
    assert [call.y for call in full.kept] == [[0], [2], [4]]
    assert server.servable.handles == 0


def test_a_refusal_of_many_has_the_text_of_a_refusal_of_one(busy):
    full = busy()
    alone, together = ask(1), ask(2)
    full.server.hand_over(alone)
    full.server.hand_over(together)
    assert together.failed == alone.failed
    assert together.trailing == alone.trailing


@pytest.mark.parametrize(("method", "make"), [(INFER, infer), (TFS_PREDICT, classic)], ids=["oip", "tfs"])
def test_refusals_have_the_text_of_their_protocol(busy, method: str, make: Callable[..., FakeCall]):
    full = busy(make)
    server = full.server
    alone, calls = make(1), [make(n) for n in range(5)]
    full.server.hand_over(alone)
    assert server.hand_over(*calls) == []
    assert {call.failed for call in calls} == {alone.failed}
    assert alone.failed is not None
    assert alone.failed[0] is Code.UNAVAILABLE


def test_triton_clients_get_their_own_ids(busy):
    full = busy(infer)
    server = full.server
    learn, alone = infer(0, request_id="learn"), infer(0, request_id="b")
    full.server.hand_over(learn)
    full.server.hand_over(alone)
    calls = [infer(n, request_id=id_) for n, id_ in enumerate("abc")]
    assert server.hand_over(*calls) == []
    assert calls[1].failed == alone.failed
    assert [call.failed[1].split("]")[0] for call in calls] == [f"[request id: {id_}" for id_ in "abc"]


def test_calls_are_admitted_when_there_is_room_again(busy):
    full = busy()
    server = full.server
    assert server.hand_over(ask(1)) == []
    full.finish()
    eventually(lambda: server.scheduler.queue_depth == (0, 0))
    call = ask(7)
    assert server.hand_over(call) == [call]
    assert call.y == [14]


def test_a_client_with_a_smaller_share_evicts_another_request(busy):
    """Fair queues: the calls of a turn are checked one by one when one of them may evict another client's request."""
    full = busy(who=lambda call: call.peer, queue={"requests": PLACES, "fair": True})
    server = full.server
    flood = [ask(n) for n in range(4)]
    assert server.hand_over(*flood) == [], "a flood's own"
    more = [ask(n) for n in range(4)]
    assert server.hand_over(*more) == [], "a flood's own"
    other = ask(5)
    other.peer = "ipv4:10.0.0.1:7"
    mixed = [ask(1), other, ask(2)]
    assert server.hand_over(*mixed) == [other]
    assert other.failed is None
    assert all(call.failed[0] is Code.RESOURCE_EXHAUSTED for call in (*flood, *more, mixed[0], mixed[2]))
    gave_way = [call for call in full.kept if call.failed is not None]
    assert len(gave_way) == 1
    assert "queue.fair" in gave_way[0].failed[1]
    full.free.set()
    assert other.y == [10]


def test_an_unbatched_model_refuses_in_the_same_way(busy):
    full = busy(batching={"mode": "off"})
    calls = [ask(n) for n in range(6)]
    assert full.server.hand_over(*calls) == []
    assert {call.failed[0] for call in calls} == {Code.RESOURCE_EXHAUSTED}
    full.finish()
    assert full.server.model.batches == [1, 1, 1]


def test_the_log_has_one_line_for_the_refusals_and_counts_the_rest(busy, caplog: pytest.LogCaptureFixture):
    full = busy()
    with caplog.at_level(logging.WARNING, "inferd.rpc"):
        for _ in range(30):
            full.server.hand_over(*(ask(n) for n in range(10)))
    lines = [record for record in caplog.records if "request failed" in record.getMessage()]
    assert len(lines) == 10
