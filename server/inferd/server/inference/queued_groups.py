"""Requests of one form that came together and cannot run at once: they line up for their model in one go, and those
that ran in one batch are answered in one go.

Each of them is a request of its own in the queue: its deadline, its cancellation and its place are its own, and one
that runs or fails alone is answered alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, ServingError
from inferd.server.inference.service import Plan, ordered, unsendable
from inferd.server.lifecycle.interfaces import HandleLike, ServableLike
from inferd.server.scheduling.request import InferRequest
from inferd.wire.tensors import WireError

_log = logging.getLogger(__name__)


@dataclass(slots=True)  # not frozen: that would cost a microsecond a batch
class BatchShare:
    """What `count` requests get. `outputs` are theirs together, `rows` of them each one's."""

    handle: HandleLike
    plan: Plan
    outputs: dict[str, Array]
    count: int
    rows: int


class AnsweredCall(Protocol):
    """Who asks; see `rpc.transport.UnaryCall`."""

    @property
    def deadline(self) -> float | None: ...
    def on_cancel(self, fn: Callable[[], None]) -> None: ...
    def reply(self, message: bytes) -> None: ...


class GroupCodec(Protocol):
    """What is said to callers; see `rpc.speech.Speech`."""

    protocol: str

    def encode(self, share: BatchShare, request_ids: Sequence[str]) -> list[bytes]: ...
    def encode_one(
        self, servable: ServableLike, signature: str, outputs: dict[str, Array], request_id: str
    ) -> bytes: ...


class QueuedRequest(InferRequest):
    """One of them. `started`: monotonic seconds at which it was received."""

    __slots__ = ("handle", "plan", "request_id", "started", "together")
    handle: HandleLike
    plan: Plan
    request_id: str
    started: float


class QueuedGroups:
    """The requests of one method that line up for their models. Thread-safe."""

    def __init__(self, tongue: GroupCodec, refuse: Callable[[Any, str, Exception, str], None]) -> None:
        """`refuse(caller, request_id, error, model)` tells one caller why there is no answer; never raises."""
        self._tongue = tongue
        self._refuse = refuse
        # One object for all: by this the scheduler knows who is answered together.
        self._together = self._answer
        self._alone = self._end

    def join(
        self,
        handle: HandleLike,
        plan: Plan,
        wanted: tuple[str, ...] | None,
        asked: Sequence[tuple[AnsweredCall, str, dict[str, Array], int]],
        started: float,
    ) -> bool:
        """Queues requests of one form: each with its caller, id, inputs and the bytes that it holds. All or none, and
        False for none: then each should be submitted by itself. `handle` stays the caller's own."""
        route = plan.route
        if route is None or route.line_up is None or route.rows > route.queue.limit:
            return False
        priority = handle.servable.default_priority
        requests = []
        for caller, request_id, inputs, nbytes in asked:
            request = QueuedRequest(
                plan.signature.name,
                inputs,
                self._alone,
                wanted=wanted,
                rows=route.rows,
                deadline=caller.deadline,
                priority=priority,
                nbytes=nbytes,
                caller=caller,
            )
            request.route = route
            request.together = self._together
            request.plan = plan
            request.request_id = request_id
            request.started = started
            request.handle = handle.another()
            requests.append(request)
        if not route.line_up(requests, route.queue, route.key):
            for request in requests:
                request.caller = None
                request.handle.release()
            return False
        for (caller, *_), request in zip(asked, requests, strict=True):
            caller.on_cancel(request.cancel)
        return True

    def _answer(self, requests: Sequence[QueuedRequest], outputs: dict[str, Array]) -> None:
        """The scheduler's: these, of one route, have run in one batch and got these outputs."""
        first = requests[0]
        handle, plan = first.handle, first.plan
        assert plan.route is not None
        rows, names = plan.route.rows, [request.request_id for request in requests]
        try:
            if list(outputs) != plan.names:
                outputs = ordered(outputs, plan.names)
            messages = self._tongue.encode(BatchShare(handle, plan, outputs, len(requests), rows), names)
        except Exception:  # what each of them is told is found out one by one
            for n, request in enumerate(requests):
                request.succeed({name: output[n * rows : (n + 1) * rows] for name, output in outputs.items()})
            return
        answered = [one for one in zip(requests, messages, strict=True) if one[0].claim()]
        finished = monotonic()
        counts: dict[float, int] = {}
        for request, _ in answered:
            counts[request.started] = counts.get(request.started, 0) + 1
            request.handle.release()
        for started, count in counts.items():
            plan.metrics.requests(
                self._tongue.protocol,
                count,
                finished - started,
                first.started_at - started,
                finished - first.started_at,
            )
        for request, message in answered:
            _reply(_caller_of(request), message)

    def _end(self, request: Any) -> None:
        """The scheduler's: one has its outcome."""
        handle, plan, started, finished = request.handle, request.plan, request.started, request.finished_at
        servable, caller = handle.servable, _caller_of(request)
        handle.release()
        message = None
        error: ServingError | None = request.error
        try:
            if error is None:
                outputs = request.outputs
                if list(outputs) != plan.names:
                    outputs = ordered(outputs, plan.names)
                message = self._tongue.encode_one(servable, plan.signature.name, outputs, request.request_id)
        except WireError as failed:
            error = unsendable(failed)
        except ServingError as failed:
            error = failed
        except Exception:
            _log.exception("an answer of %s could not be written", servable.id)
            error = ExecutionFailed("the server failed while it wrote the answer")
        ran_at = request.started_at
        plan.metrics.request(
            self._tongue.protocol,
            "OK" if error is None else error.code.name,
            finished - started,
            (ran_at or finished) - started,
            finished - ran_at if ran_at else 0.0,
        )
        if message is not None:
            _reply(caller, message)
        elif error is not None:
            self._refuse(caller, request.request_id, error, servable.id.name)


def _caller_of(request: QueuedRequest) -> Any:
    """Who asked; the finished request, which he may hold on to, forgets him: neither may keep the other."""
    caller, request.caller = request.caller, None
    return caller


def _reply(caller: AnsweredCall, message: bytes) -> None:
    try:
        caller.reply(message)
    except Exception:
        _log.exception("a call could not be answered")
