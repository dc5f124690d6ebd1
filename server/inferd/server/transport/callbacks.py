"""What a transport calls: handlers, and what they left with a call to be called later. Whatever those raise ends here:
services have a wall of their own (`rpc.edge`), this one is for those that forgot.
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
    """A UnaryCall or a StreamCall of the seam."""

    @property
    def method(self) -> str: ...
    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


def raised(call: CallbackTarget, error: Exception) -> None:
    """Fails a call whose handler has raised; does nothing to one that is answered."""
    _log.error("the handler of %s raised", call.method, exc_info=error)
    failure = failure_of(error)
    call.fail(failure.code, failure.text, failure.trailing)


def tell_cancelled(fns: list[Callable[[], None]], method: str) -> None:
    """Calls the cancellation callbacks of a call and empties the list. Several threads may come here at once: each
    function is popped, and so called, by one of them."""
    while fns:
        try:
            fn = fns.pop()
        except IndexError:
            return
        try:
            fn()
        except Exception:
            _log.exception("a cancellation callback of %s raised", method)


def tell_drained(call: CallbackTarget, fn: Callable[[], None] | None) -> None:
    """Calls what a stream left with `on_drain`; fails the stream where that is nothing, or raises."""
    if fn is not None:
        try:
            fn()
        except Exception:
            _log.exception("draining a stream of %s raised", call.method)
        else:
            return
    call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing)
