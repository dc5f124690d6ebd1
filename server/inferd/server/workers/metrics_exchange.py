"""Metrics on their way between workers, and the totals of those that are gone."""

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

_PATIENCE = 1.0  # seconds for a worker to say what it has counted
_ASKED = (ChildPhase.SERVING, ChildPhase.LEAVING)


class MetricsExchange:
    """The supervisor's thread only; `post` brings answers back to it, `after` calls later."""

    def __init__(
        self,
        everyone: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._everyone = everyone
        self._post = post
        self._after = after
        self._since = time.time()
        self._past: dict[int, Families] = {}  # by number
        self.restarts = 0

    def start(self, asker: Child, own: Families, answer: Answer, serving: int) -> None:
        """A worker is asked for the metrics of the group."""
        asker.count(own)
        others = [child for child in self._everyone() if child is not asker and child.phase in _ASKED]
        left = {child.id for child in others}
        answered: set[int] = set()
        done = [False]

        def finish() -> None:
            if done[0]:
                return
            done[0] = True
            live = [(child.number, child.families) for child in others if child.id in answered]
            silent = [(child.number, child.families) for child in others if child.id not in answered and child.alive]
            answer(Others(live, [*silent, *self._past.items()], self.restarts, serving, self._since))

        def told(child: Child, found: Future[Any]) -> None:
            left.discard(child.id)
            if found.exception() is None and child.alive:
                child.count(found.result())
                answered.add(child.id)
            if not left:
                finish()

        if not others:
            finish()
            return

        def asked(child: Child) -> None:
            child.link.ask(Collect()).add_done_callback(lambda found: self._post(partial(told, child, found)))

        for child in others:
            asked(child)
        self._after(_PATIENCE, finish)

    def farewell(self, child: Child, last: Families) -> None:
        """What a worker that ends has counted."""
        child.count(last, final=True)

    def gone(self, child: Child) -> None:
        """Keeps the totals of a worker that is gone, as last seen."""
        if child.families:
            self._past[child.number] = added(self._past.get(child.number, ()), lasting(child.families))
            child.families = ()
