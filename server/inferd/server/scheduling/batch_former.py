"""What waits in a servable's queues, and which of it goes next. Not thread-safe: the batcher's lock holds.

- A batch is ripe at once, unless callers who have just been answered will be back in less time than a larger batch
  saves (company.py); with a delay, when its bucket holds `target` rows, when its oldest request has waited for the
  delay. In either case when the most urgent one in it needs the rest of its time for the run.
- Among the ripe buckets the one with the oldest head goes first; priorities age (queue.py).
- A batch is the requests of one bucket in order, as many as fit. A request that does not fit closes it. It may be cut
  shorter where that costs nothing and leaves work for the next one (queue.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inferd.server.scheduling.policies.linger import LingerPolicy
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import NEVER, InferRequest


@dataclass(slots=True)
class Batch:
    """Requests to run together. `rows` is 1 for one that runs alone without a batch axis."""

    queue: SignatureQueue
    requests: list[InferRequest]
    rows: int
    bucket: Bucket


class BatchFormer:
    """The buckets in which something waits.

    count   requests that wait
    delay   seconds that a batch may wait for company
    holds   it may be held back for those who come back; not with a delay
    active  the buckets in which something waits
    """

    def __init__(self, delay: float, *, holds: bool = False) -> None:
        self.count = 0
        self.delay = delay
        self.holds = holds and not delay
        self.active: dict[Bucket, None] = {}

    def add(self, bucket: Bucket, request: InferRequest, now: float) -> bool:
        """Puts a request in line. Whether a worker must look: there is a batch to run, or one that ripens earlier
        than all was known to.
        """
        if not bucket.count:
            self.active[bucket] = None
        lane = bucket.lanes[0]
        if lane.priority != request.priority:
            lane = bucket.level(request.priority)
        request.place = bucket
        lane.requests.append(request)
        bucket.count += 1
        bucket.rows += request.rows or 1
        queue = bucket.queue
        queue.requests += 1
        queue.nbytes += request.nbytes
        self.count += 1
        if not self.delay:
            if not self.holds:
                return True
            company = bucket.company
            if company is not None:
                company.came(request.rows or 1, now)
        ripe_at = self._patience(bucket, request, now)
        if ripe_at > now and ripe_at >= bucket.ripe_at:
            return False
        bucket.ripe_at = min(ripe_at, bucket.ripe_at)
        return True

    def remove(self, bucket: Bucket, request: InferRequest) -> None:
        """Takes a request out of the middle of its line."""
        bucket.remove(request)
        self.count -= 1
        if not bucket.count:
            self._emptied(bucket)

    def clear(self, requests: Iterable[InferRequest]) -> None:
        """Takes out those that gave way, but for the parts of such as are under way so: who fails them does that."""
        for request in requests:
            if isinstance(request.place, Bucket):
                self.remove(request.place, request)

    def take(self, now: float, dropped: list[InferRequest], *, cut: bool = False) -> Batch | None:
        """The next batch, None when none is ripe. Requests on its way that have expired or finished go to `dropped`.
        `cut`: no larger than pays.
        """
        bucket = self._pick(now)
        if bucket is None:
            return None
        room = bucket.cut if cut else bucket.room
        batch: list[InferRequest] = []
        rows = left = nbytes = weights = 0
        lane = bucket.next_level()
        single = len(bucket.lanes) == 1
        while requests := lane.requests:
            request = requests[0]
            if request.place is None:
                requests.popleft()
                lane.dead -= 1
            else:
                weight = request.rows or 1
                if batch and rows + weight > room:
                    break
                requests.popleft()
                request.place = None
                left += 1
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
                lane = bucket.next_level()
        bucket.left(left, weights, nbytes)
        if bucket.queue.crowd is not None:
            bucket.queue.gone((*batch, *dropped))
        self.count -= left
        bucket.tidy()
        if bucket.company is not None:
            bucket.company.release()
        if not bucket.count:
            self._emptied(bucket)
        elif self.delay:
            bucket.ripe_at = min(self._patience(bucket, request, now) for request in bucket.waiting())
        else:
            bucket.ripe_at = 0.0
        return Batch(bucket.queue, batch, rows if room else 1, bucket) if batch else None

    def answered(self, bucket: Bucket, rows: int, now: float) -> None:
        """A batch of the bucket's has been answered: its callers may be worth waiting for."""
        if not self.holds or not bucket.room:
            return
        company = bucket.company
        if company is None:
            company = bucket.company = LingerPolicy()
        held = company.answered(rows, bucket.rows, bucket.room, bucket.cost, now)
        if bucket.count:
            waiting = bucket.waiting()
            bucket.ripe_at = min(self._patience(bucket, request, now) for request in waiting) if held else 0.0

    def wait_no_more(self) -> None:
        """No company will come any more."""
        self.delay = 0.0
        self.holds = False

    def next_ripe(self) -> float:
        """When the first batch ripens."""
        return min(bucket.ripe_at for bucket in self.active)

    def ripen(self, queue: SignatureQueue) -> None:
        """What waits for this signature waits no longer."""
        for bucket in queue.buckets.values():
            if bucket.count:
                bucket.ripe_at = 0.0

    def everything(self) -> list[tuple[Bucket, InferRequest]]:
        """All that waits."""
        return [(bucket, request) for bucket in self.active for request in bucket.waiting()]

    def _pick(self, now: float) -> Bucket | None:
        active = self.active
        if self.delay or self.holds:
            ripe = [bucket for bucket in active if bucket.ripe_at <= now]
            return min(ripe, key=_score) if ripe else None
        if len(active) == 1:
            return next(iter(active))
        return min(active, key=_score) if active else None

    def _patience(self, bucket: Bucket, request: InferRequest, now: float) -> float:
        """When this request waits for company no longer."""
        queue = bucket.queue
        came = request.enqueued_at
        if self.delay:
            if not bucket.room or bucket.rows >= queue.target:
                return now
            until = came + self.delay
        else:
            company = bucket.company
            if company is None or bucket.rows >= company.rows:
                return now
            until = company.until
        if request.leaves_at == NEVER:
            return until
        # Waiting is worth a part of the caller's time only: the rest is for the run, and for a busy machine.
        reserve = max(2 * queue.seconds, 0.25 * (request.leaves_at - came))
        return min(until, request.leaves_at - reserve)

    def _emptied(self, bucket: Bucket) -> None:
        del self.active[bucket]
        bucket.ripe_at = NEVER


def _score(bucket: Bucket) -> float:
    return bucket.score
