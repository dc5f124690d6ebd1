"""Replacing the configured models while the server runs: TensorFlow Serving's reload of its configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from inferd.server.lifecycle.operations.load import LoadOperation
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.operations.overrides import ModelOverrides


@dataclass(frozen=True, slots=True)
class ConfigureModelOperation:
    """A configured model is new or asked for differently: it is loaded, and the operators' overrides about what it was
    before are dropped."""

    model: str
    by: str
    settled_by: float
    exclusive: ClassVar[bool] = False

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        context.reconciler.change_overrides(self.model, ModelOverrides())
        return self._load.begin(context)

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        return self._load.done(context)

    @property
    def _load(self) -> LoadOperation:
        return LoadOperation(self.model, None, self.by, self.settled_by)


@dataclass(slots=True)
class WithdrawModelOperation:
    """A configured model is not asked for any more. Done when nothing of it is left open. One that also lies in a
    repository root stays as it is."""

    model: str
    exclusive: ClassVar[bool] = False
    _withdrawn: bool = field(default=False, init=False)

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        reconciler = context.reconciler
        listing = reconciler.observed.listing
        if self.model in reconciler.models and (listing is None or self.model not in listing.models):
            reconciler.withdraw(self.model)
            self._withdrawn = True
        return True

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        model = context.reconciler.models.get(self.model) if self._withdrawn else None
        return model is None or all(version.ended for version in model.versions.values())
