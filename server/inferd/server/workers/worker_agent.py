"""A worker's seat in its group: the end of the link to the supervisor, and what the app takes from it.

The link's thread only passes messages on; what they ask for is done by the manager's thread, by threads of its own, or
by whoever waits in `next_order`.
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
from inferd.server.workers.metrics_totals import Families, Others, families, group, text
from inferd.server.workers.shared_overrides import SharedOverrides
from inferd.server.workers.worker_manager import WorkerManager

_SCRAPE = 3.0  # seconds for the metrics of the other workers

Order = m.Open | m.Leave | m.Stop
Decided = Callable[[str | None], None]


class WorkerAgent:
    """One worker's place. Made with the link's socket; `begin` is the first message. Thread-safe.

    stopping   the whole group is to end, not this worker alone
    """

    def __init__(self, link: Callable[[Callable[[Any, Answer | None], None], Callable[[], None]], Link]) -> None:
        """`link` makes the link with these two; the supervisor's end of this process is the end of this process."""
        self._begin: Future[m.Begin] = Future()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.stopping = False
        self._picture = GroupState()
        self._manager: Manager | None = None
        self._front: WorkerManager | None = None
        self._metrics: Metrics | None = None
        self._others = Others()  # as last heard
        self._last: Families = ()  # what the farewell said
        self._undecided: dict[str, Decided] = {}
        self._lock = threading.Lock()
        self._early: list[tuple[Any, Answer | None]] = []  # what came before there was a manager to do it
        self._beginning = threading.Lock()
        # The operation of the supervisor's for which the manager changes wishes; 0: none.
        self._operation: ContextVar[int] = ContextVar("operation", default=0)
        self._link = link(self._received, _end)
        self._link.start()
        self.begin = self._begin.result()
        self.overrides = SharedOverrides(self.begin.wishes, self._keep, persistent=self.begin.persistent)

    # What the app takes

    @property
    def shared(self) -> Shared:
        """For the manager."""
        return Shared(self.overrides, self, self.begin.configured_models)

    def manager_of_group(self, manager: Manager) -> WorkerManager:
        """The manager for the edges. Called once. What has been asked of this worker since it began is done now."""
        with self._beginning:
            self._manager, self._front = manager, WorkerManager(manager, self._picture, self._link.ask)
            manager.subscribe(self._changed)
            for message, answer in self._early:
                self._do(manager, self._front, message, answer)
            self._early.clear()
        return self._front

    def render(self, metrics: Metrics) -> bytes:
        """The metrics of the whole group in Prometheus' text format. Waits for the other workers, not for long."""
        self._metrics = metrics
        own = self._counted()
        try:
            others: Others = self._link.ask(m.Scrape(own)).result(_SCRAPE)
        except (LinkLost, FutureTimeoutError):
            others = self._others.as_past()
        self._others = others
        return text(group(own, self.begin.number, others))

    def watch(self, metrics: Metrics) -> None:
        """Whose numbers are given to the others."""
        self._metrics = metrics

    # What the worker's own thread does

    def next_order(self) -> Order:
        """Waits for the next order."""
        return self._orders.get()

    def order(self, order: Order) -> None:
        """Puts an order in from this side."""
        self._orders.put(order)

    def tell(self, message: object) -> None:
        """Tells the supervisor."""
        self._link.tell(message)

    def farewell(self) -> None:
        """The last word: what was counted here stays counted."""
        self._last = self._counted()
        self._link.tell(m.Farewell(self._last))

    # Admission (see lifecycle.admission)

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

    # What comes in

    def _received(self, message: Any, answer: Answer | None) -> None:
        match message:
            case m.Begin():
                self._begin.set_result(message)
            case m.Open() | m.Leave() | m.Stop():
                self.stopping = self.stopping or isinstance(message, m.Stop)
                self._orders.put(message)
            case m.Decided():
                with self._lock:
                    decided = self._undecided.pop(message.key, None)
                if decided is not None:
                    decided(message.refusal or None)
            case m.PeerStates():
                self._picture.told(message)
            case m.PeerGone():
                self._picture.gone(message.worker)
            case m.Collect() if answer is not None:
                threading.Thread(target=self._collect, args=(answer,), name="inferd-collect", daemon=True).start()
            case m.Ping() if answer is not None:
                answer(None)
            case _:
                with self._beginning:
                    if self._manager is None or self._front is None:
                        self._early.append((message, answer))
                        return
                self._do(self._manager, self._front, message, answer)

    def _do(self, manager: Manager, front: WorkerManager, message: Any, answer: Answer | None) -> None:
        match message:
            case m.Wished():
                manager.adopt_overrides(message.model, message.wishes)
            case m.GroupReady():
                front.become_ready()
            case m.Operation() if answer is not None:
                self._operate(manager, message, answer)

    def _collect(self, answer: Answer) -> None:
        answer(self._counted())

    def _counted(self) -> Families:
        # After the farewell the series go with their models, and a page may still be asked for.
        return self._last or (families(self._metrics.everything()) if self._metrics is not None else ())

    def _operate(self, manager: Manager, operation: m.Operation, answer: Answer) -> None:
        name, version, by = operation.model, operation.version, operation.by
        token = self._operation.set(operation.number)
        wishes: Sequence[Future[ModelStatus]]
        try:
            match operation.kind:
                case "load":
                    wishes = [manager.load(name, version, by=by)]
                case "unload":
                    wishes = [manager.unload(name, version, by=by)]
                case "label":
                    wishes = [manager.set_label(name, operation.label, version, by=by)]
                case "rollback":
                    wishes = [manager.rollback(name, version, by=by)]
                case "replace":
                    wishes = manager.replace_configured_models(operation.models, by=by)
        finally:
            self._operation.reset(token)

        def done(error: BaseException | None) -> None:
            # Of several models the last one's status says as much as any: nobody reads it.
            answer(_sendable(error) if error is not None else wishes[-1].result() if wishes else None)

        when_all(wishes, done)

    def _keep(self, model: str, wishes: ModelOverrides) -> Future[ModelOverrides]:
        return self._link.ask(m.Keep(self._operation.get(), model, wishes))

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
    """The same in every worker that sees the same files and settings."""
    return hashlib.blake2b(repr((id, content)).encode(), digest_size=16).hexdigest()


def _end() -> None:
    """The supervisor is gone: nobody would start this worker again, or stop it."""
    os._exit(1)
