"""When the server is ready, which it becomes once and stays; and what it waits for until then, in words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.state import ModelStatus, ServableId, State
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import Listing

Rule = Literal["settled", "strict"] | tuple[str, ...]


class ReadyMoment:
    """Whether the server has become ready, and the listeners that are told when it does. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._come = False
        self._settled = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def come(self) -> bool:
        """Whether the moment has come."""
        return self._come

    def wait(self, timeout: float | None) -> None:
        """Waits until the moment comes or is given up, at most `timeout` seconds."""
        self._settled.wait(timeout)

    def then(self, listener: Callable[[], None]) -> None:
        """Calls `listener` once: on the thread that calls `comes`, or at once if the moment has come."""
        with self._lock:
            if not self._come:
                self._listeners.append(listener)
                return
        listener()

    def comes(self) -> None:
        """The moment is now. A listener that raises is logged, and the others are still called."""
        with self._lock:
            self._come = True
            self._settled.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener()
            except Exception as error:
                event(get("lifecycle"), logging.ERROR, "a listener failed when the server became ready", error=error)

    def give_up(self) -> None:
        """The moment will not come: nobody waits for it any more."""
        self._settled.set()


class Readiness:
    """Waits for the versions that are wanted according to the first complete listing. The manager's thread only.

    settled        each of them is available or has failed once (default)
    strict         each of them is available
    a list         each model in the list has an available version

    Versions that were still settling in the first listing count for `patience` seconds only: a directory whose files
    never stop changing must not keep the server from being ready.
    """

    def __init__(self, rule: Rule, patience: float) -> None:
        self._rule = rule
        self._patience = patience
        self._awaited: set[ServableId] | None = None
        self._settling: set[ServableId] = set()
        self._faulty: set[str] = set()  # models with an error of their own, which only `strict` waits for
        self._until = 0.0
        self.ready = False

    def first_listing(self, listing: Listing, models: Mapping[str, ModelState], now: float) -> None:
        """Notes which versions are wanted; only the first call with a complete listing counts."""
        if self._awaited is not None or not listing.complete:
            return
        wanted = {name: models[name].want.wanted if name in models else frozenset() for name in listing.models}
        self._awaited = {ServableId(name, number) for name, numbers in wanted.items() for number in numbers}
        for name, model in listing.models.items():
            newest = model.versions[0] if model.versions else None
            if newest is not None and newest.settling and not wanted[name]:
                self._settling.add(ServableId(name, newest.number))
            elif model.error:
                self._faulty.add(name)
        self._until = now + self._patience

    def check(self, models: Mapping[str, ModelState], now: float) -> bool:
        """Whether the server has just become ready."""
        if self.ready or self._awaited is None:
            return False
        if isinstance(self._rule, tuple):
            self.ready = all(name in models and models[name].available() for name in self._rule)
        else:
            awaited = self._awaited | (self._settling if now < self._until or self._rule == "strict" else set())
            self.ready = all(self._done(models, servable) for servable in awaited) and not (
                self._rule == "strict" and any(name in models and not models[name].available() for name in self._faulty)
            )
        return self.ready

    def due(self, now: float) -> float | None:
        """Monotonic time after `now` from which settling versions do not count any more, None when nothing waits for
        it."""
        return self._until if self._settling and not self.ready and self._until > now else None

    def _done(self, models: Mapping[str, ModelState], id: ServableId) -> bool:  # noqa: A002
        model = models.get(id.name)
        version = model.versions.get(id.version) if model is not None else None
        if version is None:
            return True  # it is gone from disk
        if version.servable is not None:
            return True
        # An ensemble that cannot be put together has an error and no failure: nothing was tried.
        return self._rule == "settled" and (version.failure is not None or bool(version.error))


def unready(rule: Rule, models: Iterable[ModelStatus]) -> list[str]:
    """What keeps the server from being ready, in words. Made from the published statuses, on any thread."""
    known = {model.name: model for model in models}
    if isinstance(rule, tuple):
        missing = [name for name in rule if name not in known or not _available(known[name])]
        return [f"{name}: {_trouble(known.get(name))}" for name in missing]
    versions = [version for model in known.values() for version in model.versions]
    waiting = [v for v in versions if v.state in (State.START, State.LOADING) and (rule == "strict" or not v.error)]
    words = [f"{version.id} ({version.error})" if version.error else str(version.id) for version in waiting]
    if rule == "strict":
        words += [f"{m.name} ({m.error})" for m in known.values() if m.error and not _available(m)]
    return words


def _available(model: ModelStatus) -> bool:
    return any(version.serves for version in model.versions)


def _trouble(model: ModelStatus | None) -> str:
    if model is None:
        return "not in the repository"
    errors = (version.error for version in model.versions if version.error)
    return model.error or next(errors, "no version is available yet")
