"""Large requests run one by one where their runs are short, and on the loop as many as fit into a turn."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.hot_calls import DOUBLE, INFER, FakeCall, Server, ask, double, infer
from support.rpc import eventually
from support.scheduling import PATIENCE

from inferd.backends.api import Array, BackendError
from inferd.server.inference import finish
from inferd.server.scheduling import inline
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.inline import SHORT, TURN, InlineBudget
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.strategy import LARGE

ROWS = LARGE // 8  # of two float32 each
MOST = 4 * ROWS


def large(value: float) -> FakeCall:
    return ask(*[value] * ROWS)


def start(serve: Any, *args: Any, seconds: float = SHORT / 3, **options: Any) -> Server:
    """A server whose batches are long, and whose single requests take `seconds`."""
    server: Server = serve(*args, batching={"max_batch_size": MOST, "mode": "trusted"}, **options)
    server.trust(request=large(0).request)
    for _ in range(100):
        server.scheduler._budget.ran(1.0)
    learn(server, seconds)
    return server


def learn(server: Server, seconds: float) -> None:
    (bucket,) = server.scheduler._queues[DOUBLE.name].buckets.values()
    bucket.effort = CostCurve()
    for _ in range(16):
        bucket.effort.ran(ROWS, seconds)


def test_large_requests_run_one_by_one_and_all_are_answered(serve_hot):
    server = start(serve_hot)
    before = server.count()
    calls = [large(n) for n in range(3)]
    assert server.hand_over(*calls) == []
    assert server.model.batches == [ROWS] * 3
    assert [call.y for call in calls] == [[2 * n] * ROWS for n in range(3)]
    assert server.recorder.batches == [(DOUBLE.name, 1, ROWS)] * 3
    assert server.count() == before + 3


def test_large_outputs_count_as_in_flight_until_they_are_encoded(serve_hot, monkeypatch: pytest.MonkeyPatch):
    server = serve_hot()
    server.trust()
    monkeypatch.setattr(finish, "_LARGE", 8)
    held: list[int] = []

    class Watching(FakeCall):
        def reply(self, message: bytes) -> None:
            held.append(server.inflight.nbytes)
            super().reply(message)

    calls = [Watching(ask(n).request) for n in range(3)]
    assert server.hand_over(*calls) == []
    assert server.model.batches == [3]
    assert [call.y for call in calls] == [[2 * n] for n in range(3)]
    assert held == [16, 8, 0]  # of three rows with two float32 each
    assert server.inflight.nbytes == 0


def test_aligned_inputs_are_read_from_the_message(serve_hot):
    seen: list[Array] = []

    def look(signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seen.append(inputs["x"])
        return double(signature, inputs)

    server = start(serve_hot, look)
    data = np.zeros((ROWS, 2), np.float32).tobytes()
    for size in range(4):  # of an id, which stands before the data
        calls = [infer(*[n] * ROWS, request_id="i" * size) for n in range(2)]
        if (bytes.__basicsize__ - 1 + calls[0].request.index(data)) % 4 == 0:
            break
    server.trust(INFER, calls[0].request)
    seen.clear()
    assert server.hand_over(*calls) == []
    for call, array in zip(calls, seen, strict=True):
        assert array.flags.aligned
        assert not array.flags.writeable
        assert np.shares_memory(array, np.frombuffer(call.request, np.uint8))


@pytest.mark.parametrize("seconds", [1.1 * SHORT / 2, 1.0])
def test_requests_that_are_long_alone_run_on_a_worker(serve_hot, seconds: float):
    server = start(serve_hot, seconds=seconds)
    calls = [large(n) for n in range(3)]
    server.hand_over(*calls)
    assert [call.y for call in calls] == [[2 * n] * ROWS for n in range(3)]


def test_the_cost_of_a_run_is_estimated_from_larger_batches(serve_hot):
    server = start(serve_hot)
    (bucket,) = server.scheduler._queues[DOUBLE.name].buckets.values()
    bucket.effort = CostCurve()
    server.hand_over(first := large(1))  # nobody knows
    first.wait()
    eventually(lambda: len(server.recorder.batches) == 1)  # the worker has learned from it
    bucket.effort = CostCurve()
    for batch in (2, 4) * 16:
        bucket.effort.ran(batch * ROWS, batch * SHORT / 4)
    assert server.hand_over(large(1)) == []


def test_earlier_requests_run_first(serve_hot):
    order: list[float] = []

    def watched(signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        order.append(float(inputs["x"][0, 0]))
        return double(signature, inputs)

    server = start(serve_hot, watched)
    order.clear()
    earlier = large(1)
    server.table.unary[earlier.method]((earlier,), 0.0)
    assert server.hand_over(large(2), large(3)) == []
    assert order == [1, 2, 3]
    assert earlier.y == [2] * ROWS


def test_only_the_request_that_causes_the_failure_fails(serve_hot):
    def picky(signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 2).any():
            raise BackendError("no twos")
        return double(signature, inputs)

    server = start(serve_hot, picky)
    calls = [large(n) for n in range(4)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in (*calls[:2], calls[3])] == [[2 * n] * ROWS for n in (0, 1, 3)]
    assert "no twos" in str(calls[2].wait().failed)
    assert server.model.batches == [ROWS] * 4


@pytest.mark.parametrize("odd", [1, 2])
def test_outputs_of_several_shapes_go_to_their_requests(serve_hot, odd: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inline, "TURN", PATIENCE)  # several goes, on a machine that may be busy

    def wide(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        return {"y": np.repeat(x, 2, axis=1) if (x == odd).any() else x}

    server = start(serve_hot, wide)
    calls = [large(n) for n in range(4)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[n] * ROWS for n in range(4)]


def test_requests_beyond_the_time_of_a_turn_run_on_a_worker(serve_hot):
    server = start(serve_hot, seconds=TURN / 4)
    server.loop.called(InlineBudget("other:1", 1))
    threads: list[str] = []

    def watched(signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        threads.append(threading.current_thread().name)
        return double(signature, inputs)

    server.model.function = watched
    calls = [large(n) for n in range(6)]
    server.loop.spent = 0.0
    server.table.unary[calls[0].method](calls, 0.0)
    server.scheduler._inline._executor.run = spending(server)  # type: ignore[union-attr]
    server.loop.turn()
    assert [call.y for call in calls] == [[2 * n] * ROWS for n in range(6)]
    here = threading.current_thread().name
    assert threads.count(here) == 4
    assert here not in threads[4:]


def spending(server: Server) -> Any:
    """Runs batches on the loop as if each request took the time that was learned for it."""
    run = server.scheduler._inline._executor.run  # type: ignore[union-attr]

    def timed(batch: Batch) -> float:
        run(batch)
        return len(batch.requests) * TURN / 4

    return timed


def test_a_short_request_does_not_make_a_batch_short(serve_hot):
    server = start(serve_hot)
    budget = server.scheduler._budget
    known = len(budget._costs)
    server.hand_over(*[large(n) for n in range(3)])
    assert len(budget._costs) == known


def test_the_bound_of_the_queue_holds(serve_hot):
    server = start(serve_hot, queue={"requests": 2})
    calls = [large(n) for n in range(3)]
    assert server.hand_over(*calls) == []
    assert [call.failed is None for call in calls] == [True, True, False]


def test_small_requests_are_joined(serve_hot):
    server = serve_hot()
    server.trust()
    calls = [ask(n) for n in range(3)]
    assert server.hand_over(*calls) == []
    assert server.model.batches == [3]
