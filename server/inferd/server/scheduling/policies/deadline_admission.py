"""Predicts when a new request would be answered, to refuse a request whose deadline would pass before. Not thread-safe:
the caller holds the batcher's lock.

The prediction adds the running batches, the requests that wait before it, and its own batch, each at the recent cost of
such batches. It does not see the way to the client, other programs on the machine, or a model whose cost changes; these
show as late answers. Each batch with a late answer widens a margin, each other batch narrows it a little: under
overload requests are thus answered just before their deadline, not just after it.

The prediction costs time, so that a cheap upper bound is kept for all requests: `base + each * waiting` seconds,
renewed with each batch that is taken. Only a request whose deadline lies within the bound needs the prediction; most
do not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.request import InferenceRequest

_DOUBT = 2.0  # the bound is so many times the prediction, because the queue changes until it is renewed
_MARGIN, _WIDEST = 1.05, 2.0  # smallest and largest factor on the prediction
_WIDER, _NARROWER = 0.05, 0.002
_SPARE = 0.05  # share of a request's time that must remain for sending the answer
_WINDOW = 0.05  # seconds at least over which arrivals are counted
_LOOKED_AT = 16  # buckets that one renewal adds up; the rest are assumed to be alike


class DeadlineAdmission:
    """The deadline admission of one servable.

    base, each   coefficients of the bound, in seconds; 0 before the first batch: then no request is too late
    """

    __slots__ = ("_each", "_ends", "_margin", "_rate", "_since", "_taken", "base", "each")

    def __init__(self) -> None:
        self._ends: dict[Hashable, float] = {}  # by busy worker: expected end of its batch, monotonic
        self._each = 0.0
        self._margin = _MARGIN
        self._rate = 0.0  # rows that arrive in a second, measured by the rows that workers take
        self._taken = 0  # rows taken since `_since`
        self._since = 0.0
        self.base = 0.0
        self.each = 0.0

    def idle(self, worker: Hashable) -> None:
        """Learns that the worker has ended its batch."""
        self._ends.pop(worker, None)

    def answered(self, requests: Sequence[InferenceRequest], started_at: float, now: float) -> None:
        """Learns from a batch that has run: `started_at` and `now` are monotonic seconds of its start and its end."""
        for request in requests:
            allowed = request.leaves_at - request.enqueued_at
            # A request with barely the time for its own run says nothing about the queue.
            if request.leaves_at - now < _SPARE * allowed and allowed > 2 * (now - started_at):
                self._margin = min(_WIDEST, self._margin + _WIDER)
                return
        self._margin = max(_MARGIN, self._margin - _NARROWER)

    def expired(self) -> None:
        """Learns that the deadline of an admitted request has passed in the queue."""
        self._margin = min(_WIDEST, self._margin + _WIDER)

    def busy(self, worker: Hashable, bucket: Bucket, rows: int, now: float, waiting: Iterable[Bucket]) -> None:
        """Learns that the worker has taken a batch of `rows`. `waiting`: the buckets that still hold requests."""
        seconds = bucket.cost.seconds(rows)
        self._ends[worker] = now + seconds
        if now - self._since >= _WINDOW:
            self._rate = self._taken / (now - self._since)
            self._taken, self._since = 0, now
        self._taken += rows
        total, count = 0.0, 0
        for other, _ in zip(waiting, range(_LOOKED_AT), strict=False):
            total += _work(other, other.rows, other.count)
            count += other.count
        room = bucket.room
        if count:
            self._each = total / count
        elif seconds:
            self._each = seconds / (room or 1)
        self.each = _DOUBT * self._each
        self.base = _DOUBT * (seconds + bucket.cost.seconds(room or 1))

    def seconds(self, bucket: Bucket, request: InferenceRequest, waiting: int, now: float) -> float:
        """Predicted seconds until the answer of a request that joins the bucket now; 0 where nothing is known.
        `waiting`: requests in all buckets."""
        count, rows = bucket.count, bucket.rows
        if len(bucket.levels) > 1 and count:  # requests of lower priority wait behind it
            levels = [level for level in bucket.levels if level.priority <= request.priority]
            ahead = sum(len(level.requests) - level.dead for level in levels)
            count, rows = ahead, rows * ahead // count
        request_rows, room = request.route.rows or 1, bucket.room
        others = self._each * (waiting - bucket.count)
        # A batch that has passed its expected end may take as long again as it is late.
        running = [abs(end - now) for end in self._ends.values()]
        workers = len(running) or 1
        if not room:
            return self._margin * (sum(running) + others + _work(bucket, 0, count + 1)) / workers
        full = (rows + request_rows - 1) // room  # full batches before the request's own
        before = max((sum(running) + others + full * bucket.cost.seconds(room)) / workers, min(running, default=0.0))
        # Later requests join the request's own batch until it starts.
        last = min(room, rows + request_rows - full * room + int(self._rate * before))
        return self._margin * (before + bucket.cost.seconds(last))

    def late(self, bucket: Bucket, request: InferenceRequest, waiting: int, now: float) -> float:
        """The prediction of `seconds` when it is too late for the request's deadline, else 0."""
        deadline = request.deadline
        if deadline is None:
            return 0.0
        seconds = self.seconds(bucket, request, waiting, now)
        return seconds if now + seconds + _SPARE * (deadline - now) > deadline else 0.0


def _work(bucket: Bucket, rows: int, count: int) -> float:
    """Seconds of one worker for `rows` rows in the largest possible batches, or for `count` unbatched requests."""
    room, cost = bucket.room, bucket.cost
    if not room:
        return count * cost.seconds(1)
    full, rest = divmod(rows, room)
    return full * cost.seconds(room) + (cost.seconds(rest) if rest else 0.0)
