"""The request pipeline from calls to the schedulers' queues, for every protocol and every transport.

    handle   starts the calls of one turn of a transport: access → decode → group by form → acquire → submit
    start    starts calls that were decoded and authorized elsewhere (REST): acquire → submit

`finish.py` is the second half: answers and failures.

The codec recognises a message that equals an earlier one in all but its data and id. Any other message goes through the
full decoder; the rest of the pipeline then treats it as a group of one request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from inferd.backends.api import Array
from inferd.server.access.caller import Caller
from inferd.server.access.client_limits import Lease
from inferd.server.access.grants import Scope
from inferd.server.access.method_rules import RULES
from inferd.server.access.rules import AccessRules
from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.inference.finish import Finish
from inferd.server.inference.interfaces import Call, Codec, DecodedCall
from inferd.server.inference.plan import KEPT_PLANS, Plan, RequestForm, RequestTemplate
from inferd.server.inference.request_groups import NOTHING, RequestGroup
from inferd.server.lifecycle.interfaces import Acquires, HandleLike, MetricsLike, SchedulerLike, ServableLike
from inferd.server.scheduling.request import NEXT_TURN, InferenceRequest, Route
from inferd.wire.message_forms import MessageForm, MessageLayout

_log = logging.getLogger(__name__)


class UnknownSignature(InvalidRequest):
    """The model has no signature of this name."""


class InferenceService:
    """Runs inference calls. Thread-safe."""

    def __init__(
        self,
        manager: Acquires,
        metrics: MetricsLike,
        rules: AccessRules,
        finish: Finish,
        codecs: Mapping[str, Codec],
    ) -> None:
        """`codecs`: by full method path. Raises KeyError for a path without an access rule."""
        self._manager = manager
        self._metrics = metrics
        self._rules = rules
        self._finish = finish
        self._codecs = {path: (codec, RULES[path]) for path, codec in codecs.items()}

    def handle(self, calls: Sequence[Call], arrived_at: float, caller: Caller | None = None) -> None:
        """Starts the inference of each call, and fails the calls that cannot be started. Requests are queued in the
        order of the calls. Never raises.

        arrived_at   monotonic seconds at which the first of the calls arrived
        caller       the caller of all calls, where it was admitted before (streams, REST); None: each is admitted here
        """
        codecs, finish, rules = self._codecs, self._finish, self._rules
        admits, authorizes = caller is None and not rules.open, rules.authority is not None
        groups: dict[MessageForm[Any], RequestGroup] = {}
        started: list[RequestGroup] = []
        pending: dict[SchedulerLike, list[InferenceRequest]] = {}
        lease: Lease | None = None
        allowed: Caller | None = None
        allowed_form: MessageForm[Any] | None = None
        # Of the call before: most calls have the same layout, so what was looked up for it is used again.
        same: MessageLayout[Any] | None = None
        template: RequestTemplate | None = None
        group = None
        for call in calls:
            codec, rule = codecs[call.method]
            try:
                if admits:
                    lease = None  # the previous call's; the next line may raise
                    caller, lease = rules.admit(call, rule)
                message = call.request
                layout = codec.match(message)
                if layout is not same:
                    same = None
                    template = None if layout is None else codec.templates[layout.form]
                inputs = request_id = None
                if layout is not None and template is not None:
                    request_id = layout.request_id(message) if layout.identified else ""
                    if request_id == "" and codec.new_id is not None:
                        request_id = codec.new_id(call, "")
                if (
                    layout is None
                    or template is None
                    # An id that is not UTF-8. The full decoder words the refusal.
                    or request_id is None
                    # No inputs: a BOOL element is neither 0 nor 1. The full decoder words the refusal.
                    or (layout.form.checked and (inputs := layout.inputs(message)) is None)
                ):
                    started += self._decoded(codec.decode(call), codec, arrived_at, pending, caller, lease)
                    continue
                priority = template.priority if codec.priority_of is None else codec.priority_of(call)
            except Exception as error:
                if lease is not None:
                    lease.release()
                request_id = getattr(error, "request_id", "")
                finish.not_started(codec, ((call, request_id),), error, None, monotonic() - arrived_at)
                continue
            form = layout.form
            if codec.bounded or (authorizes and (caller is not allowed or form is not allowed_form)):
                if not self._may(call, codec, caller, template, request_id, arrived_at):
                    if lease is not None:
                        lease.release()
                    continue
                allowed, allowed_form = caller, form  # the next call of the same caller and form needs no look-up
            if same is None or group is None:
                same = layout
                group = groups.get(form)
                if group is None:
                    group = groups[form] = RequestGroup(codec, template, arrived_at)
                    group.asked = priority
                    self._open(group, pending, layout, message)
                    started.append(group)
            if group.error is not None:
                if lease is not None:
                    lease.release()
                group.failed.append((call, request_id))
                continue
            if priority != group.asked:
                group.alike = False
            request = InferenceRequest(
                finish,
                group.route,
                inputs,
                layout,
                message,
                call.deadline,
                priority or group.priority,
                len(message),
                call,
                group,
                request_id,
            )
            if lease is not None:
                request.lease = lease
                group.alike = False
            if template.queue_timeout is not None:
                request.queue_deadline = arrived_at + template.queue_timeout
                group.alike = False
            group.pending.append(request)
            group.count += 1
        self._submit(started, pending)

    def start(self, decoded: Sequence[DecodedCall], codec: Codec, started: float) -> None:
        """Starts decoded calls for one servable, whose callers were admitted and authorized before, and fails the calls
        that cannot be started. `started`: monotonic seconds at which they arrived. Never raises."""
        pending: dict[SchedulerLike, list[InferenceRequest]] = {}
        self._submit(self._decoded(decoded, codec, started, pending, None, None), pending)

    def _may(
        self,
        call: Call,
        codec: Codec,
        caller: Caller | None,
        template: RequestTemplate,
        request_id: str,
        started: float,
    ) -> bool:
        """Whether a decoded call passes the codec's own checks and the access rules. If not, it has been failed."""
        try:
            if codec.bounded:
                codec.admit(call)
            if caller is not None:
                self._rules.authorize(caller, Scope.PREDICT, template.form.model)
        except ServingError as error:
            self._finish.not_started(codec, ((call, request_id),), error, template.form, monotonic() - started)
            return False
        return True

    def _decoded(
        self,
        decoded: Sequence[DecodedCall],
        codec: Codec,
        started: float,
        pending: dict[SchedulerLike, list[InferenceRequest]],
        caller: Caller | None,
        lease: Lease | None,
    ) -> list[RequestGroup]:
        """Makes a group for each of the decoded calls, which are for one servable: it is acquired once."""
        groups: list[RequestGroup] = []
        first = decoded[0]
        if not self._may(first.call, codec, caller, first.template, first.request_id, started):
            if lease is not None:
                lease.release()
            return groups
        for decoded_call in decoded:
            template, call = decoded_call.template, decoded_call.call
            group = RequestGroup(codec, template, started)
            groups.append(group)
            handle = groups[0].handle if len(groups) > 1 and groups[0].error is None else None
            self._open(group, pending, inputs=decoded_call.inputs, handle=handle, remember=decoded_call.remembered)
            if group.error is not None:
                if lease is not None:
                    lease.release()
                group.failed.append((call, decoded_call.request_id))
                if group.handle is None:
                    break  # no servable: the call is failed once
                continue
            request = InferenceRequest(
                self._finish,
                group.route,
                decoded_call.inputs,
                deadline=call.deadline,
                priority=decoded_call.priority or group.priority,
                nbytes=decoded_call.nbytes,
                call=call,
                group=group,
                request_id=decoded_call.request_id,
            )
            request.owned = decoded_call.owned
            if template.queue_timeout is not None:
                request.queue_deadline = started + template.queue_timeout
            request.lease, lease = lease, None
            group.alike = False
            group.pending.append(request)
            group.count += 1
        return groups

    def _open(
        self,
        group: RequestGroup,
        pending: dict[SchedulerLike, list[InferenceRequest]],
        layout: MessageLayout[Any] | None = None,
        message: bytes = b"",
        inputs: Mapping[str, Array] | None = None,
        handle: HandleLike | None = None,
        *,
        remember: bool = True,
    ) -> None:
        """Sets the group's handle and plan, or the error that all its calls get.

        The inputs of the first request are `inputs`, or are read from `message` by its `layout`. `handle`: another
        group's handle on the same servable, if there is one. `remember`: keep a new plan with the servable.
        """
        form = group.template.form
        try:
            if handle is None:
                handle = self._manager.acquire(form.model, form.version, form.label)
            else:
                handle = handle.another()
            group.handle = handle
            servable = handle.servable
            plan: Plan | None = servable.plans.get(form)
            if plan is None:
                if inputs is None and layout is not None:
                    inputs = layout.inputs(message)
                plan = self._plan(group.codec, form, servable, inputs or {}, remember=remember)
        except Exception as error:
            group.error = error
            return
        group.plan = plan
        group.priority = servable.default_priority
        group.route = plan.route or Route(plan.signature.name, form.wanted)
        scheduler = servable.scheduler
        waiting = pending.get(scheduler)
        if waiting is None:
            waiting = pending[scheduler] = []
        group.pending = waiting

    def _plan(
        self, codec: Codec, form: RequestForm, servable: ServableLike, inputs: Mapping[str, Array], *, remember: bool
    ) -> Plan:
        signature = servable.signatures.get(form.signature or servable.default_signature)
        if signature is None:
            known = ", ".join(map(repr, servable.signatures))
            raise UnknownSignature(f"model {servable.id} has no signature {form.signature!r}; expected one of {known}")
        codec.check(servable.id, signature, inputs, form.wanted or ())
        metrics = self._metrics.model(servable.id.name, servable.id.version)
        route = servable.scheduler.route(signature.name, form.wanted, inputs)
        names = list(form.wanted or (spec.name for spec in signature.outputs))
        plan = Plan(signature, names, metrics, route)
        if remember:
            plans = servable.plans
            if len(plans) >= KEPT_PLANS:
                plans.clear()
            plans[form] = plan
        return plan

    def _submit(
        self, groups: Sequence[RequestGroup], pending: Mapping[SchedulerLike, Sequence[InferenceRequest]]
    ) -> None:
        finish = self._finish
        alike = len(groups) == 1 and groups[0].alike
        for group in groups:
            group.pending = NOTHING  # its requests refer to the group: this breaks the reference cycle
            if group.error is not None:
                finish.unopened(group, monotonic())
            else:
                group.hold()
        for scheduler, requests in pending.items():
            try:
                for rejection in scheduler.submit(requests, alike=alike):
                    finish.rejected(rejection.requests, rejection.error())
            except Exception as error:
                _log.exception("requests could not be submitted")
                finish.rejected(requests, error)
            if requests[0].place is NEXT_TURN:
                continue
            for request in requests:
                call = request.call
                if call is not None and not request.finished:
                    call.on_cancel(request.cancel)
