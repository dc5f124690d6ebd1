"""What an admin operation is, and what all operations have in common: finding the model and the version that is meant,
and telling whether what was loaded serves.

Everything here runs on the manager's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from inferd.server.errors import Conflict, NotFound, Unavailable
from inferd.server.lifecycle.ensemble.definition import composing
from inferd.server.lifecycle.operations.overrides import Kind, ModelOverrides, Override
from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionState
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.refusals import unknown_model
from inferd.server.lifecycle.state import State


class AdminOperation(Protocol):
    """One request of an operator: it changes what is desired, and is done when that is what is served.

    model        the model that it is about
    exclusive    whether another exclusive operation on the same model must end before this one begins
    """

    @property
    def model(self) -> str: ...
    @property
    def exclusive(self) -> bool: ...

    def begin(self, context: OperationContext) -> bool:
        """Changes what is desired. False: it is too early, call again. Raises ServingError or OverridesError when the
        operation is refused; then everything is as it was."""
        ...

    def done(self, context: OperationContext) -> bool:
        """Whether what was asked for serves (or no longer serves). Raises ServingError when it never will. Called after
        every turn once `begin` gave True."""
        ...


class OperationContext:
    """What operations work with: the state, and checks that several of them need. The manager's thread only.

    reconciler    holds the state, and changes what is desired
    explicit      the repository's mode
    clock         monotonic seconds
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        explicit: bool,
        discreet: bool,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`discreet`: errors name no other models, see `refusals`."""
        self.reconciler = reconciler
        self.explicit = explicit
        self.clock = clock
        self._discreet = discreet
        self._wall_clock = wall_clock

    def model(self, name: str) -> ModelState:
        """The model with this name. Raises NotFound."""
        model = self.reconciler.models.get(name)
        if model is None or (model.disk is None and not model.versions):
            raise unknown_model(self.reconciler.published.statuses, name, discreet=self._discreet)
        return model

    def known_version(self, model: ModelState, number: int) -> VersionState:
        """A version that is on disk or still ending. Raises NotFound."""
        version = model.versions.get(number)
        if version is None:
            known = _numbers(model.versions)
            raise NotFound(f"model {model.name!r} has no version {number}; its versions: {known}")
        return version

    def check_on_disk(self, model: ModelState, number: int) -> None:
        """Raises NotFound unless the version is on disk."""
        if model.disk is None or model.disk.version(number) is None:
            on_disk = _numbers((model.disk and [found.number for found in model.disk.versions]) or [])
            raise NotFound(f"model {model.name!r} has no version {number} on disk; on disk: {on_disk}")

    def overrides(self, name: str) -> ModelOverrides:
        """The operators' overrides for a model."""
        return self.reconciler.overrides.of(name)

    def plus(
        self, overrides: ModelOverrides, kind: Kind, version: int | None, by: str, label: str = ""
    ) -> ModelOverrides:
        """These overrides and one more, made now."""
        return overrides.plus(Override(kind, version, by, self._wall_clock(), label))

    def version_serves(self, model: ModelState, number: int) -> bool:
        """Whether the version serves what is on disk. When it never will: raises NotFound, Conflict or Unavailable
        (held back)."""
        version = model.versions.get(number)
        subject = f"version {number} of model {model.name!r}"
        if version is None or version.disk is None:
            raise NotFound(f"{subject} is gone from the repository")
        if version.loading is not None:
            return False
        if model.disk is not None and model.disk.config is None and model.disk.problem:
            raise Conflict(f"model {model.name!r}: {model.disk.problem}")
        if version.failure is not None:
            raise Conflict(f"{subject} failed to load: {version.failure.reason}")
        if version.disk.error:
            raise Conflict(f"{subject}: {version.disk.error}")
        if composing(model) and version.state is State.FAILED:
            raise Conflict(f"{subject} cannot be served: {version.error}")
        if version.disk.held and not version.disk.settling:
            raise Unavailable(f"{subject} is held back: {version.disk.held}")
        if version.servable is not None:
            return not version.disk.settling and version.is_stale(model.settings) is False
        if not version.disk.settling and number not in model.want.wanted:
            raise Conflict(f"{subject} is not wanted any more")
        return False

    def model_serves(self, model: ModelState) -> bool:
        """Whether all versions that are wanted of the model serve what is on disk. Raises as `version_serves`."""
        disk = model.disk
        if disk is None:
            raise NotFound(f"model {model.name!r} is gone from the repository")
        if disk.config is None:
            if disk.held:
                return False
            raise Conflict(f"model {model.name!r}: {disk.problem}")
        wanted = model.want.wanted
        # A version that still settles may be the one that is meant.
        newest = max(wanted, default=-1)
        if any(version.settling and version.number >= newest for version in disk.versions):
            return False
        if not wanted and self.overrides(model.name).get("unloaded") is not None:
            raise Conflict(f"model {model.name!r} was unloaded again before it was loaded")
        if not wanted:
            problems = [(version.number, version.error or version.held) for version in disk.versions]
            reason = "; ".join(f"version {number}: {words}" for number, words in problems if words) or disk.problem
            reason = reason or "the policy wants none"
            raise Conflict(f"model {model.name!r} has no version that could be loaded: {reason}")
        failures = []
        done = True
        for number in sorted(wanted, reverse=True):
            try:
                done &= self.version_serves(model, number)
            except Conflict as error:
                failures.append(str(error))
        if done and failures:
            raise Conflict("; ".join(failures))
        return done


def _numbers(versions: Iterable[int]) -> str:
    numbers = sorted(versions, reverse=True)
    return (", ".join(map(str, numbers[:10])) or "none") + (" ..." if len(numbers) > 10 else "")
