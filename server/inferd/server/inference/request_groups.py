"""Requests of one form that came together: they share a handle on their servable and a plan."""

from __future__ import annotations

from typing import Any

from inferd.server.inference.interfaces import Codec
from inferd.server.inference.plan import Plan, RequestTemplate
from inferd.server.lifecycle.interfaces import HandleLike
from inferd.server.scheduling.request import InferenceRequest, Route


class RequestGroup:
    """The servable stays loaded until the last request of the group is answered. `release` is thread-safe, the rest is
    for the thread that makes the group.

    started    monotonic seconds at which the first of the requests came
    error      why none of them can be started, None: they can
    handle     None: there is no servable
    plan, route, priority   set unless there is an error; `priority` is the servable's default
    pending    requests to this servable, of other groups too, in the order of their arrival
    failed     calls that share the error, with their ids
    count      requests that have been added
    """

    __slots__ = (
        "_left",
        "codec",
        "count",
        "error",
        "failed",
        "handle",
        "pending",
        "plan",
        "priority",
        "route",
        "started",
        "template",
    )
    handle: HandleLike | None
    plan: Plan
    priority: int
    route: Route

    def __init__(self, codec: Codec, template: RequestTemplate, started: float) -> None:
        self.codec = codec
        self.template = template
        self.started = started
        self.handle = None
        self.error: Exception | None = None
        self.failed: list[tuple[Any, str]] = []
        self.pending: list[InferenceRequest] = []
        self.count = 0

    def hold(self) -> None:
        """From now on each request that was added holds the handle."""
        # Removing items from a list is one step of the interpreter: so counting down needs no lock.
        self._left = [None] * self.count

    def release(self, requests: int = 1) -> None:
        """So many requests have been answered. The last one gives back the handle."""
        left = self._left
        del left[-requests:]
        if not left and self.handle is not None:
            self.handle.release()
