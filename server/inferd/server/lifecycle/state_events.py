"""Who is told of state changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from inferd.server.lifecycle.state import StateChange
from inferd.server.observability.events import event, get

log = get("lifecycle")

Listener = Callable[[StateChange], None]


class Events:
    """Listeners, called in the order in which things happen, on the thread that announces them (the manager's).

    Subscribing is thread-safe. A listener must be quick; one that raises is logged and the others still hear.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Adds a listener and gives the function that removes it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unsubscribe

    def announce(self, change: StateChange) -> None:
        """Tells every listener."""
        for listener in self._listeners:
            try:
                listener(change)
            except Exception as error:
                event(log, logging.ERROR, "a listener failed", error=error, servable=str(change.status.id))
