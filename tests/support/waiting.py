"""Waiting for what another process will do: asked again and again until a deadline, never slept through."""

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
    """The first truthy answer of `ask`. Raises AssertionError with `what` and `describe()` past `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {limit:.0f} s: {what}; now: {describe()}")
        _never.wait(0.02)
