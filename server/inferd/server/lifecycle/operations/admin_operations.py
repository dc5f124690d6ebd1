"""Operators' requests: each becomes an operation, which the manager's thread carries out, and a future for the
operator."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial

from inferd.server.errors import ExecutionFailed, ServingError, Unavailable, Unsupported
from inferd.server.lifecycle.loading.pool import Job
from inferd.server.lifecycle.operations.load import LoadOperation
from inferd.server.lifecycle.operations.load_overrides import OverrideReader, Replacement
from inferd.server.lifecycle.operations.load_with_overrides import LoadWithOverridesOperation
from inferd.server.lifecycle.operations.operation import AdminOperation, OperationContext
from inferd.server.lifecycle.operations.overrides import OverridesError
from inferd.server.lifecycle.operations.reload_config import ConfigureModelOperation, WithdrawModelOperation
from inferd.server.lifecycle.reconcile.events import Event
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.observability.events import event, get
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels
from inferd.server.repository.source import SourceLike

log = get("lifecycle")

_STOPPING = "the server is shutting down"


@dataclass(frozen=True, slots=True)
class OperationRequested(Event):
    """An operator's request.

    future     gets the model's status, or the error
    after      the operation begins once a listing with this number, or a later one, has been handled
    context    the caller's context variables, in which the operation runs
    """

    operation: AdminOperation
    future: Future[ModelStatus]
    after: int
    context: contextvars.Context


@dataclass(slots=True)
class _Waiting:
    """A request that is not answered yet."""

    request: OperationRequested
    begun: bool = False


class AdminOperations:
    """Takes operators' requests and carries them out. `Manager` says what each of them means and what it raises.

    `load`, `replace_configured`, `ask` and `refuse` may be called from any thread, everything else on the manager's.
    """

    def __init__(
        self,
        context: OperationContext,
        configured: ConfiguredModels,
        override_reader: OverrideReader | None,
        *,
        source: SourceLike,
        mailbox: Mailbox,
        spawn: Callable[[str, Job], None],
        patience: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`patience`: seconds for which a load waits until the newest version has settled."""
        self._context = context
        self._configured = configured
        self._override_reader = override_reader
        self._source = source
        self._mailbox = mailbox
        self._spawn = spawn
        self._patience = patience
        self._clock = clock
        self._wall_clock = wall_clock
        self._replacing = threading.Lock()
        self._refusing = False
        # The manager's thread only.
        self._waiting: list[_Waiting] = []
        self._exclusive: dict[str, Future[ModelStatus]] = {}

    # Any thread

    def load(self, name: str, version: int | None, replacement: Replacement | None, by: str) -> Future[ModelStatus]:
        """Loads what is on disk, or with the settings and files of a replacement."""
        after = self._source.request_scan()
        settled_by = self._clock() + self._patience
        if replacement is None:
            return self.ask(LoadOperation(name, version, by, settled_by), after)
        if self._override_reader is None:
            raise Unsupported("this manager takes no settings or files with a load")
        make = partial(self._override_reader.make, name, replacement, by, self._wall_clock())
        future: Future[ModelStatus] = Future()
        # The operation goes on when the caller has given up: it may have to be undone, and its files removed.
        outcome: Future[ModelStatus] = Future()
        outcome.add_done_callback(partial(_pass_on, future))

        def job() -> None:  # writes files: not for a thread that others wait for
            if future.cancelled():
                return
            try:
                operation = LoadWithOverridesOperation(name, make(), by, settled_by)
            except Exception as error:
                outcome.set_exception(error)
            else:
                self.ask(operation, after, outcome)

        self._spawn("inferd-load-with", job)
        return future

    def replace_configured(self, models: Mapping[str, ConfiguredModel], by: str) -> tuple[Future[ModelStatus], ...]:
        """Puts these configured models in the place of those before; a future for each model that this changes."""
        with self._replacing:
            change = self._configured.replace(models)
            after = self._source.request_scan()
        settled_by = self._clock() + self._patience
        return (
            *(self.ask(ConfigureModelOperation(name, by, settled_by), after) for name in sorted(change.changed)),
            *(self.ask(WithdrawModelOperation(name), after) for name in sorted(change.removed)),
        )

    def ask(
        self, operation: AdminOperation, after: int = 0, future: Future[ModelStatus] | None = None
    ) -> Future[ModelStatus]:
        """Has an operation carried out once the listing `after` has been handled. Refused while the manager stops."""
        future = future or Future()
        request = OperationRequested(operation, future, after, contextvars.copy_context())
        if self._refusing or not self._mailbox.post(request):
            _finish(future, error=Unavailable(_STOPPING))
        return future

    def refuse(self) -> None:
        """The manager stops: later requests are refused."""
        self._refusing = True

    # The manager's thread

    def add(self, request: OperationRequested) -> None:
        """Accepts an operation; `begin` begins it."""
        self._waiting.append(_Waiting(request))

    def begin(self) -> None:
        """Begins the operations whose listing has been handled."""
        listing = self._context.reconciler.observed.listing
        for waiting in self._waiting:
            request = waiting.request
            operation, future = request.operation, request.future
            if waiting.begun or future.cancelled():
                continue
            if listing is None or listing.sequence < request.after or not self._may_begin(operation, future):
                continue
            try:
                waiting.begun = request.context.run(operation.begin, self._context)
                self._context.reconciler.touch(operation.model)
            except Exception as error:
                _fail(request, error)
        self._forget_answered()

    def finish(self) -> None:
        """Answers the operations that are done, and those that can never be done."""
        statuses = self._context.reconciler.published.statuses
        for waiting in self._waiting:
            request = waiting.request
            if not waiting.begun or request.future.done():
                continue
            try:
                if request.operation.done(self._context):
                    name = request.operation.model
                    _finish(request.future, statuses.get(name) or ModelStatus(name))
            except Exception as error:
                _fail(request, error)
        self._forget_answered()

    def stop(self) -> None:
        """The server shuts down: operations that wait are refused."""
        for waiting in self._waiting:
            _finish(waiting.request.future, error=Unavailable(_STOPPING))
        self._forget_answered()

    def _may_begin(self, operation: AdminOperation, future: Future[ModelStatus]) -> bool:
        if not operation.exclusive:
            return True
        other = self._exclusive.get(operation.model)
        if other is not None and other is not future and not other.done():
            return False
        self._exclusive[operation.model] = future
        return True

    def _forget_answered(self) -> None:
        # A caller that gave up has cancelled its future.
        self._waiting = [waiting for waiting in self._waiting if not waiting.request.future.done()]
        self._exclusive = {name: future for name, future in self._exclusive.items() if not future.done()}


def _fail(request: OperationRequested, error: Exception) -> None:
    if isinstance(error, OverridesError):
        error = ExecutionFailed(str(error), accepted=False)
    elif not isinstance(error, ServingError):
        # A defect. If it were tried again it would fail again, at every turn.
        event(log, logging.ERROR, "an operator's request failed", error=error, model=request.operation.model)
        error = ExecutionFailed(f"{type(error).__name__}: {error}", accepted=False)
    _finish(request.future, error=error)


def _finish(future: Future[ModelStatus], status: ModelStatus | None = None, error: Exception | None = None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        assert status is not None
        future.set_result(status)


def _pass_on(future: Future[ModelStatus], outcome: Future[ModelStatus]) -> None:
    error = outcome.exception()
    _finish(future, error=error) if isinstance(error, Exception) else _finish(future, outcome.result())


def when_all(asked: Sequence[Future[ModelStatus]], done: Callable[[BaseException | None], None]) -> None:
    """Calls `done` once all have ended, with the first error among them: on the thread that ends the last one, or at
    once."""
    if not asked:
        done(None)
        return
    lock = threading.Lock()
    left = len(asked)
    errors: list[BaseException] = []

    def ended(future: Future[ModelStatus]) -> None:
        nonlocal left
        try:
            error = future.exception()
        except CancelledError:
            error = Unavailable(_STOPPING)
        with lock:
            left -= 1
            if error is not None:
                errors.append(error)
            last = left == 0
        if last:
            done(errors[0] if errors else None)

    for future in asked:
        future.add_done_callback(ended)
