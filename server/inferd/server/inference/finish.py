"""The end of a request: its answer is encoded, counted and sent, its failure counted, logged and told. Only here.

Requests that ran in one batch are answered together: their outputs are encoded in one go and noted in the metrics once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, ServingError
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.interfaces import Call, Codec
from inferd.server.inference.plan import RequestForm
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.trace import trace_fields
from inferd.server.lifecycle.interfaces import MetricsLike
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.tensors import WireError

_log = logging.getLogger(__name__)


class Finish:
    """The Owner of all requests (`scheduling.request.Owner`). Thread-safe."""

    def __init__(self, metrics: MetricsLike, ids: RequestIds, failures: FailureLog) -> None:
        self._metrics = metrics
        self._ids = ids
        self._failures = failures

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """See Owner."""
        first = requests[0]
        group: RequestGroup = first.group
        plan, codec = group.plan, group.codec
        try:
            if list(outputs) != plan.names:
                outputs = ordered(outputs, plan.names)
            messages = codec.encode(group, outputs, requests)
        except Exception as error:
            self._not_encoded(requests, outputs, error, started_at, batch_rows)
            return
        now = monotonic()
        if len(requests) == 1:  # as below, written out: with one call in flight every function counts
            if first.claim():
                call, first.call = first.call, None
                started = group.started
                plan.metrics.requests(codec.protocol, 1, now - started, started_at - started, now - started_at)
                self._reply(call, messages[0])
                if first.lease is not None:
                    first.lease.release()
                group.release()
            return
        answered = [pair for pair in zip(requests, messages, strict=True) if pair[0].claim()]
        shares: list[tuple[RequestGroup, int]] = []  # of one plan, but maybe of several turns
        count = 0
        for request, _ in answered:
            if request.group is not group:
                shares.append((group, count))
                group, count = request.group, 0
            count += 1
        shares.append((group, count))
        for group, count in shares:
            if count:
                started = group.started
                plan.metrics.requests(codec.protocol, count, now - started, started_at - started, now - started_at)
        for request, message in answered:
            call, request.call = request.call, None
            self._reply(call, message)
            if request.lease is not None:
                request.lease.release()
        for group, count in shares:
            if count:
                group.release(count)

    def _reply(self, call: Call, message: Any) -> None:
        try:
            call.reply(message)
        except Exception:
            _log.exception("a call could not be answered")

    def _not_encoded(
        self,
        requests: Sequence[InferenceRequest],
        outputs: dict[str, Array],
        error: Exception,
        started_at: float,
        batch_rows: int,
    ) -> None:
        """Whose answer it is that cannot be sent shows when each is encoded by itself."""
        if len(requests) > 1:
            rows = requests[0].route.rows or 1
            for number, request in enumerate(requests):
                own = {name: output[number * rows : (number + 1) * rows] for name, output in outputs.items()}
                self.answer((request,), own, started_at, batch_rows)
            return
        request = requests[0]
        if request.claim():
            request.started_at = started_at
            self._fail(request, unsendable(error) if isinstance(error, WireError) else error)

    # -- failures ------------------------------------------------------------------------------------------------------

    def ended(self, request: InferenceRequest) -> None:
        """See Owner."""
        self._fail(request, request.error or ExecutionFailed("the model gave no answer"))

    def _fail(self, request: InferenceRequest, error: Exception) -> None:
        """A request that was started has failed."""
        group: RequestGroup = request.group
        codec, started, now = group.codec, group.started, monotonic()
        ran_at = request.started_at  # 0: it never reached the model
        queued = (ran_at or now) - started if request.enqueued_at else 0.0
        computed = now - ran_at if ran_at else 0.0
        group.plan.metrics.request(codec.protocol, code_of(error), now - started, queued, computed)
        call, request.call = request.call, None
        self._tell(codec, ((call, request.request_id),), error, group.template.form)
        if request.lease is not None:
            request.lease.release()
        group.release()

    def rejected(self, requests: Sequence[InferenceRequest], error: Exception) -> None:
        """Requests that the scheduler has not taken, all for one reason."""
        requests = [request for request in requests if request.claim()]
        by_group: dict[RequestGroup, list[InferenceRequest]] = {}
        for request in requests:
            by_group.setdefault(request.group, []).append(request)
        for group, own in by_group.items():
            codec = group.codec
            group.plan.metrics.refused(codec.protocol, code_of(error), len(own), monotonic() - group.started)
            told = codec.refused(error, group.template.form)
            self._tell(codec, [(one.call, one.request_id) for one in own], told, group.template.form)
            for request in own:
                request.call = None
                if request.lease is not None:
                    request.lease.release()
            group.release(len(own))

    def not_started(
        self,
        codec: Codec,
        calls: Sequence[tuple[Call, str]],
        error: Exception,
        form: RequestForm | None,
        seconds: float,
    ) -> None:
        """Calls for which there is no request: they were not let in, could not be decoded, or name no model that is
        served."""
        told = error if form is None else codec.refused(error, form)
        code = codec.failure(error, "", "", None).code.name if form is None else code_of(error)
        for _ in calls:
            self._metrics.unknown(codec.protocol, code, seconds)
        self._tell(codec, calls, told, form)

    def unopened(self, group: RequestGroup, now: float) -> None:
        """The calls of a group that has an error: its model is not served, or does not take such requests."""
        codec, form, calls = group.codec, group.template.form, group.failed
        error = group.error
        assert error is not None
        if group.handle is None:
            self.not_started(codec, calls, error, form, now - group.started)
            return
        id_ = group.handle.servable.id
        metrics = self._metrics.model(id_.name, id_.version)
        metrics.refused(codec.protocol, code_of(error), len(calls), now - group.started)
        self._tell(codec, calls, codec.refused(error, form), form)
        group.handle.release()

    def _tell(
        self, codec: Codec, calls: Sequence[tuple[Call, str]], error: Exception, form: RequestForm | None
    ) -> None:
        """Fails calls of one method for one reason, and logs at most one line for all of them."""
        call, request_id = calls[0]
        shown = request_id or self._ids.request_id(call)
        failure = codec.failure(error, request_id, shown, form)
        left_out = self._failures.admit(call.method, failure.code, len(calls))
        if left_out is not None:  # in a flood of refusals most lines are left out: then nobody asks who called
            self._failures.write_admitted(
                call.method,
                failure,
                left_out,
                model="" if form is None else form.model,
                request_id=shown,
                peer=call.peer,
                error=error,
                trace=trace_fields(call),
            )
        codec.fail(call, failure, request_id, form)
        for call, request_id in calls[1:]:
            if codec.named or failure.unexpected:
                failure = codec.failure(error, request_id, request_id or self._ids.request_id(call), form)
            codec.fail(call, failure, request_id, form)


def ordered(outputs: dict[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The outputs in this order. Raises ExecutionFailed where one is missing."""
    try:
        return {name: outputs[name] for name in names}
    except KeyError as error:
        raise ExecutionFailed(f"the model gave no output {error.args[0]!r}") from None


def unsendable(error: WireError) -> ExecutionFailed:
    """An answer that cannot travel is the model's failure, not the caller's."""
    return ExecutionFailed(f"the model's answer cannot be sent: {error}")


def code_of(error: BaseException) -> str:
    """The name of an error's code, for the metrics."""
    return error.code.name if isinstance(error, ServingError) else "INTERNAL"
