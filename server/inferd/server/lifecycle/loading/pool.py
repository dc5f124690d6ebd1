"""The load pool: a few threads that load versions and hash files, in turn between models.

A load that hangs occupies its thread and nothing else: the other threads go on, and because they are daemon threads the
process can end.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Protocol

from inferd.server.observability.events import event, get

log = get("lifecycle")

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
    """See PoolLike. Thread-safe; a job that raises is logged."""

    def __init__(self, threads: int) -> None:
        self._ready = threading.Condition()
        self._urgent: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._later: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._stopped = False
        self._hashing = False  # at most one thread hashes, so that large files do not keep loads waiting
        for number in range(threads):
            threading.Thread(target=self._run, name=f"inferd-load-{number}", daemon=True).start()

    def submit(self, key: Hashable, job: Job, *, urgent: bool = True) -> None:
        """See PoolLike."""
        with self._ready:
            if self._stopped:
                return
            (self._urgent if urgent else self._later).setdefault(key, deque()).append(job)
            self._ready.notify()

    def stop(self) -> None:
        """See PoolLike."""
        with self._ready:
            self._stopped = True
            self._urgent.clear()
            self._later.clear()
            self._ready.notify_all()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not (self._urgent or (self._later and not self._hashing)):
                    if self._stopped:
                        return
                    self._ready.wait()
                urgent = bool(self._urgent)
                self._hashing |= not urgent
                job = _take(self._urgent if urgent else self._later)
            try:
                job()
            except Exception as error:
                event(log, logging.ERROR, "a job of the load pool failed", error=error)
            del job  # otherwise the thread keeps a model alive until its next job
            if not urgent:
                with self._ready:
                    self._hashing = False
                    self._ready.notify()


def _take(queue: OrderedDict[Hashable, deque[Job]]) -> Job:
    key, jobs = next(iter(queue.items()))
    job = jobs.popleft()
    if jobs:
        queue.move_to_end(key)
    else:
        del queue[key]
    return job
