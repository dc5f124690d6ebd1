"""Follows the states of versions into the metrics. The composition root subscribes it to the manager."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from inferd.server.observability.metrics import Metrics

_FAILED_KEPT: Final = 256


class _Id(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...


class _StateLike(Protocol):
    @property
    def name(self) -> str: ...


class _Status(Protocol):
    @property
    def id(self) -> _Id: ...
    @property
    def state(self) -> _StateLike: ...
    @property
    def error(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def load_seconds(self) -> float: ...
    @property
    def lost(self) -> bool: ...
    @property
    def restarts(self) -> int: ...


class StateChangeLike(Protocol):
    """What is needed of lifecycle's StateChangeLike: this floor does not import that one."""

    @property
    def status(self) -> _Status: ...


class StateMetrics:
    """A subscriber: `manager.subscribe(StateMetrics(metrics))`. Called on one thread, in order.

    During an in-place reload one id exists twice: news of the older generation is no news of what is served.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._generations: dict[tuple[str, int], int] = {}
        self._restarts: dict[tuple[str, int], int] = {}
        self._told: set[tuple[str, int]] = set()  # whose present failure has been counted
        # A version that keeps failing is worth a series; all that ever failed are not.
        self._failed: OrderedDict[tuple[str, int], None] = OrderedDict()

    def __call__(self, change: StateChangeLike) -> None:
        status = change.status
        key = (status.id.name, status.id.version)
        state = status.state.name
        served = self._generations.get(key, -1)
        if not status.error or state == "LOADING":  # another try, which still says why the one before it failed
            self._told.discard(key)
        if state == "AVAILABLE":
            self._failed.pop(key, None)
            if status.generation > served:
                self._generations[key] = status.generation
                self._metrics.loaded(*key, status.load_seconds)
            elif status.restarts > self._restarts.get(key, 0):
                self._restarts[key] = status.restarts
                self._metrics.restarts(*key, status.restarts)
            elif status.error and key not in self._told:  # changed files did not load: it is still served as it was
                self._told.add(key)
                self._metrics.loaded(*key, None)
            self._metrics.state(*key, "lost" if status.lost else "available")
        elif state in ("START", "END") and status.error:  # between two tries, or no longer wanted
            if key not in self._told:  # else the same failure again, with other words or notes
                self._told.add(key)
                self._metrics.loaded(*key, None)
            if state == "END" and served in (-1, status.generation):
                self._end(key)
            elif served < 0:
                self._fail(key)
        elif served > status.generation:
            return
        elif state == "END":
            self._end(key)
        elif served < 0 or state == "UNLOADING":
            # The load of a new generation leaves the old one available.
            self._metrics.state(*key, state.lower())

    def _fail(self, key: tuple[str, int]) -> None:
        self._failed[key] = None
        self._failed.move_to_end(key)
        self._metrics.state(*key, "failed")
        while len(self._failed) > _FAILED_KEPT:
            oldest, _ = self._failed.popitem(last=False)
            self._told.discard(oldest)
            self._metrics.forget(*oldest)

    def _end(self, key: tuple[str, int]) -> None:
        self._generations.pop(key, None)
        self._restarts.pop(key, None)
        self._failed.pop(key, None)
        self._told.discard(key)
        self._metrics.forget(*key)
