"""Requests of one form that arrived together: they share a plan and a handle on their servable."""

from __future__ import annotations

from typing import Any

from inferd.server.inference.interfaces import Codec
from inferd.server.inference.plan import Plan, RequestTemplate
from inferd.server.lifecycle.interfaces import HandleLike
from inferd.server.scheduling.request import Route


class RequestGroup:
    """The group holds one handle: its servable stays loaded until the group's last request is answered.

    `release` is thread-safe; everything else is for the thread that makes the group.

    started    monotonic seconds at which the first request of the turn arrived
    error      why no request of the group can be started; None: they can
    handle     None: no servable was found
    plan, route, priority   set unless there is an error; `priority` is the servable's default
    failed     the calls that get `error`, with their request ids
    asked      the priority that the first request asks for; 0: none
    alike      the requests differ in data, id, deadline and lease only
    """

    __slots__ = (
        "_unanswered",
        "alike",
        "asked",
        "codec",
        "error",
        "failed",
        "handle",
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

    def __init__(self, codec: Codec, template: RequestTemplate, started: float, asked: int = 0) -> None:
        self.codec = codec
        self.template = template
        self.started = started
        self.handle = None
        self.error: Exception | None = None
        self.failed: list[tuple[Any, str]] = []
        self.asked = asked
        self.alike = True

    def hold(self, requests: int) -> None:
        """Sets how many requests the group has, for `release`. Called once, before any of them is submitted."""
        # The count is the length of a list, because deleting from a list is atomic and needs no lock.
        self._unanswered = [None] * requests

    def release(self, requests: int = 1) -> None:
        """Counts requests that were answered. The last one releases the handle."""
        unanswered = self._unanswered
        del unanswered[-requests:]
        if not unanswered and self.handle is not None:
            self.handle.release()
