"""The bounded queue of one signature: per bucket, per priority, first in first out. Not thread-safe: the batcher's
lock holds.

    SignatureQueue   bounds and counts, the buckets by key
    Bucket           requests that may share a batch
    PriorityLevel    those of one priority, oldest first

Priorities age: a request of priority p goes before one of priority p + 1 that came up to AGING seconds earlier, not
before an older one. So nobody starves, however long the rush of more important requests lasts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from inferd.server.scheduling.bucket import ALONE, BucketKeys
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.fair_share import FairShare, Who
from inferd.server.scheduling.policies.linger import LingerPolicy
from inferd.server.scheduling.request import NEVER, InferenceRequest

AGING = 1.0  # seconds that one step of priority is worth
_KEPT_BUCKETS = 64  # empty buckets kept, so that steady traffic makes none anew
_UNCUT = 64  # one batch in so many is as large as it may be, so that its cost stays known


class PriorityLevel:
    """Requests of one priority in a bucket. `dead` counts those that left out of turn and still stand in the deque."""

    __slots__ = ("dead", "handicap", "priority", "requests")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.handicap = priority * AGING
        self.requests: deque[InferenceRequest] = deque()
        self.dead = 0


class Bucket:
    """Requests with one key, which may share a batch.

    count, rows, nbytes   of the requests that wait
    earliest              the first of their `leaves_at`, or earlier; infinity where nothing waits
    ripe_at               when the batch waits for more requests no longer
    cost                  what batches of them take, `effort` the model's part of it on the inline budget's clock
    linger                whether a wait pays, None: nobody asks
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
        """Most rows in one batch; 0: one request at a time."""
        return 0 if self.key is ALONE else self.queue.limit

    @property
    def cut(self) -> int:
        """Most rows in one batch that does not leave others idle: where all that waits fits into one batch, half of it
        may stay for the next one (or for another instance) if that costs next to nothing. So the model has work while
        those who were answered ask again.
        """
        room = self.room
        if not room or self.rows > room:
            return room
        self._cuts = (self._cuts + 1) % _UNCUT
        return max(self.cost.enough(room), -(-self.rows // 2)) if self._cuts else room

    def ran(self, rows: int, seconds: float, effort: float) -> None:
        """Learns from a batch. For whoever ran it; a lost update does no harm."""
        self.cost.ran(rows, seconds)
        self.effort.ran(rows, effort)

    def discard(self, request: InferenceRequest) -> None:
        """Lets a cancelled request go; the bucket is the QueuePlace of the requests in it. Thread-safe, unlike the
        rest.
        """
        self._discard(self, request)

    def level(self, priority: int) -> PriorityLevel:
        """The level of a priority, made when it is not there."""
        for level in self.levels:
            if level.priority == priority:
                return level
        level = PriorityLevel(priority)
        if not self.levels[-1].requests:  # the empty one of a bucket where nothing waits
            self.levels.pop()
        self.levels.append(level)
        return level

    def next_level(self) -> PriorityLevel:
        """The level whose head is served next; an empty one when nothing waits."""
        levels = self.levels
        return levels[0] if len(levels) == 1 else min(levels, key=_score)

    @property
    def head(self) -> InferenceRequest:
        """The request that is served next. Something waits."""
        return self.next_level().requests[0]

    @property
    def next_batch(self) -> tuple[int, int]:
        """About how many rows the next batch has, and how many requests. Something waits."""
        room = self.room
        each = self.head.route.rows or 1
        if not room:
            return 1, 1
        if self.rows <= room:
            return self.rows, self.count
        return room, max(1, room // each)

    @property
    def score(self) -> float:
        """When the bucket is served among others: the smallest first."""
        return _score(self.next_level())

    def left(self, requests: int, rows: int, nbytes: int) -> None:
        """Takes back what was counted for that many requests when they came; they have no place any more."""
        self.count -= requests
        self.rows -= rows
        self.nbytes -= nbytes
        self.queue.requests -= requests
        self.queue.nbytes -= nbytes

    def remove(self, request: InferenceRequest) -> None:
        """Lets a request go that is not at the head. It stays in the deque, dead and without arrays, until it is swept
        out: at the head at once, elsewhere when most of the level is dead, so queueing and cancelling for ever grows
        nothing.
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
        """The requests that wait, level by level."""
        return (request for level in self.levels for request in level.requests if request.place is not None)

    def tidy(self) -> None:
        """Drops levels in which nothing stands."""
        if len(self.levels) > 1:
            self.levels = [level for level in self.levels if level.requests] or self.levels[:1]


def _score(level: PriorityLevel) -> float:
    return level.requests[0].enqueued_at + level.handicap if level.requests else NEVER


class SignatureQueue:
    """What waits for one signature.

    limit      rows per batch, 0: unbatched. Changes once, when the proof is done; again only when the model breaks it
    target     rows at which a batch waits no longer
    outputs    the names that an answer has
    splits     a request over `limit` is cut and reassembled
    requests   waiting now; `nbytes` what they hold, and what split requests hold that are under way
    seconds    how long a batch takes, smoothed
    timeout    seconds that a request waits at most when it does not say so itself, None: until its deadline
    who        tells clients apart, None: first come, first served
    fair_share the clients of those that wait, while there is not room for all; None otherwise
    wholes     requests under way in parts, which wait without standing in a bucket
    """

    __slots__ = (
        "buckets", "fair_share", "keys", "limit", "max_bytes", "max_requests", "name", "nbytes", "outputs", "reason",
        "requests", "seconds", "splits", "target", "timeout", "who", "wholes",
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
        self.requests = 0
        self.nbytes = 0
        self.seconds = 0.0
        self.buckets: dict[Hashable, Bucket] = {}
        self.who = who
        self.outputs = outputs
        self.fair_share: FairShare | None = None
        self.wholes: dict[InferenceRequest, None] = {}

    def bucket(self, key: Hashable, discard: Callable[[Bucket, InferenceRequest], None]) -> Bucket:
        """The bucket of a key, made when it is not there."""
        found = self.buckets.get(key)
        if found is None:
            if len(self.buckets) >= _KEPT_BUCKETS:
                for old in [old for old, bucket in self.buckets.items() if not bucket.count]:
                    del self.buckets[old]
            found = self.buckets[key] = Bucket(self, key, discard)
        return found

    def yielding(self, request: InferenceRequest) -> Sequence[InferenceRequest]:
        """The requests that give way to a request, so that it fits; at least one. They have left `fair_share` and still
        wait. Empty: the request has no claim.
        """
        if self.who is None or request.call is None:
            return ()
        if self.fair_share is None:
            standing = [one for bucket in self.buckets.values() for one in bucket.waiting()]
            self.fair_share = FairShare(self.who, (*self.wholes, *standing))
        places = self.requests + 1 - self.max_requests
        short = self.nbytes + request.nbytes - self.max_bytes
        return self.fair_share.give_way(request, places if short > 0 else max(places, 1), short)

    def instead(
        self, request: InferenceRequest, yielding: Sequence[InferenceRequest], late: float
    ) -> tuple[Sequence[InferenceRequest], float]:
        """For a request that would be `late` at the end of the queue: the requests that give way, and 0, where those
        would have been in time and have no more time than it has; else none, and `late`.
        """
        yielding = yielding or self.yielding(request)
        if not yielding or max(one.leaves_at for one in yielding) <= request.leaves_at:
            return yielding, 0.0 if yielding else late
        if self.fair_share is not None:
            self.fair_share.come_back(yielding)
        return (), late

    def charge(self, whole: InferenceRequest) -> None:
        """A request under way in parts holds its bytes until `refund`."""
        self.wholes[whole] = None
        self.nbytes += whole.nbytes

    def refund(self, whole: InferenceRequest) -> None:
        """It is over. Idempotent."""
        if whole in self.wholes:
            del self.wholes[whole]
            self.nbytes -= whole.nbytes
            self.gone((whole,))

    def gone(self, requests: Iterable[InferenceRequest]) -> None:
        """These wait no longer."""
        if self.fair_share is not None:
            self.fair_share.leave(requests)
            if self.fair_share.dispersed:
                self.fair_share = None

    def timed(self, seconds: float) -> None:
        """Learns from a batch that took `seconds`."""
        self.seconds = seconds if not self.seconds else self.seconds + 0.1 * (seconds - self.seconds)

    @property
    def manner(self) -> str:
        """How requests share batches, for people."""
        if not self.limit:
            return f"unbatched: {self.reason}"
        return f"up to {self.limit} rows" + (f" ({self.reason})" if self.reason else "")

    @property
    def drain_seconds(self) -> float:
        """A rough guess at when there is room again, for callers that were refused: 50 ms to 5 s."""
        batches = max(1.0, self.requests / max(1, self.limit))
        return min(5.0, max(0.05, 0.5 * batches * self.seconds))
