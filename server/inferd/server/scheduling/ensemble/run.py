"""The run of one request through the steps of an ensemble."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from inferd.backends.api import Array, Signature
from inferd.server.errors import ExecutionFailed, InvalidRequest, NotFound, ServingError, Unavailable
from inferd.server.scheduling.ensemble.step_graph import GraphStep
from inferd.server.scheduling.request import Callback, InferenceRequest, Route

if TYPE_CHECKING:
    from inferd.server.scheduling.ensemble.scheduler import EnsembleScheduler

_log = logging.getLogger("inferd.scheduling")


class StepTarget(Protocol):
    """A loaded model that a step runs on."""

    @property
    def id(self) -> Any: ...
    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    @property
    def default_signature(self) -> str: ...
    @property
    def scheduler(self) -> Any: ...


class Held(Protocol):
    """A handle that keeps a step's model loaded until `release`. `release` is idempotent."""

    @property
    def servable(self) -> Any: ...
    def release(self) -> None: ...


class EnsembleRun:
    """The run of one request through the steps. Thread-safe: the lock guards the fields and is never held during calls
    of other objects.

    started   `start` has returned
    """

    __slots__ = (
        "_handles", "_inner", "_left", "_lock", "_missing", "_needed", "_over", "_pipeline", "_ran", "_readers",
        "_tensors", "request", "started",
    )  # fmt: skip

    def __init__(self, pipeline: EnsembleScheduler, request: InferenceRequest, needed: frozenset[int]) -> None:
        wiring = pipeline.wiring
        self.request = request
        self._pipeline = pipeline
        self._needed = needed
        self._lock = threading.Lock()
        self.started = False
        self._over = False
        self._ran = False
        self._left = len(needed)
        self._tensors: dict[str, Array] = dict(request.inputs)
        # Steps do not wait for an optional input that the request leaves out.
        absent = [name for name in wiring.inputs if name not in request.inputs]
        self._missing = list(wiring.needs)
        for name in (*request.inputs, *absent):
            for index in wiring.consumers.get(name, ()):
                self._missing[index] -= 1
        # How often each tensor will still be read; outputs are read once more, by the answer.
        self._readers = {
            name: sum(index in needed for index in consumers) + (name in wiring.outputs)
            for name, consumers in wiring.consumers.items()
        }
        self._handles: dict[int, Held] = {}
        self._inner: dict[int, InferenceRequest] = {}

    def start(self) -> None:
        """Acquires every needed model and starts the first steps. Raises ServingError: then no step has been
        started."""
        pipeline = self._pipeline
        stages = pipeline.wiring.stages
        try:
            for index in self._needed:
                try:
                    self._handles[index] = pipeline.acquire(stages[index].model, stages[index].version)
                except ServingError as error:
                    # NotFound would blame the caller, who named the ensemble, and the ensemble exists.
                    kind = Unavailable if isinstance(error, NotFound) else type(error)
                    raise kind(self._worded_text(stages[index], error.message, "it is not available")) from None
            self.request.place = self
            first = [index for index in sorted(self._needed) if not self._missing[index]]
            self._launch(first[0])
        except BaseException:
            self._end()
            raise
        for index in first[1:]:
            self._try_launch(index)
        if self.request.cancelled:
            self.discard(self.request)

    def discard(self, request: InferenceRequest) -> None:
        """Ends the run of a cancelled request; see `QueuePlace`."""
        self._end()

    def fail(self, error: ServingError) -> None:
        """Ends the run and fails its request. Steps that are running are cancelled."""
        if self._end():
            self.request.fail(error)

    def _end(self) -> bool:
        """Ends the run: cancels its steps and releases the models. True for the first call only."""
        with self._lock:
            if self._over:
                return False
            self._over = True
            inner, self._inner = list(self._inner.values()), {}
            self._tensors = {}
        for request in inner:
            request.cancel()
        for handle in self._handles.values():
            handle.release()
        self._pipeline.leave(self)
        return True

    def _try_launch(self, index: int) -> None:
        try:
            self._launch(index)
        except ServingError as error:
            self.fail(error)
        except Exception as error:
            _log.exception("%s: a step could not be started", self._pipeline.name)
            self.fail(ExecutionFailed(f"in {self._pipeline.name}: {type(error).__name__}"))

    def _launch(self, index: int) -> None:
        pipeline = self._pipeline
        stage = pipeline.wiring.stages[index]
        target: StepTarget = self._handles[index].servable
        signature = target.signatures[target.default_signature]
        inner = self._take(index, stage, signature)
        if inner is None:
            return
        try:
            try:
                pipeline.check(target.id, signature, inner.inputs, inner.wanted or ())
            except InvalidRequest as error:
                raise self._attributed(stage, error) from None
            for rejection in target.scheduler.submit((inner,)):
                raise rejection.error()
        except ServingError as error:
            with self._lock:
                self._inner.pop(index, None)
            raise self._worded(stage, error) from None

    def _take(self, index: int, stage: GraphStep, signature: Signature) -> InferenceRequest | None:
        """Makes the request of a step and keeps it before it is submitted, so that a cancel reaches it. None: the run
        has ended."""
        request = self.request
        with self._lock:
            if self._over:
                return None
            inputs = {name: self._tensors[tensor] for name, tensor in stage.inputs if tensor in self._tensors}
            for tensor in {tensor for _, tensor in stage.inputs}:
                self._readers[tensor] -= 1
                if not self._readers[tensor]:
                    self._tensors.pop(tensor, None)  # frees memory for the next steps
            inner = self._inner[index] = InferenceRequest(
                Callback(lambda done: self._done(index, done)),
                Route(signature.name, tuple(name for name, _ in stage.outputs)),
                inputs,
                deadline=request.deadline,
                priority=request.priority,
                nbytes=sum(array.nbytes for array in inputs.values()),
                call=request.call,
            )
            if request.queue_deadline is not None:
                # As in Triton, the queue timeout of the request applies to each step's queue.
                inner.queue_deadline = request.queue_deadline + monotonic() - request.enqueued_at
        return inner

    def _attributed(self, stage: GraphStep, error: ServingError) -> ServingError:
        """The error of a step that refuses its inputs: the caller's only if all of them came with the request."""
        made = any(tensor in self._pipeline.wiring.producers for _, tensor in stage.inputs)
        if not made or not isinstance(error, InvalidRequest):
            return error
        return ExecutionFailed(error.message, accepted=error.accepted)

    def _worded(self, stage: GraphStep, error: ServingError) -> ServingError:
        accepted = error.accepted or self._ran
        message = self._worded_text(stage, error.message, "it failed")
        return type(error)(message, accepted=accepted, retry_after=error.retry_after)

    def _worded_text(self, stage: GraphStep, text: str, hidden: str) -> str:
        """The text of a step's error. The step's model and its own text are for callers who may know of that model;
        others get `hidden`."""
        pipeline = self._pipeline
        if pipeline.access is None or pipeline.access.sees(self.request.call, stage.model):
            return f"in {pipeline.name}, {stage.subject}: {text}"
        return f"in {pipeline.name}, {stage.place}: {hidden}"

    def _done(self, index: int, inner: InferenceRequest) -> None:
        wiring = self._pipeline.wiring
        stage = wiring.stages[index]
        if inner.error is not None:
            self.fail(self._worded(stage, self._attributed(stage, inner.error)))
            return
        outputs = inner.outputs or {}
        lacking = [name for name, _ in stage.outputs if name not in outputs]
        if lacking:
            text = f"it gave no output {lacking[0]!r}"
            self.fail(ExecutionFailed(self._worded_text(stage, text, "it failed")))
            return
        ready = []
        with self._lock:
            if self._over:
                return
            self._ran = True
            self._inner.pop(index, None)
            self._left -= 1
            started = self.request.started_at
            self.request.started_at = min(started, inner.started_at) if started else inner.started_at
            for name, tensor in stage.outputs:
                self._tensors[tensor] = outputs[name]
                for consumer in wiring.consumers[tensor]:
                    self._missing[consumer] -= 1
                    if not self._missing[consumer] and consumer in self._needed:
                        ready.append(consumer)
            finished = not self._left
            made = {name: self._tensors[name] for name in wiring.outputs if name in self._tensors} if finished else {}
        if finished:
            self._succeed(made)
            return
        for consumer in ready:
            self._try_launch(consumer)

    def _succeed(self, outputs: dict[str, Array]) -> None:
        request, pipeline = self.request, self._pipeline
        if not self._end():
            return
        started, rows = request.started_at, request.rows or 1
        request.succeed(outputs, started, rows)
        pipeline.observer.batch(request.signature, (request,), rows, max(0.0, monotonic() - started))
