"""A load that brings settings or files of its own: when it fails it is undone, as if it had never been asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from inferd.server.errors import Conflict, ServingError
from inferd.server.lifecycle.operations.load import LoadOperation
from inferd.server.lifecycle.operations.load_overrides import LoadOverride
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.operations.overrides import OverridesError
from inferd.server.lifecycle.reconcile.reconciler import Checkpoint


@dataclass(slots=True)
class LoadWithOverridesOperation:
    """Loads a model with other settings, or other files, than its directory has. Done when that serves; when it never
    will, everything is put back to what it was."""

    model: str
    load_override: LoadOverride
    by: str
    settled_by: float
    exclusive: ClassVar[bool] = True  # what one of them puts back must not be what another one brought
    _before: Checkpoint | None = field(default=None, init=False)

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        name, reconciler = self.model, context.reconciler
        before = reconciler.checkpoint(name)
        try:
            reconciler.use_load_overrides(name, self.load_override)
            begun = self._load.ask(context)
            # Without this, what is served would go before anyone knows that nothing comes.
            if begun and not reconciler.decide(name).wanted:
                there = ", ".join(str(number) for number in sorted(reconciler.models[name].versions)) or "none"
                raise Conflict(f"the settings of the load want no version of model {name!r} that is there: {there}")
        except (ServingError, OverridesError):
            reconciler.restore(before)
            self._discard(context, self.load_override)
            raise
        if not begun:
            # Called again after every turn: forgotten failures would have broken versions loaded again each time.
            reconciler.restore(before, begun=False)
            return False
        self._before = before
        return True

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        before = self._before
        assert before is not None
        if context.reconciler.observed.load_overrides.get(self.model) is not self.load_override:
            self._discard(context, before.load_override)
            raise Conflict(f"model {self.model!r}: another load or unload came before this one had ended")
        try:
            done = self._load.done(context)
        except ServingError:
            context.reconciler.restore(before)
            self._discard(context, self.load_override)
            raise
        if done:
            self._discard(context, before.load_override)
        return done

    @property
    def _load(self) -> LoadOperation:
        return LoadOperation(self.model, None, self.by, self.settled_by)

    def _discard(self, context: OperationContext, unused: LoadOverride | None) -> None:
        """What came with this will not be used again."""
        context.reconciler.observed.load_overrides.discard(self.model, unused)
