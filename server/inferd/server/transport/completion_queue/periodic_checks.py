"""Checks that the loop makes about ten times a second while there is something to check.

A thread that wakes at intervals beside a busy loop has to wait for the interpreter lock, and while it waits, each
release of the lock by the loop wakes it in vain: ten such waits a second cost the loop several per cent. So the loop
looks at the clock itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Final

INTERVAL: Final = 0.1  # seconds between two rounds


class PeriodicChecks:
    """For the loop's thread only.

    The checks get the monotonic time, and may return the seconds after which they want to be called again earlier than
    usual. They are short: what takes long they leave to a thread of their own.
    """

    __slots__ = ("_checks", "_clock", "_due_at")

    def __init__(
        self, checks: Sequence[Callable[[float], float | None]], *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._checks = checks
        self._clock = clock
        self._due_at = 0.0

    @property
    def until(self) -> float:
        """Epoch seconds at which `run` must be called at the latest."""
        return time() + self._due_at - self._clock()

    def run(self) -> None:
        """Makes the checks, if INTERVAL has passed since the last round."""
        now = self._clock()
        if now >= self._due_at:
            pause = INTERVAL
            for check in self._checks:
                sooner = check(now)
                if sooner is not None:
                    pause = min(pause, sooner)
            self._due_at = now + pause
