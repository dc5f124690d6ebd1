"""Requests of one form that came together, run as one: one look at the serving map, one handle, one batch on the loop,
one note in the metrics. What a request costs alone is then shared by all of them.

This is a short cut of `core.inference` and of the scheduler's queue, for what nothing stands in the way of. Whatever
is not so is left to them: the first of its form, what asks for something special, a model that is busy, slow, unknown
or failing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from inferd.backends.api import BackendError
from inferd.server.errors import Overloaded, ServingError
from inferd.server.inference.queued_groups import AnsweredCall, BatchShare, QueuedGroups
from inferd.server.inference.service import Plan, ordered
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.wire.request_forms import MessageLayout, RequestForm
from inferd.wire.tensors import WireError

_log = logging.getLogger(__name__)
_KEPT_TARGETS = 256


@dataclass(frozen=True, slots=True)
class GroupTarget:
    """What requests of one form want of which model, none of them anything special. `wanted`: outputs, None for all."""

    model: str
    version: int | None = None
    label: str | None = None
    wanted: tuple[str, ...] | None = None


class TargetCache(dict[RequestForm[Any], GroupTarget | None]):
    """What the requests of a form want, found out once each with `find`; None: something special. On the loop's thread
    only."""

    def __init__(self, find: Callable[[Any], GroupTarget | None]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, form: RequestForm[Any]) -> GroupTarget | None:
        if len(self) >= _KEPT_TARGETS:
            self.clear()
        found = self[form] = self._find(form.facts)
        return found


class GroupRunner:
    """Runs requests together, or lines them up together. Called on the loop's thread only."""

    def __init__(self, manager: ManagerLike) -> None:
        self._manager = manager

    def run(
        self,
        protocol: str,
        target: GroupTarget,
        form: RequestForm[Any],
        messages: Sequence[tuple[MessageLayout[Any], bytes]],
        arrived_at: float,
        answer: Callable[[BatchShare, int], None],
        refuse: Callable[[Overloaded, int], None],
        callers: Sequence[object],
    ) -> int:
        """Runs requests from the front, in batches, as far as they may run here and now; where the queue is full,
        refuses the rest. Gives how many are done with. `answer` gets each batch and the number of its first request,
        `refuse` the error and the first that it is for; `callers` are who ask. What `answer` raises ends the run, and
        its batch counts as not run: an inference may be repeated, since what is stateful is never batched."""
        count = len(messages)
        try:
            handle = self._manager.acquire(target.model, target.version, target.label)
        except ServingError:
            return 0
        done = 0
        try:
            plan: Plan | None = handle.servable.plans.get(form)
            if plan is None or plan.route is None:
                return 0
            route = plan.route
            while route.run_now is not None and done < count:
                ran = route.run_now(route, target.wanted, messages[done:] if done else messages, form.joined)
                if ran is None:
                    break
                outputs = ran.outputs
                if list(outputs) != plan.names:
                    outputs = ordered(outputs, plan.names)
                answer(BatchShare(handle, plan, outputs, ran.count, route.rows), done)
                plan.metrics.requests(
                    protocol,
                    ran.count,
                    ran.finished_at - arrived_at,
                    ran.started_at - arrived_at,
                    ran.finished_at - ran.started_at,
                )
                done += ran.count
            if done < count and route.overflow is not None:
                error = route.overflow(callers[done:], len(messages[done][1]))
                if error is not None:
                    refuse(error, done)
                    plan.metrics.refused(protocol, error.code.name, count - done, monotonic() - arrived_at)
                    done = count
        except (ServingError, BackendError, WireError):
            pass  # whose fault it is shows when they run one at a time
        except Exception:
            _log.exception("requests to %s could not be run together", target.model)
        finally:
            handle.release()
        return done

    def line_up(
        self,
        line: QueuedGroups,
        target: GroupTarget,
        form: RequestForm[Any],
        messages: Sequence[tuple[MessageLayout[Any], bytes]],
        arrived_at: float,
        request_ids: Sequence[str],
        callers: Sequence[AnsweredCall],
    ) -> bool:
        """Whether requests that cannot run here and now have been queued for their model's own thread: all or none.
        `line` answers them."""
        try:
            handle = self._manager.acquire(target.model, target.version, target.label)
        except ServingError:
            return False
        try:
            plan: Plan | None = handle.servable.plans.get(form)
            if plan is None:
                return False
            asked = []
            for caller, request_id, (layout, message) in zip(callers, request_ids, messages, strict=True):
                inputs = layout.inputs(message)
                if inputs is None:
                    return False
                asked.append((caller, request_id, inputs, len(message)))
            return line.join(handle, plan, target.wanted, asked, arrived_at)
        except Exception:
            _log.exception("requests to %s could not be queued together", target.model)
            return False
        finally:
            handle.release()
