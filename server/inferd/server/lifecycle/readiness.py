"""When the server is ready, which it becomes once and stays; and what it waits for until then, in words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionState
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import Listing
from inferd.server.repository.tree import Tree

Rule = Literal["settled", "nonempty", "strict"] | tuple[str, ...]

_LONGEST_COPY = 300.0  # seconds for which files that do not stop changing are waited for
_WAITING = "waiting: "


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
    """Waits for what was in the repository when it was first listed completely. The manager's thread only, but for
    reading `waiting`.

    settled        every version that was there and is wanted is available, or has failed once (default)
    nonempty       as settled, for the first listing in which there is a model; and a version is available
    strict         every version that was there and is wanted is available
    a list         each model in the list has an available version

    Versions that come later are not waited for, unless they take the place of those that were there. Files that are
    still being written are waited for while they change. But files that change for ever, or a copy that was left
    unfinished, must not keep the server from being ready: `settled` and `nonempty` give a version up when its files are
    not complete and have not changed for `patience` seconds, and all such versions after `_LONGEST_COPY` seconds.

    ready      the server has become ready
    waiting    what is waited for, and why: replaced by `check`, never changed
    """

    def __init__(self, rule: Rule, patience: float) -> None:
        self._rule = rule
        self._patience = patience
        self._there: dict[str, frozenset[int]] | None = None  # the versions of each model that are waited for
        self._began = 0.0
        self._changed: dict[tuple[str, int | None], tuple[Tree | str, float]] = {}  # last change of unfinished files
        self.ready = False
        self.waiting: tuple[str, ...] = ()

    def first_listing(self, listing: Listing, now: float) -> None:
        """Notes what is there. Only the first call with a complete listing counts; for `nonempty` the first in which
        there is a model."""
        if self._there is not None or not listing.complete or (self._rule == "nonempty" and not listing.models):
            return
        self._there = {
            name: frozenset(version.number for version in model.versions) for name, model in listing.models.items()
        }
        self._began = now

    def check(self, models: Mapping[str, ModelState], now: float) -> bool:
        """Whether the server has just become ready."""
        if self.ready or self._there is None:
            return False
        self.waiting = tuple(self._named(models) if isinstance(self._rule, tuple) else self._missing(models, now))
        if not self.waiting and self._rule == "nonempty" and not any(model.available() for model in models.values()):
            self.waiting = ("a version of any model",)
        self.ready = not self.waiting
        return self.ready

    def due(self, now: float) -> float | None:
        """Monotonic time after `now` at which something that is waited for may be given up, None for never."""
        if self.ready or self._rule == "strict" or isinstance(self._rule, tuple) or not self._changed:
            return None
        times = (*(since + self._patience for _, since in self._changed.values()), self._last)
        return min((time for time in times if time > now), default=None)

    @property
    def _last(self) -> float:
        return self._began + max(_LONGEST_COPY, self._patience)

    def _named(self, models: Mapping[str, ModelState]) -> Iterator[str]:
        for name in self._rule:
            model = models.get(name)
            if model is None:
                yield f"{name}: not in the repository"
            elif not model.available():
                errors = (version.error for version in model.versions.values() if version.error)
                why = model.disk.problem or model.disk.held if model.disk is not None else ""
                yield f"{name}: {why or next(errors, 'no version is available yet')}"

    def _missing(self, models: Mapping[str, ModelState], now: float) -> Iterator[str]:
        assert self._there is not None
        for name, there in self._there.items():
            model = models.get(name)
            if model is None or model.disk is None:
                continue  # it is gone
            disk = model.disk
            if disk.config is None and disk.held:
                if self._worth_waiting((name, None), disk.held, now):
                    yield f"{name} ({disk.held})"
            elif disk.nothing or (disk.error and not model.available()):
                if self._rule == "strict":
                    yield f"{name} ({disk.problem})"
            else:
                awaited = model.want.wanted | model.want.expected
                for number in sorted(awaited & there or model.want.wanted):
                    version = model.versions.get(number)
                    if version is not None:
                        yield from self._of_version(version, now)

    def _of_version(self, version: VersionState, now: float) -> Iterator[str]:
        """Why the version is waited for, nothing if it is not."""
        disk, strict = version.disk, self._rule == "strict"
        if version.servable is not None or disk is None:
            return
        error = disk.error or (version.failure.reason if version.failure is not None else version.error)
        if error:
            # An ensemble that cannot be put together has an error and no failure: nothing was tried.
            if strict:
                yield f"{version.id} ({error})"
        elif disk.held:
            if self._worth_waiting((version.id.name, version.id.version), disk.tree, now):
                yield f"{version.id} ({disk.held})"
        elif version.state is State.LOADING:
            yield f"{version.id} (loading)"
        else:
            yield f"{version.id} ({version.waiting})" if version.waiting else str(version.id)

    def _worth_waiting(self, key: tuple[str, int | None], content: Tree | str, now: float) -> bool:
        """Whether files that are not complete are waited for. `content` changes when they do."""
        before = self._changed.get(key)
        if before is None or before[0] != content:
            before = self._changed[key] = content, now
        return self._rule == "strict" or (now < before[1] + self._patience and now < self._last)


def not_served(models: Iterable[ModelStatus]) -> dict[str, str]:
    """What should be served and is not: model or model:version → the reason, in words. Made from the published
    statuses, on any thread."""
    found: dict[str, str] = {}
    for model in models:
        if model.error:
            found[model.name] = model.error
        for version in model.versions:
            if version.error and version.error == model.error:
                continue  # the model's own error, which is said already
            waiting = next((note for note in version.notes if note.startswith(_WAITING)), "")
            if version.state is State.FAILED or version.lost:
                found[str(version.id)] = version.error
            elif version.state is State.START and waiting:
                found[str(version.id)] = waiting
    return found
