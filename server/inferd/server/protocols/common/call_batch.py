"""Calls of one hot method that came in one turn of the loop: those of one form are read, run and answered together.

A protocol says how its messages are read and written (`rpc.speech`); everything that is not usual goes to the method's
own handler, call by call.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from inferd.server.inference.queued_groups import BatchShare, QueuedGroups
from inferd.server.inference.request_groups import GroupRunner, GroupTarget, TargetCache
from inferd.server.protocols.common.codec import Codec
from inferd.server.transport.calls import UnaryCall, UnaryHandler
from inferd.wire.request_forms import MessageLayout, RequestForm

_log = logging.getLogger(__name__)
_Group = tuple[list[UnaryCall], list[tuple[MessageLayout[Any], bytes]]]


Refuse = Callable[[Sequence[UnaryCall], Sequence[str], Exception, str], None]
"""Fails calls for one reason: the ids that their statuses name, and the model. See `Edge.fail_together`."""


class CallBatch:
    """The handler of bursts of one method. On the loop's thread only."""

    def __init__(self, speech: Codec, bursts: GroupRunner, alone: UnaryHandler, refuse: Refuse) -> None:
        """`alone` handles one call, and never raises."""
        self._refuse = refuse
        self._speech = speech
        self._bursts = bursts
        self._alone = alone
        self._targets = TargetCache(speech.target)
        self._line = QueuedGroups(speech, self._refuse_one)

    def __call__(self, calls: Sequence[UnaryCall], arrived_at: float) -> Sequence[UnaryCall]:
        """Answers what can be answered at once, starts the rest and gives it."""
        waiting: list[UnaryCall] = []
        match = self._speech.layouts.match
        forms: dict[RequestForm[Any], _Group] = {}
        left: list[UnaryCall] = []
        for call in calls:
            message = call.request
            layout = match(message)
            if layout is None:
                left.append(call)
                continue
            group = forms.get(layout.form)
            if group is None:
                group = forms[layout.form] = ([], [])
            group[0].append(call)
            group[1].append((layout, message))
        models = Counter(form.facts[0] for form in forms) if len(forms) > 1 else {}
        for form, (callers, messages) in forms.items():
            target = self._targets[form]
            # Several forms for one model would be batches of their own here; in its queue they may share one.
            if target is None or models.get(target.model, 1) > 1:
                left += callers
            else:
                left += self._run(form, target, messages, callers, arrived_at, waiting)
        if left and len(forms) > 1:  # first come, first served
            ids = set(map(id, left))
            left = [call for call in calls if id(call) in ids]
        for call in left:
            self._alone(call)
        return [*waiting, *left] if waiting else left

    def _run(
        self,
        form: RequestForm[Any],
        target: GroupTarget,
        messages: list[tuple[MessageLayout[Any], bytes]],
        calls: list[UnaryCall],
        arrived_at: float,
        waiting: list[UnaryCall],
    ) -> list[UnaryCall]:
        """Gives those that are to be looked at alone; those in line for their model come to `waiting`."""
        speech = self._speech
        found = speech.request_ids(calls, messages)
        if None in found:
            return calls
        request_ids = cast(Sequence[str], found)

        def answer(share: BatchShare, first: int) -> None:
            end = first + share.count
            answers = speech.encode(share, request_ids[first:end])
            for call, message in zip(calls[first:end], answers, strict=True):
                try:
                    call.reply(message)
                except Exception:
                    _log.exception("a call could not be answered")

        def refuse(error: Exception, first: int) -> None:
            names = request_ids[first:] if speech.names else [""] * (len(calls) - first)
            self._refuse(calls[first:], names, error, target.model)

        done = self._bursts.run(speech.protocol, target, form, messages, arrived_at, answer, refuse, calls)
        left = calls[done:]
        if left and self._bursts.line_up(
            self._line,
            target,
            form,
            messages[done:],
            arrived_at,
            request_ids[done:],
            left,
        ):
            waiting += left
            return []
        return left

    def _refuse_one(self, call: UnaryCall, request_id: str, error: Exception, model: str) -> None:
        self._refuse([call], [request_id if self._speech.names else ""], error, model)
