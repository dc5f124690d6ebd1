"""A worker that does not answer is killed; one that is only slow is not. The tests move the clock."""

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
STEP = 10.0  # seconds between two checks: a quarter of the worker's limit


class Worker:
    """A process that does nothing, and the worker's end of its link."""

    def __init__(self, number: int) -> None:
        supervisor_end, worker_end = socket.socketpair()
        self.lost: queue.Queue[int] = queue.Queue()
        self.questions: queue.Queue[Answer | None] = queue.Queue()
        self.child = Child(number, number, late=False)
        self.child.process = subprocess.Popen(["sleep", "600"])
        self.child._link = Link(
            supervisor_end, lambda _message, _answer: None, lambda: self.lost.put(number), name="supervisor's end"
        )
        self.child._link.start()
        self._end = Link(
            worker_end, lambda _message, answer: self.questions.put(answer), lambda: None, name="worker's end"
        )
        self._end.start()

    def exit_code(self) -> int:
        assert self.child.process is not None
        return self.child.process.wait(LIMIT)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self._end.close()


class Setup:
    """A LivenessWatch over two workers, with a clock and a job queue that the test controls."""

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
            answer = worker.questions.get(timeout=LIMIT)
            assert answer is not None
            answer(None)
            self._jobs.get(timeout=LIMIT)()

    def step(self, seconds: float = STEP) -> None:
        """Moves the clock on and runs the next check."""
        self.now += seconds
        self._later.pop()()


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    made.watch.start()
    yield made
    for worker in made.workers:
        worker.close()


def test_a_worker_that_does_not_answer_in_time_is_killed(setup: Setup) -> None:
    good, bad = setup.workers
    setup.answer(good, bad)
    for _ in range(4):
        setup.step()
        setup.answer(good)
    assert not bad.child.ended
    setup.step()
    assert bad.exit_code() == -9
    assert bad.lost.get(timeout=LIMIT) == 2, "the supervisor's link to it has ended"
    setup.answer(good)
    assert not good.child.ended


def test_a_worker_that_computes_gets_more_time(setup: Setup) -> None:
    good, busy = setup.workers
    setup.answer(good, busy)
    for _ in range(40):
        setup.step()
        setup.answer(good)
        setup.spent[2] += STEP / 2
    assert not busy.child.ended
    setup.step()
    assert busy.exit_code() == -9, "the longer limit has passed"


def test_a_worker_that_starts_gets_more_time(setup: Setup) -> None:
    good, slow = setup.workers
    for _ in range(39):
        setup.answer(good)
        setup.step()
    assert not slow.child.ended
    setup.answer(slow)
    setup.step()
    setup.step()
    assert not slow.child.ended


def test_workers_survive_when_the_whole_server_was_paused(setup: Setup) -> None:
    """A container is paused and continued: no worker could answer, and the supervisor could not ask."""
    setup.answer(*setup.workers)
    setup.step()
    setup.step(3600.0)
    setup.step()
    assert not any(worker.child.ended for worker in setup.workers)
    setup.answer(*setup.workers)
    setup.step()
    assert not any(worker.child.ended for worker in setup.workers)


def test_a_dead_worker_is_noticed_though_a_forked_process_holds_its_link(setup: Setup) -> None:
    """A process that a framework has forked inherited the worker's end of the link."""
    dead = setup.workers[1]
    dead.child.kill()
    dead.child.wait()
    assert dead.lost.empty()
    setup.step()
    assert dead.lost.get(timeout=LIMIT) == 2


def test_processor_seconds_are_read() -> None:
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
