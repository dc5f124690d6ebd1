"""Waits for another process: asks again and again until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_never = threading.Event()


def eventually(
    ask: Callable[[], T | None], what: str, describe: Callable[[], object] = lambda: "", limit: float = 60.0
) -> T:
    """Calls `ask` until its result is true, and returns the result. Raises AssertionError after `limit` seconds, with
    `what` and the result of `describe`."""
    deadline = time.monotonic() + limit
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {limit:.0f} s: {what}; now: {describe()}")
        _never.wait(0.02)
