"""Liveness checks: the supervisor pings each worker, and kills a worker that does not answer for too long.

A worker that is suspended or deadlocked keeps its connections and still gets its share of new ones; they move to the
other workers only when it ends. A worker that uses the processor, or that has not answered yet because it starts, gets
more time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from inferd.server.observability.events import event, get
from inferd.server.workers.child import Child
from inferd.server.workers.link import LinkLost
from inferd.server.workers.messages import Ping

log = get("group")

_CHECKS_PER_LIMIT = 4
_EXTENDED = 10  # times the limit, for a worker that starts or computes
_BUSY = 0.1  # cores; a worker that uses at least this much computes
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _LivenessQuestion:
    since: float
    spent: float  # processor seconds that the worker had used by then


class LivenessWatch:
    """The supervisor's thread only.

    children   gives the workers that are alive
    post       runs a function on the supervisor's thread
    after      runs a function on that thread in so many seconds
    limit      seconds in which a worker must answer
    clock      monotonic seconds
    spent      process id → processor seconds that the process has used
    """

    def __init__(
        self,
        children: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
        after: Callable[[float, Callable[[], None]], None],
        *,
        limit: float,
        clock: Callable[[], float],
        spent: Callable[[int], float] | None = None,
    ) -> None:
        self._children = children
        self._post = post
        self._after = after
        self._limit = limit
        self._step = limit / _CHECKS_PER_LIMIT
        self._clock = clock
        self._spent = spent or processor_seconds
        self._due = 0.0
        self._open: dict[int, _LivenessQuestion] = {}  # unanswered, by worker
        self._answered: set[int] = set()  # workers that have answered at least once

    def start(self) -> None:
        """Starts the checks."""
        self._due = self._clock()
        self._check()

    def _check(self) -> None:
        now = self._clock()
        # If this process was suspended (a paused container), the workers most likely were, too: start afresh.
        late = now - self._due > self._step
        self._due = now + self._step
        self._after(self._step, self._check)
        alive = {child.id: child for child in self._children()}
        self._open = {id_: question for id_, question in self._open.items() if id_ in alive}
        self._answered &= alive.keys()
        for child in alive.values():
            question = self._open.get(child.id)
            if child.ended:
                child.link.close()  # a process that the worker has forked keeps the worker's end open
            elif question is None:
                self._ask(child, now)
            elif late:
                self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))
            elif now - question.since >= self._limit_of(child, question, now):
                event(
                    log, logging.ERROR, "worker does not answer and is killed", worker=child.number, pid=child.pid,
                    seconds=round(now - question.since, 1),
                )  # fmt: skip
                child.kill()
                child.link.close()
                self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))

    def _limit_of(self, child: Child, question: _LivenessQuestion, now: float) -> float:
        starts = child.id not in self._answered
        computes = self._spent(child.pid) - question.spent >= _BUSY * (now - question.since)
        return self._limit * _EXTENDED if starts or computes else self._limit

    def _ask(self, child: Child, now: float) -> None:
        self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))
        child.link.ask(Ping()).add_done_callback(lambda reply: self._post(partial(self._replied, child, reply)))

    def _replied(self, child: Child, reply: Future[Any]) -> None:
        if not isinstance(reply.exception(), LinkLost):
            self._open.pop(child.id, None)
            self._answered.add(child.id)


def processor_seconds(pid: int) -> float:
    """The processor seconds that a process has used; 0 if they cannot be read."""
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS
    except (OSError, ValueError):
        return 0.0
