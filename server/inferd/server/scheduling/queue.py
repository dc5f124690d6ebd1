"""The bounded queue of one signature: first in, first out within a bucket and a priority. Not thread-safe: the caller
holds the batcher's lock.

    SignatureQueue   the bounds and counts, and the buckets by key
    Bucket           requests that may share a batch
    PriorityLevel    the requests of one priority in a bucket, oldest first

Priorities age: a request of priority p goes before a request of priority p + 1 that is up to AGING seconds older, but
not before one that is older than that. So no request starves under a lasting load of higher priority.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from inferd.server.scheduling.bucket import ALONE, BucketKeys
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.fair_share import FairShare, Who
from inferd.server.scheduling.policies.linger import LingerPolicy
from inferd.server.scheduling.rejection import QueueFigures, Reason, Rejection
from inferd.server.scheduling.request import NEVER, InferenceRequest

AGING = 1.0  # seconds of age that equal one step of priority
_KEPT_BUCKETS = 64  # empty buckets that are kept, so that steady traffic does not make them anew
_UNCUT = 64  # one batch in so many has the full size, so that the cost of full batches stays known


class PriorityLevel:
    """Requests of one priority in a bucket. `dead`: requests that were taken out and are still in the deque."""

    __slots__ = ("dead", "handicap", "priority", "requests")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.handicap = priority * AGING
        self.requests: deque[InferenceRequest] = deque()
        self.dead = 0


class Bucket:
    """The waiting requests with one bucket key, which may share a batch.

    count, rows, nbytes   of the waiting requests
    earliest              at most the earliest of their `leaves_at`; infinity where no request waits
    ripe_at               monotonic seconds at which the next batch is ready to run
    cost                  the cost curve of whole batches
    effort                the cost curve of the model's runs, on the clock of the inline budget
    linger                the linger policy; None where batches are not held back
    """

    __slots__ = (
        "_cuts", "_discard", "cost", "count", "earliest", "effort", "key", "levels", "linger", "nbytes", "queue",
        "ripe_at", "rows",
    )  # fmt: skip

    def __init__(
        self, queue: SignatureQueue, key: Hashable, discard: Callable[[Bucket, InferenceRequest], None]
    ) -> None:
        self.queue = queue
        self.key = key
        self._discard = discard
        self.cost = CostCurve()
        self.effort = CostCurve()
        self.linger: LingerPolicy | None = None
        self._cuts = 0
        self.levels = [PriorityLevel(1)]
        self.rows = 0
        self.count = 0
        self.nbytes = 0
        self.ripe_at = NEVER
        self.earliest = NEVER

    @property
    def room(self) -> int:
        """The most rows of a batch; 0: requests run one at a time."""
        return 0 if self.key is ALONE else self.queue.limit

    @property
    def cut(self) -> int:
        """The most rows of a batch that leaves work for the next one: where all waiting requests fit into one batch,
        half of them may wait for the next batch (or for another instance), if that costs almost nothing. So the model
        has work while the answered callers send their next requests. One read in _UNCUT returns `room`.
        """
        room = self.room
        if not room or self.rows > room:
            return room
        self._cuts = (self._cuts + 1) % _UNCUT
        return max(self.cost.enough(room), -(-self.rows // 2)) if self._cuts else room

    def ran(self, rows: int, seconds: float, effort: float) -> None:
        """Learns from a batch that has run. Called on the thread that ran it, without the lock: a lost update does no
        harm."""
        self.cost.ran(rows, seconds)
        self.effort.ran(rows, effort)

    def discard(self, request: InferenceRequest) -> None:
        """Takes a cancelled request out of the queue; see QueuePlace. Thread-safe, unlike the other methods."""
        self._discard(self, request)

    def level(self, priority: int) -> PriorityLevel:
        """The level of a priority; makes it where it does not exist."""
        for level in self.levels:
            if level.priority == priority:
                return level
        level = PriorityLevel(priority)
        if not self.levels[-1].requests:  # an empty bucket has one empty level
            self.levels.pop()
        self.levels.append(level)
        return level

    def next_level(self) -> PriorityLevel:
        """The level whose first request is served next; an empty level when no request waits."""
        levels = self.levels
        return levels[0] if len(levels) == 1 else min(levels, key=_score)

    @property
    def head(self) -> InferenceRequest:
        """The request that is served next. The bucket must not be empty."""
        return self.next_level().requests[0]

    @property
    def next_batch(self) -> tuple[int, int]:
        """An estimate of the rows and requests of the next batch. The bucket must not be empty."""
        room = self.room
        head_rows = self.head.route.rows or 1
        if not room:
            return 1, 1
        if self.rows <= room:
            return self.rows, self.count
        return room, max(1, room // head_rows)

    @property
    def score(self) -> float:
        """The order among buckets: the bucket with the smallest score is served first."""
        return _score(self.next_level())

    def left(self, requests: int, rows: int, nbytes: int) -> None:
        """Takes requests that were removed from the bucket off the counts of the bucket and its queue."""
        self.count -= requests
        self.rows -= rows
        self.nbytes -= nbytes
        self.queue.requests -= requests
        self.queue.nbytes -= nbytes

    def remove(self, request: InferenceRequest) -> None:
        """Takes out a request at any position. It stays in the deque as a dead entry without arrays. Dead entries at
        the head are removed at once, others when more than half of the level is dead: so repeated queueing and
        cancelling does not make the deque grow.
        """
        request.place = None
        self.left(1, request.route.rows or 1, request.nbytes)
        request.forget_inputs()
        if self.queue.fair_share is not None:
            self.queue.gone((request,))
        level = self.level(request.priority)
        level.dead += 1
        requests = level.requests
        while requests and requests[0].place is None:
            requests.popleft()
            level.dead -= 1
        if level.dead > 16 and level.dead * 2 > len(requests):
            level.requests = deque(request for request in requests if request.place is not None)
            level.dead = 0
        self.tidy()

    def waiting(self) -> Iterator[InferenceRequest]:
        """The waiting requests, level by level."""
        return (request for level in self.levels for request in level.requests if request.place is not None)

    def tidy(self) -> None:
        """Removes empty levels, except for one."""
        if len(self.levels) > 1:
            self.levels = [level for level in self.levels if level.requests] or self.levels[:1]


def _score(level: PriorityLevel) -> float:
    return level.requests[0].enqueued_at + level.handicap if level.requests else NEVER


class SignatureQueue:
    """The queue of one signature.

    limit       most rows of a batch; 0: unbatched. Set when the proof ends, and again if the model breaks the proof
    target      rows at which a batch no longer waits for more requests
    outputs     names of the outputs
    splits      requests with more than `limit` rows are split
    reason      why it is batched as it is, as text; `basis`: in one word, see Verdict
    requests    number of waiting requests
    nbytes      bytes of the waiting requests, and of split requests that have not ended
    seconds     duration of a batch, smoothed
    timeout     most seconds that a request waits, unless it has a queue timeout itself; None: until its deadline
    who         returns the client of a call; None: first come, first served
    fair_share  the shares of the clients while the queue is full; None otherwise
    wholes      split requests that have not ended; only their parts are in buckets
    """

    __slots__ = (
        "basis", "buckets", "fair_share", "keys", "limit", "max_bytes", "max_requests", "name", "nbytes", "outputs",
        "reason", "requests", "seconds", "splits", "target", "timeout", "who", "wholes",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        keys: BucketKeys,
        *,
        max_requests: int,
        max_bytes: int,
        timeout: float | None = None,
        who: Who | None = None,
        outputs: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.keys = keys
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.limit = 0
        self.target = 1
        self.splits = False
        self.reason = "not proven"
        self.basis = "unproven"
        self.requests = 0
        self.nbytes = 0
        self.seconds = 0.0
        self.buckets: dict[Hashable, Bucket] = {}
        self.who = who
        self.outputs = outputs
        self.fair_share: FairShare | None = None
        self.wholes: dict[InferenceRequest, None] = {}

    def bucket(self, key: Hashable, discard: Callable[[Bucket, InferenceRequest], None]) -> Bucket:
        """The bucket of a key; makes it where it does not exist."""
        found = self.buckets.get(key)
        if found is None:
            if len(self.buckets) >= _KEPT_BUCKETS:
                for old in [old for old, bucket in self.buckets.items() if not bucket.count]:
                    del self.buckets[old]
            found = self.buckets[key] = Bucket(self, key, discard)
        return found

    def enter(self, requests: Sequence[InferenceRequest], now: float, *, admitted: bool) -> tuple[float, int]:
        """Sets the times at which requests for this queue leave it unserved. Returns the earliest of them, and the sum
        of the bytes. `admitted`: the queue timeout does not apply.
        """
        timeout = None if admitted else self.timeout
        earliest = NEVER
        nbytes = 0
        for request in requests:
            request.enqueued_at = now
            nbytes += request.nbytes
            if request.deadline is None and request.queue_deadline is None and timeout is None:
                continue  # it waits until it is served
            leaves_at = NEVER if request.deadline is None else request.deadline
            until = request.queue_deadline
            if until is None and timeout is not None:
                until = request.queue_deadline = now + timeout
            if until is not None and until < leaves_at:
                leaves_at = until
            request.leaves_at = leaves_at
            earliest = min(earliest, leaves_at)
        return earliest, nbytes

    def full(self, requests: Sequence[InferenceRequest], name: str) -> Rejection:
        """The refusal of requests that have no place here. `name`: of the servable."""
        nbytes = requests[0].nbytes
        reason = Reason.TOO_LARGE if nbytes > self.max_bytes else Reason.FULL
        return Rejection(list(requests), reason, name, self.figures, nbytes)

    def yielding(self, request: InferenceRequest) -> Sequence[InferenceRequest]:
        """Chooses at least one request to evict, so that `request` fits. They are no longer counted in `fair_share` and
        are still in the queue. Empty: the request may not evict others.
        """
        if self.who is None or request.call is None:
            return ()
        if self.fair_share is None:
            waiting = [queued for bucket in self.buckets.values() for queued in bucket.waiting()]
            self.fair_share = FairShare(self.who, (*self.wholes, *waiting))
        places = self.requests + 1 - self.max_requests
        short = self.nbytes + request.nbytes - self.max_bytes
        return self.fair_share.give_way(request, places if short > 0 else max(places, 1), short)

    def instead(
        self, request: InferenceRequest, yielding: Sequence[InferenceRequest], late: float
    ) -> tuple[Sequence[InferenceRequest], float]:
        """For a request whose answer is predicted `late` seconds from now, past its deadline. Returns the requests to
        evict, and 0, where they expire no later than the request itself; else no requests, and `late`.
        """
        yielding = yielding or self.yielding(request)
        if not yielding or max(evicted.leaves_at for evicted in yielding) <= request.leaves_at:
            return yielding, 0.0 if yielding else late
        if self.fair_share is not None:
            self.fair_share.come_back(yielding)
        return (), late

    def charge(self, request: InferenceRequest) -> None:
        """Counts the bytes of a split request until `refund`."""
        self.wholes[request] = None
        self.nbytes += request.nbytes

    def refund(self, request: InferenceRequest) -> None:
        """Takes a split request that has ended off the count. Idempotent."""
        if request in self.wholes:
            del self.wholes[request]
            self.nbytes -= request.nbytes
            self.gone((request,))

    def gone(self, requests: Iterable[InferenceRequest]) -> None:
        """Takes requests that have left the queue off the fair shares."""
        if self.fair_share is not None:
            self.fair_share.leave(requests)
            if self.fair_share.dispersed:
                self.fair_share = None

    def timed(self, seconds: float) -> None:
        """Learns from a batch that took `seconds`."""
        self.seconds = seconds if not self.seconds else self.seconds + 0.1 * (seconds - self.seconds)

    @property
    def manner(self) -> str:
        """How requests share batches, as text for operators."""
        if not self.limit:
            return f"unbatched: {self.reason}"
        return f"up to {self.limit} rows" + (f" ({self.reason})" if self.reason else "")

    @property
    def drain_seconds(self) -> float:
        """A rough estimate of the seconds after which a refused caller may be admitted: 0.05 to 5."""
        batches = max(1.0, self.requests / max(1, self.limit))
        return min(5.0, max(0.05, 0.5 * batches * self.seconds))

    @property
    def figures(self) -> QueueFigures:
        """The state of the queue, for a refusal."""
        return QueueFigures(self.requests, self.max_requests, self.nbytes, self.max_bytes, self.drain_seconds)
