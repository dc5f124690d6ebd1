"""What operators want, done by every worker: asked of all in one order, answered when all have done it.

The supervisor's `Overrides` is the only store. Each worker computes what an operation makes of the overrides; the first
result is kept and counts for all. At the end of each operation every worker is told the overrides as they stand.
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
from inferd.server.workers.messages import Keep, Operation, Wished

_COUNT = (ChildPhase.READY, ChildPhase.OPENING, ChildPhase.SERVING)
"""Whose outcome is waited for. A worker that starts does what is asked, too, but in its own time."""


@dataclass(slots=True)
class _Running:
    operation: Operation
    asker: Child
    answer: Answer
    kept: dict[str, ModelOverrides] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    outcomes: dict[int, tuple[Child, object]] = field(default_factory=dict)


class Operations:
    """The supervisor's thread only; `post` brings answers back to it. `everyone` gives the workers that live."""

    def __init__(
        self,
        overrides: Overrides,
        everyone: Callable[[], Iterable[Child]],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._overrides = overrides
        self._everyone = everyone
        self._post = post
        self._running: dict[int, _Running] = {}
        self._last = 0
        self._newest: dict[str, int] = {}  # by model: the last operation that made wishes
        self.configured_models: Mapping[str, ConfiguredModel] | None = None

    def start(self, asker: Child, operation: Operation, answer: Answer) -> None:
        """A worker passes on what an operator asked it for."""
        self._last += 1
        number = self._last
        running = self._running[number] = _Running(replace(operation, number=number), asker, answer)
        if operation.kind == "replace":
            self.configured_models = operation.models
        asked = list(self._everyone())
        running.waiting = {child.id for child in asked if child.phase in _COUNT or child is asker}
        for child in asked:
            self._ask(child, running.operation)

    def keep(self, child: Child, keep: Keep, answer: Answer) -> None:
        """A worker has worked out the wishes for a model."""
        running = self._running.get(keep.operation)
        if keep.operation and (running is None or keep.operation < self._newest.get(keep.model, 0)):
            # A worker that is behind the others: what came of this, or of a later operation, stands.
            kept = None if running is None else running.kept.get(keep.model)
            answer(self._overrides.of(keep.model) if kept is None else kept)
            return
        wishes = keep.wishes if running is None else running.kept.get(keep.model, keep.wishes)
        try:
            self._overrides.change(keep.model, wishes)
        except OverridesError as error:
            answer(error)
            return
        if running is not None:
            running.kept[keep.model] = wishes
            self._newest[keep.model] = keep.operation
        answer(wishes)
        if running is None:
            self._tell(keep.model)

    def _ask(self, child: Child, operation: Operation) -> None:
        def done(outcome: Future[Any]) -> None:
            self._post(partial(self._done, operation.number, child, outcome))

        child.link.ask(operation).add_done_callback(done)

    def _done(self, number: int, child: Child, done: Future[Any]) -> None:
        running = self._running.get(number)
        if running is None or child.id not in running.waiting:
            return
        running.waiting.discard(child.id)
        error = done.exception()
        if not isinstance(error, LinkLost):
            running.outcomes[child.id] = (child, error if error is not None else done.result())
        if running.waiting:
            return
        del self._running[number]
        if not self._running:
            self._newest.clear()
        for model in {running.operation.model, *running.kept}:
            self._tell(model)
        running.answer(_outcome(running))

    def _tell(self, model: str) -> None:
        if model:
            news = Wished(model, self._overrides.of(model))
            for child in self._everyone():
                child.link.tell(news)


def _outcome(running: _Running) -> object:
    """The asker's own, unless that is fine and another worker's is not."""
    own = running.outcomes.get(running.asker.id)
    if own is not None and isinstance(own[1], BaseException):
        return own[1]
    for child, outcome in running.outcomes.values():
        if isinstance(outcome, ServingError):
            words = f"worker {child.number}: {outcome.message}"
            return type(outcome)(words, accepted=outcome.accepted, retry_after=outcome.retry_after)
        if isinstance(outcome, BaseException):
            return outcome
    return own[1] if own is not None else Unavailable("the worker that was asked is gone", accepted=True)
