"""The pages that both HTTP servers have: /metrics, /healthz, /readyz.

Metrics are rendered on a worker thread, so that the health pages answer meanwhile.
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
    """Whether the server should get traffic; if not, `reason` says why. `details` are further fields of the JSON
    response."""

    ready: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """One response; `kind` is its Content-Type."""

    status: HTTPStatus
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Pages:
    """Renders the pages, on one event loop. `metrics` is called on a worker thread, `ready` on the event loop;
    `timeout` is the most seconds that a page may take."""

    def __init__(self, metrics: Callable[[], bytes], ready: Callable[[], ReadinessLike], timeout: float) -> None:
        self._metrics = metrics
        self._ready = ready
        self._timeout = timeout
        self._rendering: asyncio.Future[bytes] | None = None
        self._pages: Final = {
            "/metrics": self._metrics_page,
            "/healthz": self._health_page,
            "/readyz": self._ready_page,
        }

    def __contains__(self, path: str) -> bool:
        return path in self._pages

    async def answer(self, method: str, path: str) -> Page:
        """The page at a path, or an error page. Raises nothing but CancelledError."""
        render = self._pages.get(path)
        if render is None:
            return error_page(HTTPStatus.NOT_FOUND, f"no such page: expected one of {', '.join(self._pages)}")
        if method not in METHODS:
            text = f"expected {' or '.join(METHODS)}, got {method}"
            return error_page(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": ", ".join(METHODS)})
        try:
            return await render()
        except TimeoutError:
            text = f"{path} was not made within {self._timeout:g} seconds"
            return error_page(HTTPStatus.SERVICE_UNAVAILABLE, text)
        except Exception as error:
            event(get("http"), logging.ERROR, "a page failed", error=error, path=path)
            return error_page(HTTPStatus.INTERNAL_SERVER_ERROR, f"{path} failed; the log says why")

    def close(self) -> None:
        """Abandons a rendering of the metrics that is still running."""
        if self._rendering is not None:
            self._rendering.cancel()

    async def _health_page(self) -> Page:
        return Page(HTTPStatus.OK, as_json({"status": "ok"}))

    async def _ready_page(self) -> Page:
        readiness = self._ready()
        status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
        reason = {"reason": readiness.reason} if readiness.reason else {}
        return Page(status, as_json({"ready": readiness.ready, **reason, **readiness.details}))

    async def _metrics_page(self) -> Page:
        # Requests that arrive while the metrics are rendered share that rendering: at most one thread renders.
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.wrap_future(_in_thread(self._metrics))
            self._rendering.add_done_callback(_retrieve_exception)
        async with asyncio.timeout(self._timeout):
            body = await asyncio.shield(self._rendering)
        return Page(HTTPStatus.OK, body, CONTENT_TYPE)


def error_page(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Page:
    """A response whose JSON body has the text as its `error`."""
    return Page(status, as_json({"error": text}), headers=headers or {})


def access_refusal(error: ServingError) -> Page:
    """The response to a caller without access to a page."""
    status, headers = status_and_headers(error)
    return error_page(HTTPStatus(status), error.message, headers)


def _retrieve_exception(future: asyncio.Future[bytes]) -> None:
    # All waiters may have timed out: without this, asyncio would log "exception was never retrieved".
    if not future.cancelled():
        future.exception()


def _in_thread(fn: Callable[[], bytes]) -> concurrent.futures.Future[bytes]:
    """Runs `fn` on a daemon thread. Unlike the threads of an executor, it cannot delay the exit of the process."""
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
