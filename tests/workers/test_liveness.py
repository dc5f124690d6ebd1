"""Who does not answer is ended, and who only takes long is not. On a clock of the test's."""

from __future__ import annotations

import queue
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferd.server.workers.child import Child
from inferd.server.workers.link import Answer, Link
from inferd.server.workers.liveness import LivenessWatch, processor_seconds

LIMIT = 20.0
STEP = 10.0  # seconds, a quarter of the worker's time


class Worker:
    """A process that does nothing, and the other end of its link."""

    def __init__(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        self.lost: queue.Queue[int] = queue.Queue()
        self.asked: queue.Queue[Answer | None] = queue.Queue()
        self.child = Child(number, number, late=False)
        self.child.process = subprocess.Popen(["sleep", "600"])
        self.child._link = Link(ours, lambda _message, _answer: None, lambda: self.lost.put(number), name="ours")
        self.child._link.start()
        self._end = Link(theirs, lambda _message, answer: self.asked.put(answer), lambda: None, name="theirs")
        self._end.start()

    def exit_code(self) -> int:
        assert self.child.process is not None
        return self.child.process.wait(LIMIT)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self._end.close()


class World:
    """A watch over two workers, its clock and its thread."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.spent = {1: 5.0, 2: 7.0}
        self.workers = [Worker(1), Worker(2)]
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        self._later: list[Callable[[], None]] = []
        pids = {worker.child.pid: worker.child.number for worker in self.workers}
        self.watch = LivenessWatch(
            lambda: [worker.child for worker in self.workers if not worker.child.ended or worker.lost.empty()],
            self._jobs.put, lambda _seconds, job: self._later.append(job),
            limit=4 * STEP, clock=lambda: self.now, spent=lambda pid: self.spent[pids[pid]],
        )  # fmt: skip

    def answer(self, *workers: Worker) -> None:
        for worker in workers:
            answer = worker.asked.get(timeout=LIMIT)
            assert answer is not None
            answer(None)
            self._jobs.get(timeout=LIMIT)()

    def step(self, seconds: float = STEP) -> None:
        """The next look, so much later."""
        self.now += seconds
        self._later.pop()()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.watch.start()
    yield made
    for worker in made.workers:
        worker.close()


def test_who_answers_lives_and_who_does_not_is_killed(world: World) -> None:
    good, bad = world.workers
    world.answer(good, bad)
    for _ in range(4):
        world.step()
        world.answer(good)
    assert not bad.child.ended
    world.step()
    assert bad.exit_code() == -9
    assert bad.lost.get(timeout=LIMIT) == 2, "the supervisor sees it as gone"
    world.answer(good)
    assert not good.child.ended


def test_who_computes_all_the_while_gets_more_time(world: World) -> None:
    good, busy = world.workers
    world.answer(good, busy)
    for _ in range(40):
        world.step()
        world.answer(good)
        world.spent[2] += STEP / 2
    assert not busy.child.ended
    world.step()
    assert busy.exit_code() == -9, "but not for ever"


def test_who_starts_gets_more_time(world: World) -> None:
    good, slow = world.workers
    for _ in range(39):
        world.answer(good)
        world.step()
    assert not slow.child.ended
    world.answer(slow)
    world.step()
    world.step()
    assert not slow.child.ended


def test_a_group_that_was_paused_as_a_whole_goes_on(world: World) -> None:
    """A container is frozen and thawed: nobody could answer, and nobody could ask."""
    world.answer(*world.workers)
    world.step()
    world.step(3600.0)
    world.step()
    assert not any(worker.child.ended for worker in world.workers)
    world.answer(*world.workers)
    world.step()
    assert not any(worker.child.ended for worker in world.workers)


def test_a_dead_worker_whose_link_somebody_else_holds_is_noticed(world: World) -> None:
    """A process that a framework forked has inherited the worker's end."""
    dead = world.workers[1]
    dead.child.kill()
    dead.child.wait()
    assert dead.lost.empty()
    world.step()
    assert dead.lost.get(timeout=LIMIT) == 2


def test_processor_time_is_read() -> None:
    spent = processor_seconds(1)
    assert spent >= 0
    assert processor_seconds(int(Path("/proc/sys/kernel/pid_max").read_text())) == 0
    with subprocess.Popen(["sh", "-c", "i=0; while :; do i=$((i+1)); done"]) as busy:
        try:
            for _ in range(10_000_000):
                if processor_seconds(busy.pid) > 0:
                    break
            assert processor_seconds(busy.pid) > 0
        finally:
            busy.kill()
