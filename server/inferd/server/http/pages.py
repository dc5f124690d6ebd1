"""The pages of the HTTP port, whatever serves them: /metrics, /healthz, /readyz.

Metrics are written on a worker thread, so that health answers meanwhile.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from inferd.server.errors import ServingError
from inferd.server.http.admission import status_and_headers
from inferd.server.http.message import as_json
from inferd.server.observability.events import event, get
from inferd.server.observability.metrics import CONTENT_TYPE

JSON: Final = "application/json"
METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class ReadinessLike:
    """Whether traffic should come; if not, why, in words. `details` are further fields of the answer."""

    ready: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: HTTPStatus
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Pages:
    """Makes the pages, on one event loop. `metrics` is called on a worker thread, `ready` on the loop; `patience` is
    the time in seconds that a page may take."""

    def __init__(self, metrics: Callable[[], bytes], ready: Callable[[], ReadinessLike], patience: float) -> None:
        self._metrics = metrics
        self._ready = ready
        self._patience = patience
        self._rendering: asyncio.Future[bytes] | None = None
        self._known: Final = {
            "/metrics": self._metrics_page,
            "/healthz": self._health_page,
            "/readyz": self._ready_page,
        }

    def __contains__(self, path: str) -> bool:
        return path in self._known

    async def answer(self, method: str, path: str) -> Page:
        """The page at a path, or the refusal. Never raises but for a cancel."""
        make = self._known.get(path)
        if make is None:
            return refusal(HTTPStatus.NOT_FOUND, f"no such page: expected one of {', '.join(self._known)}")
        if method not in METHODS:
            text = f"expected {' or '.join(METHODS)}, got {method}"
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": ", ".join(METHODS)})
        try:
            return await make()
        except TimeoutError:
            text = f"{path} was not made within {self._patience:g} seconds"
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
        except Exception as error:
            event(get("http"), logging.ERROR, "a page failed", error=error, path=path)
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{path} failed; the log says why")

    def close(self) -> None:
        """Waits for nothing any more."""
        if self._rendering is not None:
            self._rendering.cancel()

    async def _health_page(self) -> Page:
        return Page(HTTPStatus.OK, as_json({"status": "ok"}))

    async def _ready_page(self) -> Page:
        now = self._ready()
        status = HTTPStatus.OK if now.ready else HTTPStatus.SERVICE_UNAVAILABLE
        reason = {"reason": now.reason} if now.reason else {}
        return Page(status, as_json({"ready": now.ready, **reason, **now.details}))

    async def _metrics_page(self) -> Page:
        # Scrapers that come while one rendering runs share it: one thread at most is ever busy with metrics.
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.wrap_future(_in_thread(self._metrics))
            self._rendering.add_done_callback(_look)
        async with asyncio.timeout(self._patience):
            body = await asyncio.shield(self._rendering)
        return Page(HTTPStatus.OK, body, CONTENT_TYPE)


def refusal(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Page:
    """An answer that says what is wrong."""
    return Page(status, as_json({"error": text}), headers=headers or {})


def turned_away(error: ServingError) -> Page:
    """The answer to a caller who may not see a page."""
    status, headers = status_and_headers(error)
    return refusal(HTTPStatus(status), error.message, headers)


def _look(future: asyncio.Future[bytes]) -> None:
    # Whoever waited has given up: a failure is not news to asyncio any more.
    if not future.cancelled():
        future.exception()


def _in_thread(fn: Callable[[], bytes]) -> concurrent.futures.Future[bytes]:
    """Runs `fn` on a daemon thread: unlike an executor's, it cannot hold up the end of the process."""
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            result = fn()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="inferd-http-metrics", daemon=True).start()
    return future
