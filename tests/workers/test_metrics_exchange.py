"""What a worker counted stays counted, in whatever order its last answers come in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.link import Answer, Link
from inferd.server.workers.messages import Collect
from inferd.server.workers.metrics_exchange import MetricsExchange
from inferd.server.workers.metrics_totals import Families, Family, Others

LIMIT = 10.0


def counted(value: float) -> Families:
    labels = (("model", "m"), ("version", "1"))
    return (Family("inferd_requests", "", "counter", (("inferd_requests_total", labels, value),)),)


class Worker:
    """The other end of a child's link: keeps the questions until it is told what to answer."""

    def __init__(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        self.child = Child(number, number, late=False)
        self.child.phase = ChildPhase.SERVING
        self.child._link = Link(ours, lambda _message, _answer: None, lambda: None, name="supervisor's end")
        self.child._link.start()
        self.asked: Future[Answer] = Future()
        self._link = Link(theirs, self._received, lambda: None, name="worker's end")
        self._link.start()

    def _received(self, message: object, answer: Answer | None) -> None:
        assert isinstance(message, Collect)
        assert answer is not None
        self.asked.set_result(answer)

    def close(self) -> None:
        self.child.link.close()


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    workers = Worker(1), Worker(2)
    yield workers
    for worker in workers:
        worker.close()


def test_an_answer_after_the_farewell_does_not_undo_it(pair: tuple[Worker, Worker]) -> None:
    """A worker that ends closes its models, and their series go with them: what it says after that is too little."""
    asker, leaver = pair
    scrapes = MetricsExchange(lambda: [asker.child, leaver.child], lambda fn: fn(), lambda _seconds, _fn: None)
    first: Future[Others] = Future()
    scrapes.start(asker.child, counted(1), first.set_result, 2)
    answer = leaver.asked.result(LIMIT)
    scrapes.farewell(leaver.child, counted(40))
    answer(())
    assert first.result(LIMIT).live == [(2, counted(40))]
    leaver.child.phase = ChildPhase.GONE
    scrapes.gone(leaver.child)
    second: Future[Others] = Future()
    scrapes.start(asker.child, counted(1), second.set_result, 1)
    assert second.result(LIMIT).past == [(2, counted(40))]


def test_a_page_asked_for_after_the_farewell_does_not_undo_it(pair: tuple[Worker, Worker]) -> None:
    """The leaver may be asked for the group's page on a connection that it still has."""
    leaver, other = pair
    everyone = [leaver.child]
    scrapes = MetricsExchange(lambda: everyone, lambda fn: fn(), lambda _seconds, _fn: None)
    scrapes.farewell(leaver.child, counted(40))
    scrapes.start(leaver.child, (), lambda _others: None, 1)
    leaver.child.phase = ChildPhase.GONE
    scrapes.gone(leaver.child)
    everyone[:] = [other.child]
    found: Future[Others] = Future()
    scrapes.start(other.child, counted(1), found.set_result, 1)
    assert found.result(LIMIT).past == [(1, counted(40))]
