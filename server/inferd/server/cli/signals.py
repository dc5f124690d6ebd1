"""The signals that stop the server."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from inferd.server.stray_signals import ignore_stray_signals


def ends_with_signals(stop: threading.Event) -> list[int]:
    """From now on SIGTERM, SIGINT, SIGQUIT and SIGHUP (the terminal is gone; ignored under nohup) set `stop`. A second
    interrupt ends the process at once. Other signals do not end it (`stray_signals`). Returns the list of signals that
    have come; later ones are added to it. Main thread only.

    The event is set on a thread of its own. A signal handler interrupts the main thread anywhere, even inside
    `stop.wait` while it holds the event's lock; `stop.set` would then wait for that lock for ever. SimpleQueue.put is
    safe in a signal handler.
    """
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    signals: list[int] = []

    def handler(number: int, _frame: Any) -> None:
        signals.append(number)
        pending.put(number)

    def follow() -> None:
        while True:
            number = pending.get()
            if stop.is_set() and number == signal.SIGINT:
                print("inferd: interrupted again, ending at once", file=sys.stderr, flush=True)
                os._exit(130)
            stop.set()

    threading.Thread(target=follow, name="inferd-signals", daemon=True).start()
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGQUIT, handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, handler)
    ignore_stray_signals()
    return signals


def calls_with_signal(number: int, then: Callable[[], None]) -> None:
    """Calls `then` on a thread of its own when the signal comes for the first time; later ones do nothing. Main thread
    only."""
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()

    def follow() -> None:
        pending.get()
        then()

    threading.Thread(target=follow, name="inferd-signals", daemon=True).start()
    signal.signal(number, lambda number, _frame: pending.put(number))
