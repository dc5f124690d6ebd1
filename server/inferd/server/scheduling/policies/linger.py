"""Whether a batch waits for the next requests of the callers that have just been answered.

Callers that keep a fixed number of requests in flight send the next request at once after an answer, and one batch of
all of them may cost less than two batches of half of them. The policy learns how long such callers take to return; the
cost curve says what a larger batch saves. A batch waits only where the expected wait is shorter than the saving, and
never longer than the saving: at low load, or where rows are as cheap in small batches, no batch waits. Not
thread-safe: the caller holds the batcher's lock.
"""

from __future__ import annotations

from inferd.server.scheduling.policies.cost_model import CostCurve

NEVER = float("inf")
_RECENT = 0.2  # weight of the latest measured return
_SURE = 0.8  # share of the saving that the expected wait may take at most
_LONG = 2.0  # a return counts as at most the seconds of so many full batches
_PATIENCE = 1.5  # a batch waits at most so many times the usual return


class LingerPolicy:
    """The linger policy of one bucket.

    rows     the batch goes at once when so many rows wait; 0: no batch is held back
    until    monotonic seconds at which a batch that is held back goes anyway
    """

    __slots__ = ("_answered", "_awaited", "_came", "_most", "_return", "_since", "rows", "until")

    def __init__(self) -> None:
        self._came = 0  # rows that have arrived since the beginning
        self._awaited = NEVER  # value of `_came` at which all callers answered last have returned
        self._answered = 0  # rows of the batch answered last
        self._since = 0.0  # monotonic seconds of that answer
        # Seconds that one return counts at most: the length of a pause in the load predicts nothing.
        self._most = 0.0
        self._return = 0.0  # seconds until all callers have returned, smoothed; 0: not known
        self.rows = 0
        self.until = 0.0

    def came(self, rows: int, now: float) -> None:
        """Learns that requests with `rows` rows have arrived."""
        self._came += rows
        if self._came >= self._awaited:
            self._awaited = NEVER
            self._learn(now - self._since)

    def answered(self, rows: int, waiting: int, room: int, cost: CostCurve, now: float) -> bool:
        """Learns that a batch of `rows` was answered. Returns whether the next batch is held back: `waiting` rows wait
        for it, and it holds up to `room`."""
        if self._awaited != NEVER:  # some callers have not returned, or take longer than a batch
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
        """A batch was taken: requests that arrive now are not held back."""
        self.rows = 0

    def _learn(self, seconds: float) -> None:
        seconds = min(seconds, self._most)
        self._return += (_RECENT if self._return else 1.0) * (seconds - self._return)
