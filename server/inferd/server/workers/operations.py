"""Operators' requests (load, unload, label, rollback, replace) with several workers.

The supervisor sends every operation to every worker, in the same order, and answers the operator when all have carried
it out. The supervisor's `Overrides` are the only store. Each worker computes the overrides that follow from an
operation; the first result is stored and counts for all workers. At the end of each operation the supervisor sends the
current overrides to every worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from inferd.server.errors import ServingError, Unavailable
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides, OverridesError
from inferd.server.repository.configured_models import ConfiguredModel
from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.link import Answer, LinkLost
from inferd.server.workers.messages import KeepOverrides, Operation, OverridesChanged

_AWAITED = (ChildPhase.READY, ChildPhase.OPENING, ChildPhase.SERVING)
"""Workers in these phases are waited for. A worker that starts carries out the operation later."""


@dataclass(slots=True)
class _RunningOperation:
    operation: Operation
    asker: Child
    answer: Answer
    kept: dict[str, ModelOverrides] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    outcomes: dict[int, tuple[Child, object]] = field(default_factory=dict)


class Operations:
    """The supervisor's thread only.

    children            gives the workers that are alive
    post                runs a function on the supervisor's thread
    configured_models   the models of the last `replace`, None before the first
    """

    def __init__(
        self,
        overrides: Overrides,
        children: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._overrides = overrides
        self._children = children
        self._post = post
        self._running: dict[int, _RunningOperation] = {}
        self._last = 0
        self._newest: dict[str, int] = {}  # by model: the last operation that changed its overrides
        self.configured_models: Mapping[str, ConfiguredModel] | None = None

    def start(self, asker: Child, operation: Operation, answer: Answer) -> None:
        """Runs an operation on all workers. `asker` is the worker that the operator has called; `answer` gets the
        outcome."""
        self._last += 1
        number = self._last
        running = self._running[number] = _RunningOperation(replace(operation, number=number), asker, answer)
        if operation.kind == "replace":
            self.configured_models = operation.models
        children = list(self._children())
        running.waiting = {child.id for child in children if child.phase in _AWAITED or child is asker}
        for child in children:
            self._ask(child, running.operation)

    def keep(self, child: Child, keep: KeepOverrides, answer: Answer) -> None:
        """Stores the overrides that a worker has computed for a model, unless another worker was first."""
        running = self._running.get(keep.operation)
        if keep.operation and (running is None or keep.operation < self._newest.get(keep.model, 0)):
            # This worker is behind the others: the result of this operation, or of a later one, already counts.
            kept = None if running is None else running.kept.get(keep.model)
            answer(self._overrides.of(keep.model) if kept is None else kept)
            return
        overrides = keep.overrides if running is None else running.kept.get(keep.model, keep.overrides)
        try:
            self._overrides.change(keep.model, overrides)
        except OverridesError as error:
            answer(error)
            return
        if running is not None:
            running.kept[keep.model] = overrides
            self._newest[keep.model] = keep.operation
        answer(overrides)
        if running is None:
            self._broadcast(keep.model)

    def _ask(self, child: Child, operation: Operation) -> None:
        def done(outcome: Future[Any]) -> None:
            self._post(partial(self._done, operation.number, child, outcome))

        child.link.ask(operation).add_done_callback(done)

    def _done(self, number: int, child: Child, outcome: Future[Any]) -> None:
        running = self._running.get(number)
        if running is None or child.id not in running.waiting:
            return
        running.waiting.discard(child.id)
        error = outcome.exception()
        if not isinstance(error, LinkLost):
            running.outcomes[child.id] = (child, error if error is not None else outcome.result())
        if running.waiting:
            return
        del self._running[number]
        if not self._running:
            self._newest.clear()
        for model in {running.operation.model, *running.kept}:
            self._broadcast(model)
        running.answer(_outcome(running))

    def _broadcast(self, model: str) -> None:
        if model:
            message = OverridesChanged(model, self._overrides.of(model))
            for child in self._children():
                child.link.tell(message)


def _outcome(running: _RunningOperation) -> object:
    """The outcome on the asking worker. If that is no error, the first error of another worker."""
    own = running.outcomes.get(running.asker.id)
    if own is not None and isinstance(own[1], BaseException):
        return own[1]
    for child, outcome in running.outcomes.values():
        if isinstance(outcome, ServingError):
            message = f"worker {child.number}: {outcome.message}"
            return type(outcome)(message, accepted=outcome.accepted, retry_after=outcome.retry_after)
        if isinstance(outcome, BaseException):
            return outcome
    return own[1] if own is not None else Unavailable("the worker that was asked is gone", accepted=True)
