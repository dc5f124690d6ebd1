"""What one analysis may take, and the unknown sizes that it makes."""

from __future__ import annotations

import time

from inferd.backends.independence.sizes import Size, symbol

MOST_STEPS = 100_000


class AnalysisBudget:
    """The steps and the time that are left, and the number of symbols made. Not thread-safe."""

    def __init__(self, seconds: float, stop: type[Exception], until: float | None = None) -> None:
        """
        seconds   what the analysis may take
        stop      raised, with the reason, when the budget is used up
        until     when the analysis must end, by time.monotonic; None: after `seconds`
        """
        self._seconds = seconds
        self._stop = stop
        self._until = time.monotonic() + seconds if until is None else until
        self._steps = MOST_STEPS
        self._symbols = 0

    def step(self) -> None:
        """Counts one step."""
        self._steps -= 1
        if self._steps < 0:
            raise self._stop(f"the graph has more than {MOST_STEPS} steps")
        if time.monotonic() > self._until:
            raise self._stop(f"the analysis took more than {self._seconds:g} s")

    def number(self) -> int:
        """A number that no symbol has yet."""
        self._symbols += 1
        return self._symbols

    def fresh(self, least: int | None = 1) -> Size:
        """A size that is not known and does not depend on the number of rows."""
        return symbol(f"s{self.number()}", least)
