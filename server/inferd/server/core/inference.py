"""The journey of a request, for every protocol: an edge decodes a Query, this runs it, the edge encodes the Answer.

acquire → signature → check → submit → (the scheduler runs it) → release → answer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from inferd.backends.api import Array, Signature
from inferd.server.core.needs import HandleLike, ManagerLike, MetricsLike, ModelMetricsLike, ServableLike
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.request import InferRequest

Check = Callable[[ServableId, Signature, Mapping[str, Array], Sequence[str]], None]


@dataclass(slots=True)
class Query:
    """A request in no protocol's words.

    version, label   at most one; neither: the newest
    signature        "": the default one
    outputs          names wanted, empty: all
    priority         0: the model's default
    queue_timeout    seconds it may wait, None: until the deadline
    deadline         monotonic seconds, None: never
    nbytes           bytes that it keeps in memory
    owned            the arrays belong to this request alone and may be written to
    started          monotonic seconds at which it was received
    """

    protocol: str
    model: str
    version: int | None
    label: str | None
    signature: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    priority: int
    queue_timeout: float | None
    deadline: float | None
    nbytes: int
    started: float
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs in the order asked for, else in that of the signature. Times in seconds. `max_batch_size` is the
    servable's: 0 where nothing is known to be a batch axis."""

    id: ServableId
    signature: str
    outputs: dict[str, Array]
    queue_seconds: float
    compute_seconds: float
    max_batch_size: int = 0


Done = Callable[[Answer | ServingError], None]


class UnknownSignature(InvalidRequest):
    """The model has no signature of this name."""


class Inference:
    """Runs queries. Thread-safe."""

    def __init__(self, manager: ManagerLike, metrics: MetricsLike, check: Check) -> None:
        self._manager = manager
        self._metrics = metrics
        self._check = check

    def start(self, query: Query, done: Done) -> Callable[[], None]:
        """Starts a query and gives the function that cancels it. `done` is called exactly once, from any thread, maybe
        before this returns; it must be quick and must not raise. Raises ServingError for what is refused: then `done`
        is not called."""
        handle = self._acquire(query)
        servable = handle.servable
        metrics = self._metrics.model(servable.id.name, servable.id.version)
        try:
            signature = _signature(servable, query.signature)
            self._check(servable.id, signature, query.inputs, query.outputs)
            request = InferRequest(
                signature.name,
                query.inputs,
                _Finish(query, handle, signature, metrics, done),
                wanted=query.outputs or None,
                deadline=query.deadline,
                queue_deadline=None if query.queue_timeout is None else query.started + query.queue_timeout,
                priority=query.priority or servable.default_priority,
                nbytes=query.nbytes,
                owned=query.owned,
            )
            servable.scheduler.submit(request)
        except BaseException as error:
            handle.release()
            metrics.request(query.protocol, _code(error), monotonic() - query.started)
            raise
        return request.cancel

    def refused(self, protocol: str, code: str, seconds: float) -> None:
        """Counts a request that an edge refused before there was a query."""
        self._metrics.unknown(protocol, code, seconds)

    def _acquire(self, query: Query) -> HandleLike:
        try:
            return self._manager.acquire(query.model, query.version, query.label)
        except BaseException as error:
            self._metrics.unknown(query.protocol, _code(error), monotonic() - query.started)
            raise


class _Finish:
    """The end of the journey: what the scheduler calls when the request has its outcome."""

    __slots__ = ("_done", "_handle", "_metrics", "_query", "_signature")

    def __init__(
        self, query: Query, handle: HandleLike, signature: Signature, metrics: ModelMetricsLike, done: Done, /
    ) -> None:
        self._query = query
        self._handle = handle
        self._signature = signature
        self._metrics = metrics
        self._done = done

    def __call__(self, request: InferRequest) -> None:
        servable = self._handle.servable
        self._handle.release()
        outcome: Answer | ServingError
        queued, computed = _times(request)
        if request.error is not None:
            outcome = request.error
        else:
            try:
                outputs = _ordered(request.outputs or {}, self._query.outputs, self._signature)
                name = self._signature.name
                outcome = Answer(servable.id, name, outputs, queued, computed, servable.max_batch_size)
            except ServingError as error:
                outcome = error
        query = self._query
        code = outcome.code.name if isinstance(outcome, ServingError) else "OK"
        self._metrics.request(query.protocol, code, monotonic() - query.started, queued, computed)
        self._done(outcome)


def _signature(servable: ServableLike, name: str) -> Signature:
    found = servable.signatures.get(name or servable.default_signature)
    if found is None:
        known = ", ".join(map(repr, servable.signatures))
        raise UnknownSignature(f"model {servable.id} has no signature {name!r}; expected one of {known}")
    return found


def _ordered(outputs: dict[str, Array], wanted: Sequence[str], signature: Signature) -> dict[str, Array]:
    try:
        return {name: outputs[name] for name in wanted or [spec.name for spec in signature.outputs]}
    except KeyError as error:
        raise ExecutionFailed(f"the model gave no output {error.args[0]!r}") from None


def _times(request: InferRequest) -> tuple[float, float]:
    """Seconds in the queue and seconds of computing; 0 for what it never reached."""
    if not request.started_at:
        return (max(0.0, request.finished_at - request.enqueued_at) if request.enqueued_at else 0.0), 0.0
    return max(0.0, request.started_at - request.enqueued_at), max(0.0, request.finished_at - request.started_at)


def _code(error: BaseException) -> str:
    return error.code.name if isinstance(error, ServingError) else "INTERNAL"
