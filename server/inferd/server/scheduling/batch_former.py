"""Chooses the next batch among the waiting requests of a servable. Not thread-safe: the caller holds the batcher's
lock.

- A batch is ripe, which means ready to run, at once, unless the callers that were just answered will return in less
  time than a larger batch saves (policies/linger.py). With a batching delay it is ripe when its bucket holds `target`
  rows, or when its oldest request has waited for the delay. In both cases it is ripe at the latest when its most urgent
  request needs the remaining time for the run.
- Among the ripe buckets, the one with the oldest first request is taken first; priorities age (queue.py).
- A batch is made of the requests of one bucket in order, as many as fit. A request that does not fit ends the batch.
  The batch may be smaller where that costs nothing and leaves work for the next batch (queue.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inferd.server.scheduling.policies.linger import LingerPolicy
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import NEVER, InferenceRequest, Route

_ALL = 2**62  # more requests than a queue holds


@dataclass(slots=True)
class Batch:
    """Requests to run together.

    rows         of all requests; 1 for a request that runs alone without a batch axis
    route        the Route of all requests; None: they have several
    started_at   monotonic seconds, 0 before the run
    """

    queue: SignatureQueue
    requests: Sequence[InferenceRequest]
    rows: int
    bucket: Bucket
    route: Route | None = None
    started_at: float = 0.0


class BatchFormer:
    """The waiting requests of one servable, and the choice of the next batch.

    count    waiting requests
    delay    seconds that a batch may wait for more requests
    holds    the linger policy may hold batches back; False with a delay
    active   the buckets with waiting requests
    """

    def __init__(self, delay: float, *, holds: bool = False) -> None:
        self.count = 0
        self.delay = delay
        self.holds = holds and not delay
        self.active: dict[Bucket, None] = {}

    def add(
        self, bucket: Bucket, requests: Sequence[InferenceRequest], earliest: float, nbytes: int, now: float
    ) -> bool:
        """Queues requests of one Route and one priority, in this order. `earliest`: the earliest of their `leaves_at`;
        `nbytes`: their bytes together. Returns whether a worker must look: a batch is ripe, or ripens earlier than its
        bucket did before.
        """
        first = requests[0]
        if not bucket.count:
            self.active[bucket] = None
        level = bucket.levels[0]
        if level.priority != first.priority:
            level = bucket.level(first.priority)
        count = len(requests)
        rows = count * (first.route.rows or 1)
        for request in requests:
            request.place = bucket
        level.requests.extend(requests)
        bucket.count += count
        bucket.rows += rows
        bucket.nbytes += nbytes
        bucket.earliest = min(bucket.earliest, earliest)
        queue = bucket.queue
        queue.requests += count
        queue.nbytes += nbytes
        self.count += count
        if not self.delay:
            if not self.holds:
                return True
            linger = bucket.linger
            if linger is None:
                bucket.ripe_at = now
                return True
            linger.came(rows, now)
        ripe_at = NEVER
        for request in requests:
            ripe_at = min(ripe_at, self._patience(bucket, request, now))
            if ripe_at <= now:
                break
        if ripe_at > now and ripe_at >= bucket.ripe_at:
            return False
        bucket.ripe_at = min(ripe_at, bucket.ripe_at)
        return True

    def remove(self, bucket: Bucket, request: InferenceRequest) -> None:
        """Takes a request out of its bucket, at any position."""
        bucket.remove(request)
        self.count -= 1
        if not bucket.count:
            self._emptied(bucket)

    def clear(self, requests: Iterable[InferenceRequest]) -> None:
        """Takes evicted requests out of their buckets. Does nothing for split requests: failing them takes out their
        parts."""
        for request in requests:
            if isinstance(request.place, Bucket):
                self.remove(request.place, request)

    def pick(self, now: float) -> Bucket | None:
        """The bucket of the next batch; None when no batch is ripe."""
        active = self.active
        if self.delay or self.holds:
            if len(active) == 1:
                bucket = next(iter(active))
                return bucket if bucket.ripe_at <= now else None
            ripe = [bucket for bucket in active if bucket.ripe_at <= now]
            return min(ripe, key=_score) if ripe else None
        if len(active) == 1:
            return next(iter(active))
        return min(active, key=_score) if active else None

    def take(
        self, bucket: Bucket, now: float, dropped: list[InferenceRequest], *, cut: bool = False, most: int = _ALL
    ) -> Batch | None:
        """The next batch of a bucket that `pick` has returned; None when all its requests were dropped. Expired and
        finished requests are appended to `dropped`. `cut`: limits the batch to `Bucket.cut`; `most`: requests at most.
        """
        room = bucket.cut if cut else bucket.room
        levels = bucket.levels
        level = levels[0]
        if len(levels) == 1 and bucket.rows <= room and bucket.count <= most and not level.dead:
            batch = self._take_all(bucket, now, dropped)
            rows = sum([request.route.rows for request in batch]) if dropped else bucket.rows
            count, weights, nbytes = bucket.count, bucket.rows, bucket.nbytes
        else:
            batch, rows, count, weights, nbytes = self._take_some(bucket, room, most, now, dropped)
        bucket.left(count, weights, nbytes)
        queue = bucket.queue
        if queue.fair_share is not None:
            queue.gone((*batch, *dropped))
        self.count -= count
        bucket.tidy()
        if bucket.linger is not None:
            bucket.linger.release()
        if not bucket.count:
            self._emptied(bucket)
        elif self.delay:
            bucket.ripe_at = min(self._patience(bucket, request, now) for request in bucket.waiting())
        else:
            bucket.ripe_at = 0.0
        return Batch(queue, batch, rows if room else 1, bucket, _common_route(batch)) if batch else None

    def _take_all(self, bucket: Bucket, now: float, dropped: list[InferenceRequest]) -> list[InferenceRequest]:
        waiting = bucket.levels[0].requests
        batch = list(waiting)
        waiting.clear()
        any_dropped = bucket.earliest <= now
        for request in batch:
            request.place = None
            if request.finished:
                any_dropped = True
        if any_dropped:
            dropped += [request for request in batch if request.finished or request.leaves_at <= now]
            batch = [request for request in batch if not (request.finished or request.leaves_at <= now)]
        return batch

    def _take_some(
        self, bucket: Bucket, room: int, most: int, now: float, dropped: list[InferenceRequest]
    ) -> tuple[list[InferenceRequest], int, int, int, int]:
        """The batch and its rows; the number of requests that were taken out of the bucket, their rows and bytes."""
        batch: list[InferenceRequest] = []
        rows = count = nbytes = weights = 0
        level = bucket.next_level()
        single = len(bucket.levels) == 1
        while requests := level.requests:
            request = requests[0]
            if request.place is None:
                requests.popleft()
                level.dead -= 1
            else:
                weight = request.route.rows or 1
                if batch and (rows + weight > room or len(batch) >= most):
                    break
                requests.popleft()
                request.place = None
                count += 1
                weights += weight
                nbytes += request.nbytes
                if request.finished or request.leaves_at <= now:
                    dropped.append(request)
                else:
                    batch.append(request)
                    rows += weight
                    if rows >= room:
                        break
            if not single:
                level = bucket.next_level()
        return batch, rows, count, weights, nbytes

    def answered(self, bucket: Bucket, rows: int, now: float) -> None:
        """A batch of the bucket was answered: decides whether the next batch is held back for its callers."""
        if not self.holds or not bucket.room:
            return
        linger = bucket.linger
        if linger is None:
            linger = bucket.linger = LingerPolicy()
        held = linger.answered(rows, bucket.rows, bucket.room, bucket.cost, now)
        if bucket.count:
            waiting = bucket.waiting()
            bucket.ripe_at = min(self._patience(bucket, request, now) for request in waiting) if held else 0.0

    def wait_no_more(self) -> None:
        """From now on every batch is ripe at once: the servable drains."""
        self.delay = 0.0
        self.holds = False

    def next_ripe(self) -> float:
        """Monotonic seconds at which the first batch ripens. There are waiting requests."""
        return min(bucket.ripe_at for bucket in self.active)

    def ripen(self, queue: SignatureQueue) -> None:
        """Makes the batches of a signature ripe."""
        for bucket in queue.buckets.values():
            if bucket.count:
                bucket.ripe_at = 0.0

    def everything(self) -> list[tuple[Bucket, InferenceRequest]]:
        """All waiting requests, with their buckets."""
        return [(bucket, request) for bucket in self.active for request in bucket.waiting()]

    def _patience(self, bucket: Bucket, request: InferenceRequest, now: float) -> float:
        """Monotonic seconds until which a batch with this request may wait for more requests."""
        queue = bucket.queue
        enqueued_at = request.enqueued_at
        if self.delay:
            if not bucket.room or bucket.rows >= queue.target:
                return now
            until = enqueued_at + self.delay
        else:
            linger = bucket.linger
            if linger is None or bucket.rows >= linger.rows:
                return now
            until = linger.until
        if request.leaves_at == NEVER:
            return until
        # A part of the time until the deadline is reserved for the run, and for delays of a busy machine.
        reserve = max(2 * queue.seconds, 0.25 * (request.leaves_at - enqueued_at))
        return min(until, request.leaves_at - reserve)

    def _emptied(self, bucket: Bucket) -> None:
        del self.active[bucket]
        bucket.ripe_at = NEVER
        bucket.earliest = NEVER


def _common_route(requests: Sequence[InferenceRequest]) -> Route | None:
    route = requests[0].route
    for request in requests:
        if request.route is not route:
            return None
    return route


def _score(bucket: Bucket) -> float:
    return bucket.score
