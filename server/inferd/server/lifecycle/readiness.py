"""When the server is ready: once, and for good. And what it waits for until then, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from inferd.server.lifecycle.reconcile.desired import Desired
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.state import ModelStatus, ServableId, State
from inferd.server.repository.disk import Listing

Rule = Literal["settled", "strict"] | tuple[str, ...]


class Readiness:
    """Watches the versions that the first complete listing wants. The manager's thread only.

    settled        each of them is available or has failed once (default)
    strict         each of them is available
    a list         each model named has an available version

    Versions that were still settling in the first listing count for `patience` seconds only: a directory into which
    somebody writes for ever must not keep the server from being ready.
    """

    def __init__(self, rule: Rule, patience: float) -> None:
        self._rule = rule
        self._patience = patience
        self._awaited: set[ServableId] | None = None
        self._settling: set[ServableId] = set()
        self._faulty: set[str] = set()  # models with an error of their own, which only `strict` waits for
        self._until = 0.0
        self.ready = False

    def first_listing(self, listing: Listing, wanted: Callable[[str], Desired], now: float) -> None:
        """Takes note of what is wanted; only the first call with a complete listing counts."""
        if self._awaited is not None or not listing.complete:
            return
        self._awaited = {ServableId(name, number) for name in listing.models for number in wanted(name).wanted}
        for name, model in listing.models.items():
            newest = model.versions[0] if model.versions else None
            if newest is not None and newest.settling and not wanted(name).wanted:
                self._settling.add(ServableId(name, newest.number))
            elif model.error:
                self._faulty.add(name)
        self._until = now + self._patience

    def check(self, records: Mapping[str, ModelState], now: float) -> bool:
        """Whether the server has just become ready."""
        if self.ready or self._awaited is None:
            return False
        if isinstance(self._rule, tuple):
            self.ready = all(name in records and records[name].available() for name in self._rule)
        else:
            awaited = self._awaited | (self._settling if now < self._until or self._rule == "strict" else set())
            self.ready = all(self._done(records, servable) for servable in awaited) and not (
                self._rule == "strict"
                and any(name in records and not records[name].available() for name in self._faulty)
            )
        return self.ready

    def due(self, now: float) -> float | None:
        """Monotonic time after `now` at which patience ends."""
        return self._until if self._settling and not self.ready and self._until > now else None

    def _done(self, records: Mapping[str, ModelState], id: ServableId) -> bool:  # noqa: A002
        model = records.get(id.name)
        record = model.versions.get(id.version) if model is not None else None
        if record is None:
            return True  # gone from disk meanwhile
        if record.servable is not None:
            return True
        # An ensemble that cannot be put together has an error and no failure: nothing was tried.
        return self._rule == "settled" and (record.failure is not None or bool(record.error))


def unready(rule: Rule, models: Iterable[ModelStatus]) -> list[str]:
    """What keeps the server from being ready, for people: from the published statuses, on any thread."""
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
