"""The PublishedState: what is served and what is said of it, for everyone to read.

Written on the manager's thread only. `serving` and `statuses` are replaced, never changed: whoever has one has a
picture of one moment, without a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.desired import Desired
from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionState
from inferd.server.lifecycle.serving_map import ServingMap, served
from inferd.server.lifecycle.state import ModelStatus, PublishedOverride, State, StateChange
from inferd.server.lifecycle.state_events import Events


class PublishedState:
    """See above. `wanted` gives what is wanted of a model, as of the last decision; `substituted` what came with a load
    in the place of its own settings."""

    def __init__(
        self,
        overrides: Overrides,
        events: Events,
        wanted: Callable[[str], Desired],
        wall_clock: Callable[[], float],
        substituted: Callable[[str], tuple[PublishedOverride, ...]] = lambda name: (),
    ) -> None:
        self.serving: ServingMap = {}
        self.statuses: dict[str, ModelStatus] = {}
        self._overrides = overrides
        self._events = events
        self._wanted = wanted
        self._wall_clock = wall_clock
        self._substituted = substituted

    def swap(self, model: ModelState) -> None:
        """Puts what is available of a model into the serving map, all of it in one step."""
        want = self._wanted(model.name)
        entry = served(model.available(), want.preferred, want.labels)
        if entry == self.serving.get(model.name):
            return
        changed = dict(self.serving)
        if entry is None:
            del changed[model.name]
        else:
            changed[model.name] = entry
        self.serving = changed

    def move(self, model: ModelState, record: VersionState, state: State, error: str = "") -> None:
        """Changes a version's state, publishes that and tells it. Call it after the swap that makes AVAILABLE true, and
        before the one that ends it."""
        if record.state is state and record.error == error and state is not State.AVAILABLE:
            return
        record.move(state, error, self._wall_clock())
        self.publish({model.name: model})
        status = next(told for told in self.statuses[model.name].versions if told.id == record.id)
        self._events.announce(StateChange(status))

    def note(self, model: ModelState, record: VersionState, error: str) -> None:
        """Says of an available version what is wrong with its files on disk; "" for nothing."""
        if record.error != error and record.state is State.AVAILABLE:
            self.move(model, record, State.AVAILABLE, error)

    def publish(self, records: dict[str, ModelState]) -> None:
        """Makes the statuses of these models anew."""
        changed = dict(self.statuses)
        for name, model in records.items():
            want = self._wanted(name)
            status = model.status(
                want.labels,
                want.wanted,
                self._overrides.of(name),
                persistent=self._overrides.persistent,
                asked=want.asked,
            )
            brought = self._substituted(name)
            changed[name] = replace(status, overrides=(*status.overrides, *brought)) if brought else status
        self.statuses = changed

    def forget(self, name: str) -> None:
        """A model of which nothing is left to tell."""
        self.statuses = {other: status for other, status in self.statuses.items() if other != name}
