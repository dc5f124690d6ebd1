"""What happens to one version: it is loaded, put into service, loses its worker process, is unloaded and closed.

Actions come from the reconciler; results of the load pool, of closing and of the activation barrier come as events.
Both change the version's state, which is then published and announced.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.load_runner import LoadRunner
from inferd.server.lifecycle.loading.unloader import Unloader
from inferd.server.lifecycle.published_state import PublishedState, served
from inferd.server.lifecycle.reconcile import events
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff, LoadFailure, Loss
from inferd.server.lifecycle.reconcile.decisions import Decisions
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.reconcile.model_state import Content, Loading, ModelState, ServableFacts, VersionState
from inferd.server.lifecycle.reconcile.next_action import (
    Action,
    Announce,
    CancelLoad,
    ForgetDifference,
    HashFiles,
    KeepLoad,
    LoadVersion,
    ShowWaiting,
    UnloadVersion,
)
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId, State
from inferd.server.observability.events import event, get

log = get("lifecycle")

_STABLE = 60.0  # seconds of service after which the loss of a worker process counts as the first in a row again
_LONGEST_NOTES = 1000  # characters of a log line
_MARGIN = 1.25  # of the last load's duration: what callers are told to wait until a lost worker is replaced


class VersionTransitions:
    """Carries out actions and handles events that concern one version. The manager's thread only.

    It is the only writer of `PublishedState` and of what `VersionState` says of loads and servables; the reconciler
    writes what is on disk and what is desired.

    touched    models for which an event may have changed what is to be done; the reconciler takes them out
    """

    def __init__(
        self,
        decisions: Decisions,
        runner: LoadRunner,
        unloader: Unloader,
        published: PublishedState,
        mailbox: Mailbox,
        *,
        backoff: Backoff,
        barrier: ActivationBarrier | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`barrier` None: a loaded version serves at once. `backoff`: pauses between tries."""
        self.touched: set[str] = set()
        self._decisions = decisions
        self._models: Mapping[str, ModelState] = decisions.models
        self._runner = runner
        self._unloader = unloader
        self._published = published
        self._mailbox = mailbox
        self._barrier = barrier
        self._backoff = backoff
        self._clock = clock
        self._wall_clock = wall_clock
        self._generation = 0  # of the last load
        self._closing: set[int] = set()  # generations

    # Events

    def handle(self, happened: events.VersionEvent) -> None:
        """Takes an event about one version into account. One that comes too late changes nothing."""
        id, generation = happened.id, happened.generation  # noqa: A001
        match happened:
            case events.LoadSucceeded():
                self._on_loaded(id, generation, happened.servable)
            case events.LoadFailed():
                self._on_load_failed(id, generation, happened.reason, held_back=happened.held_back)
            case events.LoadAborted():
                model, version, _ = self._loading(id, generation)
                self._aborted(model, version, happened.reason)
            case events.BarrierAnswered():
                self._on_barrier(id, generation, happened.refusal)
            case events.BarrierWithdrawn():
                self._on_barrier(id, generation, None, withdrawn=happened.reason)
            case events.WorkerLost():
                self._on_worker_lost(id, generation, happened.reason)
            case events.ServableDrained():
                self._close(id, generation)
            case events.ServableClosed():
                self._on_closed(id, generation)
            case events.ServedFilesHashed():
                self._on_served_hashed(happened)
            case events.DiskFilesHashed():
                self._on_disk_hashed(happened)
            case _:
                raise TypeError(f"no event of a version: {happened!r}")

    def _on_loaded(self, id: ServableId, generation: int, servable: Servable) -> None:  # noqa: A002
        model, version, loading = self._loading(id, generation)
        if self._barrier is None:
            self._activate(model, version, loading, servable)
            return

        def answered(refusal: str | None) -> None:
            self._mailbox.post(events.BarrierAnswered(id, generation, refusal))

        loading.servable = servable
        loading.withdraw = self._barrier.loaded(id, loading.content, answered)
        if loading.cancellation():
            self._withdraw(version, loading, loading.cancellation.reason)

    def _withdraw(self, version: VersionState, loading: Loading, reason: str) -> None:
        """Takes the question to the barrier back. That stands, even if the version is wanted again before the event is
        handled."""
        if loading.withdraw is not None:
            loading.withdraw()
            loading.withdraw = None
            self._mailbox.post(events.BarrierWithdrawn(version.id, loading.generation, reason))

    def _on_barrier(self, id: ServableId, generation: int, refusal: str | None, withdrawn: str = "") -> None:  # noqa: A002
        found = self._version(id)
        loading = found.loading if found is not None else None
        if loading is None or loading.generation != generation or loading.servable is None:
            return  # answered or withdrawn before
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

    def _on_load_failed(self, id: ServableId, generation: int, reason: str, *, held_back: bool) -> None:  # noqa: A002
        model, version, loading = self._loading(id, generation)
        if self._barrier is not None:
            self._barrier.failed(id, loading.content, reason)
        self._failed(model, version, loading, reason, held_back=held_back)

    def _activate(self, model: ModelState, version: VersionState, loading: Loading, servable: Servable) -> None:
        """Puts what was loaded into service, unless it is not wanted any more."""
        version.loading = None
        self.touched.add(model.name)
        held_back = self._decisions.obstacle(model, servable) is not None
        if held_back and version.state is State.LOADING:
            self._move(model, version, State.START)
        if held_back or version.id.version not in self._decisions.desired(model).wanted:
            self._log(logging.INFO, "version loaded but no longer wanted", version, loading.generation)
            self._end(version, servable)
            return
        old = version.servable
        version.servable, version.facts = servable, ServableFacts.of(servable)
        version.content, version.digest, version.differs = loading.content, None, None
        version.failure = version.lost = None
        version.aborted = ""
        version.insisted = False
        version.available_at = self._clock()
        self.swap(model)
        self._move(model, version, State.AVAILABLE)
        if servable.worker is not None:
            servable.worker.on_lost(partial(self._report_lost, version.id, servable.generation))
        seconds = round(servable.load_seconds, 3)
        notes = "; ".join(servable.notes)[:_LONGEST_NOTES] or None
        self._log(logging.INFO, "version available", version, loading.generation, seconds=seconds, notes=notes)
        if old is not None:
            self._retire(version, old)
        if version.disk is not None:
            self._runner.hash_served(version.id, servable.generation, version.disk, loading.content.tree)

    def _failed(
        self, model: ModelState, version: VersionState, loading: Loading, reason: str, *, held_back: bool = False
    ) -> None:
        before = version.failure
        tries = before.tries + 1 if before is not None and before.content == loading.content else 1
        delay = math.inf if held_back else self._backoff.delay(tries)
        version.aborted = ""
        version.failure = LoadFailure(loading.content, reason, tries, self._clock() + delay, self._wall_clock() + delay)
        self._log(
            logging.WARNING if tries == 1 else logging.DEBUG,  # the same failure again and again is no news
            "version not loaded", version, loading.generation,
            reason=reason, tries=tries, next_in="never" if held_back else delay,
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
        self.touched.add(model.name)
        if version.servable is not None:
            if reason is not None:
                what = "files on disk differ" if version.lost is None else f"its worker process {version.lost.reason}"
                self._note(model, version, f"{what}: {reason}")
        elif version.state is State.LOADING:
            error = reason or version.error
            self._move(model, version, State.FAILED if error else State.START, error)
        self._end_if_done(model, version)

    def _report_lost(self, id: ServableId, generation: int, reason: str) -> None:  # noqa: A002
        """Any thread."""
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
        model = self._models[id.name]
        self.touched.add(id.name)
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
        self.touched.add(id.name)
        self._log(logging.INFO, "version closed", version, generation)
        self._end_if_done(self._models[id.name], version)

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
        self.touched.add(hashed.id.name)
        if not _serves(version, hashed.generation) or version.content is None:
            return
        if hashed.digest is not None and hashed.digest == version.digest:
            event(log, logging.DEBUG, "files touched, not changed", model=hashed.id.name, version=hashed.id.version)
            version.content = Content(hashed.tree, version.content.settings)
        else:
            version.differs = hashed.tree

    # Actions

    def carry_out(self, model: ModelState, action: Action) -> None:
        """Does what an action says. Does not wait for results: they come as events."""
        version = model.versions[action.version]
        match action:
            case LoadVersion():
                self._load(model, version)
            case UnloadVersion():
                self._unload(model, version)
            case Announce(_, state, error):
                if state is State.FAILED and (version.state, version.error) != (state, error):
                    what = "version cannot be served"
                    event(log, logging.WARNING, what, model=model.name, version=version.id.version, reason=error)
                self._move(model, version, state, error)
            case KeepLoad() if version.loading is not None:
                version.loading.cancellation.take_back()
            case CancelLoad(_, reason) if version.loading is not None:
                version.loading.cancellation.cancel(reason)
                self._withdraw(version, version.loading, reason)
            case ShowWaiting(_, reason):
                version.waiting = reason
            case HashFiles() if version.servable is not None and version.disk is not None:
                tree = version.hashing = version.disk.tree
                self._runner.hash_on_disk(version.id, version.servable.generation, version.disk, tree)
            case ForgetDifference():
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
            version.insisted = False
        loading = version.loading = Loading(self._generation, content)
        overrides = self._decisions.overrides.of(model.name)
        number = version.id.version
        insisted = version.insisted or number in overrides.versions("loaded") or number == overrides.pin
        request = LoadRequest(version.id, self._generation, version.disk, model.config, model.disk.notes, insisted)
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
        self.swap(model)
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
        for model in self._models.values():
            for version in model.versions.values():
                for generation in list(version.ending):
                    self._close(version.id, generation)

    # Publishing

    def swap(self, model: ModelState) -> None:
        """Puts what is available of a model into the serving map."""
        want = model.want
        self._published.swap(model.name, served(model.available(), want.preferred, want.labels))

    def _move(self, model: ModelState, version: VersionState, state: State, error: str = "") -> None:
        """Changes a version's state, publishes and announces it: for AVAILABLE after the swap that makes it true, for
        UNLOADING before the swap that ends it."""
        if version.state is state and version.error == error and state is not State.AVAILABLE:
            return
        version.move(state, error, self._wall_clock())
        self.publish(model)
        self._published.announce(version.id)

    def _note(self, model: ModelState, version: VersionState, error: str) -> None:
        """Publishes what is wrong with the files or the process of an available version; "" for nothing."""
        if version.error != error and version.state is State.AVAILABLE:
            self._move(model, version, State.AVAILABLE, error)

    def publish(self, model: ModelState) -> None:
        """Publishes the status of a model."""
        overrides = self._decisions.overrides
        status = model.status(overrides.of(model.name), persistent=overrides.persistent)
        load_overrides = self._decisions.observed.load_overrides.shown(model.name)
        if load_overrides:
            status = replace(status, overrides=(*status.overrides, *load_overrides))
        self._published.publish(status)

    def _end_if_done(self, model: ModelState, version: VersionState) -> None:
        if version.ended and (
            version.state is State.UNLOADING
            or (version.state is State.LOADING and version.id.version not in self._decisions.desired(model).wanted)
        ):
            self._move(model, version, State.END, version.error)

    # Small parts

    def _version(self, id: ServableId) -> VersionState | None:  # noqa: A002
        model = self._models.get(id.name)
        return model.versions.get(id.version) if model is not None else None

    def _loading(self, id: ServableId, generation: int) -> tuple[ModelState, VersionState, Loading]:  # noqa: A002
        """The load under way that an event is about: a version is kept while it loads."""
        model = self._models[id.name]
        version = model.versions[id.version]
        loading = version.loading
        assert loading is not None
        assert loading.generation == generation
        return model, version, loading

    def _log(self, level: int, what: str, version: VersionState, generation: int, **fields: Any) -> None:
        event(log, level, what, model=version.id.name, version=version.id.version, generation=generation, **fields)


def _serves(version: VersionState, generation: int) -> bool:
    return version.servable is not None and version.servable.generation == generation
