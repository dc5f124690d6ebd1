"""Loading a model or one version of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inferd.server.errors import NotFound
from inferd.server.lifecycle.ensemble.definition import composing
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.reconcile.model_state import ModelState


@dataclass(frozen=True, slots=True)
class LoadOperation:
    """Loads a model (what its policy wants) or one version. Lifts unloads and the pin; a version that the policy leaves
    out is wanted from now on.

    The models of an ensemble that are not served are loaded with it. A load of the whole model ends the settings and
    files that came with an earlier load.

    `settled_by`: the monotonic time until which a load of the model waits for the newest version on disk to settle. An
    operator who publishes a version and loads the model means that version: to lift the pin before it has settled would
    bring back the version before it.
    """

    model: str
    version: int | None
    by: str
    settled_by: float
    exclusive: ClassVar[bool] = False

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        if self.version is None:
            observed = context.reconciler.observed
            if observed.load_overrides.get(self.model) is not None and not observed.in_repository(self.model):
                raise NotFound(f"model {self.model!r} was uploaded, and the repository has none of that name; it stays")
            context.reconciler.drop_load_overrides(self.model)
        return self.ask(context)

    def ask(self, context: OperationContext) -> bool:
        """`begin` without ending what came with an earlier load."""
        parts = _unserved_parts(context, context.model(self.model))
        return all(self._ask_for(context, part, None) for part in parts) and self._ask_for(
            context, self.model, self.version
        )

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        model = context.reconciler.models.get(self.model) or ModelState(self.model)  # it may be gone again
        if self.version is None:
            return context.model_serves(model)
        return context.version_serves(model, self.version)

    def _ask_for(self, context: OperationContext, name: str, version: int | None) -> bool:
        model = context.model(name)
        if version is None and context.clock() < self.settled_by:
            newest = context.reconciler.observed.newest(name)
            if newest is not None and newest.settling and newest.number not in model.available():
                return False
        reconciler = context.reconciler
        reconciler.take_from_disk(name)
        overrides = context.overrides(name).without("pinned")
        if version is None:
            overrides = overrides.without("unloaded")
            if context.explicit:
                overrides = context.plus(overrides, "loaded", None, self.by)
        else:
            context.check_on_disk(model, version)
            overrides = overrides.minus("unloaded", version)
        reconciler.change_overrides(name, overrides)
        if version is not None and version not in reconciler.decide(name).wanted:
            reconciler.change_overrides(name, context.plus(overrides, "loaded", version, self.by))
        reconciler.try_again(name, version)
        return True


def _unserved_parts(context: OperationContext, model: ModelState) -> list[str]:
    """The models of an ensemble that are not served, those of ensembles in it too."""
    models, serving = context.reconciler.models, context.reconciler.published.serving
    found: list[str] = []
    walk = [model.name]
    while walk:
        for part in composing(models.get(walk.pop())):
            if part not in (*found, model.name) and part in models:
                walk.append(part)
                if part not in serving:
                    found.append(part)
    return found
