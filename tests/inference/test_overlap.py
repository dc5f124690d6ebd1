"""A model that runs beside the loop: the loop prepares and answers batches, and serves other calls meanwhile. The
scheduler and the model's thread are real; the loop is this thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.hot_calls import DOUBLE, FakeCall, Server, ask, double
from support.scheduling import PATIENCE
from support.waiting import eventually

from inferd.backends.api import Array, BackendError
from inferd.server.errors import Code

HALF_MS = 4e-4  # seconds of a batch: long enough to run beside the loop


@pytest.fixture
def serve_busy(serve_hot: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """Servers whose loop has as many other calls in flight as are needed, with a model that is worth a thread."""

    monkeypatch.setattr("inferd.server.scheduling.overlap._LEAST", 2)

    def serve(*, in_flight: int = 64, seconds: float = HALF_MS, **options: Any) -> Server:
        server = serve_hot(**options)
        server.trust()
        server.loop.overlaps = True
        server.loop.in_flight = in_flight
        for bucket in server.scheduler._queues[DOUBLE.name].buckets.values():
            for _ in range(20):
                for rows in range(1, 9):
                    bucket.effort.ran(rows, seconds)
        return server

    return serve


def collect(server: Server) -> None:
    """Takes turns until no run is beside the loop."""
    while server.loop.overlapped:
        server.loop.wait()
        server.loop.turn()


def watched(server: Server) -> list[str]:
    """The names of the threads on which the model runs from now on."""
    threads: list[str] = []
    function = server.model.function

    def run(signature: str, inputs: dict[str, Array]) -> dict[str, Array]:
        threads.append(threading.current_thread().name)
        return function(signature, inputs)

    server.model.function = run  # type: ignore[assignment]
    return threads


def test_a_batch_runs_beside_the_loop_and_is_answered_by_it(serve_busy):
    server = serve_busy()
    threads = watched(server)
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    assert server.loop.overlapped == 1
    collect(server)
    assert [call.y for call in calls] == [[2 * n] for n in range(4)]
    assert len(threads) == 1
    assert threads[0].endswith("-beside")
    assert server.recorder.batches == [(DOUBLE.name, 4, 4)]
    assert server.servable.handles == 0


def test_calls_that_arrive_meanwhile_share_the_next_batch(serve_busy):
    server = serve_busy()
    server.model.gate.close()
    first = [ask(n) for n in range(4)]
    server.hand_over(*first)
    later = [ask(n) for n in range(4, 9)]
    for call in later:
        assert server.hand_over(call) == [call]
    server.model.gate.open()
    collect(server)
    assert [call.y for call in (*first, *later)] == [[2 * n] for n in range(9)]
    assert server.model.batches == [4, 5]


@pytest.mark.parametrize(
    "options",
    [{"in_flight": 11}, {"seconds": 1e-4}],
    ids=["little else in flight", "a tiny model"],
)
def test_what_is_not_worth_it_runs_on_the_loop(serve_busy, options: dict[str, Any]):
    server = serve_busy(**options)
    threads = watched(server)
    assert server.hand_over(*(ask(n) for n in range(4))) == []
    assert threads == [threading.current_thread().name]
    assert server.hand_over(ask(1)) == []


def test_a_single_request_runs_on_the_loop(serve_busy):
    server = serve_busy()
    threads = watched(server)
    assert server.hand_over(ask(1)) == []
    assert threads == [threading.current_thread().name]


def test_only_the_culprit_of_a_batch_beside_the_loop_fails(serve_busy):
    def picky(signature: str, inputs: dict[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 2).any():
            raise BackendError("it does not like 2")
        return double(signature, inputs)

    server = serve_busy()
    server.model.function = picky
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    collect(server)
    assert [call.wait().failed for call in calls if call.message is None] == [(Code.INTERNAL, "it does not like 2")]
    assert [call.y for call in calls if call.message is not None] == [[0], [2], [6]]


def test_a_model_that_ends_its_thread_fails_its_callers(serve_busy):
    def leaves(_signature: str, _inputs: dict[str, Array]) -> dict[str, Array]:
        raise SystemExit

    server = serve_busy()
    server.model.function = leaves
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    collect(server)
    assert {call.wait().failed[0] for call in calls if call.failed} == {Code.INTERNAL}
    server.model.function = double
    again = [ask(n) for n in range(4)]
    server.hand_over(*again)
    collect(server)
    assert [call.y for call in again] == [[2 * n] for n in range(4)]


def test_closing_waits_for_the_run_and_answers_it(serve_busy):
    server = serve_busy()
    server.model.gate.close()
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    closing = threading.Thread(target=server.scheduler.close)
    closing.start()
    server.model.gate.open()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert [call.y for call in calls] == [[2 * n] for n in range(4)]
    collect(server)
    assert server.servable.handles == 0


def test_draining_waits_for_the_answers(serve_busy):
    server = serve_busy()
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    assert not server.scheduler.drain(0.0)
    collect(server)
    assert server.scheduler.drain(PATIENCE)
    assert all(call.told for call in calls)


def test_a_run_that_outlives_the_loop_is_answered(serve_busy):
    server = serve_busy()
    server.model.gate.close()
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    waiting = FakeCall(ask(9).request)
    server.hand_over(waiting)
    server.loop.leave()
    server.model.gate.open()
    assert [call.y for call in calls] == [[2 * n] for n in range(4)]
    assert waiting.y == [18]
    eventually(lambda: not server.servable.handles, "the handles are given back", lambda: server.servable.handles)
