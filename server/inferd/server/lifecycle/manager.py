"""The manager: requests and operators call it, and its thread changes what is served.

source → mailbox → manager's thread: reconciler → load pool → mailbox → reconciler → serving map swapped → announced
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from inferd.server.config.schema import ServerConfig
from inferd.server.errors import InvalidRequest, Unavailable
from inferd.server.lifecycle.loading.load_runner import LoadRunner
from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.pool import LoadPool, PoolLike, spawn
from inferd.server.lifecycle.loading.unloader import Unloader
from inferd.server.lifecycle.operations.admin_operations import AdminOperations, OperationRequested
from inferd.server.lifecycle.operations.load_overrides import OverrideReader, Replacement
from inferd.server.lifecycle.operations.operation import OperationContext
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides
from inferd.server.lifecycle.operations.rollback import RollbackOperation
from inferd.server.lifecycle.operations.set_label import SetLabelOperation
from inferd.server.lifecycle.operations.unload import UnloadOperation
from inferd.server.lifecycle.published_state import PublishedState
from inferd.server.lifecycle.readiness import Readiness, ReadyMoment, not_served
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.lifecycle.reconcile.events import (
    Event,
    ListingSeen,
    OverridesReplaced,
    PreloadFinished,
    StopRequested,
    TimePassed,
)
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.reconcile.observed_state import ObservedState
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.refusals import refusal, unknown_model
from inferd.server.lifecycle.servable import Servable, ServableHandle
from inferd.server.lifecycle.state import ModelStatus, StateChange
from inferd.server.observability.events import event, get
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels
from inferd.server.repository.disk import Listing
from inferd.server.repository.source import SourceLike

log = get("lifecycle")

_CLOSING = 10.0  # seconds that closing may take after the grace is over


class Manager:
    """Gives requests what is served, and changes it. Thread-safe, except where a method says otherwise.

    `source`, `loader` and the rest of the keywords are parts that tests replace; `assemble.build_manager` puts in the
    real ones.
    """

    def __init__(
        self,
        config: ServerConfig,
        source: SourceLike,
        loader: LoaderLike,
        *,
        configured: ConfiguredModels | None = None,
        override_reader: OverrideReader | None = None,
        overrides: Overrides | None = None,
        barrier: ActivationBarrier | None = None,
        pool: PoolLike | None = None,
        spawn: Callable[[str, Callable[[], None]], None] = spawn,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises OverridesError when the state directory holds overrides that cannot be read."""
        explicit = config.repository.mode == "explicit"
        self._config = config
        self._source = source
        self._loader = loader
        self._configured = configured or ConfiguredModels()
        self._override_reader = override_reader
        self._pool = pool or LoadPool(config.load.threads, forgotten=config.load.timeout)
        self._spawn = spawn
        self._clock = clock
        self._mailbox = Mailbox()
        self._published = PublishedState()
        self._observed = ObservedState(explicit=explicit, load_at_start=tuple(config.repository.load))
        self._overrides = overrides or Overrides.of_config(config.server)
        self._reconciler = Reconciler(
            LoadRunner(loader, self._pool, self._mailbox, timeout=config.load.timeout),
            Unloader(loader, self._mailbox, spawn),
            self._overrides,
            self._observed,
            self._published,
            self._mailbox,
            backoff=Backoff(config.load.retry_min, config.load.retry_max),
            barrier=barrier,
            names_steps=not config.auth.enabled,
            clock=clock,
            wall_clock=wall_clock,
        )
        # Long enough for whatever settles at all; files that change for ever are not waited for.
        patience = 2 * config.repository.settle + config.repository.poll
        self._operations = AdminOperations(
            OperationContext(
                self._reconciler, explicit=explicit, discreet=config.auth.enabled, clock=clock, wall_clock=wall_clock
            ),
            self._configured,
            override_reader,
            source=source,
            mailbox=self._mailbox,
            spawn=spawn,
            patience=patience,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._readiness = Readiness(config.server.readiness, patience)
        self._moment = ReadyMoment()
        # Where every model lives in a process of its own, the server's process would only grow by the frameworks.
        self._preload_names = config.server.preload if config.isolation != "process" else ()
        self._preloading = bool(self._preload_names)
        self._life = threading.Lock()
        self._stop_asked = False
        self._stopping = False
        self._deadline: float | None = None  # when the grace of `stop` ends
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    # Requests

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> ServableHandle:
        """A handle on what serves this model, version or label. The caller releases it.

        Takes no lock. Raises NotFound (unknown, unloaded, removed), Unavailable (loading, unloading, shutting down),
        Conflict (failed to load) or InvalidRequest (both version and label).
        """
        while True:
            entry = self._published.serving.get(name)
            if entry is not None:
                if version is not None:
                    servable = entry.versions.get(version) if label is None else None
                elif label is not None:
                    servable = entry.labels.get(label)
                else:
                    servable = entry.default
                if servable is not None:
                    handle = servable.acquire()
                    if handle is not None:
                        return handle
                    continue  # retired since the look at the map: there is a newer map
            if version is not None and label is not None:
                raise InvalidRequest(f"model {name!r}: expected a version or a label, got both ({version}, {label!r})")
            if self._stopping:
                raise Unavailable("the server is shutting down")
            scanned = self._observed.listing is not None
            raise refusal(
                self._published.statuses, name, version, label, scanned=scanned, discreet=self._config.auth.enabled
            )

    def serving(self, name: str, version: int | None = None, label: str | None = None) -> Servable | None:
        """What serves this model, version or label; None where that takes more than a look. Nothing holds on to it: it
        may be drained and closed at any moment, so it is for callers who can tell when that has happened."""
        entry = self._published.serving.get(name)
        if entry is None:
            return None
        if version is None:
            return entry.default if label is None else entry.labels.get(label)
        return entry.versions.get(version) if label is None else None

    # Statuses

    def models(self) -> tuple[ModelStatus, ...]:
        """Every model that is on disk or was, by name."""
        statuses = self._published.statuses
        return tuple(statuses[name] for name in sorted(statuses))

    def status(self, name: str) -> ModelStatus:
        """One model. Raises NotFound."""
        statuses = self._published.statuses
        found = statuses.get(name)
        if found is None:
            raise unknown_model(statuses, name, discreet=self._config.auth.enabled)
        return found

    def repository_errors(self) -> tuple[str, ...]:
        """What is wrong with the repository's roots, in words."""
        listing = self._observed.listing
        return listing.errors if listing is not None else ()

    def subscribe(self, listener: Callable[[StateChange], None]) -> Callable[[], None]:
        """Calls `listener` on the manager's thread with every change, in order. Gives the function that ends it."""
        return self._published.subscribe(listener)

    @property
    def persistent(self) -> bool:
        """Whether operators' overrides outlive the process."""
        return self._overrides.persistent

    # Readiness

    def ready(self) -> bool:
        """Whether the server has become ready and is not shutting down."""
        return self._moment.come and not self._stopping

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the server is ready. False when it is not within `timeout` seconds, or shuts down."""
        self._moment.wait(timeout)
        return self.ready()

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps the server from being ready, in words. Empty before the repository has been listed once."""
        if self._preloading:
            return ("the frameworks of server.preload",)
        return self._readiness.waiting

    def on_ready(self, listener: Callable[[], None]) -> None:
        """Calls `listener` once, when the server becomes ready: on the manager's thread, or at once if it is ready."""
        self._moment.then(listener)

    # Operators

    def load(
        self, name: str, version: int | None = None, *, by: str, replacement: Replacement | None = None
    ) -> Future[ModelStatus]:
        """Loads a model (what its policy wants) or one version; lifts unloads and the pin.

        The future has the status when the model serves what is on disk, or raises: NotFound, Conflict (it failed, and
        is tried again), Unavailable (held back, shutting down). Cancel the future to stop waiting; the override stays.

        A `replacement` takes the place of the model's settings, and of its directory when it has files, until the model
        is loaded without one or unloaded. When it fails everything is put back; then the future may also raise
        InvalidRequest or Overloaded (no room for the files).
        """
        return self._operations.load(name, version, replacement, by)

    def unload(self, name: str, version: int | None = None, *, by: str) -> Future[ModelStatus]:
        """Takes a model or one version out of service until it is loaded again. Done when its last request is
        answered."""
        return self._operations.ask(UnloadOperation(name, version, by))

    def set_label(self, name: str, label: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        """Points a label to an available version, or removes it (None). Raises Conflict for one that is not
        available."""
        return self._operations.ask(SetLabelOperation(name, label, version, by))

    def rollback(self, name: str, to: int | None = None, *, by: str) -> Future[ModelStatus]:
        """Pins `to`, or the newest version below the one served now. Done when it serves; `load` lifts the pin."""
        return self._operations.ask(RollbackOperation(name, to, by))

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]:
        """The configured models in force, by name."""
        return self._configured.current

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], *, by: str
    ) -> tuple[Future[ModelStatus], ...]:
        """Serves these in the place of all configured models so far; models in the roots are not touched.

        One future for each model that is new, asked for differently or removed: as of `load`, or done when it is
        unloaded. A model that cannot be loaded stays asked for. Operators' overrides about the models that change are
        dropped.
        """
        return self._operations.replace_configured(models, by)

    def adopt_overrides(self, name: str, overrides: ModelOverrides) -> None:
        """Takes over the overrides for a model from the supervisor, which keeps them."""
        self._mailbox.post(OverridesReplaced(name, overrides))

    # Life

    def start(self) -> None:
        """Starts the source and the manager's thread. Loads happen in the background. After a stop nothing happens."""
        with self._life:
            if self._stop_asked:
                return
            if self._override_reader is not None:
                self._override_reader.uploads.clean()
            if self._preloading:
                self._pool.submit("preload", self._preload)
            self._thread = threading.Thread(target=self._run, name="inferd-manager", daemon=True)
            self._thread.start()
            self._source.start(self.deliver)

    def stop(self, grace: float) -> None:
        """Stops looking, serving and loading. Handles that are out have `grace` seconds; then what they hold is closed
        anyway.

        Returns when every instance is closed (or cannot be). Later calls wait for the first. Not for the manager's own
        thread.
        """
        if self.begin_stop(grace) and self._thread is None:
            self._run()  # the thread was never started
        self._stopped.wait(grace + _CLOSING + 5)
        if self._override_reader is not None:
            self._override_reader.uploads.close()

    def begin_stop(self, grace: float) -> bool:
        """What `stop` does before it waits. Whether this call was the first."""
        with self._life:
            first, self._stop_asked = not self._stop_asked, True
        if first:
            self._source.stop()
            self._deadline = self._clock() + grace
            self._stopping = True
            self._operations.refuse()
            self._moment.give_up()
            self._mailbox.post(StopRequested())
        return first

    def deliver(self, listing: Listing) -> None:
        """The source's way in. The latest listing wins: one that was not yet handled is replaced."""
        self._mailbox.post(ListingSeen(listing))

    def turn(self) -> float | None:
        """One round: handles the events, decides, acts, answers operators. Gives the seconds until the next round is
        due, None when nothing is due. For the manager's thread, and for tests that step it."""
        while (happened := self._mailbox.take()) is not None:
            self._handle(happened)
        if self._stopping:
            self._operations.stop()
        else:
            self._operations.begin()
        self._handle(TimePassed(self._clock()))
        self._reconciler.reconcile()
        now = self._clock()
        if self._observed.listing is not None:
            self._readiness.first_listing(self._observed.listing, now)
        if not self._preloading and not self._stopping and self._readiness.check(self._reconciler.models, now):
            missing = not_served(self._published.statuses.values())
            event(log, logging.INFO, "ready", models=len(self._published.serving), not_served=len(missing) or None)
            for name, why in missing.items():
                event(log, logging.WARNING, "not served", model=name, reason=why)
            self._moment.comes()
        self._operations.finish()
        self._remove_uploads()
        times = [time for time in (self._reconciler.due, self._readiness.due(now), self._deadline) if time is not None]
        if not self._mailbox.empty:
            return 0.0
        return max(0.0, min(times) - self._clock()) if times else None

    def _handle(self, happened: Event) -> None:
        """Hands an event to the part that it is for. An error at one event leaves the others alone."""
        try:
            match happened:
                case OperationRequested():
                    self._operations.add(happened)
                case PreloadFinished():
                    self._preloading = False
                case ListingSeen() if self._stopping:
                    pass
                case _:
                    self._reconciler.handle(happened)
        except Exception as error:
            event(log, logging.ERROR, "the manager failed at something and goes on", error=error)

    def _remove_uploads(self) -> None:
        if self._override_reader is not None:
            for directory in self._observed.load_overrides.unused(self._reconciler.models):
                self._spawn("inferd-upload-gone", partial(self._override_reader.uploads.remove, directory))

    def _run(self) -> None:
        while True:
            self._mailbox.prepare_wait()
            try:
                wait = self.turn()
            except Exception as error:
                event(log, logging.ERROR, "the manager failed at something and goes on", error=error)
                wait = 1.0
            if self._stopping and self._deadline is not None:
                late = self._clock() - self._deadline
                if late > _CLOSING or (self._reconciler.idle and self._mailbox.close_if_empty()):
                    break
                if late >= 0:
                    self._reconciler.close_all()
                    wait = 0.1
            self._mailbox.wait(wait)
        self._mailbox.close()
        while (happened := self._mailbox.take()) is not None:
            self._handle(happened)
        self._operations.stop()  # nothing is done any more: operators who still wait get an error
        self._stopped.set()

    def _preload(self) -> None:
        self._loader.preload(self._preload_names)
        self._mailbox.post(PreloadFinished())
