"""Updates the metrics of states and loads from the manager's state changes. The composition root subscribes it."""

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
    @property
    def origin(self) -> tuple[tuple[str, str], ...]: ...


class StateChangeLike(Protocol):
    """The part of lifecycle's StateChange that is used here; this floor must not import lifecycle."""

    @property
    def status(self) -> _Status: ...


class StateMetrics:
    """A subscriber: `manager.subscribe(StateMetrics(metrics))`. Called on one thread, in the order of the changes.

    During an in-place reload a version exists in two generations. Changes of the older generation are ignored once the
    newer one is served.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._generations: dict[tuple[str, int], int] = {}
        self._restarts: dict[tuple[str, int], int] = {}
        self._counted: set[tuple[str, int]] = set()  # versions whose current failure has been counted
        # Versions that keep failing have a series. Their number is bounded: the oldest ones are dropped.
        self._failed: OrderedDict[tuple[str, int], None] = OrderedDict()

    def __call__(self, change: StateChangeLike) -> None:
        status = change.status
        key = (status.id.name, status.id.version)
        state = status.state.name
        served = self._generations.get(key, -1)
        if not status.error or state == "LOADING":  # a new try; its error is that of the try before
            self._counted.discard(key)
        if state == "AVAILABLE":
            self._failed.pop(key, None)
            if status.generation > served:
                self._generations[key] = status.generation
                self._metrics.loaded(*key, status.load_seconds)
                origin = dict(status.origin)
                self._metrics.origin(*key, origin.get("commit", "")[:12], origin.get("run", ""))
            elif status.restarts > self._restarts.get(key, 0):
                self._restarts[key] = status.restarts
                self._metrics.restarts(*key, status.restarts)
            elif (
                status.error and key not in self._counted
            ):  # changed files failed to load; the old version still serves
                self._counted.add(key)
                self._metrics.loaded(*key, None)
            self._metrics.state(*key, "lost" if status.lost else "available")
        elif state in ("FAILED", "END") and status.error:  # between two tries, or no longer wanted
            if key not in self._counted:  # otherwise it is the same failure with another text or other notes
                self._counted.add(key)
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
            # While a new generation loads, the old one stays available and keeps its state.
            self._metrics.state(*key, state.lower())

    def _fail(self, key: tuple[str, int]) -> None:
        self._failed[key] = None
        self._failed.move_to_end(key)
        self._metrics.state(*key, "failed")
        while len(self._failed) > _FAILED_KEPT:
            oldest, _ = self._failed.popitem(last=False)
            self._counted.discard(oldest)
            self._metrics.forget(*oldest)

    def _end(self, key: tuple[str, int]) -> None:
        self._generations.pop(key, None)
        self._restarts.pop(key, None)
        self._failed.pop(key, None)
        self._counted.discard(key)
        self._metrics.forget(*key)
