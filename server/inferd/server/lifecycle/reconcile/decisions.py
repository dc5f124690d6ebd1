"""What is desired and what stands in the way, computed from the state of one moment."""

from __future__ import annotations

from inferd.server.lifecycle.ensemble.definition import Obstacle, composing, obstacle
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.published_state import PublishedState
from inferd.server.lifecycle.reconcile.desired import Desired, desired
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.reconcile.observed_state import ObservedState
from inferd.server.lifecycle.servable import Servable


class Decisions:
    """Applies the pure decisions to the current state. It reads the state and changes nothing. The manager's thread
    only.

    models      what is known of each model, by name
    overrides   the operators' overrides
    observed    what the source saw
    stopping    the server shuts down: nothing is desired any more
    """

    def __init__(
        self, overrides: Overrides, observed: ObservedState, published: PublishedState, *, names_steps: bool = True
    ) -> None:
        """`names_steps`: whoever sees an ensemble may know of the models of its steps."""
        self.models: dict[str, ModelState] = {}
        self.overrides = overrides
        self.observed = observed
        self.stopping = False
        self._published = published
        self._names_steps = names_steps

    def desired(self, model: ModelState) -> Desired:
        """The desired state of a model, with the overrides as they are now."""
        if self.stopping:
            return Desired(forced=frozenset(model.versions))
        if model.config is None:
            return Desired()
        return desired(
            model.config,
            self.overrides.of(model.name),
            model.candidates,
            model.failed,
            served_by_default=self.observed.served_by_default(model),
            settling=model.settling,
            held=model.held,
            faulty=model.faulty,
        )

    def obstacle(self, model: ModelState, servable: Servable | None) -> Obstacle | None:
        """What keeps an ensemble, loaded as `servable`, from being served; None for nothing, and for other models."""
        if not composing(model) or self.stopping:
            return None
        return obstacle(model, servable, self.models, self._published.serving, named=self._names_steps)
