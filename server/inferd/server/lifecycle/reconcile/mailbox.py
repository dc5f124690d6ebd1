"""The mailbox: the only way in which other threads reach the reconciler."""

from __future__ import annotations

import threading
from collections import deque

from inferd.server.lifecycle.reconcile.events import Event, ListingSeen


class Mailbox:
    """A queue of events for one thread. `post` may be called from any thread, everything else by the thread that
    handles the events.

    Events are taken in the order in which they came, each once; no event is lost: it is handled or it was refused. Only
    the latest listing counts: a newer one replaces one that was not taken yet, and it is taken before other events.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing: ListingSeen | None = None
        self._events: deque[Event] = deque()
        self._closed = False
        self._wake = threading.Event()

    def post(self, event: Event) -> bool:
        """Puts an event in. False: the mailbox is closed, and the event will never be handled."""
        with self._lock:
            if self._closed:
                return False
            if isinstance(event, ListingSeen):
                self._listing = event
            else:
                self._events.append(event)
        self._wake.set()
        return True

    @property
    def empty(self) -> bool:
        """Whether every event has been taken."""
        return self._listing is None and not self._events

    def take(self) -> Event | None:
        """The next event, None when there is none."""
        with self._lock:
            listing, self._listing = self._listing, None
            if listing is not None:
                return listing
            return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Refuses events from now on. Those that are in can still be taken."""
        with self._lock:
            self._closed = True

    def close_if_empty(self) -> bool:
        """Closes unless events wait to be handled (a listing does not count). Whether it is closed."""
        with self._lock:
            self._closed = self._closed or not self._events
            return self._closed

    def prepare_wait(self) -> None:
        """Events that come after this call end the next `wait` at once."""
        self._wake.clear()

    def wait(self, seconds: float | None) -> None:
        """Waits until an event comes, at most `seconds`; None: without limit."""
        self._wake.wait(seconds)
