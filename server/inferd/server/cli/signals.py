"""Signals that ask the server to end."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any


def ends_with_signals(stop: threading.Event) -> list[int]:
    """From now on SIGTERM, SIGINT and, but under nohup, SIGHUP (the terminal is gone) set `stop`; a second
    interrupt ends the process at once. Gives the list of the signals that have come, to which others are added as they
    come. Main thread only.

    The event is set by a thread of its own: a handler runs between any two lines of the main thread, also between those
    of `stop.wait` that hold the lock which `stop.set` takes, and would wait there for ever. A SimpleQueue may be put to
    from anywhere.
    """
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    seen: list[int] = []

    def asked(number: int, _frame: Any) -> None:
        seen.append(number)
        came.put(number)

    def follow() -> None:
        while True:
            number = came.get()
            if stop.is_set() and number == signal.SIGINT:
                print("inferd: interrupted again, ending at once", file=sys.stderr, flush=True)
                os._exit(130)
            stop.set()

    threading.Thread(target=follow, name="inferd-signals", daemon=True).start()
    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, asked)
    return seen


def calls_with_signal(number: int, then: Callable[[], None]) -> None:
    """Calls `then` once when the signal has come, on a thread of its own; the signal may come again and again. Main
    thread only."""
    came: queue.SimpleQueue[int] = queue.SimpleQueue()

    def follow() -> None:
        came.get()
        then()

    threading.Thread(target=follow, name="inferd-signals", daemon=True).start()
    signal.signal(number, lambda number, _frame: came.put(number))
