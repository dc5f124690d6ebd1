"""Going back to an earlier version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from inferd.server.errors import Conflict
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.reconcile.model_state import ModelState


@dataclass(slots=True)
class RollbackOperation:
    """Pins version `to`, or the newest version below the one served now that could be loaded. Done when it serves. Only
    a load lifts the pin."""

    model: str
    to: int | None
    by: str
    exclusive: ClassVar[bool] = False
    _target: int = field(default=0, init=False)

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        name, reconciler = self.model, context.reconciler
        model = context.model(name)
        if self.to is None:
            self._target = self._below(context, model)
        else:
            context.check_on_disk(model, self.to)
            self._target = self.to
        overrides = context.overrides(name).without("loaded", "pinned")
        overrides = overrides.minus("unloaded", None).minus("unloaded", self._target)
        reconciler.take_from_disk(name)
        reconciler.change_overrides(name, context.plus(overrides, "pinned", self._target, self.by))
        reconciler.try_again(name, self._target)
        return True

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        model = context.reconciler.models.get(self.model) or ModelState(self.model)  # it may be gone again
        return context.version_serves(model, self._target)

    def _below(self, context: OperationContext, model: ModelState) -> int:
        entry = context.reconciler.published.serving.get(model.name)
        if entry is None:
            raise Conflict(f"model {model.name!r} serves no version to roll back from: name the one to serve")
        now = entry.default.id.version
        usable = [
            number
            for number, version in model.versions.items()
            if number < now
            and version.disk is not None
            and not version.has_failed(model.settings)
            and (version.disk.ready or version.servable is not None)
        ]
        if not usable:
            raise Conflict(f"model {model.name!r} has no version below {now}, which is served, that could be loaded")
        return max(usable)
