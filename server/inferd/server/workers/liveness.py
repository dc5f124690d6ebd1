"""Whether the workers still answer: each is asked again and again, and one that says nothing for too long is ended.

A worker that was stopped in its tracks, or in which everything waits for everything else, keeps its connections and its
share of the new ones: only its end sends them to the others. One that computes all the while, or has not answered yet
because it starts, gets more time.
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

_LOOKS = 4  # in the time that a worker has
_MORE = 10  # times the limit, for a worker that starts or computes
_BUSY = 0.1  # of one core: who takes more computes
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _LivenessQuestion:
    since: float
    spent: float  # processor seconds that the worker had taken by then


class LivenessWatch:
    """The supervisor's thread only; `post` brings answers back to it, `after` calls later. `limit` in seconds; `clock`
    is monotonic; `spent` gives the processor seconds that a process has taken."""

    def __init__(
        self,
        everyone: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
        after: Callable[[float, Callable[[], None]], None],
        *,
        limit: float,
        clock: Callable[[], float],
        spent: Callable[[int], float] | None = None,
    ) -> None:
        self._everyone = everyone
        self._post = post
        self._after = after
        self._limit = limit
        self._step = limit / _LOOKS
        self._clock = clock
        self._spent = spent or processor_seconds
        self._due = 0.0
        self._open: dict[int, _LivenessQuestion] = {}  # by worker
        self._answered: set[int] = set()  # workers that ever did

    def start(self) -> None:
        """Begins to ask."""
        self._due = self._clock()
        self._look()

    def _look(self) -> None:
        now = self._clock()
        # If this process was stopped itself, as a container is that is paused, so were the workers, most likely.
        late = now - self._due > self._step
        self._due = now + self._step
        self._after(self._step, self._look)
        there = {child.id: child for child in self._everyone()}
        self._open = {id_: question for id_, question in self._open.items() if id_ in there}
        self._answered &= there.keys()
        for child in there.values():
            question = self._open.get(child.id)
            if child.ended:
                child.link.close()  # somebody else, a process that it has forked, keeps its end open
            elif question is None:
                self._ask(child, now)
            elif late:
                self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))
            elif now - question.since >= self._patience(child, question, now):
                event(
                    log, logging.ERROR, "worker does not answer and is killed", worker=child.number, pid=child.pid,
                    seconds=round(now - question.since, 1),
                )  # fmt: skip
                child.kill()
                child.link.close()
                self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))

    def _patience(self, child: Child, question: _LivenessQuestion, now: float) -> float:
        starts = child.id not in self._answered
        computes = self._spent(child.pid) - question.spent >= _BUSY * (now - question.since)
        return self._limit * _MORE if starts or computes else self._limit

    def _ask(self, child: Child, now: float) -> None:
        self._open[child.id] = _LivenessQuestion(now, self._spent(child.pid))
        child.link.ask(Ping()).add_done_callback(lambda said: self._post(partial(self._heard, child, said)))

    def _heard(self, child: Child, said: Future[Any]) -> None:
        if not isinstance(said.exception(), LinkLost):
            self._open.pop(child.id, None)
            self._answered.add(child.id)


def processor_seconds(pid: int) -> float:
    """The processor seconds that a process has taken; 0 where that cannot be told."""
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS
    except (OSError, ValueError):
        return 0.0
