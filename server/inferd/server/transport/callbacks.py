"""How a transport handles exceptions from handlers and from the callbacks that they register.

Handlers are expected to catch their own exceptions (`protocols.common.error_boundary`). These functions catch the rest,
so that no exception reaches the transport's loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from inferd.server.errors import Code
from inferd.server.inference.failures import SHUTTING_DOWN, failure_of
from inferd.server.transport.calls import Metadata

_log = logging.getLogger("inferd.rpc")


class CallbackTarget(Protocol):
    """A UnaryCall or a StreamCall."""

    @property
    def method(self) -> str: ...
    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


def fail_raised(call: CallbackTarget, error: Exception) -> None:
    """Logs the exception of a handler and fails its call with INTERNAL, unless the call is answered."""
    _log.error("the handler of %s raised", call.method, exc_info=error)
    failure = failure_of(error)
    call.fail(failure.code, failure.text, failure.trailing)


def run_cancel_callbacks(fns: list[Callable[[], None]], method: str) -> None:
    """Calls the cancellation callbacks of a call and empties the list. Thread-safe: each function is popped, and so
    called, by one thread only. Exceptions are logged."""
    while fns:
        try:
            fn = fns.pop()
        except IndexError:
            return
        try:
            fn()
        except Exception:
            _log.exception("a cancellation callback of %s raised", method)


def run_drain_callback(call: CallbackTarget, fn: Callable[[], None] | None) -> None:
    """Calls the `on_drain` callback of a stream. Fails the stream where there is none, or where it raises."""
    if fn is not None:
        try:
            fn()
        except Exception:
            _log.exception("draining a stream of %s raised", call.method)
        else:
            return
    call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing)
