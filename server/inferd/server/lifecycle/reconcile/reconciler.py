"""The reconciler: the one writer of what is known of models and of what is served.

    event → handle: the state of the models → reconcile: desired, next_action (pure) → actions → the parts that do them
            ↑                                                                                        │
            └──────────────────────────────────── mailbox ←──────────────────────────────────────────┘

Everything here runs on one thread, the manager's (or a test's), and never blocks: loads and hashes run in the load
pool, closing on threads of its own, and what comes of them is an event in the mailbox.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from inferd.server.lifecycle.ensemble.definition import Obstacle, composing, held_by, obstacle
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.load_runner import LoadRunner
from inferd.server.lifecycle.loading.unloader import Unloader
from inferd.server.lifecycle.operations.load_overrides import LoadOverride
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides, OverridesError
from inferd.server.lifecycle.published_state import PublishedState, served
from inferd.server.lifecycle.reconcile import events
from inferd.server.lifecycle.reconcile import next_action as plan
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff, LoadFailure, Loss, ModelErrorBackoff
from inferd.server.lifecycle.reconcile.desired import Desired, desired
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.reconcile.model_state import Content, Loading, ModelState, ServableFacts, VersionState
from inferd.server.lifecycle.reconcile.observed_state import Observation, ObservedState
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId, State
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import ModelOnDisk

log = get("lifecycle")

_STABLE = 60.0  # seconds of service after which the loss of a worker process counts as the first in a row again
_MARGIN = 1.25  # of the last load's duration: what callers are told to wait until a lost worker is replaced
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
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`barrier` None: a loaded version serves at once. `backoff`: pauses between tries."""
        self.models: dict[str, ModelState] = {}
        self.observed = observed
        self.overrides = overrides
        self.published = published
        self._runner = runner
        self._unloader = unloader
        self._mailbox = mailbox
        self._barrier = barrier
        self._backoff = backoff
        self._errors = ModelErrorBackoff(backoff, clock)
        self._clock = clock
        self._wall_clock = wall_clock
        self._generation = 0  # of the last load
        self._closing: set[int] = set()  # generations
        self._stopping = False
        self._looked_at = 0.0  # when models that were due were last looked at
        self._desired: dict[str, Desired] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._dirty: set[str] = set()  # models to look at in the next `reconcile`

    # Events

    def handle(self, happened: events.Event) -> None:
        """Takes an event into account. What follows from it is done by the next `reconcile`."""
        match happened:
            case events.ListingSeen(listing):
                self._observed(self.observed.observe(listing, self.models, self.overrides))
            case events.LoadSucceeded(id, generation, servable):
                self._on_loaded(id, generation, servable)
            case events.LoadFailed(id, generation, reason):
                self._on_load_failed(id, generation, reason)
            case events.LoadAborted(id, generation, reason):
                model, version, _ = self._loading(id, generation)
                self._aborted(model, version, reason)
            case events.ActivationDecided(id, generation, refusal):
                self._on_decided(id, generation, refusal)
            case events.ActivationWithdrawn(id, generation, reason):
                self._on_decided(id, generation, None, withdrawn=reason)
            case events.WorkerLost(id, generation, reason):
                self._on_worker_lost(id, generation, reason)
            case events.ServableDrained(id, generation):
                self._close(id, generation)
            case events.ServableClosed(id, generation):
                self._on_closed(id, generation)
            case events.ServedFilesHashed():
                self._on_served_hashed(happened)
            case events.DiskFilesHashed():
                self._on_disk_hashed(happened)
            case events.OverridesReplaced(name, overrides):
                self.overrides.adopt(name, overrides)
                self.touch(name)
            case events.StopRequested():
                self._runner.stop()
                self._stopping = True
                self._dirty.update(self.models)
            case events.TimePassed(now):
                self._on_time(now)
            case _:
                raise TypeError(f"no event of the reconciler: {happened!r}")

    def _observed(self, observations: Iterable[Observation]) -> None:
        for seen in observations:
            model = self.models.setdefault(seen.name, ModelState(seen.name))
            model.frozen = seen.frozen
            model.adopt(seen.disk)
            self.touch(seen.name)

    def _on_time(self, now: float) -> None:
        self._looked_at = now
        self._dirty.update(self._errors.take_due(now))
        for name, model in self.models.items():
            if any(time <= now for version in model.versions.values() for time in version.retry_times):
                self._dirty.add(name)

    def _on_loaded(self, id: ServableId, generation: int, servable: Servable) -> None:  # noqa: A002
        model, version, loading = self._loading(id, generation)
        if self._barrier is None:
            self._activate(model, version, loading, servable)
            return

        def decided(refusal: str | None) -> None:
            self._mailbox.post(events.ActivationDecided(id, generation, refusal))

        loading.servable = servable
        loading.withdraw = self._barrier.loaded(id, loading.content, decided)
        if loading.cancellation():
            self._withdraw(version, loading, loading.cancellation.reason)

    def _withdraw(self, version: VersionState, loading: Loading, reason: str) -> None:
        """Takes the question to the barrier back. That stands, even if the version is wanted again before the event is
        handled."""
        if loading.withdraw is not None:
            loading.withdraw()
            loading.withdraw = None
            self._mailbox.post(events.ActivationWithdrawn(version.id, loading.generation, reason))

    def _on_decided(self, id: ServableId, generation: int, refusal: str | None, withdrawn: str = "") -> None:  # noqa: A002
        found = self._version(id)
        loading = found.loading if found is not None else None
        if loading is None or loading.generation != generation or loading.servable is None:
            return  # decided before
        model, version, loading = self._loading(id, generation)
        servable, loading.servable, loading.withdraw = loading.servable, None, None
        assert servable is not None
        reason = withdrawn or loading.cancellation.reason
        if refusal is None and not reason:
            self._activate(model, version, loading, servable)
            return
        self._end(version, servable)
        if refusal is None:
            self._aborted(model, version, reason)
        else:
            self._failed(model, version, loading, refusal)

    def _on_load_failed(self, id: ServableId, generation: int, reason: str) -> None:  # noqa: A002
        model, version, loading = self._loading(id, generation)
        if self._barrier is not None:
            self._barrier.failed(id, loading.content, reason)
        self._failed(model, version, loading, reason)

    def _activate(self, model: ModelState, version: VersionState, loading: Loading, servable: Servable) -> None:
        """Puts what was loaded into service, unless it is not wanted any more."""
        version.loading = None
        self.touch(model.name)
        held_back = self._obstacle(model, servable) is not None
        if held_back and version.state is State.LOADING:
            self._move(model, version, State.START)
        if held_back or version.id.version not in self.decide(model.name).wanted:
            self._log(logging.INFO, "version loaded but no longer wanted", version, loading.generation)
            self._end(version, servable)
            return
        old = version.servable
        version.servable, version.facts = servable, ServableFacts.of(servable)
        version.content, version.digest, version.differs = loading.content, None, None
        version.failure = version.lost = None
        version.aborted = ""
        version.available_at = self._clock()
        self._swap(model)
        self._move(model, version, State.AVAILABLE)
        if servable.worker is not None:
            servable.worker.on_lost(partial(self._report_lost, version.id, servable.generation))
        seconds = round(servable.load_seconds, 3)
        self._log(logging.INFO, "version available", version, loading.generation, seconds=seconds)
        if old is not None:
            self._retire(version, old)
        if version.disk is not None:
            self._runner.hash_served(version.id, servable.generation, version.disk.path, loading.content.tree)

    def _failed(self, model: ModelState, version: VersionState, loading: Loading, reason: str) -> None:
        before = version.failure
        tries = before.tries + 1 if before is not None and before.content == loading.content else 1
        delay = self._backoff.delay(tries)
        version.aborted = ""
        version.failure = LoadFailure(loading.content, reason, tries, self._clock() + delay, self._wall_clock() + delay)
        self._log(
            logging.WARNING if tries == 1 else logging.DEBUG,  # the same failure again and again is no news
            "version not loaded", version, loading.generation, reason=reason, tries=tries, next_in=delay,
        )  # fmt: skip
        self._not_loaded(model, version, reason)

    def _aborted(self, model: ModelState, version: VersionState, reason: str) -> None:
        assert version.loading is not None
        generation = version.loading.generation
        version.aborted = f"the load of generation {generation} was cut short: {reason}"
        self._log(logging.INFO, "version load cut short", version, generation, reason=reason)
        self._not_loaded(model, version, None)

    def _not_loaded(self, model: ModelState, version: VersionState, reason: str | None) -> None:
        version.loading = None
        self.touch(model.name)
        if version.servable is not None:
            if reason is not None:
                what = "files on disk differ" if version.lost is None else f"its worker process {version.lost.reason}"
                self._note(model, version, f"{what}: {reason}")
        elif version.state is State.LOADING:
            self._move(model, version, State.START, reason or version.error)
        self._end_if_done(model, version)

    def _report_lost(self, id: ServableId, generation: int, reason: str) -> None:  # noqa: A002
        """On any thread."""
        self._mailbox.post(events.WorkerLost(id, generation, reason))

    def _on_worker_lost(self, id: ServableId, generation: int, reason: str) -> None:  # noqa: A002
        """Has another generation loaded in the place of the one that is lost, soon at first. The lost one stays in the
        serving map, where it refuses: to fall back to another version would be to answer wrongly."""
        version = self._version(id)
        if version is None or not _serves(version, generation):
            return
        servable = version.servable
        assert servable is not None
        if servable.worker is None:
            return
        model = self.models[id.name]
        self.touch(id.name)
        now = self._clock()
        version.losses = version.losses + 1 if now - version.available_at < _STABLE else 1
        version.restarts += 1
        delay = self._backoff.after_loss(version.losses)
        version.lost = Loss(reason, now + delay)
        servable.worker.back_at = now + delay + _MARGIN * servable.load_seconds
        self._log(logging.WARNING, "worker lost", version, generation, reason=reason, next_in=round(delay, 3))
        self._move(model, version, State.AVAILABLE, f"its worker process {reason}; another one takes its place")

    def _on_closed(self, id: ServableId, generation: int) -> None:  # noqa: A002
        self._closing.discard(generation)
        version = self._version(id)
        if version is None:
            return
        version.ending.pop(generation, None)
        self.touch(id.name)
        self._log(logging.INFO, "version closed", version, generation)
        self._end_if_done(self.models[id.name], version)

    def _on_served_hashed(self, hashed: events.ServedFilesHashed) -> None:
        version = self._version(hashed.id)
        if version is None or not _serves(version, hashed.generation) or version.content is None:
            return
        if version.content.tree == hashed.tree:
            version.digest = hashed.digest

    def _on_disk_hashed(self, hashed: events.DiskFilesHashed) -> None:
        version = self._version(hashed.id)
        if version is None:
            return
        version.hashing = None
        self.touch(hashed.id.name)
        if not _serves(version, hashed.generation) or version.content is None:
            return
        if hashed.digest is not None and hashed.digest == version.digest:
            event(log, logging.DEBUG, "files touched, not changed", model=hashed.id.name, version=hashed.id.version)
            version.content = Content(hashed.tree, version.content.settings)
        else:
            version.differs = hashed.tree

    # Deciding and acting

    def touch(self, name: str) -> None:
        """Has a model looked at in the next `reconcile`."""
        self._dirty.add(name)

    def reconcile(self) -> None:
        """Decides and acts until nothing is left to do now, and publishes. It looks at the models to which something
        happened, and then at the ensembles that contain them. An error at one model leaves the others alone."""
        holders = {name: parts for name, model in self.models.items() if (parts := held_by(model))}
        dirty = {name for name in self._dirty if name in self.models}
        self._dirty.clear()
        for _ in range(1 + len(holders)):  # ensembles may contain ensembles, but not deeper than there are any
            for name in sorted(dirty):
                with self._errors.contained(name):
                    self._act(self.models[name])
            self._prune(sorted(dirty))
            for name in [name for name in dirty if name in self.models]:
                with self._errors.contained(name):
                    self._publish(self.models[name])
            dirty = {name for name, parts in holders.items() if name in self.models and not dirty.isdisjoint(parts)}
            if not dirty:
                break

    @property
    def due(self) -> float | None:
        """Monotonic time of the next retry, None when there is none."""
        times = [
            time
            for name, model in self.models.items()
            for number, version in model.versions.items()
            for time in version.retry_times
            if version.loading is None
            and time > self._looked_at  # earlier ones had their chance: something else holds them back
            and number in self.wanted(name).wanted
        ]
        return min((*times, *self._errors.times), default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing is served or being closed."""
        return not any(model.in_use for model in self.models.values())

    def wanted(self, name: str) -> Desired:
        """What is wanted of a model, as of the last decision."""
        return self._desired.get(name, Desired())

    def decide(self, name: str) -> Desired:
        """What is wanted of a model with the overrides as they are now; nothing is done about it yet."""
        model = self.models[name]
        if self._stopping:
            return Desired(forced=frozenset(model.versions))
        if model.config is None:
            return Desired()
        return desired(
            model.config,
            self.overrides.of(name),
            model.candidates,
            model.failed,
            served_by_default=self.observed.served_by_default(model),
            settling=model.settling,
        )

    def _obstacle(self, model: ModelState, servable: Servable | None) -> Obstacle | None:
        """What keeps an ensemble from being served; None for every other model."""
        if not composing(model) or self._stopping:
            return None
        return obstacle(model, servable, self.models, self.published.serving)

    def _act(self, model: ModelState) -> None:
        want = self._desired[model.name] = self.decide(model.name)
        obstacles = {number: self._obstacle(model, version.servable) for number, version in model.versions.items()}
        overrides = self.overrides.of(model.name)
        for action in plan.bookkeeping(model, want, overrides, obstacles, stopping=self._stopping):
            self._carry_out(model, action)
        transition = model.config.transition if model.config is not None and not self._stopping else "availability"
        while True:
            versions = plan.snapshots(model, want, obstacles, self._clock())
            step = plan.next_action(transition, versions, awaited=want.awaited)
            if step is None:
                break
            self._carry_out(model, step)
        if model.readable and not self._stopping:
            for action in plan.file_checks(model):
                self._carry_out(model, action)
        self._swap(model)

    def _carry_out(self, model: ModelState, action: plan.Action) -> None:
        version = model.versions[action.version]
        match action:
            case plan.LoadVersion():
                self._load(model, version)
            case plan.UnloadVersion():
                self._unload(model, version)
            case plan.Announce(_, state, error):
                self._move(model, version, state, error)
            case plan.KeepLoad() if version.loading is not None:
                version.loading.cancellation.take_back()
            case plan.CancelLoad(_, reason) if version.loading is not None:
                version.loading.cancellation.cancel(reason)
                self._withdraw(version, version.loading, reason)
            case plan.ShowWaiting(_, reason):
                version.waiting = reason
            case plan.HashFiles() if version.servable is not None and version.disk is not None:
                tree = version.hashing = version.disk.tree
                self._runner.hash_on_disk(version.id, version.servable.generation, version.disk.path, tree)
            case plan.ForgetDifference():
                version.failure = None
                self._note(model, version, "")

    def _load(self, model: ModelState, version: VersionState) -> None:
        assert model.config is not None
        assert model.disk is not None
        assert version.disk is not None
        content = version.on_disk(model.settings)
        assert content is not None
        self._generation += 1
        if version.failure is not None and version.failure.content != content:
            version.failure = None  # new content starts without failures
        loading = version.loading = Loading(self._generation, content)
        request = LoadRequest(version.id, self._generation, version.disk, model.config, model.disk.notes)
        if version.servable is None:
            self._move(model, version, State.LOADING, "" if model.config.ensemble else version.error)
        self._log(logging.INFO, "version loading", version, loading.generation)
        self._runner.load(request, loading.cancellation)

    def _unload(self, model: ModelState, version: VersionState) -> None:
        servable = version.servable
        assert servable is not None
        self._log(logging.INFO, "version unloading", version, servable.generation)
        # Announced while it still serves, so that nobody sends requests to what has left the map.
        self._move(model, version, State.UNLOADING)
        version.servable = None
        version.content = version.digest = version.differs = None
        version.failure = version.lost = None
        self._swap(model)
        self._retire(version, servable)

    def _retire(self, version: VersionState, servable: Servable) -> None:
        """Closes a servable that has left the serving map when its last request is answered."""
        version.ending[servable.generation] = servable
        self._unloader.drain(servable)

    def _end(self, version: VersionState, servable: Servable) -> None:
        """Closes a servable that never served."""
        version.ending[servable.generation] = servable
        self._close(version.id, servable.generation)

    def _close(self, id: ServableId, generation: int) -> None:  # noqa: A002
        """Closes what is ending, once."""
        version = self._version(id)
        if version is not None and generation in version.ending and generation not in self._closing:
            self._closing.add(generation)
            self._unloader.close(version.ending[generation])

    def close_all(self) -> None:
        """Closes now whatever still has requests: their grace is over."""
        for model in self.models.values():
            for version in model.versions.values():
                for generation in list(version.ending):
                    self._close(version.id, generation)

    # Publishing

    def _swap(self, model: ModelState) -> None:
        want = self.wanted(model.name)
        self.published.swap(model.name, served(model.available(), want.preferred, want.labels))

    def _move(self, model: ModelState, version: VersionState, state: State, error: str = "") -> None:
        """Changes a version's state, publishes and announces it: for AVAILABLE after the swap that makes it true, for
        UNLOADING before the swap that ends it."""
        if version.state is state and version.error == error and state is not State.AVAILABLE:
            return
        version.move(state, error, self._wall_clock())
        self._publish(model)
        self.published.announce(version.id)

    def _note(self, model: ModelState, version: VersionState, error: str) -> None:
        """Says of an available version what is wrong with its files on disk; "" for nothing."""
        if version.error != error and version.state is State.AVAILABLE:
            self._move(model, version, State.AVAILABLE, error)

    def _publish(self, model: ModelState) -> None:
        name = model.name
        status = model.status(self.wanted(name), self.overrides.of(name), persistent=self.overrides.persistent)
        brought = self.observed.load_overrides.shown(name)
        self.published.publish(replace(status, overrides=(*status.overrides, *brought)) if brought else status)

    def _end_if_done(self, model: ModelState, version: VersionState) -> None:
        if version.ended and (
            version.state is State.UNLOADING
            or (version.state is State.LOADING and version.id.version not in self.decide(model.name).wanted)
        ):
            self._move(model, version, State.END, version.error)

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
        for known in (self._gone, self.models, self._desired):
            known.pop(name, None)
        self.published.forget(name)

    # What operations change

    def change_overrides(self, name: str, overrides: ModelOverrides) -> None:
        """Replaces the operators' overrides for a model. Raises OverridesError, and then nothing has changed."""
        self.overrides.change(name, overrides)
        self.touch(name)

    def take_from_disk(self, name: str) -> None:
        """Explicit mode: looks at the disk anew for this model; between loads it counts as unchanged."""
        fresh = self.observed.fresh(name)
        if fresh is not None:
            model = self.models[name]
            model.frozen = fresh.frozen
            model.adopt(fresh.disk)
        self.touch(name)

    def let_go(self, name: str) -> None:
        """Explicit mode: the model is not held as an operator loaded it any more."""
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
        """Puts settings or files that came with a load in force; None: the model's own count again. Those before may
        come back, see `restore`."""
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

    def restore(self, before: Checkpoint) -> None:
        """Puts a model back to what it was at the checkpoint. When the overrides cannot be written they stay."""
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
            model.forget_failures()
        self._observed(self.observed.again(self.models, self.overrides))
        self.touch(name)

    # Small parts

    def _version(self, id: ServableId) -> VersionState | None:  # noqa: A002
        model = self.models.get(id.name)
        return model.versions.get(id.version) if model is not None else None

    def _loading(self, id: ServableId, generation: int) -> tuple[ModelState, VersionState, Loading]:  # noqa: A002
        """The load under way that an event is about: a version is kept while it loads."""
        model = self.models[id.name]
        version = model.versions[id.version]
        loading = version.loading
        assert loading is not None
        assert loading.generation == generation
        return model, version, loading

    def _log(self, level: int, what: str, version: VersionState, generation: int, **fields: Any) -> None:
        event(log, level, what, model=version.id.name, version=version.id.version, generation=generation, **fields)


def _serves(version: VersionState, generation: int) -> bool:
    return version.servable is not None and version.servable.generation == generation
