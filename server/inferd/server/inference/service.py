"""The request pipeline from calls to the schedulers' queues, for every protocol and every transport.

    handle   starts the calls of one turn of a transport: access → decode → group by form → acquire → submit

`finish.py` is the second half: answers and failures.

The codec recognises a message that equals an earlier one in all but its data and id. Any other message goes through the
full decoder; the rest of the pipeline then treats it as a group of one request.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from time import monotonic
from typing import Any

from inferd.backends.api import Array
from inferd.server.access.caller import Caller
from inferd.server.access.client_limits import Lease
from inferd.server.access.grants import Scope
from inferd.server.access.method_rules import ROUTES, RULES
from inferd.server.access.rules import AccessRules
from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.inference.finish import Finish
from inferd.server.inference.interfaces import Call, Codec, DecodedCall
from inferd.server.inference.plan import KEPT_PLANS, Plan, RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.interfaces import Acquires, HandleLike, MetricsLike, SchedulerLike, ServableLike
from inferd.server.scheduling.request import NEXT_TURN, InferenceRequest, Route
from inferd.wire.message_forms import MessageLayout

_log = logging.getLogger(__name__)
_GROUP = attrgetter("group")


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
        """`codecs`: by full method path, or by route for calls over REST. Raises KeyError for one without an access
        rule."""
        self._manager = manager
        self._metrics = metrics
        self._rules = rules
        self._finish = finish
        self._codecs = {path: (codec, RULES.get(path) or ROUTES[path]) for path, codec in codecs.items()}

    def handle(self, calls: Sequence[Call], arrived_at: float, caller: Caller | None = None) -> None:
        """Starts the inference of each call, and fails the calls that cannot be started. Requests are queued in the
        order of the calls. Never raises.

        arrived_at   monotonic seconds at which the first of the calls arrived
        caller       the caller of all calls, where it was admitted before (streams, REST); None: each is admitted here
        """
        codecs, finish, rules = self._codecs, self._finish, self._rules
        admits, authorizes = caller is None and not rules.open, rules.authority is not None
        groups: dict[RequestTemplate, tuple[RequestGroup, list[InferenceRequest]]] = {}
        started: list[RequestGroup] = []
        pending: dict[SchedulerLike, list[InferenceRequest]] = {}
        lease: Lease | None = None
        # Of the call before: most calls of a turn have one caller and one layout, so what was looked up is used again.
        template: RequestTemplate | None = None
        last_caller: Caller | None = None
        last_codec: Codec | None = None
        last_layout: MessageLayout[Any] | None = None
        # Of that layout, where its requests differ in data, deadline and lease only.
        shared: tuple[Route, int, RequestGroup, list[InferenceRequest]] | None = None
        for call in calls:
            codec, rule = codecs[call.method]
            try:
                if admits:
                    lease = None  # the previous call's; the next line may raise
                    caller, lease = rules.admit(call, rule)
                message = call.request
                layout = codec.match(message)
                same = layout is last_layout and codec is last_codec
                if shared is not None and same and caller is last_caller:
                    route, level, group, waiting = shared
                    request = InferenceRequest(
                        finish, route, None, layout, message, call.deadline, level, len(message), call, group
                    )
                    if lease is not None:
                        request.lease = lease
                    waiting.append(request)
                    continue
                read = None
                if not same:  # `last_codec` is set again once the call has passed all checks
                    last_codec, template = None, None if layout is None else codec.templates[layout.form]
                if layout is not None and template is not None:
                    plain = layout.plain and codec.plain and template.queue_timeout is None
                    read = ("", None, template.priority) if plain else _read(codec, layout, template, call)
                if read is None or layout is None or template is None:
                    last_codec = None
                    started += self._decoded(codec.decode(call), codec, arrived_at, pending, groups, caller, lease)
                    continue
                request_id, inputs, priority = read
            except Exception as error:
                if lease is not None:
                    lease.release()
                request_id = getattr(error, "request_id", "")
                finish.not_started(codec, ((call, request_id),), error, None, monotonic() - arrived_at)
                continue
            if (codec.bounded or (authorizes and not (same and caller is last_caller))) and not self._may(
                call, codec, caller, template, request_id, arrived_at
            ):
                if lease is not None:
                    lease.release()
                continue
            last_caller, last_codec, last_layout = caller, codec, layout
            known = groups.get(template)
            if known is None:
                group = RequestGroup(codec, template, arrived_at, priority)
                known = groups[template] = (group, self._open(group, pending, layout, message))
                started.append(group)
            group, waiting = known
            if group.error is not None:
                if lease is not None:
                    lease.release()
                group.failed.append((call, request_id))
                shared = None
                continue
            route, level = group.route, priority or group.priority
            shared = (route, level, group, waiting) if plain else None
            request = InferenceRequest(
                finish, route, inputs, layout, message, call.deadline, level, len(message), call, group, request_id
            )
            if lease is not None:
                request.lease = lease
            if template.queue_timeout is not None:
                request.queue_deadline = arrived_at + template.queue_timeout
                group.alike = False
            if priority != group.asked:
                group.alike = False
            waiting.append(request)
        self._submit(started, pending)

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
        open_groups: dict[RequestTemplate, tuple[RequestGroup, list[InferenceRequest]]],
        caller: Caller | None,
        lease: Lease | None,
    ) -> list[RequestGroup]:
        """Adds the decoded calls, which are for one servable, to the groups of their forms. A call whose form the codec
        does not keep gets a group of its own. Returns the groups that were made; the servable is acquired once."""
        groups: list[RequestGroup] = []
        first = decoded[0]
        if not self._may(first.call, codec, caller, first.template, first.request_id, started):
            if lease is not None:
                lease.release()
            return groups
        for decoded_call in decoded:
            template, call, priority = decoded_call.template, decoded_call.call, decoded_call.priority
            known = open_groups.get(template)
            if known is None:
                group = RequestGroup(codec, template, started, priority)
                groups.append(group)
                handle = groups[0].handle if len(groups) > 1 and groups[0].error is None else None
                remember = decoded_call.remembered
                waiting = self._open(group, pending, inputs=decoded_call.inputs, handle=handle, remember=remember)
                if remember:
                    open_groups[template] = group, waiting
            else:
                group, waiting = known
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
                priority=priority or group.priority,
                nbytes=decoded_call.nbytes,
                call=call,
                group=group,
                request_id=decoded_call.request_id,
            )
            request.owned = decoded_call.owned
            if template.queue_timeout is not None:
                request.queue_deadline = started + template.queue_timeout
            if not decoded_call.remembered or template.queue_timeout is not None or priority != group.asked:
                group.alike = False
            request.lease, lease = lease, None
            waiting.append(request)
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
    ) -> list[InferenceRequest]:
        """Sets the group's handle and plan, or the error that all its calls get. Returns the list of `pending` for its
        requests.

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
            return []
        group.plan = plan
        group.priority = servable.default_priority
        group.route = plan.route or Route(plan.signature.name, form.wanted)
        scheduler = servable.scheduler
        waiting = pending.get(scheduler)
        if waiting is None:
            waiting = pending[scheduler] = []
        return waiting

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
            if group.error is not None:
                finish.unopened(group, monotonic())
        for scheduler, requests in pending.items():
            if alike:
                groups[0].hold(len(requests))
            else:
                for group, count in Counter(map(_GROUP, requests)).items():
                    group.hold(count)
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


def _read(
    codec: Codec, layout: MessageLayout[Any], template: RequestTemplate, call: Call
) -> tuple[str, dict[str, Array] | None, int] | None:
    """The id, the inputs and the priority of a request with a known layout. Inputs: None, they are read later. None:
    the id is not UTF-8, or a BOOL element is neither 0 nor 1, and the full decoder words the refusal.

    Raises InvalidRequest for a priority that is none.
    """
    request_id = layout.request_id(call.request) if layout.identified else ""
    inputs = layout.inputs(call.request) if layout.form.checked else None
    if request_id is None or (layout.form.checked and inputs is None):
        return None
    return request_id, inputs, template.priority if codec.priority_of is None else codec.priority_of(call)
