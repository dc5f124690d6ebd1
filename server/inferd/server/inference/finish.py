"""The end of every inference request: encodes, counts and sends answers; counts, logs and sends failures.

Requests that ran in one batch are answered together: one call encodes their outputs, one call counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, ServingError
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.interfaces import Call, Codec
from inferd.server.inference.plan import RequestForm
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.trace import trace_fields
from inferd.server.lifecycle.interfaces import MetricsLike
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.tensors import WireError

_log = logging.getLogger(__name__)
_LARGE = 16 * 2**20  # bytes of one output of a batch


class Finish:
    """Ends inference requests. Implements `scheduling.request.Owner` for all requests of a server. Thread-safe."""

    def __init__(self, metrics: MetricsLike, ids: RequestIds, failures: FailureLog, inflight: InflightBounds) -> None:
        """`inflight`: the bytes of large outputs count there until they are encoded."""
        self._metrics = metrics
        self._ids = ids
        self._failures = failures
        self._inflight = inflight

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """See Owner."""
        first = requests[0]
        group: RequestGroup = first.group
        plan, codec = group.plan, group.codec
        lone = len(requests) == 1
        if not lone and any(output.nbytes > _LARGE for output in outputs.values()):
            # So that the outputs of a batch and all messages made of them are not held at the same time.
            self._large(requests, outputs, started_at, batch_rows)
            return
        try:
            if list(outputs) != plan.names:
                outputs = ordered(outputs, plan.names)
            messages = codec.encode(group, outputs, requests)
        except Exception as error:
            self._not_encoded(requests, outputs, error, started_at, batch_rows)
            return
        now = monotonic()
        if lone:  # as below, without its lists: this is the latency of a server with one call in flight
            if first.claim():
                call, first.call = first.call, None
                started = group.started
                plan.metrics.requests(codec.protocol, 1, now - started, started_at - started, now - started_at)
                try:
                    call.reply(messages[0])
                except Exception:
                    _log.exception("a call could not be answered")
                if first.lease is not None:
                    first.lease.release()
                group.release()
            return
        answered: list[tuple[Call, Any]] = []
        leases: list[Any] = []
        # Answered requests by group. The groups have one plan; a batch may hold requests of several turns.
        shares: list[tuple[RequestGroup, int]] = []
        count = 0
        for request, message in zip(requests, messages, strict=True):
            try:  # as `claim`, written out
                del request._unanswered
            except AttributeError:
                continue
            request.finished = True
            answered.append((request.call, message))
            request.call = None
            if request.lease is not None:
                leases.append(request.lease)
            if request.group is not group:
                shares.append((group, count))
                group, count = request.group, 0
            count += 1
        shares.append((group, count))
        for group, count in shares:
            if count:
                started = group.started
                plan.metrics.requests(codec.protocol, count, now - started, started_at - started, now - started_at)
        for call, message in answered:
            try:
                call.reply(message)
            except Exception:
                _log.exception("a call could not be answered")
        for lease in leases:
            lease.release()
        for group, count in shares:
            if count:
                group.release(count)

    def _not_encoded(
        self,
        requests: Sequence[InferenceRequest],
        outputs: dict[str, Array],
        error: Exception,
        started_at: float,
        batch_rows: int,
    ) -> None:
        """Encodes the answers of a batch one by one, so that only the requests whose answer cannot be encoded fail."""
        if len(requests) > 1:
            self._one_by_one(requests, outputs, started_at, batch_rows)
            return
        request = requests[0]
        if request.claim():
            request.started_at = started_at
            self._fail(request, unsendable(error) if isinstance(error, WireError) else error)

    def _large(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """Encodes large answers one by one. What is not encoded yet counts as in flight, so that clients that do not
        read are cut off before there are more answers."""
        held = sum(output.nbytes for output in outputs.values())
        share = held // len(requests)
        self._inflight.count(held)
        try:
            for part in self._parts(requests, outputs):
                held -= share
                self._inflight.release(share)
                self.answer(*part, started_at, batch_rows)
        finally:
            self._inflight.release(held)

    def _one_by_one(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        for part in self._parts(requests, outputs):
            self.answer(*part, started_at, batch_rows)

    @staticmethod
    def _parts(
        requests: Sequence[InferenceRequest], outputs: dict[str, Array]
    ) -> Iterator[tuple[Sequence[InferenceRequest], dict[str, Array]]]:
        """Each request of a batch with its rows of the outputs."""
        rows = requests[0].route.rows or 1
        for number, request in enumerate(requests):
            yield (request,), {name: output[number * rows : (number + 1) * rows] for name, output in outputs.items()}

    # -- failures ------------------------------------------------------------------------------------------------------

    def ended(self, request: InferenceRequest) -> None:
        """See Owner."""
        self._fail(request, request.error or ExecutionFailed("the model gave no answer"))

    def _fail(self, request: InferenceRequest, error: Exception) -> None:
        """Ends a started request with a failure. The caller has claimed the request."""
        group: RequestGroup = request.group
        codec, started, now = group.codec, group.started, monotonic()
        ran_at = request.started_at  # 0: the request never reached the model
        queued = (ran_at or now) - started if request.enqueued_at or ran_at else 0.0
        computed = now - ran_at if ran_at else 0.0
        group.plan.metrics.request(codec.protocol, code_of(error), now - started, queued, computed)
        call, request.call = request.call, None
        self._send_failure(codec, ((call, request.request_id),), error, group.template.form)
        if request.lease is not None:
            request.lease.release()
        group.release()

    def rejected(self, requests: Sequence[InferenceRequest], error: Exception) -> None:
        """Ends requests that the scheduler refused, all for one reason."""
        requests = [request for request in requests if request.claim()]
        by_group: dict[RequestGroup, list[InferenceRequest]] = {}
        for request in requests:
            by_group.setdefault(request.group, []).append(request)
        for group, members in by_group.items():
            codec = group.codec
            group.plan.metrics.refused(codec.protocol, code_of(error), len(members), monotonic() - group.started)
            worded = codec.refused(error, group.template.form)
            calls = [(request.call, request.request_id) for request in members]
            self._send_failure(codec, calls, worded, group.template.form)
            for request in members:
                request.call = None
                if request.lease is not None:
                    request.lease.release()
            group.release(len(members))

    def not_started(
        self,
        codec: Codec,
        calls: Sequence[tuple[Call, str]],
        error: Exception,
        form: RequestForm | None,
        seconds: float,
    ) -> None:
        """Ends calls for which no request was made: access was refused, the message could not be decoded, or it names
        no model that is served. `form`: None where the message could not be decoded. `seconds`: since they arrived."""
        worded = error if form is None else codec.refused(error, form)
        code = codec.failure(error, "", "", None).code.name if form is None else code_of(error)
        for _ in calls:
            self._metrics.unknown(codec.protocol, code, seconds)
        self._send_failure(codec, calls, worded, form)

    def unopened(self, group: RequestGroup, now: float) -> None:
        """Ends the calls of a group that has an error: its model is not served, or its form fails the signature
        check."""
        codec, form, calls = group.codec, group.template.form, group.failed
        error = group.error
        assert error is not None
        if group.handle is None:
            self.not_started(codec, calls, error, form, now - group.started)
            return
        id_ = group.handle.servable.id
        metrics = self._metrics.model(id_.name, id_.version)
        metrics.refused(codec.protocol, code_of(error), len(calls), now - group.started)
        self._send_failure(codec, calls, codec.refused(error, form), form)
        group.handle.release()

    def _send_failure(
        self, codec: Codec, calls: Sequence[tuple[Call, str]], error: Exception, form: RequestForm | None
    ) -> None:
        """Fails calls of one method for one reason and writes at most one log line for all of them."""
        call, request_id = calls[0]
        shown = request_id or self._ids.request_id(call)
        failure = codec.failure(error, request_id, shown, form)
        left_out = self._failures.admit(call.method, failure.code, len(calls))
        if left_out is not None:  # None: the line is left out, and its fields need not be gathered
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
    """The outputs in the order of `names`. Raises ExecutionFailed where one is missing."""
    try:
        return {name: outputs[name] for name in names}
    except KeyError as error:
        raise ExecutionFailed(f"the model gave no output {error.args[0]!r}") from None


def unsendable(error: WireError) -> ExecutionFailed:
    """The error for an output that cannot be encoded: the model has failed, not the caller."""
    return ExecutionFailed(f"the model's answer cannot be sent: {error}")


def code_of(error: BaseException) -> str:
    """The name of an error's status code, for the metrics."""
    return error.code.name if isinstance(error, ServingError) else "INTERNAL"
