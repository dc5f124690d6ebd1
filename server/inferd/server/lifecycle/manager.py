"""The Manager: the one door to what is served. Readers take handles without a lock; everything else happens on its
thread.

source lists the disk → mailbox (latest listing wins) → Reconciler decides → load pool → swap → state change announced
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
from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.pool import LoadPool, PoolLike, spawn
from inferd.server.lifecycle.operations.admin_operations import AdminOperations
from inferd.server.lifecycle.operations.commands import Commands
from inferd.server.lifecycle.operations.load_overrides import OverrideReader, Replacement
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides
from inferd.server.lifecycle.readiness import Readiness
from inferd.server.lifecycle.ready_moment import ReadyMoment
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.refusals import refusal, unknown_model
from inferd.server.lifecycle.servable import Servable, ServableHandle
from inferd.server.lifecycle.state import ModelStatus, StateChange
from inferd.server.lifecycle.state_events import Events
from inferd.server.observability.events import event, get
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels
from inferd.server.repository.disk import Listing
from inferd.server.repository.source import SourceLike

log = get("lifecycle")

_CLOSING = 10.0  # seconds that closing may take after the grace is over


class Manager:
    """What is served, and how it changes. Every method may be called from any thread, except where it says otherwise.

    `source`, `loader` and the rest of the keywords are parts that tests replace; `assemble.build_manager` puts in the
    real ones.
    """

    def __init__(
        self,
        config: ServerConfig,
        source: SourceLike,
        loader: LoaderLike,
        *,
        named: ConfiguredModels | None = None,
        substitution: OverrideReader | None = None,
        overrides: Overrides | None = None,
        admission: ActivationBarrier | None = None,
        pool: PoolLike | None = None,
        spawn: Callable[[str, Callable[[], None]], None] = spawn,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises OverridesError when the state directory holds wishes that cannot be read."""
        explicit = config.repository.mode == "explicit"
        self._config = config
        self._source = source
        self._loader = loader
        self._named = named or ConfiguredModels()
        self._substitution = substitution
        self._pool = pool or LoadPool(config.load.threads)
        self._spawn = spawn
        self._clock = clock
        self._wall_clock = wall_clock
        self._events = Events()
        self._mailbox = Mailbox()
        overrides = overrides or Overrides.of_config(config.server)
        self._conductor = Reconciler(
            loader,
            self._pool,
            overrides,
            self._events,
            post=self._mailbox.post,
            spawn=spawn,
            explicit=explicit,
            load_at_start=tuple(config.repository.load),
            backoff=Backoff(config.load.retry_min, config.load.retry_max),
            admission=admission,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._board = self._conductor.board
        # Long enough for whatever settles at all; what changes for ever is not waited for.
        patience = 2 * config.repository.settle + config.repository.poll
        self._commands = Commands(
            self._conductor, explicit=explicit, patience=patience, clock=clock, wall_clock=wall_clock,
            discreet=config.auth.enabled,
        )  # fmt: skip
        self._readiness = Readiness(config.server.readiness, patience)
        # Where all models live in processes of their own, the server's would only grow by the frameworks.
        self._preload_names = config.server.preload if config.isolation == "none" else ()
        self._preloading = bool(self._preload_names)
        self._moment = ReadyMoment()
        self._life = threading.Lock()
        self._stop_asked = False
        self._stopping = False
        self._deadline: float | None = None  # when the grace of `stop` ends
        self._stopped = threading.Event()
        self._operators = AdminOperations(
            self._commands, self._named, substitution, scan=source.request_scan, post=self._mailbox.post, spawn=spawn,
            stopping=lambda: self._stopping, clock=clock, wall_clock=wall_clock,
        )  # fmt: skip
        self._thread: threading.Thread | None = None

    # Requests

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> ServableHandle:
        """Holds on to what serves this model, version or label. Release the handle.

        Takes no lock. Raises NotFound (unknown, unloaded, removed), Unavailable (loading, unloading, shutting down),
        Conflict (failed to load) or InvalidRequest (both version and label).
        """
        while True:
            entry = self._board.serving.get(name)
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
            scanned = self._conductor.intake.listing is not None
            raise refusal(
                self._board.statuses, name, version, label, scanned=scanned, discreet=self._config.auth.enabled
            )

    def serving(self, name: str, version: int | None = None, label: str | None = None) -> Servable | None:
        """What serves this model, version or label, None where that takes more than a look. Nothing holds on to it: it
        may be drained and closed at any moment, so it is for who can tell when that has happened."""
        entry = self._board.serving.get(name)
        if entry is None:
            return None
        if version is None:
            return entry.default if label is None else entry.labels.get(label)
        return entry.versions.get(version) if label is None else None

    # The picture

    def models(self) -> tuple[ModelStatus, ...]:
        """Every model that is on disk or was, by name."""
        statuses = self._board.statuses
        return tuple(statuses[name] for name in sorted(statuses))

    def status(self, name: str) -> ModelStatus:
        """One model. Raises NotFound."""
        statuses = self._board.statuses
        found = statuses.get(name)
        if found is None:
            raise unknown_model(statuses, name, discreet=self._config.auth.enabled)
        return found

    def repository_errors(self) -> tuple[str, ...]:
        """What is wrong with the repository roots themselves."""
        listing = self._conductor.intake.listing
        return listing.errors if listing is not None else ()

    def subscribe(self, listener: Callable[[StateChange], None]) -> Callable[[], None]:
        """Calls `listener` on the manager's thread with every change, in order. Gives the function that ends it."""
        return self._events.subscribe(listener)

    @property
    def persistent(self) -> bool:
        """Whether operators' wishes outlive the process."""
        return self._conductor.overrides.persistent

    # Readiness

    def ready(self) -> bool:
        """Whether the server has become ready and is not shutting down."""
        return self._moment.come and not self._stopping

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the server is ready. False when it is not within `timeout` seconds, or shuts down."""
        self._moment.wait(timeout)
        return self.ready()

    def on_ready(self, listener: Callable[[], None]) -> None:
        """Calls `listener` once, when the server becomes ready: on the manager's thread, or at once if it is ready."""
        self._moment.then(listener)

    # operators

    def load(
        self, name: str, version: int | None = None, *, by: str, replacement: Replacement | None = None
    ) -> Future[ModelStatus]:
        """Loads a model (what its policy wants) or one version; lifts unloads and the pin.

        The future has the status when it serves what is on disk, or raises: NotFound, Conflict (it failed, and is tried
        again), Unavailable (held back, shutting down). Cancel the future to stop waiting; the wish stays.

        A `replacement` takes the place of the model's settings, and of its directory when it has files, until the model
        is loaded without one or unloaded. When it fails everything is as it was; then also: InvalidRequest,
        Overloaded (no room for the files).
        """
        if replacement is not None:
            return self._operators.load_with(name, replacement, by)
        return self._operators.load(name, version, by)

    def unload(self, name: str, version: int | None = None, *, by: str) -> Future[ModelStatus]:
        """Takes a model or one version out of service until it is loaded again. Done when its last request is
        answered."""
        return self._operators.ask(name, lambda: self._commands.unload(name, version, by))

    def set_label(self, name: str, label: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        """Points a label to an available version, or removes it (None). Raises Conflict for one that is not
        available."""
        return self._operators.ask(name, lambda: self._commands.set_label(name, label, version, by))

    def rollback(self, name: str, to: int | None = None, *, by: str) -> Future[ModelStatus]:
        """Pins `to`, or the newest version below the one served now. Done when it serves; `load` lifts the pin."""
        return self._operators.ask(name, lambda: self._commands.rollback(name, to, by))

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]:
        """The models that are named one by one, as last asked for."""
        return self._named.current

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], *, by: str
    ) -> tuple[Future[ModelStatus], ...]:
        """Serves these in the place of all named models so far; models in the roots are not touched.

        One future per model that is new, asked for differently or removed: as of `load`, or done when it is unloaded.
        What cannot be loaded stays asked for. Operators' overrides of the models that change are dropped.
        """
        return self._operators.replace_configured_models(models, by)

    def adopt_overrides(self, name: str, wishes: ModelOverrides) -> None:
        """Takes over the wishes for a model that somebody else keeps."""
        self._mailbox.post(partial(self._commands.adopt, name, wishes))

    # Life

    def start(self) -> None:
        """Starts the source and the manager's thread. Loads happen in the background. After a stop nothing happens."""
        with self._life:
            if self._stop_asked:
                return
            if self._substitution is not None:
                self._substitution.uploads.clean()
            if self._preloading:
                self._pool.submit("preload", self._preload)
            self._thread = threading.Thread(target=self._run, name="inferd-manager", daemon=True)
            self._thread.start()
            self._source.start(self.deliver)

    def stop(self, grace: float) -> None:
        """Stops looking, serving and loading: handles that are out have `grace` seconds, then what they hold is closed
        anyway.

        Returns when every instance is closed (or cannot be). Later calls wait for the first. Not on its own thread.
        """
        if self.begin_stop(grace) and self._thread is None:
            self._run()  # there is nobody else to do it
        self._stopped.wait(grace + _CLOSING + 5)
        if self._substitution is not None:
            self._substitution.uploads.close()

    def begin_stop(self, grace: float) -> bool:
        """What `stop` does before it waits. Whether this call was the first."""
        with self._life:
            first, self._stop_asked = not self._stop_asked, True
        if first:
            self._source.stop()
            self._deadline = self._clock() + grace
            self._stopping = True
            self._moment.give_up()
            self._mailbox.post(self._pool.stop)
            self._mailbox.post(self._conductor.stop)
        return first

    def deliver(self, listing: Listing) -> None:
        """The source's way in. The latest listing wins: one that was not yet looked at is replaced."""
        self._mailbox.deliver(listing)

    def turn(self) -> float | None:
        """One round: takes in what has come, decides, acts, answers. Gives the seconds until the next one is due, None
        for none. For the manager's thread, and for tests that step it."""
        listing = self._mailbox.take_listing()
        if listing is not None and not self._stopping:
            self._conductor.intake.adopt(listing)
        self._mailbox.run_jobs()
        self._commands.stop() if self._stopping else self._commands.begin()
        self._conductor.act()
        now = self._clock()
        if self._conductor.intake.listing is not None:
            self._readiness.first_listing(self._conductor.intake.listing, self._conductor.wanted, now)
        if not self._preloading and not self._stopping and self._readiness.check(self._conductor.records, now):
            event(log, logging.INFO, "ready", models=len(self._board.serving))
            self._moment.comes()
        self._commands.finish()
        self._remove_uploads()
        times = [time for time in (self._conductor.due, self._readiness.due(now), self._deadline) if time is not None]
        if not self._mailbox.empty:
            return 0.0
        return max(0.0, min(times) - self._clock()) if times else None

    def _remove_uploads(self) -> None:
        for directory in self._conductor.intake.substitutes.unused(self._conductor.records):
            assert self._substitution is not None
            self._spawn("inferd-upload-gone", partial(self._substitution.uploads.remove, directory))

    def _run(self) -> None:
        while True:
            self._mailbox.begin()
            try:
                wait = self.turn()
            except Exception as error:
                event(log, logging.ERROR, "the manager failed at something and goes on", error=error)
                wait = 1.0
            if self._stopping and self._deadline is not None:
                late = self._clock() - self._deadline
                if late > _CLOSING or (self._conductor.idle and self._mailbox.close_if_done()):
                    break
                if late >= 0:
                    self._conductor.close_all()
                    wait = 0.1
            self._mailbox.wait(wait)
        self._mailbox.end()
        self._commands.stop()  # nothing is done any more: whoever still waits is told so
        self._stopped.set()

    def _preload(self) -> None:
        self._loader.preload(self._preload_names)

        def done() -> None:
            self._preloading = False

        self._mailbox.post(done)
