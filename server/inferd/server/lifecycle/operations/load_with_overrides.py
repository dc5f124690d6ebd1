"""A load that brings settings or files of its own: tried, and undone when it fails, as if it had never been asked for.

On the manager's thread, like every command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from inferd.server.errors import Conflict, ServingError
from inferd.server.lifecycle.operations.load_overrides import LoadOverride
from inferd.server.lifecycle.operations.outcome import Outcome
from inferd.server.lifecycle.operations.overrides import ModelOverrides, OverridesError
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import ModelOnDisk

log = get("lifecycle")


@dataclass(frozen=True, slots=True)
class _Before:
    substitute: LoadOverride | None
    wishes: ModelOverrides
    frozen: frozenset[int] | None
    disk: ModelOnDisk | None


class LoadWithOverrides:
    """One such load. `load` makes the plain wish, see `Commands`; `busy` has the loads of this kind under way."""

    def __init__(
        self,
        conductor: Reconciler,
        load: Callable[[], Outcome | None],
        busy: dict[str, Future[ModelStatus]],
        future: Future[ModelStatus],
        name: str,
        substitute: LoadOverride,
    ) -> None:
        self._conductor = conductor
        self._load = load
        self._busy = busy
        self._future = future
        self._name = name
        self._substitute = substitute

    def begin(self) -> Outcome | None:
        """See `Command`. Raises ServingError or OverridesError when nothing can come of it."""
        other = self._busy.get(self._name)
        if other is not None and other is not self._future and not other.done():
            return None
        self._busy[self._name] = self._future
        conductor, name = self._conductor, self._name
        record = conductor.records.get(name)
        before = _Before(
            conductor.intake.substitutes.get(name),
            conductor.overrides.of(name),
            record.frozen if record is not None else None,
            record.disk if record is not None else None,
        )
        conductor.intake.substitutes.put(name, self._substitute)
        try:
            conductor.intake.apply_load_override()
            outcome = self._load()
            # Without this, what is served would go before anyone knows that nothing comes.
            if outcome is not None and not conductor.decide(name).wanted:
                there = ", ".join(str(number) for number in sorted(conductor.records[name].versions)) or "none"
                raise Conflict(f"the settings of the load want no version of model {name!r} that is there: {there}")
        except (ServingError, OverridesError):
            self._undo(before)
            self._end(self._substitute)
            raise
        if outcome is None:
            self._undo(before)
            return None
        return lambda: self._outcome(outcome, before)

    def _outcome(self, outcome: Outcome, before: _Before) -> bool:
        conductor, name = self._conductor, self._name
        if conductor.intake.substitutes.get(name) is not self._substitute:
            self._end(before.substitute)
            raise Conflict(f"model {name!r}: another load or unload came before this one had ended")
        try:
            done = outcome()
        except ServingError:
            self._undo(before)
            self._end(self._substitute)
            raise
        if done:
            self._end(before.substitute)
        return done

    def _undo(self, before: _Before) -> None:
        conductor, name = self._conductor, self._name
        conductor.intake.substitutes.put(name, before.substitute)
        try:
            conductor.overrides.change(name, before.wishes)
        except OverridesError as error:
            event(log, logging.ERROR, "a failed load's wish stays", model=name, reason=str(error))
        record = conductor.records.get(name)
        if record is not None:
            record.frozen = before.frozen
            record.adopt(before.disk)
            for version in record.versions.values():
                version.failure = None
        conductor.intake.apply_load_override()
        conductor.touch(name)

    def _end(self, unused: LoadOverride | None) -> None:
        self._busy.pop(self._name, None)
        self._conductor.intake.substitutes.forsake(self._name, unused)
