"""The load pool: a few threads that load versions and hash files, in turn between models.

A load that hangs occupies its thread and nothing else: another thread takes its place, and because they are daemon
threads the process can end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

from inferd.server.observability.events import event, get

log = get("lifecycle")

_MOST_OVERDUE: Final = 8

Job = Callable[[], None]


def spawn(name: str, job: Job) -> None:
    """Runs `job` on a thread of its own, or on this one when no thread can be started: a job that closes something must
    not be lost."""
    try:
        threading.Thread(target=job, name=name, daemon=True).start()
    except RuntimeError as error:
        event(log, logging.ERROR, "no thread can be started", error=error, name=name)
        job()


class PoolLike(Protocol):
    """What the manager needs of a pool. Thread-safe."""

    def submit(self, key: Hashable, job: Job, *, urgent: bool = True) -> None:
        """Runs `job` later on a thread of the pool: jobs of one `key` in the order of arrival, keys in turn. Jobs that
        are not urgent (hashing files of what is already served) run when no urgent one waits."""
        ...

    def stop(self) -> None:
        """Drops the jobs that have not begun. Does not wait for those that have."""
        ...


class LoadPool:
    """See PoolLike. Thread-safe; a job that raises is logged.

    `threads` jobs run at once. A job that has run for `patience` seconds gives its place to another: it may hang, and
    nothing ends a thread. Up to `_MOST_OVERDUE` jobs give their place up in this way; after `forgotten` seconds a job
    does not count at all any more.
    """

    def __init__(
        self,
        threads: int,
        *,
        patience: float = 10.0,
        forgotten: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._patience = patience
        self._forgotten = forgotten
        self._clock = clock
        self._ready = threading.Condition()
        self._urgent: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._later: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._running: dict[int, _Running] = {}  # by the thread's number
        self._idle = 0
        self._started = 0  # threads so far
        self._stopped = False
        with self._ready:
            for _ in range(threads + 1):  # the last one takes the place of a job that hangs
                self._start_thread()

    def submit(self, key: Hashable, job: Job, *, urgent: bool = True) -> None:
        """See PoolLike."""
        with self._ready:
            if self._stopped:
                return
            (self._urgent if urgent else self._later).setdefault(key, deque()).append(job)
            self._ready.notify_all()

    def stop(self) -> None:
        """See PoolLike."""
        with self._ready:
            self._stopped = True
            self._urgent.clear()
            self._later.clear()
            self._ready.notify_all()

    def _start_thread(self) -> None:
        number = self._started
        try:
            threading.Thread(target=self._run, args=(number,), name=f"inferd-load-{number}", daemon=True).start()
        except RuntimeError as error:  # the system gives no thread: the others go on
            event(log, logging.ERROR, "no thread can be started", error=error)
            return
        self._started += 1
        self._idle += 1

    def _run(self, number: int) -> None:
        while True:
            with self._ready:
                while not self._may_take():
                    if self._stopped:
                        return
                    self._ready.wait(self._wait())
                urgent = self._free_for_urgent()
                job = _take(self._urgent if urgent else self._later)
                self._running[number] = _Running(self._clock(), urgent)
                self._idle -= 1
                if not self._idle:
                    self._start_thread()
            try:
                job()
            except Exception as error:
                event(log, logging.ERROR, "a job of the load pool failed", error=error)
            del job  # otherwise the thread keeps a model alive until its next job
            with self._ready:
                del self._running[number]
                self._idle += 1
                self._ready.notify_all()
                if self._idle > 1 + self._threads:
                    self._idle -= 1
                    return  # threads that took the place of hanging jobs are not needed any more

    def _may_take(self) -> bool:
        return self._free_for_urgent() or self._free_for_later()

    def _free_for_urgent(self) -> bool:
        return bool(self._urgent) and self._counted() < self._threads

    def _free_for_later(self) -> bool:
        # At most one thread hashes, so that large files do not keep loads waiting.
        now = self._clock()
        hashing = any(not each.urgent and now - each.since < self._patience for each in self._running.values())
        return bool(self._later) and not hashing and self._counted() < self._threads

    def _counted(self) -> int:
        """How many of the jobs that run count."""
        now = self._clock()
        ages = [now - each.since for each in self._running.values()]
        overdue = sum(self._patience <= age < self._forgotten for age in ages)
        return sum(age < self._patience for age in ages) + max(0, overdue - _MOST_OVERDUE)

    def _wait(self) -> float | None:
        """Seconds until another job may begin because one has become overdue; None when no job waits for that."""
        if not (self._urgent or self._later) or not self._running:
            return None
        now = self._clock()
        turns = (each.since + span for each in self._running.values() for span in (self._patience, self._forgotten))
        left = [turn - now for turn in turns if turn > now]
        return max(0.01, min(left)) if left else None


@dataclass(frozen=True, slots=True)
class _Running:
    """A job that runs, since a monotonic time."""

    since: float
    urgent: bool


def _take(queue: OrderedDict[Hashable, deque[Job]]) -> Job:
    key, jobs = next(iter(queue.items()))
    job = jobs.popleft()
    if jobs:
        queue.move_to_end(key)
    else:
        del queue[key]
    return job
