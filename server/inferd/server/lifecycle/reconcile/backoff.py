"""When something that went wrong is tried again: soon at first, then after ever longer pauses, without end."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inferd.server.observability.events import event, get

log = get("lifecycle")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from `first` seconds up to `most`."""

    first: float = 1.0
    most: float = 60.0

    def delay(self, tries: int) -> float:
        """Seconds to wait after the `tries`-th failure in a row (1 = the first)."""
        return min(self.most, self.first * 2.0 ** min(max(tries, 1) - 1, 60))

    def after_loss(self, losses: int) -> float:
        """Seconds to wait after the `losses`-th loss of a worker process in a row: none after the first. With jitter,
        because the cause may end the workers of all replicas at the same time."""
        return 0.0 if losses <= 1 else min(self.most, self.delay(losses - 1) * random.uniform(0.75, 1.25))


@dataclass(frozen=True, slots=True)
class Loss:
    """The worker process of a served version has ended. `next_at`: monotonic time at which another one is started."""

    reason: str
    next_at: float


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A load that failed. Other content starts without failures.

    `content` identifies what was tried (it is compared and never looked into); `next_at` is the monotonic time of the
    next try, `next_wall` the same in wall-clock time. Both are infinite for content that is not tried again.
    """

    content: object
    reason: str
    tries: int
    next_at: float
    next_wall: float


class ModelErrorBackoff:
    """Contains unforeseen errors: work on one model that raises does not stop the work on the others, and is tried
    again later. The manager's thread only; times are monotonic."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float]) -> None:
        self._backoff = backoff
        self._clock = clock
        self._waiting: dict[str, tuple[int, float]] = {}  # model to failures in a row, and the time of the next try
        self._retried: dict[str, int] = {}  # failures in a row of the models that are tried again in this turn

    def take_due(self, now: float) -> list[str]:
        """The models that are to be tried again now; each is returned once."""
        self._retried = {name: tries for name, (tries, at) in self._waiting.items() if at <= now}
        for name in self._retried:
            del self._waiting[name]
        return list(self._retried)

    @property
    def times(self) -> list[float]:
        """The times of the next tries."""
        return [at for _, at in self._waiting.values()]

    @contextmanager
    def contained(self, name: str) -> Iterator[None]:
        """Logs an error that is raised within, and has the model tried again later. Never raises."""
        try:
            yield
        except Exception as error:
            if name not in self._waiting:
                tries = self._retried.get(name, 0) + 1
                self._waiting[name] = tries, self._clock() + self._backoff.delay(tries)
            event(log, logging.ERROR, "the manager failed at a model and goes on", error=error, model=name)
