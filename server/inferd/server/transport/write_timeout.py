"""Ends calls whose clients do not read: their answers are held until they are written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Final, Protocol

from inferd.server.inference.failures import Failure, not_read
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.looking_thread import LookingThread

COUNTED: Final = 4096  # bytes; longer answers are counted until they are written
COPIES: Final = 2  # an answer is held twice until it is written: grpcio keeps the message, and the core a copy of it
_log = logging.getLogger("inferd.rpc")
CROWDED: Final = 1.0  # seconds for a client to read while more than half of inflight.bytes is held
_LOOK: Final = 0.1  # seconds between looks while that is so
_LOOKS: Final = 4  # looks within one timeout otherwise
_QUIET: Final = 10.0  # seconds between two log lines


class WrittenCall(Protocol):
    """The part of a call that is used here. Thread-safe."""

    @property
    def writing(self) -> int | None:
        """A number that changes whenever something of the call has been written; None while nothing waits to be."""
        ...

    @property
    def unwritten(self) -> int:
        """The bytes that are counted for what waits to be written."""
        ...

    def drop(self, failure: Failure) -> None:
        """Ends the call although what was sent before is not written, which is given up."""
        ...


class WriteTimeout:
    """Looks at the open calls at intervals, on its own thread, so that no call pays for it."""

    def __init__(
        self,
        calls: Iterable[WrittenCall],
        patience: float,
        inflight: InflightBounds,
        ended: threading.Event,
    ) -> None:
        """
        calls      the transport's own set, which other threads change
        patience   seconds that a client may take to read; calls end up to a quarter later
        ended      ends the thread
        """
        self._calls = calls
        self._patience = patience
        self._inflight = inflight
        # Of each call that waits to be written: its `writing`, and when that was seen first.
        self._seen: dict[WrittenCall, tuple[int, float]] = {}
        self._thread = LookingThread("inferd-grpc-write", self._look_if_asked_or_due, ended)
        self._checked = False  # somebody calls `check`
        self._looked_at = 0.0
        self._dropped = 0
        self._logged_at = -_QUIET

    def start(self, *, asked: bool = False) -> None:
        """Starts the thread. `asked`: it looks when `check` says so, else at intervals."""
        self._checked = asked
        self._thread.start(None if asked else min(self._patience / _LOOKS, _LOOK))

    def check(self, now: float) -> float | None:
        """Lets the thread look if it is time. To be called at intervals; for one thread."""
        if self._due(now):
            self._thread.ask()
        return None

    def stop(self) -> None:
        """Ends the thread. To be called after `ended` is set."""
        self._thread.stop()

    def look(self, now: float) -> None:
        """Drops the calls that have waited too long, at monotonic time `now`; while `inflight.bytes` is nearly held,
        also those that have waited longest, if for at least one look."""
        patience = min(self._patience, CROWDED) if self._inflight.crowded else self._patience
        seen: dict[WrittenCall, tuple[int, float]] = {}
        late: list[WrittenCall] = []
        for call in list(self._calls):
            writing = call.writing
            if writing is None:
                continue
            before = self._seen.get(call)
            first = before if before is not None and before[0] == writing else (writing, now)
            if now - first[1] >= patience:
                late.append(call)
            else:
                seen[call] = first
        over = self._inflight.over
        if over:
            over -= sum(call.unwritten for call in late)
            for call, (_, since) in sorted(seen.items(), key=lambda item: item[1][1]):
                if over <= 0 or since == now:
                    break
                over -= call.unwritten
                late.append(call)
        failure = not_read(patience)
        for call in late:
            seen.pop(call, None)
            call.drop(failure)
        self._seen = seen
        self._dropped += len(late)
        if self._dropped and now - self._logged_at >= _QUIET:
            _log.warning("%d calls were cut off because their clients did not read the answers", self._dropped)
            self._dropped, self._logged_at = 0, now

    def _due(self, now: float) -> bool:
        if not self._inflight.crowded and now - self._looked_at < self._patience / _LOOKS:
            return False
        self._looked_at = now
        return True

    def _look_if_asked_or_due(self, now: float) -> None:
        if self._checked or self._due(now):
            self.look(now)
