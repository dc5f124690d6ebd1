"""The worker's side of the link to the supervisor, and the parts that the app uses when it is one of several workers.

The link's thread only hands messages on. The work is done on the manager's thread, on short-lived threads, or on the
thread that calls `next_order`.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from typing import Any

from inferd.server.errors import ServingError
from inferd.server.lifecycle.assemble import Shared
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.operations.admin_operations import when_all
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.model_state import Content
from inferd.server.lifecycle.state import ModelStatus, ServableId, StateChange
from inferd.server.observability.metrics import Metrics
from inferd.server.workers import messages as m
from inferd.server.workers.group_state import GroupState, states_of
from inferd.server.workers.link import Answer, Link, LinkLost
from inferd.server.workers.metrics_totals import Families, Others, families, server_totals, text
from inferd.server.workers.shared_overrides import SharedOverrides
from inferd.server.workers.worker_manager import WorkerManager

_COLLECT_TIMEOUT = 3.0  # seconds for the metrics of the other workers

Order = m.Open | m.Leave | m.Stop
Decided = Callable[[str | None], None]


class WorkerAgent:
    """Thread-safe.

    begin       the supervisor's first message
    overrides   the worker's copy of the operators' overrides
    stopping    the whole server stops, not this worker alone
    """

    def __init__(self, link: Callable[[Callable[[Any, Answer | None], None], Callable[[], None]], Link]) -> None:
        """Waits for the first message. `link` makes the link from two functions: one that receives messages, and one
        that is called when the link is lost, which ends this process."""
        self._begin: Future[m.Begin] = Future()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.stopping = False
        self._group_state = GroupState()
        self._manager: Manager | None = None
        self._worker_manager: WorkerManager | None = None
        self._metrics: Metrics | None = None
        self._others = Others()  # as last received
        self._final: Families = ()  # the metrics that were sent as the final ones
        self._undecided: dict[str, Decided] = {}
        self._lock = threading.Lock()
        self._early: list[tuple[Any, Answer | None]] = []  # messages that came before there was a manager
        self._beginning = threading.Lock()
        # The number of the operation for which the manager changes overrides; 0: none.
        self._operation: ContextVar[int] = ContextVar("operation", default=0)
        self._link = link(self._received, _end)
        self._link.start()
        self.begin = self._begin.result()
        self.overrides = SharedOverrides(self.begin.overrides, self._keep, persistent=self.begin.persistent)

    # Used by the app

    @property
    def shared(self) -> Shared:
        """The parts that the manager shares with the other workers."""
        return Shared(self.overrides, self, self.begin.configured_models)

    def worker_manager(self, manager: Manager) -> WorkerManager:
        """The manager for the protocols. Call it once. Messages for the manager that came before are handled now."""
        with self._beginning:
            self._manager = manager
            self._worker_manager = WorkerManager(manager, self._group_state, self._link.ask)
            manager.subscribe(self._changed)
            for message, answer in self._early:
                self._handle(manager, self._worker_manager, message, answer)
            self._early.clear()
        return self._worker_manager

    def render(self, metrics: Metrics) -> bytes:
        """The metrics of all workers in Prometheus' text format. Waits at most 3 seconds for the other workers."""
        self._metrics = metrics
        own = self._own_metrics()
        try:
            others: Others = self._link.ask(m.CollectOthers(own)).result(_COLLECT_TIMEOUT)
        except (LinkLost, FutureTimeoutError):
            others = self._others.as_past()
        self._others = others
        return text(server_totals(own, self.begin.number, others))

    def watch(self, metrics: Metrics) -> None:
        """Sets the metrics that are sent to the supervisor."""
        self._metrics = metrics

    # Used by the worker's command (cli.worker)

    def next_order(self) -> Order:
        """Waits for the supervisor's next order."""
        return self._orders.get()

    def tell(self, message: object) -> None:
        """Sends a message to the supervisor."""
        self._link.tell(message)

    def send_final_metrics(self) -> None:
        """Sends this worker's metrics for the last time. Call it before models are closed, which removes their
        series."""
        self._final = self._own_metrics()
        self._link.tell(m.FinalMetrics(self._final))

    # See lifecycle.reconcile.activation_barrier.ActivationBarrier

    def loaded(self, id: ServableId, content: Content, decided: Decided) -> Callable[[], None]:  # noqa: A002
        key = _key(id, content)
        with self._lock:
            self._undecided[key] = decided
        self._link.tell(m.Loaded(key, str(id)))

        def withdraw() -> None:
            with self._lock:
                self._undecided.pop(key, None)
            self._link.tell(m.Withdrawn(key))

        return withdraw

    def failed(self, id: ServableId, content: Content, reason: str) -> None:  # noqa: A002
        self._link.tell(m.NotLoaded(_key(id, content), str(id), reason))

    # Incoming messages

    def _received(self, message: Any, answer: Answer | None) -> None:
        match message:
            case m.Begin():
                self._begin.set_result(message)
            case m.Open() | m.Leave() | m.Stop():
                self.stopping = self.stopping or isinstance(message, m.Stop)
                self._orders.put(message)
            case m.ActivationDecided():
                with self._lock:
                    decided = self._undecided.pop(message.key, None)
                if decided is not None:
                    decided(message.refusal or None)
            case m.PeerStates():
                self._group_state.update(message)
            case m.PeerGone():
                self._group_state.remove(message.worker)
            case m.Collect() if answer is not None:
                threading.Thread(target=self._collect, args=(answer,), name="inferd-collect", daemon=True).start()
            case m.Ping() if answer is not None:
                answer(None)
            case _:
                with self._beginning:
                    if self._manager is None or self._worker_manager is None:
                        self._early.append((message, answer))
                        return
                self._handle(self._manager, self._worker_manager, message, answer)

    def _handle(self, manager: Manager, worker_manager: WorkerManager, message: Any, answer: Answer | None) -> None:
        match message:
            case m.OverridesChanged():
                manager.adopt_overrides(message.model, message.overrides)
            case m.GroupReady():
                worker_manager.become_ready()
            case m.Operation() if answer is not None:
                self._operate(manager, message, answer)

    def _collect(self, answer: Answer) -> None:
        answer(self._own_metrics())

    def _own_metrics(self) -> Families:
        # While models close, their series disappear, but this worker may still be scraped: the final metrics stay.
        return self._final or (families(self._metrics.everything()) if self._metrics is not None else ())

    def _operate(self, manager: Manager, operation: m.Operation, answer: Answer) -> None:
        name, version, by = operation.model, operation.version, operation.by
        token = self._operation.set(operation.number)
        outcomes: Sequence[Future[ModelStatus]]
        try:
            match operation.kind:
                case "load":
                    outcomes = [manager.load(name, version, by=by)]
                case "unload":
                    outcomes = [manager.unload(name, version, by=by)]
                case "label":
                    outcomes = [manager.set_label(name, operation.label, version, by=by)]
                case "rollback":
                    outcomes = [manager.rollback(name, version, by=by)]
                case "replace":
                    outcomes = manager.replace_configured_models(operation.models, by=by)
        finally:
            self._operation.reset(token)

        def done(error: BaseException | None) -> None:
            # `replace` gives one status for each model. The last one is sent; no caller reads it.
            answer(_sendable(error) if error is not None else outcomes[-1].result() if outcomes else None)

        when_all(outcomes, done)

    def _keep(self, model: str, overrides: ModelOverrides) -> Future[ModelOverrides]:
        return self._link.ask(m.KeepOverrides(self._operation.get(), model, overrides))

    def _changed(self, change: StateChange) -> None:
        assert self._manager is not None
        name = change.status.id.name
        try:
            states = states_of(self._manager.status(name))
        except ServingError:
            states = None
        self._link.tell(m.States(name, states))


def _sendable(error: BaseException) -> BaseException:
    return error if isinstance(error, ServingError) else RuntimeError(f"{type(error).__name__}: {error}")


def _key(id: ServableId, content: Content) -> str:  # noqa: A002
    """A digest that is the same in every worker that sees the same files and settings."""
    return hashlib.blake2b(repr((id, content)).encode(), digest_size=16).hexdigest()


def _end() -> None:
    """Ends this process at once, because the supervisor is gone: nothing else would ever stop the worker."""
    os._exit(1)
