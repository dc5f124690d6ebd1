"""The composition root: builds all parts of the server, and starts and stops them in order.

start   gRPC ports (health is NOT_SERVING) → HTTP ports → the manager scans the repository and loads models → ready
stop    health NOT_SERVING → pre-stop delay → no new calls → drain (grace) → source and manager → instances, each closed
        on its own thread → HTTP ports, which serve metrics until the end
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from inferd.backends.registry import Registry
from inferd.server import __version__
from inferd.server.access.audit import Audit
from inferd.server.access.expiry import Expiry
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.method_rules import SERVICES
from inferd.server.access.rules import make_access_rules
from inferd.server.access.step_access import StepRules
from inferd.server.access.tls import TlsFiles, tls_files
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.composition.http_port import HttpPort, make_http_server
from inferd.server.composition.http_routes import Core
from inferd.server.config.schema import ServerConfig, Tls
from inferd.server.errors import ServingError
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpServer
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.assemble import build_manager
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.readiness import not_served
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.resources.cpu_budget import available_cpus
from inferd.server.lifecycle.resources.heap import HeapReturn
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
from inferd.server.transport.descriptors import within_descriptors
from inferd.server.transport.listening_sockets import Listeners
from inferd.server.transport.selection import make_transport

if TYPE_CHECKING:
    from inferd.server.workers.worker_agent import WorkerAgent

_log = logging.getLogger("inferd.app")
_AGE_SPREAD = 1.2  # gRPC closes connections at their maximal age, plus or minus a tenth
_LAST_CALLS = 1.0  # seconds for the last calls on connections that have reached their age
_CHECK_INTERVAL = 0.05  # seconds between two checks of a condition
_TEND_INTERVAL = 0.5  # seconds between two looks at the memory of the process
_MAX_NAMED = 5  # models named in the reason for not being ready
_MAX_REASON = 120  # characters of a reason in the ready line


@dataclass(frozen=True, slots=True)
class Started:
    """The addresses that the server listens on, with the real port in place of 0."""

    grpc: tuple[str, ...]
    http: tuple[str, ...]
    metrics: tuple[str, ...] = ()


class App:
    """One server. An instance is started once and stopped once; one thread calls `start` and `stop`.

    `registry` finds the backends; the default registry uses the entry points.
    """

    def __init__(
        self, config: ServerConfig, registry: Registry | None = None, *, agent: WorkerAgent | None = None
    ) -> None:
        """Builds all parts; binds and starts nothing. `agent` is given when this process is one of several workers.
        Raises ConfigError, OverridesError, or OSError for TLS
        files and for too few descriptors."""
        if agent is None:  # the only process: no other may listen on its ports
            config = config.model_copy(update={"server": config.server.model_copy(update={"workers": 1})})
        config = within_descriptors(config)
        self._files = FileWatch(config.auth.poll)
        rules = make_access_rules(config)
        if rules.authority is not None:
            rules.authority.watch(self._files)
        self._config = config
        self._started = Started((), ())
        self._send_final_metrics = agent.send_final_metrics if agent is not None else lambda: None
        self._failed = threading.Event()
        self._stop: threading.Event | None = None  # the event that `wait` is waiting for
        self._stopping = False
        self.metrics = Metrics(CollectorRegistry(), version=__version__)
        cpus = config.server.cpu_threads or available_cpus()
        self.inline = InlineLoop(beside=InlineLoop(), overlaps=cpus > 1)
        self._inflight = InflightBounds(config.inflight)
        self.manager: Manager = build_manager(
            config,
            registry or Registry(),
            observer_for=self._observer,
            loop=self.inline,
            recorded=recorded,
            shared=agent.shared if agent is not None else None,
            busy=self._busy,
            who=rules.client,
            step_access=StepRules(rules) if rules.authority is not None else None,
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
        audit, ids = Audit(), RequestIds()
        regions = Regions(config.server.shared_memory, config.inflight.bytes)
        self._health = Health(self._protocol_manager, SERVICES)
        self.table = build_method_table(
            self._protocol_manager,
            self.metrics,
            config,
            inflight=self._inflight,
            health=self._health,
            regions=regions,
            rules=rules,
            ids=ids,
            audit=audit,
        )
        tls = {
            "server.tls": self._followed(config.server.tls, "server.tls"),
            "http.tls": self._followed(config.http.tls, "http.tls"),
        }
        expiry = Expiry(rules.authority, [files for files in tls.values() if files is not None])
        if config.auth.enabled or any(tls.values()):
            self.metrics.watch_expiry(expiry.next_expiries, expiry.expired_tokens)
        self._transport = make_transport(
            self.table,
            config,
            self._inflight,
            on_fatal=self._fail,
            loop=self.inline,
            tls=tls["server.tls"],
        )
        core = Core(
            self._protocol_manager,
            self.metrics,
            check_request,
            rules,
            ids,
            regions,
            self._inflight,
            self.table.admitted,
            audit,
            self.inline.beside,
        )
        render = self.metrics.render if agent is None else partial(agent.render, self.metrics)
        self._http: HttpPort = make_http_server(
            config.server.http,
            render,
            self.readiness,
            core,
            config.http,
            shared=config.server.workers > 1,
            tls=tls["http.tls"],
        )
        self._pages = HttpServer(config.server.metrics, render, self.readiness, shared=config.server.workers > 1)
        self.metrics.watch_inflight(lambda: (self._inflight.calls, self._inflight.nbytes))
        if rules.limiter is not None:
            limiter = rules.limiter
            self.metrics.watch_refusals(lambda: limiter.refused)
        self.metrics.watch_models(lambda: [model.name for model in self.manager.models() if model.error])
        if agent is None:
            self.metrics.watch_ready(self._health.ready)
        else:
            # One worker that leaves does not make the group unready: the other workers serve.
            self.metrics.watch_ready(lambda: self._protocol_manager.ready() and not agent.stopping)
            agent.watch(self.metrics)

    def start(self) -> Started:
        """Binds the ports, then starts the manager. Returns before models are loaded. Raises OSError."""
        started = self.open()
        self.begin()
        return started

    def open(self) -> Started:
        """Binds the ports and accepts calls. Raises OSError; then no port is bound."""
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
        """As `start`, but binds the ports only once the server is ready. Returns None if `stop` is set before that.
        Raises OSError."""
        self.begin()
        event(_log, logging.INFO, "the ports open when the server is ready")
        while not self.manager.wait_ready(_CHECK_INTERVAL):
            if stop.is_set():
                return None
        try:
            return self.open()
        except BaseException:
            self.stop()
            raise

    def begin(self) -> None:
        """Starts the manager, which scans the repository. Returns before models are loaded."""
        self._files.start()
        self.manager.start()
        if self._models_file is not None:
            self._models_file.start()

    def leave(self, hurry: threading.Event) -> None:
        """For one of several workers: accepts no new connections and waits until the open ones have ended, which
        `grpc.max_connection_age` brings about. Calls on open connections are still served; `stop` ends those that
        remain. Returns early when `hurry` is set."""
        event(_log, logging.INFO, "leaving", calls=self._inflight.calls)
        ports = Listeners((*self._started.grpc, *self._started.http, *self._started.metrics))
        ports.turn_away(hurry)
        self._http.unlisten()
        self._pages.unlisten()
        Listeners(self._started.grpc).close()
        age = self._config.grpc.max_connection_age or 0.0
        until = time.monotonic() + age * _AGE_SPREAD + _LAST_CALLS
        while ports.connections() and time.monotonic() < until and not self._failed.is_set():
            if hurry.wait(_CHECK_INTERVAL):
                return

    def stop(self) -> bool:
        """Drains and stops all parts. Returns whether every accepted request was answered within the grace and the
        transport has not failed."""
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
        """Calls `on_ready` once the server is ready, and returns when `stop` is set. Sets `stop` itself when the
        transport has failed."""
        self.manager.on_ready(self._warn_of_unknown_models)
        self.manager.on_ready(on_ready)
        collector = IdleCollector(self._busy)
        collector.start()
        inflight = self._inflight
        heap = HeapReturn(lambda: (inflight.calls, inflight.nbytes), self._config.inflight.bytes)
        self.manager.on_ready(heap.ask)
        self._stop = stop
        try:
            while not self._failed.is_set() and not stop.wait(_TEND_INTERVAL):
                collector.tend()
                heap.tend()
        finally:
            self._stop = None
            collector.stop()

    def _busy(self) -> bool:
        return self._inflight.calls > 0

    def _fail(self) -> None:
        """Ends the server because the transport has failed. Called on the transport's thread."""
        self._failed.set()
        stop = self._stop
        if stop is not None:
            stop.set()

    def readiness(self) -> ReadinessLike:
        """Whether the server should get traffic, and if not, what it waits for. Thread-safe."""
        if self._stopping:
            return ReadinessLike(False, "the server is shutting down")
        if self._protocol_manager.ready():
            return ReadinessLike(True, details=self._not_served())
        if self.manager.ready():
            return ReadinessLike(False, "waiting for the other workers")
        waiting = self.manager.waiting_for()
        if self._config.auth.enabled:  # no names: the caller may have no right to know of these models
            return ReadinessLike(
                False, f"waiting for {len(waiting)} versions" if waiting else "the repository is being read"
            )
        if not waiting:
            why = "; ".join(self.manager.repository_errors()) or "the repository is being scanned for the first time"
            return ReadinessLike(False, why)
        more = f" and {len(waiting) - _MAX_NAMED} more" if len(waiting) > _MAX_NAMED else ""
        return ReadinessLike(False, f"waiting for {', '.join(waiting[:_MAX_NAMED])}{more}", self._not_served())

    def _not_served(self) -> dict[str, Any]:
        """What should be served and is not, for /readyz: the reasons by name, or only their number where the caller may
        have no right to know of the models."""
        missing = not_served(self.manager.models())
        if not missing:
            return {}
        return {"not_served": len(missing) if self._config.auth.enabled else missing}

    def summary(self) -> str:
        """The numbers of models and available versions, and what is not served and why, as one line of text."""
        models = self.manager.models()
        available = sum(version.serves for model in models for version in model.versions)
        text = f"{len(models)} models, {available} versions available"
        missing = not_served(models)
        if not missing:
            return text
        named = [f"{name} ({_short(why)})" for name, why in list(missing.items())[:_MAX_NAMED]]
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        return f"{text}, {len(missing)} with errors (inferd models): {', '.join(named)}{more}"

    def _warn_of_unknown_models(self) -> None:
        """Logs a warning for each setting of a model that does not exist. The model may come later, so this is no
        error; but it may also be a typo."""
        known = {model.name for model in self.manager.models()}
        name = self._config.repository.model_name
        settings = {
            "repository.load": self._config.repository.load,
            "repository.model_name": () if name is None else (name,),
            "models": tuple(self._config.models),
        }
        for setting, names in settings.items():
            for name in names:
                if name not in known and name != "*":
                    event(
                        _log, logging.WARNING, "a setting names a model that is not there", setting=setting, model=name
                    )

    def _watch_queue(self, change: StateChange) -> None:
        """Registers the queue of a version that has become AVAILABLE with the metrics, and its worker process."""
        if change.status.state is not State.AVAILABLE:
            return
        servable = change.status.id
        try:
            handle = self.manager.acquire(servable.name, servable.version)
        except ServingError:
            return  # the version has been unloaded since
        scheduler, worker = handle.servable.scheduler, handle.servable.worker
        handle.release()
        self.metrics.watch_queue(
            servable.name,
            servable.version,
            lambda: scheduler.queue_depth,
            lambda: (scheduler.max_batch_size, scheduler.basis),
        )
        if worker is not None:
            self.metrics.watch_worker(servable.name, servable.version, worker.resident)

    def _followed(self, config: Tls | None, where: str) -> TlsFiles | None:
        """The TLS files of a port, reloaded when they change. `where` is their settings key."""
        files = tls_files(config, where)
        if files is not None:
            files.watch(self._files)
        return files

    def _observer(self, servable: ServableId) -> BatchObserver:
        return self.metrics.model(servable.name, servable.version)


def _short(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"
