"""One log line for each failed request, and no flood: past a rate, lines are counted instead of written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TypedDict, Unpack

from inferd.server.errors import Code
from inferd.server.inference.failures import Failure
from inferd.server.observability.events import event

_LEVELS = {
    Code.INTERNAL: logging.ERROR,
    Code.UNKNOWN: logging.ERROR,
    Code.UNAVAILABLE: logging.WARNING,
    Code.RESOURCE_EXHAUSTED: logging.WARNING,
    Code.CANCELLED: logging.DEBUG,
}
_MAX_FIELD = 128


class Details(TypedDict, total=False):
    """What is known of a request that has failed. `error`: what was raised; `trace`: see `core.trace`."""

    model: str
    request_id: str
    peer: str
    error: BaseException
    trace: Mapping[str, str]


class FailureLog:
    """Writes failures, at most `lines` for each method and code in `window` seconds; the first line after a pause says
    how many were left out. Thread-safe; never raises for what a client sent."""

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        lines: int = 10,
        window: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger or logging.getLogger("inferd.rpc")
        self._lines = lines
        self._window = window
        self._clock = clock
        self._lock = Lock()
        # Method and code come from small fixed sets: this cannot grow at a client's will.
        self._seen: dict[tuple[str, Code], tuple[float, int, int]] = {}  # lines written, left out

    def write(self, method: str, failure: Failure, **details: Unpack[Details]) -> None:
        """A request has failed. The traceback is written for unexpected errors only."""
        left_out = self.admit(method, failure.code)
        if left_out is not None:
            self.write_admitted(method, failure, left_out, **details)

    def write_admitted(self, method: str, failure: Failure, left_out: int, **details: Unpack[Details]) -> None:
        """The same for a failure that `admit` has let through: for callers to whom the rest is dear."""
        error = details.get("error")
        event(
            self._logger,
            _LEVELS.get(failure.code, logging.INFO),
            "request failed",
            error=error if failure.unexpected else None,
            method=method,
            code=failure.code.name,
            model=_clean(details.get("model", "")) or None,
            request_id=_clean(details.get("request_id", "")) or None,
            peer=details.get("peer") or None,
            left_out=left_out or None,
            reason=_printable(failure.text),
            **details.get("trace", {}),
        )

    def admit(self, method: str, code: Code, failures: int = 1) -> int | None:
        """Counts failures, of which at most one is written. None: leave its line out. Else the number of lines left out
        before it."""
        if not self._logger.isEnabledFor(_LEVELS.get(code, logging.INFO)):
            return None
        key = method, code
        now = self._clock()
        with self._lock:
            since, written, left_out = self._seen.get(key, (now, 0, 0))
            if now - since >= self._window:
                self._seen[key] = (now, 1, failures - 1)
                return left_out
            if written < self._lines:
                self._seen[key] = (since, written + 1, left_out + failures - 1)
                return 0
            self._seen[key] = (since, written, left_out + failures)
            return None


def _clean(text: str) -> str:
    return _printable(text[:_MAX_FIELD])


def _printable(text: str) -> str:
    # A client must not be able to forge log lines.
    return text if text.isprintable() else repr(text)[1:-1]
