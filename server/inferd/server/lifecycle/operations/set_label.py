"""Pointing a label to a version, or removing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inferd.server.errors import Conflict, NotFound
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.reconcile.desired import check_label, effective_labels
from inferd.server.lifecycle.state import State


@dataclass(frozen=True, slots=True)
class SetLabelOperation:
    """Points a label to an available version, or removes it (`version` None). Done at once."""

    model: str
    label: str
    version: int | None
    by: str
    exclusive: ClassVar[bool] = False

    def begin(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        check_label(self.label)
        name, label, number = self.model, self.label, self.version
        model = context.model(name)
        before = context.overrides(name)
        configured = model.config.labels if model.config is not None else {}
        overrides = before.only(lambda override: not (override.kind == "label" and override.label == label))
        if number is None:
            if label not in effective_labels(configured, before):
                raise NotFound(f"model {name!r} has no label {label!r}")
            if label in configured:
                overrides = context.plus(overrides, "label", None, self.by, label)
        else:
            version = context.known_version(model, number)
            if version.servable is None:
                state = "loading" if version.state is State.LOADING else "not available"
                why = f": {version.error}" if version.error else ""
                raise Conflict(f"label {label!r}: version {number} of model {name!r} is {state}{why}")
            if configured.get(label) != number:
                overrides = context.plus(overrides, "label", number, self.by, label)
        context.reconciler.change_overrides(name, overrides)
        return True

    def done(self, context: OperationContext) -> bool:
        """See AdminOperation."""
        return True
