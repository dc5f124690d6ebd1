"""When the server gives unused memory of its heap back to the system."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from inferd.server.allocator import KEPT_END, KEPT_END_OF_MUCH, keep_end, resident_bytes, trim, trim_ends

_QUIET: Final = 5.0  # seconds without a request after which unused memory is given back
_QUIET_OVER: Final = 16 * 2**20  # bytes above the least that make it worth while
_AGAIN: Final = 25.0  # seconds without a request after which that is done once more
_BUSY: Final = 30.0  # seconds between two returns on a server that is never quiet
_BUSY_OVER: Final = 128 * 2**20  # bytes above the least and what is in flight, likewise
_FLOOD: Final = 0.5  # seconds between two returns while more is held than the requests in flight may take
_FLOOD_OVER: Final = 64 * 2**20  # bytes above the least and the bound, likewise
_MUCH: Final = 2  # a share of the bytes that may be in flight
_AFTER_MUCH: Final = 10.0  # seconds after which the ends may be long again


class HeapReturn:
    """Decides when unused memory is given back. For one thread, which calls `tend` about twice a second.

    The least that the process has held after a return is what it needs by itself: code, models, caches.
    """

    def __init__(
        self,
        held: Callable[[], tuple[int, int]],
        bound: int,
        *,
        resident: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = trim,
        keep_end: Callable[[int], None] = keep_end,
        trim_ends: Callable[[int], None] = trim_ends,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        held    calls in flight, and the bytes that they hold
        bound   bytes that calls in flight may hold
        """
        self._held = held
        self._bound = bound
        self._resident = resident
        self._trim = trim
        self._keep_end = keep_end
        self._trim_ends = trim_ends
        self._much_at: float | None = None  # when much was in flight last, if heaps keep less for it
        self._clock = clock
        now = clock()
        self._asked = False
        self._settled = 0  # how often it was settled since the last request
        self._least = 0  # bytes
        self._after = 0  # bytes that were resident after the last return
        self._trimmed_at = self._settled_at = now
        self._busy_at = now

    def ask(self) -> None:
        """Lets the next `tend` give memory back: the models are loaded. Thread-safe."""
        self._asked = True

    def tend(self) -> None:
        """Gives memory back if that is due."""
        calls, nbytes = self._held()
        now, size = self._clock(), self._resident()
        if nbytes > self._bound // _MUCH:
            if self._much_at is None:
                self._keep_end(KEPT_END_OF_MUCH)
            self._much_at = now
        elif self._much_at is not None and now - self._much_at >= _AFTER_MUCH:
            self._much_at = None
            self._keep_end(KEPT_END)
        if calls or nbytes:
            self._busy_at = now
            self._settled = 0
        quiet = now - self._busy_at
        if self._asked:
            self._asked = False
            self._settle(now, nbytes)
        elif quiet >= _QUIET:
            if now - self._trimmed_at < _QUIET:
                return
            # Once more after a while: what requests held may be freed late, as by a full collection.
            due = self._settled == 0 or (self._settled == 1 and quiet >= _AGAIN)
            if size > (self._least if due else self._after) + _QUIET_OVER:
                self._settle(now, 0)
            if due:
                self._settled += 1
        elif now - self._settled_at >= _BUSY:
            if size > self._least + nbytes + _BUSY_OVER:
                self._settle(now, nbytes)
        elif now - self._trimmed_at >= _FLOOD:
            # What one flood has left must not add to the next one.
            unused = self._much_at is not None and size > self._least + nbytes + _BUSY_OVER
            if unused or size > max(self._least + self._bound, self._after) + _FLOOD_OVER:
                self._give_back(now)

    def _settle(self, now: float, nbytes: int) -> None:
        """Gives memory back, and takes what remains for the least."""
        self._trim_ends(KEPT_END if self._much_at is None else KEPT_END_OF_MUCH)
        self._give_back(now)
        self._settled_at = now
        self._least = max(0, self._after - nbytes)

    def _give_back(self, now: float) -> None:
        self._trim()
        self._trimmed_at = now
        self._after = self._resident()
