"""Batches on the transport's loop: which servables may run there, for how long, and when they are banned."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from support.scheduling import PATIENCE, VECTOR, Call, FakeModel, double, submit, vector

from inferd.backends.api import Traits
from inferd.server.errors import Unavailable
from inferd.server.scheduling.batch_former import BatchFormer
from inferd.server.scheduling.bucket import BucketKeys
from inferd.server.scheduling.inline import ALONE_TURN, LATELY, SHORT, TOO_LONG, TURN, InlineBudget, InlineLoop
from inferd.server.scheduling.inline_executor import InlineExecutor
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.policies.strategy import LARGE
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import NEVER, Route
from inferd.server.scheduling.scheduler import Scheduler
from inferd.server.scheduling.worker_slot import WorkerSlot

FIRST, WINDOW = 16, 1000
BOUNDED = Traits(bounded=True, concurrent=True)


class Clock:
    """Stands still unless a run takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def trusted() -> InlineBudget:
    pace = InlineBudget("m:1", 1)
    for _ in range(FIRST):
        pace.ran(SHORT / 2)
    return pace


def test_the_first_batches_are_not_trusted():
    pace = InlineBudget("m:1", 1)
    for _ in range(FIRST):
        assert not pace.short
        pace.ran(SHORT / 2)
    assert pace.short


def test_one_long_batch_in_a_hundred_is_allowed():
    pace = InlineBudget("m:1", 1)
    for number in range(WINDOW):
        pace.ran(2 * SHORT if number % 100 == 0 else SHORT / 2)
    assert pace.short
    pace.ran(SHORT / 2)  # the first long one is forgotten
    pace.ran(2 * SHORT)
    assert pace.short
    pace.ran(2 * SHORT)
    assert not pace.short
    for _ in range(WINDOW):
        pace.ran(SHORT / 2)
    assert pace.short


def test_a_batch_that_is_long_twice_bans_the_servable(caplog: pytest.LogCaptureFixture):
    pace, clock = trusted(), Clock()
    pace.clock = clock

    def slow() -> None:
        clock.now += 2 * TOO_LONG

    with caplog.at_level(logging.WARNING):
        pace.ran(2 * TOO_LONG, inline=True, again=slow)
        pace.settle()
    assert pace.banned
    assert "m:1: a batch took 10.0 ms on the front end's loop" in caplog.text
    for _ in range(2 * WINDOW):
        pace.ran(SHORT / 2)
    assert not pace.short


def test_a_stall_of_the_machine_does_not_ban_the_servable(caplog: pytest.LogCaptureFixture):
    pace = trusted()
    pace.clock = Clock()
    for _ in range(100):
        pace.ran(SHORT / 2)
    looking = threading.Event()

    def again() -> None:
        assert looking.wait(PATIENCE)

    pace.ran(2 * TOO_LONG, inline=True, again=again)
    assert not pace.short  # off the loop as long as it is under suspicion
    looking.set()
    pace.settle()
    assert pace.short
    assert not caplog.records


def fails() -> None:
    raise ValueError


@pytest.mark.parametrize("again", [None, fails])
def test_without_a_repeated_run_one_long_batch_bans_the_servable(again: Callable[[], object] | None):
    pace = trusted()
    pace.ran(2 * TOO_LONG, inline=True, again=again)
    pace.settle()
    assert pace.banned


def test_a_long_batch_on_a_worker_does_not_ban_the_servable():
    pace = InlineBudget("m:1", 1)
    for _ in range(WINDOW):
        pace.ran(SHORT / 2)
    pace.ran(2 * TOO_LONG)
    assert pace.short
    assert not pace.banned


class Batches:
    """Stands for a batcher whose batches are numbers, and for the executor that runs them."""

    def __init__(self, batches: int = 0, seconds: float = 0.0) -> None:
        self.left = batches
        self.seconds = seconds
        self.ran = 0
        self.handed_over = 0
        self.firsts: list[bool] = []
        self.running: Callable[[], None] = lambda: None

    def take_inline(self, _slot: object, budget: InlineBudget, _loop: InlineLoop, *, first: bool) -> int | None:
        if not self.left or not budget.short or (budget.loop.spent >= TURN and not first):
            return None
        self.firsts.append(first)
        self.left -= 1
        return self.left

    def run(self, _batch: int) -> float:
        self.running()
        self.ran += 1
        return self.seconds

    @property
    def empty(self) -> bool:
        return not self.left

    def done(self, _slot: object) -> None:
        pass

    def hand_over(self) -> None:
        self.handed_over += 1


def place(batches: Batches, budget: InlineBudget) -> InlineExecutor:
    return InlineExecutor(budget, batches, (WorkerSlot(), WorkerSlot()), batches)  # type: ignore[arg-type]


def budget_of(loop: InlineLoop) -> InlineBudget:
    """Of a servable that is short."""
    budget = InlineBudget("m:1", 1, loop)
    for _ in range(FIRST):
        budget.ran(SHORT / 2)
    return budget


def slow_budget(loop: InlineLoop) -> InlineBudget:
    """Of a servable whose batches are too long for the loop, as long as others are there."""
    budget = budget_of(loop)
    for _ in range(100):
        budget.ran(2 * SHORT)
    return budget


def waiting(rows: int, requests: int = 1, nbytes: int = 8) -> Bucket:
    """A bucket in which so many requests wait, with so many rows together."""
    queue = SignatureQueue("f", BucketKeys(VECTOR, Padding(VECTOR, {})), max_requests=1024, max_bytes=2**30)
    queue.limit = rows
    bucket = queue.bucket((2,), lambda _bucket, _request: None)
    route = Route("f", None, queue, (2,), rows // requests)
    made = [Call({}, nbytes=nbytes) for _ in range(requests)]
    for request in made:
        request.route = route
    BatchFormer(0.0).add(bucket, made, NEVER, nbytes * requests, 0.0)
    return bucket


def known(bucket: Bucket, rows: int, seconds: float) -> Bucket:
    """Runs of so many rows have taken so long lately."""
    for _ in range(20):
        bucket.effort.ran(rows, seconds)
    return bucket


def test_a_servable_counts_as_alone_when_no_other_was_called_lately():
    now = [5.0]
    loop, mine, other = InlineLoop(lambda: now[0]), InlineBudget("m:1", 1), InlineBudget("n:1", 1)
    assert not loop.alone(mine)
    loop.called(mine)
    assert not loop.alone(mine)
    now[0] += LATELY
    loop.called(mine)
    assert loop.alone(mine)
    assert not loop.alone(other)
    loop.called(other)
    loop.called(mine)
    assert not loop.alone(mine)
    now[0] += LATELY
    assert loop.alone(mine)


def test_a_short_servable_may_use_up_the_turn():
    loop = InlineLoop()
    budget, bucket = budget_of(loop), waiting(4)
    assert budget.allowance(bucket)
    loop.spent = TURN
    assert not budget.allowance(bucket, first=False)
    assert budget.allowance(bucket)  # nobody's flood keeps the others waiting
    budget.suspected = True
    assert not budget.allowance(bucket)


@pytest.mark.parametrize(
    ("seconds", "requests", "runs"),
    [
        (SHORT, 1, True),
        (1.1 * SHORT, 1, False),
        (0.9 * ALONE_TURN, 32, True),
        (0.9 * ALONE_TURN, 16, False),
        (1.1 * ALONE_TURN, 64, False),
    ],
)
def test_what_may_run_on_the_loop_while_a_servable_is_alone(seconds: float, requests: int, runs: bool):
    now = [5.0]
    loop = InlineLoop(lambda: now[0])
    budget, bucket = slow_budget(loop), known(waiting(64, requests), 64, seconds)
    loop.called(budget)
    assert not budget.allowance(bucket)  # others may have been called a moment ago
    now[0] += LATELY
    assert bool(budget.allowance(bucket)) is runs
    assert not budget.allowance(waiting(3))  # nobody knows how long so few take
    loop.spent = ALONE_TURN
    assert not budget.allowance(bucket, first=False)
    loop.spent = 0.0
    budget.suspected = True
    assert not budget.allowance(bucket)


def test_several_instances_run_side_by_side_and_not_on_the_loop():
    now = [5.0]
    loop = InlineLoop(lambda: now[0])
    budget, bucket = slow_budget(loop), known(waiting(1), 1, SHORT)
    budget.single = False
    loop.called(budget)
    now[0] += LATELY
    assert not budget.allowance(bucket)
    loop.only = True  # but for the only call in flight
    assert budget.allowance(bucket)
    budget.alone = False
    assert not budget.allowance(bucket)


def test_large_requests_run_as_many_as_the_turn_has_time_for():
    now = [5.0]
    loop = InlineLoop(lambda: now[0])
    budget, bucket = slow_budget(loop), known(waiting(16, 16, nbytes=LARGE), 1, TURN / 5)
    loop.called(budget)
    assert budget.allowance(bucket) == 5
    loop.spent = TURN / 2
    assert budget.allowance(bucket, first=False) == 2
    now[0] += LATELY
    loop.spent = 0.0
    assert budget.allowance(bucket) == int(5 * ALONE_TURN / TURN)
    budget.single = False
    assert not budget.allowance(bucket)


def test_only_the_loops_own_thread_defers():
    loop = InlineLoop()
    batches = Batches(3)
    executor = place(batches, budget_of(loop))
    assert not executor.defer(1)
    loop.enter()
    assert executor.defer(2)
    assert loop.asked == 2
    elsewhere: list[bool] = []
    other = place(Batches(1), budget_of(loop))
    thread = threading.Thread(target=lambda: elsewhere.append(other.defer(1)))
    thread.start()
    thread.join()
    assert elsewhere == [False]
    assert executor.defer(1)
    assert loop.asked == 3
    loop.turn()
    assert (batches.ran, loop.asked) == (3, 0)
    batches.left = 1
    loop.turn()  # nobody asked
    assert batches.ran == 3
    loop.leave()
    assert not executor.defer(1)


def test_requests_after_the_deferral_run_in_the_same_turn():
    loop = InlineLoop()
    loop.enter()
    batches = Batches(1)
    executor = place(batches, budget_of(loop))
    assert executor.defer(1)
    from_elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: from_elsewhere.append(executor.defer(1)))
    thread.start()
    thread.join()
    assert from_elsewhere == [True]  # no worker needs to be woken
    loop.turn()
    assert batches.ran == 1


def test_requests_beyond_the_turn_go_to_the_workers():
    loop = InlineLoop()
    batches = Batches(5, TURN / 2)
    executor = place(batches, budget_of(loop))
    executor.run()
    assert (batches.ran, batches.left, batches.handed_over) == (2, 3, 1)
    assert batches.firsts == [True, False]
    batches.seconds = 0.0
    loop.spent = 0.0
    executor.run()
    assert (batches.ran, batches.left) == (5, 0)


def test_a_servable_that_is_no_longer_short_hands_over():
    loop = InlineLoop()
    budget = budget_of(loop)
    batches = Batches(5)
    executor = place(batches, budget)
    budget.banned = True
    executor.run()
    assert (batches.ran, batches.handed_over) == (0, 1)
    assert not executor.defer(1)


def test_nothing_runs_after_close_and_close_waits_for_what_runs():
    running, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slowly() -> None:
        running.set()
        assert go_on.wait(PATIENCE)

    batches = Batches(1)
    batches.running = slowly
    executor = place(batches, budget_of(InlineLoop()))
    runner = threading.Thread(target=executor.run)
    runner.start()
    assert running.wait(PATIENCE)
    closer = threading.Thread(target=lambda: (executor.close(), closed.set()))
    closer.start()
    assert not closed.is_set()
    go_on.set()
    runner.join(PATIENCE)
    closer.join(PATIENCE)
    assert closed.is_set()
    batches.left = 1
    executor.run()
    assert batches.ran == 1


# -- with a scheduler --------------------------------------------------------------------------------------------------

Serve = Callable[..., Scheduler]


class Watched(FakeModel):
    """Remembers on whose thread it ran, and takes as long as it is told."""

    def __init__(self, traits: Traits = BOUNDED) -> None:
        self.threads: list[str] = []
        self.clock = Clock()
        self.takes = 0.0
        super().__init__(self._compute, traits=traits)

    def _compute(self, signature: str, inputs: dict) -> dict:  # type: ignore[type-arg]
        self.threads.append(threading.current_thread().name)
        self.clock.now += self.takes
        return double(signature, inputs)


def opened(serve: Serve, model: Watched, **options: object) -> tuple[Scheduler, InlineLoop, InlineBudget]:
    """A scheduler with a loop, which the test's thread plays."""
    loop = InlineLoop()
    loop.enter()
    scheduler = serve(model, loop=loop, **options)
    pace = scheduler._budget
    pace.clock = model.clock
    return scheduler, loop, pace


def ask(scheduler: Scheduler, loop: InlineLoop, times: int) -> None:
    for number in range(times):
        call = vector(float(number))
        submit(scheduler, call)
        loop.turn()
        assert call.result()["y"][0, 0] == 2.0 * number


def test_a_short_model_moves_to_the_loop(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    model.threads.clear()
    ask(scheduler, loop, 20)
    while not pace.short:  # a worker reports its batch's cost before the answer, so this ends at once
        ask(scheduler, loop, 1)
    model.threads.clear()
    ask(scheduler, loop, 5)
    assert set(model.threads) == {threading.current_thread().name}


@pytest.mark.parametrize(
    "traits",
    [Traits(bounded=True, concurrent=True, stateful=True), Traits(bounded=True), Traits(concurrent=True)],
    ids=["stateful", "one thread only", "may block"],
)
def test_models_that_never_run_on_the_loop(serve: Serve, traits: Traits):
    model = Watched(traits)
    scheduler, loop, _ = opened(serve, model)
    ask(scheduler, loop, 40)
    assert threading.current_thread().name not in model.threads


def test_a_slow_model_never_runs_on_the_loop(serve: Serve):
    model = Watched()
    scheduler, loop, _ = opened(serve, model)
    model.takes = 2 * TOO_LONG
    ask(scheduler, loop, 40)
    assert threading.current_thread().name not in model.threads


def test_a_model_that_turns_slow_leaves_the_loop_for_good(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    ask(scheduler, loop, 20)
    assert pace.short
    model.takes = 2 * TOO_LONG
    ask(scheduler, loop, 1)
    pace.settle()
    assert pace.banned
    model.takes = 0.0
    model.threads.clear()
    ask(scheduler, loop, 30)
    assert threading.current_thread().name not in model.threads


def test_closing_answers_requests_that_wait_for_their_turn(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    ask(scheduler, loop, 20)
    assert pace.short
    call = vector(1.0)
    submit(scheduler, call)
    scheduler.close()
    with pytest.raises(Unavailable):
        call.result()
    loop.turn()
    assert call.outcomes == 1


def test_requests_that_wait_when_the_loop_ends_are_served(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    ask(scheduler, loop, 20)
    assert pace.short
    call = vector(3.0)
    submit(scheduler, call)
    loop.leave()
    loop.turn()
    assert call.result()["y"][0, 0] == 6.0


def test_the_loop_of_another_front_end_runs_what_arrives_there(serve: Serve):
    """One loop is this thread's, the one beside another thread's: each runs the requests that arrive on it."""
    model, other = Watched(), InlineLoop()
    loop = InlineLoop(beside=other)
    loop.enter()
    scheduler = serve(model, loop=loop)
    scheduler._budget.clock = model.clock
    ask(scheduler, loop, FIRST + 4)
    woken: list[int] = []

    def beside() -> None:
        other.enter(lambda: woken.append(other.asked))
        ask(scheduler, other, 3)

    while not scheduler._budget.short:
        ask(scheduler, loop, 1)
    model.threads.clear()
    thread = threading.Thread(target=beside, name="beside")
    thread.start()
    thread.join(PATIENCE)
    assert (model.threads, woken) == (["beside"] * 3, [1, 1, 1])
    ask(scheduler, loop, 2)
    assert model.threads[3:] == [threading.current_thread().name] * 2
    other.leave()
