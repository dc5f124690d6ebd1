"""The composition root: the only place that knows every room. Builds everything, starts it in order, stops it in order.

start   ports bind (health says NOT_SERVING) → HTTP → the manager scans and loads → ready
stop    health NOT_SERVING → pre-stop delay → no new calls → drain (grace) → source and manager → instances closed on
        their own threads → HTTP, which answers for metrics until the end
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from inferd.backends.registry import Registry
from inferd.server import __version__
from inferd.server.access.audit import Audit
from inferd.server.access.call_checks import make_call_checks
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.method_rules import SERVICES
from inferd.server.access.tls import TlsFiles, tls_files
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.composition.http_port import HttpPort, make_http_server
from inferd.server.composition.http_routes import Core
from inferd.server.config.schema import ServerConfig, Tls
from inferd.server.errors import ServingError
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpServer
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.assemble import build_manager
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.readiness import unready
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.resources.memory import IdleCollector
from inferd.server.lifecycle.state import ServableId, State, StateChange
from inferd.server.observability.events import event
from inferd.server.observability.metrics import Metrics
from inferd.server.observability.state_metrics import StateMetrics
from inferd.server.protocols.common.health import Health
from inferd.server.protocols.tfs.warmup_records import recorded
from inferd.server.repository.configured_models import fixed_models
from inferd.server.repository.models_file import FollowedFile
from inferd.server.scheduling.inline import InlineLoop
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.transport.listening_sockets import Listeners
from inferd.server.transport.selection import make_transport

if TYPE_CHECKING:
    from inferd.server.workers.worker_agent import WorkerAgent

_log = logging.getLogger("inferd.app")
_AGE_SPREAD = 1.2  # gRPC ends connections at their age, more or less a tenth
_LAST_CALLS = 1.0
_LOOK = 0.05
_TEND = 5.0  # seconds between two looks at what only an idle server does
_NAMED = 5  # models named in the reason for not being ready


@dataclass(frozen=True, slots=True)
class Started:
    """Where the server listens, ports filled in."""

    grpc: tuple[str, ...]
    http: tuple[str, ...]
    metrics: tuple[str, ...] = ()


class App:
    """One server. Made once, started once, stopped once; `start` and `stop` are called by one thread.

    `registry` finds the backends; the default one goes through the entry points.
    """

    def __init__(
        self, config: ServerConfig, registry: Registry | None = None, *, agent: WorkerAgent | None = None
    ) -> None:
        """Binds and starts nothing. Raises ConfigError, OverridesError, or OSError for files of TLS. `agent` is given
        when the app is one of several workers."""
        if agent is None:  # the only process: no other may listen on its ports
            config = config.model_copy(update={"server": config.server.model_copy(update={"workers": 1})})
        self._files = FileWatch(config.auth.poll)
        gate = make_call_checks(config)
        if gate.authority is not None:
            gate.authority.watch(self._files)
        self._config = config
        self._started = Started((), ())
        self._send_final_metrics = agent.send_final_metrics if agent is not None else lambda: None
        self._failed = threading.Event()
        self._stop: threading.Event | None = None  # of who waits for the end
        self._stopping = False
        self.metrics = Metrics(CollectorRegistry(), version=__version__)
        self.inline = InlineLoop()
        self._inflight = InflightBounds(config.inflight)
        self.manager: Manager = build_manager(
            config,
            registry or Registry(),
            observer_for=self._observer,
            loop=self.inline,
            recorded=recorded,
            shared=agent.shared if agent is not None else None,
            busy=self._busy,
            who=gate.client,
        )
        # The manager for the protocols. With several workers it acts on all of them.
        self._protocol_manager: ManagerLike = self.manager if agent is None else agent.worker_manager(self.manager)

        self.manager.subscribe(StateMetrics(self.metrics))
        self.manager.subscribe(self._watch_queue)
        self._models_file: FollowedFile | None = None
        files = config.repository
        if files.models_file is not None and files.models_file_poll:
            self._models_file = FollowedFile(
                Path(files.models_file), files.models_file_poll, fixed_models(config), self._protocol_manager,
                known=agent is not None and agent.begin.configured_models is not None,
            )  # fmt: skip
        audit = Audit()
        regions = Regions(config.server.shared_memory, config.inflight.bytes)
        self._health = Health(self._protocol_manager, SERVICES)
        self.table = build_method_table(
            self._protocol_manager,
            self.metrics,
            config,
            inflight=self._inflight,
            health=self._health,
            regions=regions,
            gate=gate,
            audit=audit,
        )
        self._transport = make_transport(
            self.table,
            config,
            self._inflight,
            on_fatal=self._fail,
            loop=self.inline,
            tls=self._followed(config.server.tls, "server.tls"),
        )
        core = Core(
            self._protocol_manager,
            self.metrics,
            check_request,
            gate,
            regions,
            self._inflight,
            self.table.admitted,
            audit,
        )
        render = self.metrics.render if agent is None else partial(agent.render, self.metrics)
        self._http: HttpPort = make_http_server(
            config.server.http,
            render,
            self.readiness,
            core,
            config.http,
            shared=config.server.workers > 1,
            tls=self._followed(config.http.tls, "http.tls"),
        )
        self._pages = HttpServer(config.server.metrics, render, self.readiness, shared=config.server.workers > 1)
        self.metrics.watch_inflight(lambda: (self._inflight.calls, self._inflight.nbytes))
        if gate.limiter is not None:
            limiter = gate.limiter
            self.metrics.watch_refusals(lambda: limiter.refused)
        self.metrics.watch_models(lambda: [model.name for model in self.manager.models() if model.error])
        if agent is None:
            self.metrics.watch_ready(self._health.ready)
        else:
            # A group is ready as long as others serve: one of them that leaves is no news.
            self.metrics.watch_ready(lambda: self._protocol_manager.ready() and not agent.stopping)
            agent.watch(self.metrics)

    def start(self) -> Started:
        """Binds the ports, then begins to look at the repository; returns before models are loaded. Raises OSError."""
        started = self.open()
        self.begin()
        return started

    def open(self) -> Started:
        """Binds the ports and takes calls. Raises OSError; then none is bound."""
        grpc = self._transport.start()
        try:
            http = self._http.start()
            metrics = self._pages.start() if self._config.server.metrics else ()
        except BaseException:
            self._http.stop()
            self._transport.stop(0.0)
            raise
        self._started = Started(tuple(grpc), tuple(http), tuple(metrics))
        return self._started

    def start_late(self, stop: threading.Event) -> Started | None:
        """As `start`, but takes calls only once the server is ready; None when `stop` is set before. Raises OSError."""
        self.begin()
        event(_log, logging.INFO, "the ports open when the server is ready")
        while not self.manager.wait_ready(_LOOK):
            if stop.is_set():
                return None
        try:
            return self.open()
        except BaseException:
            self.stop()
            raise

    def begin(self) -> None:
        """Begins to look at the repository; returns before models are loaded."""
        self._files.start()
        self.manager.start()
        if self._models_file is not None:
            self._models_file.start()

    def leave(self, hurry: threading.Event) -> None:
        """Of a worker among others: takes no new connections and waits until those that it has are gone, which their
        age sees to; calls on them are served as ever. `stop` ends what remains. Cut short when `hurry` is set."""
        event(_log, logging.INFO, "leaving", calls=self._inflight.calls)
        ports = Listeners((*self._started.grpc, *self._started.http, *self._started.metrics))
        ports.turn_away(hurry)
        self._http.unlisten()
        self._pages.unlisten()
        Listeners(self._started.grpc).close()
        age = self._config.grpc.max_connection_age or 0.0
        until = time.monotonic() + age * _AGE_SPREAD + _LAST_CALLS
        while ports.connections() and time.monotonic() < until and not self._failed.is_set():
            if hurry.wait(_LOOK):
                return

    def stop(self) -> bool:
        """Drains and ends everything. Gives whether every accepted request was answered within the grace."""
        drain = self._config.drain
        self._stopping = True
        began = time.monotonic()
        event(_log, logging.INFO, "stopping", pre_stop=drain.pre_stop, grace=drain.grace, calls=self._inflight.calls)
        self._health.stop()
        self._files.stop()
        if self._models_file is not None:
            self._models_file.stop()
        if drain.pre_stop:
            self._failed.wait(drain.pre_stop)
        until = time.monotonic() + drain.grace
        self._http.refuse()
        drained = self._transport.stop(drain.grace)
        drained = self._http.drain(max(0.0, until - time.monotonic())) and drained
        self._send_final_metrics()  # before the models close, which removes their series
        self.manager.stop(max(1.0, until - time.monotonic()))
        self._http.stop()
        self._pages.stop()
        event(_log, logging.INFO, "stopped", all_answered=drained, seconds=time.monotonic() - began)
        return drained and not self._failed.is_set()

    def wait(self, stop: threading.Event, on_ready: Callable[[], None]) -> None:
        """Calls `on_ready` once the server is ready, and returns when `stop` is set. It is set here when the front end
        has failed."""
        self.manager.on_ready(self._tell_missing)
        self.manager.on_ready(on_ready)
        collector = IdleCollector(self._busy)
        collector.start()
        self._stop = stop
        try:
            while not self._failed.is_set() and not stop.wait(_TEND):
                collector.tend()
        finally:
            self._stop = None
            collector.stop()

    def _busy(self) -> bool:
        return self._inflight.calls > 0

    def _fail(self) -> None:
        """The front end has failed. On its thread."""
        self._failed.set()
        stop = self._stop
        if stop is not None:
            stop.set()

    def readiness(self) -> ReadinessLike:
        """Whether traffic should come, and if not what is waited for. Thread-safe."""
        if self._stopping:
            return ReadinessLike(False, "the server is shutting down")
        if self._protocol_manager.ready():
            return ReadinessLike(True)
        if self.manager.ready():
            return ReadinessLike(False, "waiting for the other workers")
        waiting = unready(self._config.server.readiness, self.manager.models())
        if self._config.auth.enabled:  # whoever asks need not be meant to know of these models
            return ReadinessLike(
                False, f"waiting for {len(waiting)} versions" if waiting else "the repository is being read"
            )
        if not waiting:
            why = "; ".join(self.manager.repository_errors()) or "the repository is being scanned for the first time"
            return ReadinessLike(False, why)
        more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
        return ReadinessLike(False, f"waiting for {', '.join(waiting[:_NAMED])}{more}")

    def summary(self) -> str:
        """What is served, in a few words."""
        models = self.manager.models()
        available = sum(version.serves for model in models for version in model.versions)
        failed = sum(bool(model.error) or any(v.error for v in model.versions) for model in models)
        words = f"{len(models)} models, {available} versions available"
        return f"{words}, {failed} with errors (inferd models)" if failed else words

    def _tell_missing(self) -> None:
        """A setting for a model that is not there may be ahead of its time, or a typo that nobody would notice."""
        there = {model.name for model in self.manager.models()}
        named = {"repository.load": self._config.repository.load, "models": tuple(self._config.models)}
        for setting, names in named.items():
            for name in names:
                if name not in there and name != "*":
                    event(
                        _log, logging.WARNING, "a setting names a model that is not there", setting=setting, model=name
                    )

    def _watch_queue(self, change: StateChange) -> None:
        """Shows the queue of a version that has come into service."""
        if change.status.state is not State.AVAILABLE:
            return
        servable = change.status.id
        try:
            handle = self.manager.acquire(servable.name, servable.version)
        except ServingError:
            return  # gone again: there is nothing to show
        scheduler, worker = handle.servable.scheduler, handle.servable.worker
        handle.release()
        self.metrics.watch_queue(servable.name, servable.version, lambda: scheduler.queue_depth)
        if worker is not None:
            self.metrics.watch_worker(servable.name, servable.version, worker.resident)

    def _followed(self, config: Tls | None, where: str) -> TlsFiles | None:
        """The files of a port's TLS, read again when they change."""
        found = tls_files(config, where)
        if found is not None:
            found.watch(self._files)
        return found

    def _observer(self, servable: ServableId) -> BatchObserver:
        return self.metrics.model(servable.name, servable.version)
