"""Whether the caller of an ensemble may use the models of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from inferd.server.access.grants import Scope
from inferd.server.access.rules import AccessRules
from inferd.server.errors import ServingError
from inferd.server.scheduling.ensemble.step_graph import GraphStep


class StepRules:
    """Asks the rules for each step of an ensemble; see `scheduling.ensemble.scheduler.StepAccess`. Thread-safe."""

    def __init__(self, rules: AccessRules) -> None:
        self._rules: Final = rules

    def permit(self, call: Any, ensemble: str, steps: Sequence[GraphStep]) -> None:
        """See StepAccess."""
        rules = self._rules
        caller = rules.authenticate(call)
        for step in steps:
            try:
                rules.authorize(caller, Scope.PREDICT, step.model)
            except ServingError as error:
                raise type(error)(
                    f"in {ensemble}, {step.place}: expected credentials with the scope 'predict' for its model, "
                    "got others"
                ) from None

    def sees(self, call: Any, model: str) -> bool:
        """See StepAccess."""
        if call is None:
            return True  # the server's own request, such as a warm-up
        try:
            return self._rules.authenticate(call).grants.covers(model)
        except ServingError:
            return False
