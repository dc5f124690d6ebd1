"""The reconciler: brings what is served closer to what is desired, one step after the other.

    event → handle: state of the models → reconcile: desired, next_action (pure) → actions → load pool, closing threads
      ↑                                                                                              │
      └─────────────────────────────────────────── mailbox ──────────────────────────────────────────┘

Everything here runs on one thread, the manager's (or a test's), and never blocks: loads and hashes run in the load
pool, closing on threads of its own, and what comes of them is an event in the mailbox.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inferd.server.lifecycle.ensemble.definition import held_by
from inferd.server.lifecycle.loading.load_runner import LoadRunner
from inferd.server.lifecycle.loading.unloader import Unloader
from inferd.server.lifecycle.operations.load_overrides import LoadOverride
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides, OverridesError
from inferd.server.lifecycle.published_state import PublishedState
from inferd.server.lifecycle.reconcile import events
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff, ModelErrorBackoff
from inferd.server.lifecycle.reconcile.decisions import Decisions
from inferd.server.lifecycle.reconcile.desired import Desired
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.reconcile.next_action import bookkeeping, file_checks, next_action, snapshots
from inferd.server.lifecycle.reconcile.observed_state import Observation, ObservedState
from inferd.server.lifecycle.reconcile.version_transitions import VersionTransitions
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import ModelOnDisk

log = get("lifecycle")

_GONE_MODELS = 64  # models no longer on disk whose history is still shown


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an operation that may be undone has to restore of a model."""

    name: str
    load_override: LoadOverride | None
    overrides: ModelOverrides
    frozen: frozenset[int] | None
    disk: ModelOnDisk | None


class Reconciler:
    """Handles events, and brings what is served closer to what is desired. The manager's thread only.

    models      what is known of each model, by name; others read it and change nothing
    observed    what the source saw
    overrides   the operators' overrides
    published   what any thread may read of all this
    """

    def __init__(
        self,
        runner: LoadRunner,
        unloader: Unloader,
        overrides: Overrides,
        observed: ObservedState,
        published: PublishedState,
        mailbox: Mailbox,
        *,
        backoff: Backoff,
        barrier: ActivationBarrier | None = None,
        names_steps: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`barrier` None: a loaded version serves at once. `backoff`: pauses between tries. `names_steps`: see
        Decisions."""
        self._decisions = Decisions(overrides, observed, published, names_steps=names_steps)
        self._transitions = VersionTransitions(
            self._decisions,
            runner,
            unloader,
            published,
            mailbox,
            backoff=backoff,
            barrier=barrier,
            clock=clock,
            wall_clock=wall_clock,
        )
        self.models = self._decisions.models
        self.observed = observed
        self.overrides = overrides
        self.published = published
        self._runner = runner
        self._errors = ModelErrorBackoff(backoff, clock)
        self._clock = clock
        self._looked_at = 0.0  # when models that were due were last looked at
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._dirty: set[str] = set()  # models to look at in the next `reconcile`

    # Events

    def handle(self, happened: events.Event) -> None:
        """Takes an event into account. What follows from it is done by the next `reconcile`."""
        match happened:
            case events.ListingSeen(listing):
                self._observed(self.observed.observe(listing, self.models, self.overrides))
            case events.VersionEvent():
                self._transitions.handle(happened)
            case events.OverridesReplaced(name, overrides):
                self.overrides.adopt(name, overrides)
                self.touch(name)
            case events.StopRequested():
                self._runner.stop()
                self._decisions.stopping = True
                self._dirty.update(self.models)
            case events.TimePassed(now):
                self._on_time(now)
            case _:
                raise TypeError(f"no event of the reconciler: {happened!r}")

    def _observed(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            model = self.models.setdefault(observation.name, ModelState(observation.name))
            before = model.disk.problem if model.disk is not None else ""
            model.frozen = observation.frozen
            model.adopt(observation.disk)
            if model.disk is not None and model.disk.problem not in ("", before):
                event(log, logging.WARNING, "repository problem", model=model.name, reason=model.disk.problem)
            self.touch(observation.name)

    def _on_time(self, now: float) -> None:
        self._looked_at = now
        self._dirty.update(self._errors.take_due(now))
        for name, model in self.models.items():
            if any(time <= now for version in model.versions.values() for time in version.retry_times):
                self._dirty.add(name)

    # Deciding and acting

    def touch(self, name: str) -> None:
        """Marks a model, so that the next `reconcile` looks at it."""
        self._dirty.add(name)

    def reconcile(self) -> None:
        """Decides and acts until nothing is left to do now, and publishes. It looks at the models to which something
        happened, and then at the ensembles that contain them. An error at one model leaves the others alone."""
        holders = {name: parts for name, model in self.models.items() if (parts := held_by(model))}
        dirty = {name for name in self._dirty | self._transitions.touched if name in self.models}
        self._dirty.clear()
        self._transitions.touched.clear()
        for _ in range(1 + len(holders)):  # ensembles may contain ensembles, but not deeper than there are any
            for name in sorted(dirty):
                with self._errors.contained(name):
                    self._act(self.models[name])
            self._prune(sorted(dirty))
            for name in [name for name in dirty if name in self.models]:
                with self._errors.contained(name):
                    self._transitions.publish(self.models[name])
            dirty = {name for name, parts in holders.items() if name in self.models and not dirty.isdisjoint(parts)}
            if not dirty:
                break

    @property
    def due(self) -> float | None:
        """Monotonic time of the next retry, None when there is none."""
        times = [
            time
            for model in self.models.values()
            for number, version in model.versions.items()
            for time in version.retry_times
            if version.loading is None
            and time > self._looked_at  # earlier ones have been looked at: something else holds them back
            and number in model.want.wanted
        ]
        return min((*times, *self._errors.times), default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing is served or being closed."""
        return not any(model.in_use for model in self.models.values())

    def decide(self, name: str) -> Desired:
        """What is desired of a model with the overrides as they are now; nothing is done about it yet."""
        return self._decisions.desired(self.models[name])

    def _act(self, model: ModelState) -> None:
        decisions, carry_out = self._decisions, self._transitions.carry_out
        want = model.want = decisions.desired(model)
        obstacles = {number: decisions.obstacle(model, version.servable) for number, version in model.versions.items()}
        overrides = self.overrides.of(model.name)
        for action in bookkeeping(model, want, overrides, obstacles, stopping=decisions.stopping):
            carry_out(model, action)
        transition = model.config.transition if model.config is not None and not decisions.stopping else "availability"
        while True:
            versions = snapshots(model, want, obstacles, self._clock())
            step = next_action(transition, versions, awaited=want.awaited)
            if step is None:
                break
            carry_out(model, step)
        if model.readable and not decisions.stopping:
            for action in file_checks(model):
                carry_out(model, action)
        self._transitions.swap(model)

    def _prune(self, names: Iterable[str]) -> None:
        """Forgets versions and models of which nothing is left."""
        for name in names:
            model = self.models[name]
            model.forget_ended()
            if model.disk is None and not model.versions:
                if not model.history:
                    self._drop(name)
                elif name not in self._gone:
                    self._gone[name] = None
            else:
                self._gone.pop(name, None)
        while len(self._gone) > _GONE_MODELS:
            self._drop(next(iter(self._gone)))

    def _drop(self, name: str) -> None:
        self._gone.pop(name, None)
        self.models.pop(name, None)
        self.published.forget(name)

    def close_all(self) -> None:
        """Closes now whatever still has requests: their grace is over."""
        self._transitions.close_all()

    # What operations change

    def change_overrides(self, name: str, overrides: ModelOverrides) -> None:
        """Replaces the operators' overrides for a model. Raises OverridesError, and then nothing has changed."""
        self.overrides.change(name, overrides)
        self.touch(name)

    def take_from_disk(self, name: str) -> None:
        """Explicit mode: takes over what is on disk now. Between loads the disk counts as unchanged."""
        fresh = self.observed.fresh(name)
        if fresh is not None:
            model = self.models[name]
            model.frozen = fresh.frozen
            model.adopt(fresh.disk)
        self.touch(name)

    def let_go(self, name: str) -> None:
        """Explicit mode: the model does not stay as it was when an operator loaded it."""
        self.models[name].frozen = None
        self.touch(name)

    def try_again(self, name: str, version: int | None) -> None:
        """Forgets failed loads of a version (None: of all): an operator's request is as good as a change on disk."""
        self.models[name].forget_failures(version)
        self.touch(name)

    def withdraw(self, name: str) -> None:
        """A configured model is not asked for any more. Raises OverridesError, and then nothing has changed."""
        self.change_overrides(name, ModelOverrides())
        self.observed.load_overrides.drop(name)
        self.models[name].frozen = None
        self.models[name].adopt(None)

    def use_load_overrides(self, name: str, load_override: LoadOverride | None) -> None:
        """Puts settings or files that came with a load in force; None: the model's own count again. `restore` may bring
        those before back."""
        self.observed.load_overrides.put(name, load_override)
        self._observed(self.observed.again(self.models, self.overrides))

    def drop_load_overrides(self, name: str) -> None:
        """The model's own settings and files count again, for good."""
        if self.observed.load_overrides.drop(name):
            self._observed(self.observed.again(self.models, self.overrides))

    def checkpoint(self, name: str) -> Checkpoint:
        """What `restore` needs to undo a load that brought settings or files."""
        model = self.models.get(name)
        return Checkpoint(
            name,
            self.observed.load_overrides.get(name),
            self.overrides.of(name),
            model.frozen if model is not None else None,
            model.disk if model is not None else None,
        )

    def restore(self, before: Checkpoint, *, begun: bool = True) -> None:
        """Puts a model back to what it was at the checkpoint. When the overrides cannot be written they stay.

        `begun`: since then loads may have failed because of what is undone; these failures are forgotten.
        """
        name = before.name
        self.observed.load_overrides.put(name, before.load_override)
        try:
            self.overrides.change(name, before.overrides)
        except OverridesError as error:
            event(log, logging.ERROR, "a failed load's override stays", model=name, reason=str(error))
        model = self.models.get(name)
        if model is not None:
            model.frozen = before.frozen
            model.adopt(before.disk)
            if begun:
                model.forget_failures()
        self._observed(self.observed.again(self.models, self.overrides))
        self.touch(name)
