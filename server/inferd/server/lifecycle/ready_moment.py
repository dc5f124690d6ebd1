"""The moment at which the server becomes ready: it comes once, or never."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from inferd.server.observability.events import event, get


class ReadyMoment:
    """Whether it has come, and who is told when it does. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._come = False
        self._settled = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def come(self) -> bool:
        """Whether it has come."""
        return self._come

    def wait(self, timeout: float | None) -> None:
        """Waits until it comes or is given up, at most `timeout` seconds."""
        self._settled.wait(timeout)

    def then(self, listener: Callable[[], None]) -> None:
        """Calls `listener` once: on the thread that brings the moment, or at once if it has come."""
        with self._lock:
            if not self._come:
                self._listeners.append(listener)
                return
        listener()

    def comes(self) -> None:
        """It is now. A listener that raises is logged, and the others still hear."""
        with self._lock:
            self._come = True
            self._settled.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener()
            except Exception as error:
                event(get("lifecycle"), logging.ERROR, "a listener failed when the server became ready", error=error)

    def give_up(self) -> None:
        """It will not come any more: nobody waits for it."""
        self._settled.set()
