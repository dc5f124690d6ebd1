"""Requests of one form that arrived together: they share a plan and a handle on their servable."""

from __future__ import annotations

from typing import Any, Final

from inferd.server.inference.interfaces import Codec
from inferd.server.inference.plan import Plan, RequestTemplate
from inferd.server.lifecycle.interfaces import HandleLike
from inferd.server.scheduling.request import InferenceRequest, Route

NOTHING: Final[list[InferenceRequest]] = []
"""Of a group whose requests have been submitted. Never changed."""


class RequestGroup:
    """The group holds one handle: its servable stays loaded until the group's last request is answered.

    `release` is thread-safe; everything else is for the thread that makes the group.

    started    monotonic seconds at which the first request of the turn arrived
    error      why no request of the group can be started; None: they can
    handle     None: no servable was found
    plan, route, priority   set unless there is an error; `priority` is the servable's default
    pending    requests to the same servable in the order of their arrival, also those of other groups
    failed     the calls that get `error`, with their request ids
    count      requests that were added
    asked      the priority that the first request asks for; 0: none
    alike      the requests differ in data, id and deadline only, and none has a lease
    """

    __slots__ = (
        "_unanswered",
        "alike",
        "asked",
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
    pending: list[InferenceRequest]

    def __init__(self, codec: Codec, template: RequestTemplate, started: float) -> None:
        self.codec = codec
        self.template = template
        self.started = started
        self.handle = None
        self.error: Exception | None = None
        self.failed: list[tuple[Any, str]] = []
        self.count = 0
        self.asked = 0
        self.alike = True

    def hold(self) -> None:
        """Called once, when all requests have been added and before any is submitted: counts them for `release`."""
        # The count is the length of a list, because deleting from a list is atomic and needs no lock.
        self._unanswered = [None] * self.count

    def release(self, requests: int = 1) -> None:
        """Counts requests that were answered. The last one releases the handle."""
        unanswered = self._unanswered
        del unanswered[-requests:]
        if not unanswered and self.handle is not None:
            self.handle.release()
