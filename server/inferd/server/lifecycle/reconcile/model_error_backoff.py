"""Work that is done model by model: what goes wrong at one keeps nobody else from his turn, and is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.observability.events import event, get

log = get("lifecycle")


class ModelErrorBackoff:
    """The models at which something went wrong that nobody foresaw. The manager's thread only; times are monotonic."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float]) -> None:
        self._backoff = backoff
        self._clock = clock
        self._waiting: dict[str, tuple[int, float]] = {}  # tries in a row, and the time of the next one
        self._again: dict[str, int] = {}  # tries before the one that is being made

    def due(self, now: float) -> Iterable[str]:
        """Those that are to be tried again now, each told once."""
        self._again = {name: tries for name, (tries, at) in self._waiting.items() if at <= now}
        for name in self._again:
            del self._waiting[name]
        return self._again

    @property
    def times(self) -> list[float]:
        """When something is to be tried again."""
        return [at for _, at in self._waiting.values()]

    def each(self, names: Iterable[str], do: Callable[[str], None]) -> None:
        """Does it for each model. Never raises: a model at which something goes wrong is due again later, ever more
        seldom."""
        for name in names:
            try:
                do(name)
            except Exception as error:
                if name not in self._waiting:
                    tries = self._again.get(name, 0) + 1
                    self._waiting[name] = tries, self._clock() + self._backoff.delay(tries)
                event(log, logging.ERROR, "the manager failed at a model and goes on", error=error, model=name)
