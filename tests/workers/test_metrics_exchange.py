"""The counts of a worker that ends are kept, in whatever order its last messages arrive."""

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
    """The worker's end of a child's link. Keeps the question, so that the test can answer it later."""

    def __init__(self, number: int) -> None:
        supervisor_end, worker_end = socket.socketpair()
        self.child = Child(number, number, late=False)
        self.child.phase = ChildPhase.SERVING
        self.child._link = Link(supervisor_end, lambda _message, _answer: None, lambda: None, name="supervisor's end")
        self.child._link.start()
        self.question: Future[Answer] = Future()
        self._link = Link(worker_end, self._received, lambda: None, name="worker's end")
        self._link.start()

    def _received(self, message: object, answer: Answer | None) -> None:
        assert isinstance(message, Collect)
        assert answer is not None
        self.question.set_result(answer)

    def close(self) -> None:
        self.child.link.close()


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    workers = Worker(1), Worker(2)
    yield workers
    for worker in workers:
        worker.close()


def test_an_answer_after_the_final_metrics_does_not_replace_them(pair: tuple[Worker, Worker]) -> None:
    """A worker that ends closes its models, which removes their series: what it reports after that is too little."""
    asker, leaver = pair
    exchange = MetricsExchange(lambda: [asker.child, leaver.child], lambda fn: fn(), lambda _seconds, _fn: None)
    first: Future[Others] = Future()
    exchange.collect(asker.child, counted(1), first.set_result, 2)
    answer = leaver.question.result(LIMIT)
    exchange.final(leaver.child, counted(40))
    answer(())
    assert first.result(LIMIT).live == [(2, counted(40))]
    leaver.child.phase = ChildPhase.GONE
    exchange.gone(leaver.child)
    second: Future[Others] = Future()
    exchange.collect(asker.child, counted(1), second.set_result, 1)
    assert second.result(LIMIT).past == [(2, counted(40))]


def test_a_scrape_after_the_final_metrics_does_not_replace_them(pair: tuple[Worker, Worker]) -> None:
    """The worker that leaves may still be scraped on an open connection."""
    leaver, other = pair
    children = [leaver.child]
    exchange = MetricsExchange(lambda: children, lambda fn: fn(), lambda _seconds, _fn: None)
    exchange.final(leaver.child, counted(40))
    exchange.collect(leaver.child, (), lambda _others: None, 1)
    leaver.child.phase = ChildPhase.GONE
    exchange.gone(leaver.child)
    children[:] = [other.child]
    found: Future[Others] = Future()
    exchange.collect(other.child, counted(1), found.set_result, 1)
    assert found.result(LIMIT).past == [(1, counted(40))]
