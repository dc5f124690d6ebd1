"""Whether a batch waits for those who have just been answered: callers who keep some requests in flight ask again at
once, and one batch of all of them may cost less than two of half of them.

What is learned is how long such callers take to come back; what a larger batch saves, the cost curve tells. A batch is
held back only while that is less than the saving, and never for longer: at low load, or where rows are as cheap in
small batches, nothing waits. Not thread-safe: the batcher's lock holds.
"""

from __future__ import annotations

from inferd.server.scheduling.policies.cost_model import CostCurve

NEVER = float("inf")
_RECENT = 0.2  # weight of the latest return
_SURE = 0.8  # of the saving that the wait may be expected to take at most
_LONG = 2.0  # largest batches
_PATIENCE = 1.5  # times what a return usually takes: then whoever is missing is not waited for


class LingerPolicy:
    """Of one bucket.

    rows     that must wait for the batch to go at once; 0: none is held back
    until    monotonic seconds at which it goes anyway
    """

    __slots__ = ("_answered", "_awaited", "_came", "_most", "_return", "_since", "rows", "until")

    def __init__(self) -> None:
        self._came = 0  # rows, ever
        self._awaited = NEVER  # what that will be when all who were answered last have come back
        self._answered = 0  # rows of those
        self._since = 0.0
        # Seconds that one return counts at most: how long a pause was says nothing of what comes after.
        self._most = 0.0
        self._return = 0.0  # seconds until all have come back, smoothed; 0: not known
        self.rows = 0
        self.until = 0.0

    def came(self, rows: int, now: float) -> None:
        """A request of so many rows has come."""
        self._came += rows
        if self._came >= self._awaited:
            self._awaited = NEVER
            self._learn(now - self._since)

    def answered(self, rows: int, waiting: int, room: int, cost: CostCurve, now: float) -> bool:
        """A batch of `rows` has been answered, `waiting` rows are there for the next, which holds up to `room`. Whether
        that is held back."""
        if self._awaited != NEVER:  # some never came back, or take longer than a batch
            missing = self._awaited - self._came
            back = self._answered - missing
            self._learn((now - self._since) * self._answered / max(back, 0.25 * self._answered))
        self._since, self._answered, self._awaited = now, rows, self._came + rows
        self._most = _LONG * cost.seconds(room)
        back = min(rows, room - waiting)
        wait = self._return
        self.rows = 0
        if back <= 0 or not wait or waiting + back < 2:
            return False
        small, rest = (waiting, back) if waiting else (1, back - 1)
        saving = cost.seconds(small) + cost.seconds(rest) - cost.seconds(small + rest)
        if wait > _SURE * saving:
            return False
        self.rows = waiting + back
        self.until = now + min(_PATIENCE * wait, saving)
        return True

    def release(self) -> None:
        """A batch has gone: what comes now is not held back."""
        self.rows = 0

    def _learn(self, seconds: float) -> None:
        seconds = min(seconds, self._most)
        self._return += (_RECENT if self._return else 1.0) * (seconds - self._return)
