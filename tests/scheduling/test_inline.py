"""Batches on the front end's loop: who may be there, for how long, and how one leaves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

import pytest
from support.scheduling import PATIENCE, FakeModel, double, vector

from inferd.backends.api import Traits
from inferd.server.errors import Unavailable
from inferd.server.scheduling.inline import ALONE_TURN, LATELY, SHORT, TOO_LONG, InlineBudget, InlineLoop, InlineQueue
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.scheduler import Scheduler

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


def test_a_batch_that_takes_long_twice_ends_it_for_good(caplog: pytest.LogCaptureFixture):
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


def test_a_stall_of_the_machine_is_forgiven_after_a_second_look(caplog: pytest.LogCaptureFixture):
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
def test_without_a_second_look_one_is_enough(again: Callable[[], object] | None):
    pace = trusted()
    pace.ran(2 * TOO_LONG, inline=True, again=again)
    pace.settle()
    assert pace.banned


def test_a_long_batch_on_a_worker_bans_nobody():
    pace = InlineBudget("m:1", 1)
    for _ in range(WINDOW):
        pace.ran(SHORT / 2)
    pace.ran(2 * TOO_LONG)
    assert pace.short
    assert not pace.banned


class Served:
    """A lane whose batches are numbers."""

    def __init__(self, batches: int = 0, pace: InlineBudget | None = None) -> None:
        self.loop = InlineLoop()
        self.left = batches
        self.ran = 0
        self.handed_over = 0
        self.lane = InlineQueue(self.loop, pace or trusted(), self.take_and_run, self.hand_over)

    def take_and_run(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.ran += 1
        return True

    def hand_over(self) -> None:
        self.handed_over += 1


def slow_pace() -> InlineBudget:
    """Of a servable whose batches are too long for the loop, as long as others are there."""
    pace = trusted()
    for _ in range(100):
        pace.ran(2 * SHORT)
    return pace


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


@pytest.mark.parametrize(
    ("seconds", "requests", "runs"),
    [
        (SHORT, 1, True),
        (1.1 * SHORT, 1, False),
        (0.9 * ALONE_TURN, 40, True),
        (0.9 * ALONE_TURN, 20, False),
        (1.1 * ALONE_TURN, 64, False),
    ],
)
def test_what_may_run_on_the_loop_while_a_servable_is_alone(seconds: float, requests: int, runs: bool):
    now = [5.0]
    served = Served(pace=slow_pace())
    served.lane._loop = loop = InlineLoop(lambda: now[0])
    effort = CostCurve()
    for _ in range(20):
        effort.ran(64, seconds)
    assert not served.lane.may_run(effort, 64, requests)  # others may have been called a moment ago
    now[0] += LATELY
    assert served.lane.may_run(effort, 64, requests) is runs
    assert not served.lane.may_run(effort, 3, requests)  # nobody knows how long so few take
    loop.spent = ALONE_TURN
    assert not served.lane.may_run(effort, 64, requests)
    loop.spent = 0.0
    served.lane.pace.suspected = True
    assert not served.lane.may_run(effort, 64, requests)


def test_several_instances_run_side_by_side_and_not_on_the_loop():
    now = [5.0]
    loop = InlineLoop(lambda: now[0])
    lane = InlineQueue(loop, slow_pace(), lambda: False, lambda: None)
    lane.single = False
    effort = CostCurve()
    for _ in range(20):
        effort.ran(1, SHORT)
    lane.may_run(effort, 1, 1)
    now[0] += LATELY
    assert not lane.may_run(effort, 1, 1)
    assert lane.may_run(effort, 1, 1, lone=True)
    lane.alone = False
    assert not lane.may_run(effort, 1, 1, lone=True)


def test_only_the_loops_own_thread_defers():
    served = Served(3)
    assert not served.lane.defer()
    served.loop.enter()
    assert served.lane.defer()
    assert served.loop.asked == 1
    elsewhere: list[bool] = []
    other = Served(1)
    thread = threading.Thread(target=lambda: elsewhere.append(other.lane.defer()))
    thread.start()
    thread.join()
    assert elsewhere == [False]
    assert served.lane.defer()
    assert served.loop.asked == 2
    served.loop.turn()
    assert (served.ran, served.loop.asked) == (3, 0)
    served.left = 1
    served.loop.turn()  # nobody asked
    assert served.ran == 3
    served.loop.leave()
    assert not served.lane.defer()


def test_who_comes_while_the_lane_is_deferred_is_served_in_its_turn():
    served = Served(1)
    served.loop.enter()
    assert served.lane.defer()
    from_elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: from_elsewhere.append(served.lane.defer()))
    thread.start()
    thread.join()
    assert from_elsewhere == [True]  # no worker needs to be woken
    served.loop.turn()
    assert served.ran == 1


def test_what_a_turn_has_no_time_for_goes_to_the_workers():
    served = Served(5)
    served.lane.run(until=monotonic() - 1)
    assert (served.ran, served.handed_over) == (1, 1)
    served.lane.run(until=monotonic() + 3600)
    assert (served.ran, served.handed_over) == (5, 1)


def test_a_lane_that_is_no_longer_short_hands_over():
    pace = trusted()
    served = Served(5, pace)
    pace.banned = True
    served.lane.run(until=monotonic() + 3600)
    assert (served.ran, served.handed_over) == (0, 1)


def test_nothing_runs_after_close_and_close_waits_for_what_runs():
    served = Served(2)
    running, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    take = served.take_and_run

    def slowly() -> bool:
        running.set()
        assert go_on.wait(PATIENCE)
        return take()

    lane = InlineQueue(served.loop, trusted(), slowly, served.hand_over)
    runner = threading.Thread(target=lane.run, args=(monotonic() - 1,))
    runner.start()
    assert running.wait(PATIENCE)
    closer = threading.Thread(target=lambda: (lane.close(), closed.set()))
    closer.start()
    assert not closed.is_set()
    go_on.set()
    runner.join(PATIENCE)
    closer.join(PATIENCE)
    assert closed.is_set()
    assert served.ran == 1
    lane.run(monotonic() + 3600)
    assert served.ran == 1


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
    pace = scheduler._pace
    pace.clock = model.clock
    return scheduler, loop, pace


def ask(scheduler: Scheduler, loop: InlineLoop, times: int) -> None:
    for number in range(times):
        call = vector(float(number))
        scheduler.submit(call)
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
def test_who_never_runs_on_the_loop(serve: Serve, traits: Traits):
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


def test_closing_answers_what_waits_for_its_turn(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    ask(scheduler, loop, 20)
    assert pace.short
    call = vector(1.0)
    scheduler.submit(call)
    scheduler.close()
    with pytest.raises(Unavailable):
        call.result()
    loop.turn()
    assert call.outcomes == 1


def test_what_waits_when_the_loop_ends_is_served(serve: Serve):
    model = Watched()
    scheduler, loop, pace = opened(serve, model)
    ask(scheduler, loop, 20)
    assert pace.short
    call = vector(3.0)
    scheduler.submit(call)
    loop.leave()
    loop.turn()
    assert call.result()["y"][0, 0] == 6.0
