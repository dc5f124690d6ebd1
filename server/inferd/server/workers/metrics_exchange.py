"""Collects the metrics of all workers for the one that is scraped, and keeps the totals of workers that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.link import Answer
from inferd.server.workers.messages import Collect
from inferd.server.workers.metrics_totals import Families, Others, added, lasting

_ANSWER_TIMEOUT = 1.0  # seconds
_COLLECTED = (ChildPhase.SERVING, ChildPhase.LEAVING)


class MetricsExchange:
    """The supervisor's thread only.

    children   gives the workers that are alive
    post       runs a function on the supervisor's thread
    after      runs a function on that thread in so many seconds
    restarts   how often a worker was started in the place of another
    """

    def __init__(
        self,
        children: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._children = children
        self._post = post
        self._after = after
        self._since = time.time()
        self._past: dict[int, Families] = {}  # totals of workers that are gone, by worker number
        self.restarts = 0

    def collect(self, asker: Child, own: Families, answer: Answer, serving: int) -> None:
        """Asks all other workers for their metrics, and calls `answer` with `Others` when they have answered or the
        time is up. `own` are the metrics of `asker`; `serving` is how many workers serve."""
        asker.count(own)
        others = [child for child in self._children() if child is not asker and child.phase in _COLLECTED]
        unanswered = {child.id for child in others}
        answered: set[int] = set()
        done = [False]

        def finish() -> None:
            if done[0]:
                return
            done[0] = True
            live = [(child.number, child.families) for child in others if child.id in answered]
            silent = [(child.number, child.families) for child in others if child.id not in answered and child.alive]
            answer(Others(live, [*silent, *self._past.items()], self.restarts, serving, self._since))

        def received(child: Child, reply: Future[Any]) -> None:
            unanswered.discard(child.id)
            if reply.exception() is None and child.alive:
                child.count(reply.result())
                answered.add(child.id)
            if not unanswered:
                finish()

        if not others:
            finish()
            return

        def ask(child: Child) -> None:
            child.link.ask(Collect()).add_done_callback(lambda reply: self._post(partial(received, child, reply)))

        for child in others:
            ask(child)
        self._after(_ANSWER_TIMEOUT, finish)

    def final(self, child: Child, last: Families) -> None:
        """Stores the last metrics of a worker that ends."""
        child.count(last, final=True)

    def gone(self, child: Child) -> None:
        """Adds the last known totals of a worker that is gone to those of earlier workers with its number."""
        if child.families:
            self._past[child.number] = added(self._past.get(child.number, ()), lasting(child.families))
            child.families = ()
