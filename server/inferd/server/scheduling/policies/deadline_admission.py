"""When a request that comes now would be answered: what runs, what waits before it, and its own batch, each at the cost
that such batches had lately. Not thread-safe: the batcher's lock holds.

What the prediction leaves out (the way to the caller, other programs on the machine, a model whose costs change) shows
in answers that come too late. Each batch with one widens a margin, each without one narrows it a little: so a flood is
answered just in time, not just too late.

The prediction is worth its price only where it may matter, so a bound of it is kept that takes one multiplication to
look at: `base + each * waiting` seconds, renewed with each batch that is taken. Nearly all requests have more time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.request import InferenceRequest

_DOUBT = 2.0  # the bound is that many times the prediction: the queue's content changes before the next look
_MARGIN, _WIDEST = 1.05, 2.0  # times what is predicted, at least and at most
_WIDER, _NARROWER = 0.05, 0.002
_SPARE = 0.05  # of a request's time that must be left at its answer: it has yet to travel
_WINDOW = 0.05  # seconds at least over which arrivals are counted
_LOOKED_AT = 16  # buckets that one look adds up; the others are taken to be like these


class DeadlineAdmission:
    """Of one servable.

    base, each   seconds; 0 while nothing is known, or nothing is busy: then no request is too late
    """

    __slots__ = ("_each", "_ends", "_margin", "_rate", "_since", "_taken", "base", "each")

    def __init__(self) -> None:
        self._ends: dict[Hashable, float] = {}  # by busy worker, monotonic
        self._each = 0.0
        self._margin = _MARGIN
        self._rate = 0.0  # rows that come in a second, by those that were taken
        self._taken = 0  # since then
        self._since = 0.0
        self.base = 0.0
        self.each = 0.0

    def idle(self, worker: Hashable) -> None:
        """The worker has ended its batch."""
        self._ends.pop(worker, None)

    def answered(self, requests: Sequence[InferenceRequest], started_at: float, now: float) -> None:
        """A batch with these requests, which started at that time, has run."""
        for request in requests:
            given = request.leaves_at - request.enqueued_at
            # One that never had the time for more than its own run says nothing of the queue.
            if request.leaves_at - now < _SPARE * given and given > 2 * (now - started_at):
                self._margin = min(_WIDEST, self._margin + _WIDER)
                return
        self._margin = max(_MARGIN, self._margin - _NARROWER)

    def expired(self) -> None:
        """A request that was let in has passed its deadline in the queue."""
        self._margin = min(_WIDEST, self._margin + _WIDER)

    def busy(self, worker: Hashable, bucket: Bucket, rows: int, now: float, waiting: Iterable[Bucket]) -> None:
        """The worker has taken a batch of that many rows; `waiting` are the buckets in which something is left."""
        seconds = bucket.cost.seconds(rows)
        self._ends[worker] = now + seconds
        if now - self._since >= _WINDOW:
            self._rate = self._taken / (now - self._since)
            self._taken, self._since = 0, now
        self._taken += rows
        total, count = 0.0, 0
        for left, _ in zip(waiting, range(_LOOKED_AT), strict=False):
            total += _work(left, left.rows, left.count)
            count += left.count
        room = bucket.room
        if count:
            self._each = total / count
        elif seconds:
            self._each = seconds / (room or 1)
        self.each = _DOUBT * self._each
        self.base = _DOUBT * (seconds + bucket.cost.seconds(room or 1))

    def seconds(self, bucket: Bucket, request: InferenceRequest, waiting: int, now: float) -> float:
        """Seconds from now until the request would be answered if it joined the bucket, with `waiting` requests in all
        buckets; 0 where nothing is known."""
        count, rows = bucket.count, bucket.rows
        if len(bucket.levels) > 1 and count:  # what is less important stands behind it
            levels = [level for level in bucket.levels if level.priority <= request.priority]
            ahead = sum(len(level.requests) - level.dead for level in levels)
            count, rows = ahead, rows * ahead // count
        own, room = request.route.rows or 1, bucket.room
        others = self._each * (waiting - bucket.count)
        # What is overdue may take as long again.
        running = [abs(end - now) for end in self._ends.values()]
        workers = len(running) or 1
        if not room:
            return self._margin * (sum(running) + others + _work(bucket, 0, count + 1)) / workers
        full = (rows + own - 1) // room  # batches before the one that it will be in
        before = max((sum(running) + others + full * bucket.cost.seconds(room)) / workers, min(running, default=0.0))
        # Until that one starts it fills up with those who come later.
        last = min(room, rows + own - full * room + int(self._rate * before))
        return self._margin * (before + bucket.cost.seconds(last))

    def late(self, bucket: Bucket, request: InferenceRequest, waiting: int, now: float) -> float:
        """As `seconds` if that is too late for the request's deadline, else 0."""
        deadline = request.deadline
        if deadline is None:
            return 0.0
        seconds = self.seconds(bucket, request, waiting, now)
        return seconds if now + seconds + _SPARE * (deadline - now) > deadline else 0.0


def _work(bucket: Bucket, rows: int, count: int) -> float:
    """Seconds of one worker for that many rows, in batches as large as they may be."""
    room, cost = bucket.room, bucket.cost
    if not room:
        return count * cost.seconds(1)
    full, rest = divmod(rows, room)
    return full * cost.seconds(room) + (cost.seconds(rest) if rest else 0.0)
