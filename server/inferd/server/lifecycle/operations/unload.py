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
        """See Operation."""
        model = context.model(self.model)
        wishes = context.wishes(self.model)
        if self.version is None:
            wishes = wishes.only(lambda wish: wish.kind not in ("loaded", "unloaded"))
            context.reconciler.let_go(self.model)
            context.reconciler.drop_load_overrides(self.model)
        else:
            context.known_version(model, self.version)
            wishes = wishes.only(lambda wish: not (wish.kind == "loaded" and wish.version == self.version))
        context.reconciler.change_overrides(self.model, context.plus(wishes, "unloaded", self.version, self.by))
        return True

    def done(self, context: OperationContext) -> bool:
        """See Operation."""
        model = context.reconciler.models.get(self.model)
        if model is None:
            return True
        versions = [model.versions.get(self.version)] if self.version is not None else list(model.versions.values())
        return all(version is None or (version.servable is None and not version.ending) for version in versions)
