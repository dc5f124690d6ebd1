"""The Reconciler: the one writer of what is served. Takes in what the disk, the loads and the operators say, and acts.

Everything here runs on one thread, the manager's (or a test's). It never blocks: loads and hashes go to the load pool,
closing to threads of its own, and their results come back through `post` as functions to be run here.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from inferd.server.lifecycle.ensemble.definition import Obstacle, composing, held_by, obstacle
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.loads import Loads
from inferd.server.lifecycle.loading.pool import PoolLike
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.published_state import PublishedState
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff, Loss
from inferd.server.lifecycle.reconcile.desired import Desired, desired
from inferd.server.lifecycle.reconcile.fingerprints import Fingerprints
from inferd.server.lifecycle.reconcile.mailbox import Post
from inferd.server.lifecycle.reconcile.model_error_backoff import ModelErrorBackoff
from inferd.server.lifecycle.reconcile.model_state import Loading, ModelState, Told, VersionState
from inferd.server.lifecycle.reconcile.observed_state import ObservedState
from inferd.server.lifecycle.reconcile.transition_policy import (
    LoadVersion,
    UnloadVersion,
    VersionPhase,
    VersionSnapshot,
    next_action,
)
from inferd.server.lifecycle.reconcile.unloader import Unloader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import State
from inferd.server.lifecycle.state_events import Events
from inferd.server.observability.events import event, get

log = get("lifecycle")

_STABLE = 60.0  # seconds after which the loss of a worker process is the first in a row again
_MARGIN = 1.25  # of the last load: what callers are told to wait until a lost worker is replaced
_GONE_MODELS = 64  # models no longer on disk whose history is still told


class Reconciler:
    """See above. What others may read, from any thread, is on the `board`."""

    def __init__(
        self,
        loader: LoaderLike,
        pool: PoolLike,
        overrides: Overrides,
        events: Events,
        *,
        post: Post,
        spawn: Callable[[str, Callable[[], None]], None],
        explicit: bool = False,
        load_at_start: tuple[str, ...] = (),
        backoff: Backoff | None = None,
        admission: ActivationBarrier | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.records: dict[str, ModelState] = {}
        self.intake = ObservedState(self.records, overrides, self.touch, explicit=explicit, load_at_start=load_at_start)
        self.board = PublishedState(overrides, events, self.wanted, wall_clock, self.intake.substitutes.shown)
        self.overrides = overrides
        self._fingerprints = Fingerprints(pool, post, self.board, self.touch)
        self._post = post
        self._closer = Unloader(loader, post, spawn, self._closed)
        self._backoff = backoff or Backoff()
        self._stumbles = ModelErrorBackoff(self._backoff, clock)
        self._loads = Loads(
            loader, pool, self._closer, admission, post=post, loaded=self._loaded, ended=self._not_loaded,
            backoff=self._backoff, clock=clock, wall_clock=wall_clock,
        )  # fmt: skip
        self._clock = clock
        self._generation = 0
        self._stopping = False
        self._acted_at = 0.0
        self._desired: dict[str, Desired] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._dirty: set[str] = set()

    # What comes in

    def touch(self, name: str) -> None:
        """Marks a model for the next decision."""
        self._dirty.add(name)

    def stop(self) -> None:
        """Everything is to go; nothing is loaded any more."""
        self._stopping = True
        self._dirty.update(self.records)

    # What is done

    def act(self) -> None:
        """Decides and acts until nothing is left to do now, then publishes. Looks at models that something happened
        to, and then at the ensembles that they are in. What goes wrong at one of them stops at it."""
        now = self._acted_at = self._clock()
        self._dirty.update(self._stumbles.due(now))
        for name, model in self.records.items():
            if any(time <= now for record in model.versions.values() for time in record.next_times):
                self._dirty.add(name)
        holders = {name: parts for name, model in self.records.items() if (parts := held_by(model))}
        dirty = {name for name in self._dirty if name in self.records}
        self._dirty.clear()
        for _ in range(1 + len(holders)):  # ensembles may be in ensembles, but not deeper than there are any
            self._stumbles.each(sorted(dirty), lambda name: self._act(self.records[name]))
            self._prune(sorted(dirty))
            left = [name for name in dirty if name in self.records]
            self._stumbles.each(left, lambda name: self.board.publish({name: self.records[name]}))
            dirty = {name for name, parts in holders.items() if name in self.records and not dirty.isdisjoint(parts)}
            if not dirty:
                break

    @property
    def due(self) -> float | None:
        """Monotonic time of the next retry, None when there is none."""
        times = [
            time
            for name, model in self.records.items()
            for number, record in model.versions.items()
            for time in record.next_times
            if record.loading is None
            and time > self._acted_at  # older ones had their chance: something else holds them back
            and number in self.wanted(name).wanted
        ]
        return min((*times, *self._stumbles.times), default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing is served or being closed."""
        return not any(model.in_use for model in self.records.values())

    def wanted(self, name: str) -> Desired:
        """What is wanted of a model, as of the last decision."""
        return self._desired.get(name, Desired())

    def decide(self, name: str) -> Desired:
        """What is wanted of a model now, with the wishes as they are now; nothing is done about it yet."""
        return self._want(self.records[name])

    def _want(self, model: ModelState) -> Desired:
        if self._stopping:
            everything = frozenset(model.versions)
            return Desired(forced=everything)
        if model.config is None:
            return Desired()
        readable = model.disk is not None and model.disk.config is not None
        candidates = {
            number
            for number, record in model.versions.items()
            if record.disk is not None and (record.servable is not None or (readable and record.disk.ready))
        }
        failed = {
            number
            for number in candidates
            if model.versions[number].servable is None and model.versions[number].has_failed(model.settings)
        }
        by_default = self.intake.served_by_default(model)
        wishes = self.overrides.of(model.name)
        return desired(model.config, wishes, candidates, failed, served_by_default=by_default, settling=model.settling)

    def _obstacle(self, model: ModelState, served: Servable | None) -> Obstacle | None:
        """What keeps an ensemble from being served; None for every other model."""
        if not composing(model) or self._stopping:
            return None
        return obstacle(model, served, self.records, self.board.serving)

    def _hold_back(self, model: ModelState, record: VersionState, obstacle: Obstacle | None) -> None:
        record.waiting = obstacle.reason if obstacle is not None and obstacle.passing else ""
        if obstacle is None:
            return
        if record.loading is not None:
            record.loading.cancel(obstacle.reason)
        elif record.state is State.START:
            self.board.move(model, record, State.START, "" if obstacle.passing else obstacle.reason)

    def _act(self, model: ModelState) -> None:
        want = self._desired[model.name] = self._want(model)
        obstacles = {number: self._obstacle(model, record.servable) for number, record in model.versions.items()}
        settings = model.settings if model.disk is not None and model.disk.config is not None else None
        transition = model.config.transition if model.config is not None else "availability"
        for number, record in model.versions.items():
            if number in want.wanted:
                if record.state in (None, State.END) or (record.state is State.UNLOADING and record.servable is None):
                    self.board.move(model, record, State.START)
                if record.loading is not None:
                    # What is being loaded may be overtaken by other content; then it is dropped at its next step.
                    content = record.on_disk(model.settings)
                    record.loading.cancellation.take_back()
                    if content is not None and content != record.loading.content:
                        record.loading.cancel(f"{content.news(record.loading.content)} have changed")
                self._hold_back(model, record, obstacles[number])
            elif record.loading is not None:
                why = model.why_not(number, self.overrides.of(model.name), asked=want.asked)
                record.loading.cancel("the server is shutting down" if self._stopping else why)
                if record.state is State.LOADING and self._stopping:
                    self.board.move(model, record, State.END)
            elif record.state is State.START and not (record.disk is not None and record.disk.held):
                self.board.move(model, record, State.END, record.error)
        while True:
            now = self._clock()
            snapshots = [
                VersionSnapshot(
                    number,
                    VersionPhase.IDLE if obstacles[number] and not record.loaded else record.phase(settings, now),
                    number in want.wanted,
                    forced=number in want.forced or obstacles[number] is not None,
                    draining=bool(record.ending),
                )
                for number, record in model.versions.items()
            ]
            action = next_action("availability" if self._stopping else transition, snapshots, awaited=want.awaited)
            match action:
                case LoadVersion(version):
                    self._load(model, model.versions[version])
                case UnloadVersion(version):
                    self._unload(model, model.versions[version])
                case None:
                    break
        if settings is not None and not self._stopping:
            for record in model.versions.values():
                self._fingerprints.compare(model, record, settings)
        self.board.swap(model)

    def _load(self, model: ModelState, record: VersionState) -> None:
        assert record.disk is not None
        assert model.config is not None
        assert model.disk is not None
        content = record.on_disk(model.settings)
        assert content is not None
        self._generation += 1
        if record.failure is not None and record.failure.content != content:
            record.failure = None  # new content starts with no tries
        loading = record.loading = Loading(self._generation, content)
        request = LoadRequest(record.id, self._generation, record.disk, model.config, model.disk.notes)
        if record.servable is None:
            self.board.move(model, record, State.LOADING, "" if model.config.ensemble else record.error)
        self._say(logging.INFO, "version loading", record, loading.generation)
        self._loads.start(model, record, request, loading)

    def _loaded(self, model: ModelState, record: VersionState, loading: Loading, servable: Servable) -> None:
        record.loading = None
        self.touch(model.name)
        held_back = self._obstacle(model, servable) is not None
        if held_back and record.state is State.LOADING:
            self.board.move(model, record, State.START)
        if held_back or record.id.version not in self._want(model).wanted:
            self._say(logging.INFO, "version loaded but no longer wanted", record, loading.generation)
            self._closer.end(model, record, servable)
            return
        old = record.servable
        record.servable, record.told = servable, Told.of(servable)
        record.content, record.digest, record.differs = loading.content, None, None
        record.failure = record.lost = None
        record.cut = ""
        record.available_at = self._clock()
        self.board.swap(model)
        self.board.move(model, record, State.AVAILABLE)
        if servable.worker is not None:
            servable.worker.on_lost(partial(self._tell_lost, model, record, servable))
        self._say(
            logging.INFO, "version available", record, loading.generation, seconds=round(servable.load_seconds, 3)
        )
        if old is not None:
            self._closer.retire(model, record, old)
        self._fingerprints.remember(model, record)

    def _not_loaded(self, model: ModelState, record: VersionState, loading: Loading, reason: str | None) -> None:
        record.loading = None
        self.touch(model.name)
        if record.servable is not None:
            if reason is not None:
                what = "files on disk differ" if record.lost is None else f"its worker process {record.lost.reason}"
                self.board.note(model, record, f"{what}: {reason}")
        elif record.state is State.LOADING:
            self.board.move(model, record, State.START, reason or record.error)
        self._end_if_done(model, record)

    def _tell_lost(self, model: ModelState, record: VersionState, servable: Servable, reason: str) -> None:
        self._post(partial(self._lost, model, record, servable, reason))

    def _lost(self, model: ModelState, record: VersionState, servable: Servable, reason: str) -> None:
        """The worker process of what is served is gone: another generation is loaded in its place, soon at first. It
        stays in the serving map, where it refuses, for to fall back to another version would be to answer wrongly."""
        if record.servable is not servable or servable.worker is None:
            return
        self.touch(model.name)
        now = self._clock()
        record.losses = record.losses + 1 if now - record.available_at < _STABLE else 1
        record.restarts += 1
        delay = self._backoff.after_loss(record.losses)
        record.lost = Loss(reason, now + delay)
        servable.worker.back_at = now + delay + _MARGIN * servable.load_seconds
        self._say(logging.WARNING, "worker lost", record, servable.generation, reason=reason, next_in=round(delay, 3))
        self.board.move(model, record, State.AVAILABLE, f"its worker process {reason}; another one takes its place")

    def _unload(self, model: ModelState, record: VersionState) -> None:
        servable = record.servable
        assert servable is not None
        self._say(logging.INFO, "version unloading", record, servable.generation)
        # Announced while it still serves, so that nobody sends requests to what has left the map.
        self.board.move(model, record, State.UNLOADING)
        record.servable = None
        record.content = record.digest = record.differs = None
        record.failure = record.lost = None
        self.board.swap(model)
        self._closer.retire(model, record, servable)

    def _closed(self, model: ModelState, record: VersionState, generation: int) -> None:
        self.touch(model.name)
        self._say(logging.INFO, "version closed", record, generation)
        self._end_if_done(model, record)

    def close_all(self) -> None:
        """Closes what still has requests: their grace is over."""
        self._closer.close_all(self.records.values())

    def _end_if_done(self, model: ModelState, record: VersionState) -> None:
        if record.ended and (
            record.state is State.UNLOADING
            or (record.state is State.LOADING and record.id.version not in self._want(model).wanted)
        ):
            self.board.move(model, record, State.END, record.error)

    def _say(self, level: int, what: str, record: VersionState, generation: int, **fields: Any) -> None:
        event(log, level, what, model=record.id.name, version=record.id.version, generation=generation, **fields)

    def _prune(self, names: list[str]) -> None:
        for name in names:
            model = self.records[name]
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
        for known in (self._gone, self.records, self._desired):
            known.pop(name, None)
        self.board.forget(name)
