"""The linger policy: batches that wait for returning callers, on a clock that the test steps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.scheduling import PATIENCE
from support.waiting import eventually

from inferd.backends.api import Signature, TensorSpec
from inferd.server.scheduling.batch_former import Batch, BatchFormer
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.bucket import BucketKeys
from inferd.server.scheduling.observer import NullObserver
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.linger import LingerPolicy
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import NEVER, InferenceRequest, Route, callback_request
from inferd.server.scheduling.worker_slot import WorkerSlot
from inferd.wire.dtypes import DType

ROOM = 32
X = Signature("s", (TensorSpec("x", DType.FP32, (-1,)),), (TensorSpec("y", DType.FP32, (-1,)),))


def queue_of(room: int = ROOM) -> tuple[SignatureQueue, Bucket]:
    queue = SignatureQueue("s", BucketKeys(X, Padding(X, {})), max_requests=1024, max_bytes=2**20)
    queue.limit = queue.target = room
    return queue, queue.bucket((), lambda _bucket, _request: None)


def request(now: float, rows: int = 1, leaves_at: float = NEVER) -> InferenceRequest:
    made = callback_request("s", {"x": np.ones(rows, np.float32)}, lambda _request: None, rows=rows)
    made.enqueued_at, made.leaves_at = now, leaves_at
    return made


def curve(per_row: float, fixed: float) -> CostCurve:
    cost = CostCurve()
    for _ in range(3):
        for size in (1, 2, 4, 8, 16, 32):
            cost.ran(size, per_row * size + fixed)
    return cost


def add(former: BatchFormer, bucket: Bucket, came: InferenceRequest, now: float) -> bool:
    return former.add(bucket, (came,), came.leaves_at, came.nbytes, now)


def take(former: BatchFormer, now: float) -> Batch | None:
    bucket = former.pick(now)
    return None if bucket is None else former.take(bucket, now, [])


def closed_loop(
    callers: int, per_row: float, fixed: float, away: Callable[[int], float], *, holds: bool, seconds: float = 20.0
) -> tuple[float, float]:
    """Callers with one request each in flight, `away(n)` seconds from the answer to the n-th of a batch to its next
    request; one worker. Gives requests a second and the longest time of the slower half to an answer."""
    forming = BatchFormer(0.0, holds=holds)
    _, bucket = queue_of()
    events: list[tuple[float, int, InferenceRequest | None, list[InferenceRequest]]] = []
    count = 0

    def at(when: float, came: InferenceRequest | None = None, ran: list[InferenceRequest] | None = None) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (when, count, came, ran or []))

    for number in range(callers):
        at(1e-4 * number, request(1e-4 * number))
    busy, answered, waits, now = False, 0, [], 0.0
    while now < seconds:
        now, _, came, ran = heapq.heappop(events)
        ready = came is None
        if came is not None:
            ready = add(forming, bucket, came, now)
        if ran:
            busy = False
            bucket.cost.ran(len(ran), per_row * len(ran) + fixed)
            forming.answered(bucket, len(ran), now)
            for number, done in enumerate(ran):
                answered += 1
                waits.append(now - done.enqueued_at)
                back = now + away(number)
                at(back, request(back))
        if ready and not busy and forming.count:
            batch = take(forming, now)
            if batch is None:
                at(forming.next_ripe())
            else:
                busy = True
                at(now + per_row * batch.rows + fixed, ran=batch.requests)
    waits.sort()
    return answered / seconds, waits[len(waits) // 2]


@pytest.mark.parametrize(("callers", "more"), [(2, 1.5), (4, 1.4), (32, 1.05)])
def test_callers_who_come_back_at_once_share_a_batch_where_that_is_cheaper(callers: int, more: float):
    def soon(number: int) -> float:
        return 1e-3 + 1e-4 * number

    without, slow = closed_loop(callers, 0.3e-3, 7e-3, soon, holds=False)
    rate, quick = closed_loop(callers, 0.3e-3, 7e-3, soon, holds=True)
    assert rate > more * without
    assert quick < slow


@pytest.mark.parametrize(
    ("callers", "per_row", "fixed", "away"),
    [(1, 1e-3, 7e-3, 1e-3), (8, 0.1e-3, 1e-3, 50e-3), (32, 1e-3, 0.0, 1e-3), (128, 0.3e-3, 7e-3, 1e-3)],
    ids=["nobody else", "slow callers", "rows as cheap alone", "more than a batch holds"],
)
def test_no_batch_waits_where_that_gains_nothing(callers: int, per_row: float, fixed: float, away: float):
    without, slow = closed_loop(callers, per_row, fixed, lambda _: away, holds=False)
    rate, quick = closed_loop(callers, per_row, fixed, lambda _: away, holds=True)
    assert rate >= 0.99 * without
    assert quick <= 1.01 * slow


def test_a_held_batch_goes_when_all_callers_are_back_or_the_saving_is_used_up():
    company, cost = LingerPolicy(), curve(1e-3, 10e-3)
    assert not company.answered(4, 0, ROOM, cost, 1.0)  # nobody knows how long they take
    company.came(4, 1.002)
    assert company.answered(4, 3, ROOM, cost, 2.0)
    assert company.rows == 7
    assert company.until == pytest.approx(2.003)
    company.release()
    assert company.rows == 0


def test_callers_that_do_not_return_are_not_waited_for_again():
    company, cost = LingerPolicy(), curve(1e-3, 10e-3)
    company.answered(4, 0, ROOM, cost, 0.0)
    company.came(4, 0.001)
    now, held = 1.0, 0
    for _ in range(20):  # two of four have left
        held += company.answered(4, 1, ROOM, cost, now)
        company.came(2, now + 0.001)
        now += 0.015
    assert held < 5


def test_a_long_pause_is_forgotten_soon():
    company, cost = LingerPolicy(), curve(1e-3, 10e-3)
    company.answered(4, 0, ROOM, cost, 0.0)
    company.came(4, 3600.0)
    now, rounds = 3600.0, 0
    while not company.answered(4, 1, ROOM, cost, now):
        company.came(4, now + 0.001)
        now, rounds = now + 0.02, rounds + 1
    assert rounds < 20


def test_a_full_batch_does_not_wait():
    company, cost = LingerPolicy(), curve(1e-3, 10e-3)
    company.answered(4, 0, ROOM, cost, 0.0)
    company.came(4, 0.001)
    assert not company.answered(4, ROOM, ROOM, cost, 1.0)
    company.came(4, 1.001)
    assert company.answered(4, ROOM - 1, ROOM, cost, 2.0)
    assert company.rows == ROOM


def held_back(now: float, waiting: InferenceRequest) -> tuple[BatchFormer, Bucket]:
    """One request that waits for another, which usually comes within a second."""
    forming = BatchFormer(0.0, holds=True)
    _, bucket = queue_of()
    bucket.cost = curve(0.1, 10.0)
    forming.answered(bucket, 1, now - 2)
    first = request(now - 1)
    assert add(forming, bucket, first, now - 1)
    assert take(forming, now - 1) is not None
    add(forming, bucket, waiting, now)
    forming.answered(bucket, 1, now)
    return forming, bucket


def test_a_deadline_ends_the_wait():
    forming, _ = held_back(100.0, request(100.0))
    assert take(forming, 100.0) is None
    assert forming.next_ripe() == pytest.approx(101.5)
    assert take(forming, 101.6) is not None
    forming, _ = held_back(100.0, request(100.0, leaves_at=101.0))
    assert forming.next_ripe() == pytest.approx(100.75)


def test_a_drain_ends_the_wait():
    forming, _ = held_back(100.0, request(100.0))
    assert take(forming, 100.0) is None
    forming.wait_no_more()
    assert take(forming, 100.0) is not None


def test_a_worker_waits_for_the_callers_that_it_has_answered(monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr("inferd.server.scheduling.batcher.monotonic", lambda: now)
    queue, bucket = queue_of()
    bucket.cost = curve(0.1, 10.0)
    batcher = Batcher("m:1", (queue,), delay=0.0, observer=NullObserver(), cut=True)
    parking = WorkerSlot()

    def submit() -> InferenceRequest:
        made = request(now)
        made.route = Route("s", None, queue, (), 1)
        batcher.submit((made,))
        return made

    submit()
    assert batcher.next(parking) is not None
    other = submit()
    batch = batcher.next(parking)  # nothing is known of the callers: who waits is taken
    assert batch is not None
    assert batch.requests == [other]
    now += 1.0
    waiting = submit()  # the first caller took a second to come back
    with ThreadPoolExecutor(1) as worker:
        taken = worker.submit(batcher.next, parking)
        eventually(lambda: batcher._idle, "the worker does not wait")
        now += 0.5
        back = submit()
        batch = taken.result(PATIENCE)
        assert batch is not None
        assert batch.requests == [waiting, back]
    batcher.close("over")
