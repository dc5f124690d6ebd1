"""The journey of a request, for every protocol: an edge decodes a Query, this runs it, the edge encodes the Answer.

acquire → signature → check → submit → (the scheduler runs it) → release → answer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from inferd.backends.api import Array, Signature
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError
from inferd.server.lifecycle.interfaces import Acquires, HandleLike, MetricsLike, ModelMetricsLike, ServableLike
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.request import InferRequest, Route
from inferd.wire.tensors import WireError

_KEPT_PLANS = 256  # plans of one servable

Check = Callable[[ServableId, Signature, Mapping[str, Array], Sequence[str]], None]


class Query(InferRequest):
    """A request in no protocol's words; once started, it is the scheduler's request too: one object all the way.

    version, label   at most one; neither: the newest
    signature        "": the default one; the answering one's name once started
    outputs          names wanted, empty: all (kept as `wanted`: `outputs` is what the model gave)
    priority         0: the model's default
    queue_timeout    seconds it may wait, None: until the deadline
    deadline         monotonic seconds, None: never
    nbytes           bytes that it keeps in memory
    started          monotonic seconds at which it was received
    owned            the arrays belong to this request alone and may be written to
    form             an object that says: same model, signature, outputs, and inputs of the same names, types and shapes
    """

    __slots__ = ("done", "form", "handle", "label", "model", "plan", "protocol", "started", "version")
    handle: HandleLike  # this and the next two are set by InferenceService
    plan: Plan
    done: Done

    def __init__(
        self,
        protocol: str,
        model: str,
        version: int | None,
        label: str | None,
        signature: str,
        inputs: dict[str, Array],
        outputs: tuple[str, ...],
        priority: int,
        queue_timeout: float | None,
        deadline: float | None,
        nbytes: int,
        started: float,
        owned: bool = False,
        form: object = None,
    ) -> None:
        # As InferRequest's own, written out: this is made for every request.
        self.signature = signature
        self.inputs = inputs
        self.on_done = _ended
        self.wanted = outputs or None
        self.rows = None
        self.deadline = deadline
        self.queue_deadline = None if queue_timeout is None else started + queue_timeout
        self.priority = priority
        self.nbytes = nbytes
        self.owned = owned
        self.caller = None
        self.outputs = None
        self.error = None
        self.finished = False
        self.cancelled = False
        self.enqueued_at = 0.0
        self.started_at = 0.0
        self.finished_at = 0.0
        self.batch_rows = 0
        self.leaves_at = 0.0
        self.route = None
        self.place = None
        self._unanswered = True
        self.protocol = protocol
        self.model = model
        self.version = version
        self.label = label
        self.started = started
        self.form = form


@dataclass(slots=True)  # not frozen: that would cost a microsecond a request
class Answer:
    """Outputs in the order asked for, else in that of the signature. Times in seconds. `max_batch_size` is the
    servable's: 0 where nothing is known to be a batch axis. `class_labels`: names of classes by output."""

    id: ServableId
    signature: str
    outputs: dict[str, Array]
    queue_seconds: float
    compute_seconds: float
    max_batch_size: int = 0
    class_labels: Mapping[str, Sequence[str]] | None = None


@dataclass(slots=True)
class Plan:
    """What one servable has found out about one form of request: that it passes the check, and where it goes. Kept with
    the servable, and gone with it: so are the metrics of a version that is forgotten.

    names   of the outputs, in the order in which they are answered
    """

    signature: Signature
    names: list[str]
    metrics: ModelMetricsLike
    route: Route | None


Done = Callable[[Answer | ServingError], None]


class UnknownSignature(InvalidRequest):
    """The model has no signature of this name."""


class InferenceService:
    """Runs queries. Thread-safe."""

    def __init__(self, manager: Acquires, metrics: MetricsLike, check: Check) -> None:
        self._manager = manager
        self._metrics = metrics
        self._check = check

    def start(self, query: Query, done: Done, caller: object = None) -> Callable[[], None]:
        """Starts a query and gives the function that cancels it. `done` is called exactly once, from any thread, maybe
        before this returns; it must be quick and must not raise. Raises ServingError for what is refused: then `done`
        is not called. A query is started once. `caller` is who asks, as `Gate.client` takes it: clients share a full
        queue."""
        try:
            handle = self._manager.acquire(query.model, query.version, query.label)
        except BaseException as error:
            self._metrics.unknown(query.protocol, _code(error), monotonic() - query.started)
            raise
        servable = handle.servable
        plan = servable.plans.get(query.form)
        if plan is None:
            metrics = self._metrics.model(servable.id.name, servable.id.version)
            try:
                plan = self._plan(servable, query, metrics)
            except BaseException as error:
                _refused(query, handle, metrics, error)
                raise
        query.signature = plan.signature.name
        query.priority = query.priority or servable.default_priority
        query.route = plan.route
        query.handle = handle
        query.plan = plan
        query.done = done
        query.caller = caller
        try:
            servable.scheduler.submit(query)
        except BaseException as error:
            query.done = _nobody
            query.caller = None
            _refused(query, handle, plan.metrics, error)
            raise
        return query.cancel

    def _plan(self, servable: ServableLike, query: Query, metrics: ModelMetricsLike) -> Plan:
        signature = _signature(servable, query.signature)
        wanted = query.wanted or ()
        self._check(servable.id, signature, query.inputs, wanted)
        names = list(wanted or (spec.name for spec in signature.outputs))
        if query.form is None:
            return Plan(signature, names, metrics, None)
        plan = Plan(signature, names, metrics, Route())
        plans = servable.plans
        if len(plans) >= _KEPT_PLANS:
            plans.clear()
        plans[query.form] = plan
        return plan

    def on(self, manager: Acquires) -> InferenceService:
        """The same for what `manager` gives."""
        return InferenceService(manager, self._metrics, self._check)

    def refused(self, protocol: str, code: str, seconds: float) -> None:
        """Counts a request that an edge refused before there was a query."""
        self._metrics.unknown(protocol, code, seconds)


def _ended(request: Any) -> None:
    """The end of the journey: the scheduler calls it when the query has its outcome."""
    handle, plan, done = request.handle, request.plan, request.done
    request.done = _nobody
    request.caller = None  # who may hold on to this request: neither may keep the other
    servable = handle.servable
    handle.release()
    outcome: Answer | ServingError
    code = "OK"
    enqueued, started, finished = request.enqueued_at, request.started_at, request.finished_at
    queued = (started or finished) - enqueued if enqueued else 0.0
    computed = finished - started if started else 0.0  # 0: it never reached the model
    error = request.error
    outputs = request.outputs
    if error is None and outputs is not None:
        try:
            if list(outputs) != plan.names:
                outputs = ordered(outputs, plan.names)
            id_, signature = servable.id, plan.signature.name
            outcome = Answer(id_, signature, outputs, queued, computed, servable.max_batch_size, servable.class_labels)
        except ServingError as failed:
            outcome = failed
            code = failed.code.name
    else:
        outcome = error or ExecutionFailed("the model gave no answer")
        code = outcome.code.name
    plan.metrics.request(request.protocol, code, finished - request.started, queued, computed)
    done(outcome)


def _nobody(_outcome: Answer | ServingError) -> None:
    """Stands in for `done` once it has been called: so a finished query keeps nothing of its caller alive."""


def _refused(query: Query, handle: HandleLike, metrics: ModelMetricsLike, error: BaseException) -> None:
    handle.release()
    metrics.request(query.protocol, _code(error), monotonic() - query.started)


def _signature(servable: ServableLike, name: str) -> Signature:
    found = servable.signatures.get(name or servable.default_signature)
    if found is None:
        known = ", ".join(map(repr, servable.signatures))
        raise UnknownSignature(f"model {servable.id} has no signature {name!r}; expected one of {known}")
    return found


def ordered(outputs: dict[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The outputs in this order. Raises ExecutionFailed where one is missing."""
    try:
        return {name: outputs[name] for name in names}
    except KeyError as error:
        raise ExecutionFailed(f"the model gave no output {error.args[0]!r}") from None


def unsendable(error: WireError) -> ExecutionFailed:
    """An answer that cannot travel is the model's failure, not the caller's."""
    return ExecutionFailed(f"the model's answer cannot be sent: {error}")


def _code(error: BaseException) -> str:
    return error.code.name if isinstance(error, ServingError) else "INTERNAL"
