"""Unloading a model or one version of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inferd.server.lifecycle.operations.operation import OperationContext


@dataclass(frozen=True, slots=True)
class UnloadOperation:
    """Takes a model or one version out of service until it is loaded again. Done when its last request is answered and
    everything is closed. An unload of the whole model ends the settings and files that came with a load."""

    model: str
    version: int | None
    by: str
    exclusive: ClassVar[bool] = False

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        model = context.model(self.model)
        overrides = context.overrides(self.model)
        if self.version is None:
            overrides = overrides.without("loaded", "unloaded")
            context.reconciler.let_go(self.model)
            context.reconciler.drop_load_overrides(self.model)
        else:
            context.known_version(model, self.version)
            overrides = overrides.minus("loaded", self.version)
        context.reconciler.change_overrides(self.model, context.plus(overrides, "unloaded", self.version, self.by))
        return True

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        model = context.reconciler.models.get(self.model)
        if model is None:
            return True
        versions = [model.versions.get(self.version)] if self.version is not None else list(model.versions.values())
        return all(version is None or (version.servable is None and not version.ending) for version in versions)
