"""Statuses without a message: the loop's thread sends them at the end of its turn, other threads at once."""

from __future__ import annotations

import logging
import threading
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc

from inferd.server.config.schema import Inflight as InflightConfig
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport import listen
from inferd.server.transport.calls import MethodTable, UnaryCall, for_each_call
from inferd.server.transport.completion_queue.statuses import Statuses
from inferd.server.transport.completion_queue.transport import CompletionQueueTransport

HOLD, FAIL = "/test.Test/Hold", "/test.Test/Fail"
TRAILING = (("inferd-accepted", "0"), ("grpc-retry-pushback-ms", "70"))


class Core:
    """Stands in for one of the core's calls."""

    def __init__(self, *, broken: bool = False) -> None:
        self.batches: list[tuple[tuple[Any, ...], object]] = []
        self.broken = broken

    def start_server_batch(self, operations: tuple[Any, ...], tag: object) -> None:
        if self.broken:
            raise ValueError("the core refuses")
        self.batches.append((operations, tag))


def give(statuses: Statuses, core: Core, *, close: bool = True) -> None:
    statuses.give(core, core, 8, b"full", TRAILING, close=close)


def test_the_loop_collects_statuses_and_sends_them_together() -> None:
    statuses = Statuses()
    statuses.enter()
    kept = statuses.kept
    calls = [Core() for _ in range(3)]
    for call in calls:
        give(statuses, call)
    assert not any(call.batches for call in calls)
    assert len(kept) == 3
    statuses.send()
    assert [[tag for _, tag in call.batches] for call in calls] == [[call] for call in calls]
    assert kept is statuses.kept == []


def test_an_unwatched_call_receives_its_close_in_the_same_batch() -> None:
    statuses = Statuses()
    asked, watched = Core(), Core()
    give(statuses, asked)
    give(statuses, watched, close=False)
    kinds = [[type(operation) for operation in call.batches[0][0]] for call in (asked, watched)]
    own = [cygrpc.SendInitialMetadataOperation, cygrpc.SendStatusFromServerOperation]
    assert kinds == [[*own, cygrpc.ReceiveCloseOnServerOperation], own]


def test_other_threads_send_at_once() -> None:
    statuses = Statuses()
    statuses.enter()
    call = Core()
    other = threading.Thread(target=give, args=(statuses, call))
    other.start()
    other.join()
    assert len(call.batches) == 1
    assert not statuses.kept


def test_statuses_are_sent_at_once_after_the_loop() -> None:
    statuses = Statuses()
    statuses.enter()
    before, after = Core(), Core()
    give(statuses, before)
    statuses.leave()
    assert len(before.batches) == 1
    give(statuses, after)
    assert len(after.batches) == 1


def test_a_status_that_cannot_be_sent_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    statuses = Statuses()
    statuses.enter()
    calls = [Core(), Core(broken=True), Core()]
    for call in calls:
        give(statuses, call)
    with caplog.at_level(logging.ERROR):
        statuses.send()
    assert [len(call.batches) for call in calls] == [1, 0, 1]
    assert "could not be ended" in caplog.text


def test_collected_statuses_are_bounded_in_number_and_time() -> None:
    statuses = Statuses()
    statuses.enter()
    give(statuses, Core())
    events = 1
    while not statuses.due():
        events += 1
    assert 64 < events <= 1024, "with one kept, other events go on for a while and not for ever"
    statuses.send()
    give(statuses, Core())
    assert not statuses.due(), "each time anew"
    while not statuses.due():
        give(statuses, Core())
    assert len(statuses.kept) < events


def test_a_flood_during_a_busy_turn_is_refused_completely() -> None:
    """Refused unread (no room) and after reading (the handler's refusal), each with its own status and trailers."""
    held, free = threading.Event(), threading.Event()
    counted: list[Code] = []

    def hold(call: UnaryCall) -> None:
        held.set()
        assert free.wait(30)
        call.reply(b"held")

    def fail(call: UnaryCall) -> None:
        call.fail(Code.RESOURCE_EXHAUSTED, call.request.decode(), TRAILING)

    config = ServerConfig(inflight=InflightConfig(calls=100))
    table = MethodTable(
        {HOLD: for_each_call(hold), FAIL: for_each_call(fail)}, {}, refused=lambda _method, code: counted.append(code)
    )
    inflight = InflightBounds(config.inflight)
    server = CompletionQueueTransport(table, config, inflight, [listen.Address("127.0.0.1:0")], lambda: None)
    (address,) = server.start()
    try:
        with grpc.insecure_channel(
            address, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        ) as channel:
            first = channel.unary_unary(HOLD).future(b"", timeout=60)
            assert held.wait(30)
            method = channel.unary_unary(FAIL)
            calls = [method.future(f"refused {i}".encode(), timeout=60) for i in range(400)]
            free.set()
            said = [(call.code(), call.details()) for call in calls]
            assert first.result() == b"held"
            assert {code for code, _ in said} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            unread = [text for _, text in said if "inflight.calls is 100" in text]
            assert sorted({text for _, text in said} - set(unread)) == sorted(
                f"refused {i}" for i, (_, text) in enumerate(said) if text not in unread
            )
            assert len(unread) == len(counted) < 400
            pushback = {dict(call.trailing_metadata())["grpc-retry-pushback-ms"] for call in calls}
            assert pushback <= {"70", "100"}
            assert "70" in pushback
    finally:
        free.set()
        assert server.stop(10.0)
    assert (inflight.calls, server.open_calls) == (0, 0)
