"""One log line for each failed request, up to a maximum rate. Lines past the rate are counted, not written."""

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
    """Fields of the log line of a failed request.

    model        name of the model, "" where the request could not be decoded
    request_id   the id that the client gets, or "" for none
    peer         the client's address
    error        the exception behind the failure
    trace        fields from `inference.trace.trace_fields`
    """

    model: str
    request_id: str
    peer: str
    error: BaseException
    trace: Mapping[str, str]


class FailureLog:
    """Writes at most `lines` failures for each pair of method and code in `window` seconds. The first line of the next
    window says how many lines were left out. Thread-safe. No text from a client makes it raise."""

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
        # Method and code come from small fixed sets, so clients cannot make this dictionary grow.
        # The values: start of the window, lines written in it, lines left out.
        self._windows: dict[tuple[str, Code], tuple[float, int, int]] = {}

    def write(self, method: str, failure: Failure, **details: Unpack[Details]) -> None:
        """Writes the line of a failed request, unless the rate is reached. The traceback is written for unexpected
        errors only."""
        left_out = self.admit(method, failure.code)
        if left_out is not None:
            self.write_admitted(method, failure, left_out, **details)

    def write_admitted(self, method: str, failure: Failure, left_out: int, **details: Unpack[Details]) -> None:
        """Writes the line of a failure for which `admit` returned `left_out`. A caller that wants to gather the details
        only for lines that are written calls `admit` and this method instead of `write`."""
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
        """Counts `failures` of one method and code, for which the caller writes at most one line. Returns None when the
        caller must not write it, else the number of lines that were left out before it."""
        if not self._logger.isEnabledFor(_LEVELS.get(code, logging.INFO)):
            return None
        key = method, code
        now = self._clock()
        with self._lock:
            since, written, left_out = self._windows.get(key, (now, 0, 0))
            if now - since >= self._window:
                self._windows[key] = (now, 1, failures - 1)
                return left_out
            if written < self._lines:
                self._windows[key] = (since, written + 1, left_out + failures - 1)
                return 0
            self._windows[key] = (since, written, left_out + failures)
            return None


def _clean(text: str) -> str:
    return _printable(text[:_MAX_FIELD])


def _printable(text: str) -> str:
    # Escaped, so that a client cannot forge log lines.
    return text if text.isprintable() else repr(text)[1:-1]
