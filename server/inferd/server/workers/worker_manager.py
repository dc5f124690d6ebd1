"""The manager as the protocols of a worker see it: requests go to this worker's models, operators' requests go to all
workers, and states are those of all workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from inferd.server.errors import ServingError, Unavailable, Unsupported
from inferd.server.lifecycle.interfaces import HandleLike, ServableLike
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.readiness import ReadyMoment
from inferd.server.lifecycle.state import ModelStatus, StateChange
from inferd.server.repository.configured_models import ConfiguredModel
from inferd.server.workers.group_state import GroupState
from inferd.server.workers.link import LinkLost
from inferd.server.workers.messages import Operation


class WorkerManager:
    """See `lifecycle.interfaces.ManagerLike`. Thread-safe.

    `ask` sends an operation to the supervisor. `acquire` and `serving` are the manager's own methods, so a request
    costs no more than with one process.
    """

    def __init__(self, manager: Manager, group_state: GroupState, ask: Callable[[Operation], Future[Any]]) -> None:
        self._manager = manager
        self._group_state = group_state
        self._ask = ask
        self._moment = ReadyMoment()
        self.acquire: Callable[..., HandleLike] = manager.acquire
        self.serving: Callable[..., ServableLike | None] = manager.serving

    def become_ready(self) -> None:
        """Called when all workers are ready: the server is ready from now on."""
        self._moment.comes()

    @property
    def persistent(self) -> bool:
        return self._manager.persistent

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]:
        return self._manager.configured_models

    def models(self) -> tuple[ModelStatus, ...]:
        return tuple(self._group_state.merged(model) for model in self._manager.models())

    def repository_errors(self) -> tuple[str, ...]:
        return self._manager.repository_errors()

    def status(self, name: str) -> ModelStatus:
        return self._group_state.merged(self._manager.status(name))

    def subscribe(self, fn: Callable[[StateChange], None]) -> Callable[[], None]:
        return self._manager.subscribe(fn)

    def ready(self) -> bool:
        return self._moment.come and self._manager.ready()

    def on_ready(self, fn: Callable[[], None]) -> None:
        self._moment.then(fn)

    def load(
        self, name: str, version: int | None = None, *, by: str, replacement: Replacement | None = None
    ) -> Future[ModelStatus]:
        if replacement is not None:
            raise Unsupported("a load with settings or files of its own is not taken while server.workers is above 1")
        return self._operate(Operation("load", name, by, version))

    def unload(self, name: str, version: int | None = None, *, by: str) -> Future[ModelStatus]:
        return self._operate(Operation("unload", name, by, version))

    def set_label(self, name: str, label: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        return self._operate(Operation("label", name, by, version, label))

    def rollback(self, name: str, to: int | None = None, *, by: str) -> Future[ModelStatus]:
        return self._operate(Operation("rollback", name, by, to))

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], *, by: str
    ) -> Sequence[Future[ModelStatus]]:
        return (self._operate(Operation("replace", "", by, models=models)),)

    def _operate(self, operation: Operation) -> Future[ModelStatus]:
        outcome: Future[ModelStatus] = Future()

        def done(reply: Future[Any]) -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            error = reply.exception()
            if isinstance(error, LinkLost):
                error = Unavailable("the supervisor is gone", accepted=True)
            if error is not None:
                outcome.set_exception(error if isinstance(error, ServingError) else RuntimeError(str(error)))
            else:
                outcome.set_result(reply.result())

        self._ask(operation).add_done_callback(done)
        return outcome
