"""Admission and hand-over: requests come in from any thread, batches go out to idle workers.

One lock guards all queues of a servable. Workers park on locks of their own, so that a submit wakes exactly one of
them, and only when there is something to run. An idle worker takes what waits at once; with `max_queue_delay` it waits
up to that long for `preferred_batch_size` rows (none: for `max_batch_size`), as batch_former.py says.

A worker is anything that takes batches and executes them: a thread of an instance, or the front end's loop where
batches are known to be short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic

from inferd.server.errors import DeadlineExceeded, Unavailable
from inferd.server.scheduling.batch_former import Batch, BatchFormer
from inferd.server.scheduling.deadline_expirer import DeadlineExpirer
from inferd.server.scheduling.inline import InlineBudget, InlinePlace
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.rejection import Reason, Rejection
from inferd.server.scheduling.request import NEXT_TURN, InferenceRequest, expiry
from inferd.server.scheduling.worker_slot import IdleWorkers, WorkerSlot


class Batcher:
    """The queues of one servable. Thread-safe.

    expirer   its `run` is due on a thread of its own, from before the first submit until `close`
    inline    the servable's place on the front end's loop, None: it has none; set before the first submit
    """

    def __init__(
        self,
        name: str,
        queues: Sequence[SignatureQueue],
        *,
        delay: float,
        observer: BatchObserver,
        deadline_admission: DeadlineAdmission | None = None,
        cut: bool = False,
    ) -> None:
        """`deadline_admission` finds the requests that cannot be answered in time; None: only bounds refuse. `cut`:
        batches are no larger than pays, and without a delay they wait for callers who come back where that pays."""
        self._name = name
        self._queues = queues
        self._observer = observer
        self._lock = threading.Lock()
        self._former = BatchFormer(delay, holds=cut)
        self._late = deadline_admission
        self._cut = cut
        self._base = self._each = 0.0  # the bound that deadline admission gives
        self._running = 0
        self._idle = IdleWorkers()
        self._refusal: str | None = None
        self._stopped = False
        self._quiet = threading.Event()
        self.expirer = DeadlineExpirer(self._lock, self._former, self._drop, self._check_quiet)
        self.inline: InlinePlace | None = None

    # -- callers -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        requests: Sequence[InferenceRequest],
        *,
        whole: InferenceRequest | None = None,
        admitted: bool = False,
        alike: bool = False,
    ) -> list[Rejection]:
        """Queues requests whose Routes name their queues, in this order. Gives those that are not taken, with the
        reason.

        `whole` is the request whose first part these are: its bytes are charged to the queue until `refund`.
        `admitted` requests belong to one that was let in before: they are refused only when the batcher is closed.
        `alike`: they have one Route and one priority.
        """
        if not requests:
            return []
        rejected: list[Rejection] = []
        gave_way: list[tuple[SignatureQueue, Sequence[InferenceRequest]]] = []
        wake = None
        fresh = whole is None and not admitted
        with self._lock:
            now = monotonic()
            if self.inline is not None:
                if self.inline.taken:
                    self._wait_after_all(now)
                if alike and not self._former.count and self._take_at_once(requests, now):
                    return rejected
            ready = False
            first, count = 0, len(requests)
            while first < count:
                head = requests[first]
                route, priority = head.route, head.priority
                queue = route.queue
                assert queue is not None
                last = count if alike else first + 1
                while last < count and requests[last].route is route and requests[last].priority == priority:
                    last += 1
                same = requests if last - first == count else requests[first:last]
                first = last
                earliest, nbytes = queue.enter(same, now, admitted=admitted)
                if self._plain(same, earliest, nbytes, now, fresh=fresh):
                    ready = self._add(same, earliest, nbytes, now) or ready
                    continue
                if fresh and self._full_for_all(same, earliest, now):
                    rejected.append(queue.full(same, self._name))
                    continue
                for request in same:
                    reason = self._admit(request, now, whole, gave_way, admitted=admitted)
                    if reason is None:
                        ready = self._add((request,), request.leaves_at, request.nbytes, now, whole) or ready
                    else:
                        rejected.append(reason)
            if ready and self._idle and (self.inline is None or not self.inline.defer(count)):
                wake = self._idle.pop()
        if wake is not None:
            wake.wake.release()
        for queue, gone in gave_way:
            self._give_way(queue, gone)
        for rejection in rejected:
            self._count_dropped(rejection)
        return rejected

    def _take_at_once(self, requests: Sequence[InferenceRequest], now: float) -> bool:
        """Whether requests that are alike, and before which nothing waits, make a batch that the loop runs in the
        coming turn. They have been admitted then, without a look at each: there is room for all."""
        route = requests[0].route
        queue, count = route.queue, len(requests)
        assert queue is not None
        assert self.inline is not None
        rows = count * route.rows
        if not rows or rows > queue.limit or count > queue.max_requests or self._former.delay:
            return False
        if queue.timeout is not None or queue.wholes or self._refusal is not None:
            return False
        nbytes = 0
        for request in requests:
            nbytes += request.nbytes
            if request.deadline is not None and request.deadline <= now:
                return False
        bucket = queue.buckets.get(route.key)
        if bucket is None or nbytes > queue.max_bytes or not self.inline.take(Batch(queue, requests, rows, bucket)):
            return False
        self._running += count
        requests[0].place = NEXT_TURN
        return True

    def _wait_after_all(self, now: float) -> None:
        """Queues what the loop has taken for the coming turn, so that what comes now may share its batch."""
        assert self.inline is not None
        given = self.inline.give_back()
        if given is not None:
            self._requeue(*given, now)

    def _requeue(self, slot: WorkerSlot, batch: Batch, now: float) -> None:
        self._running -= slot.empty()
        batch.requests[0].place = None
        requests = [request for request in batch.requests if not request.finished]
        if requests:
            earliest, nbytes = batch.queue.enter(requests, now, admitted=True)
            self._add(requests, earliest, nbytes, now)

    def put_back(self, slot: WorkerSlot, batch: Batch) -> None:
        """The loop does not run a batch that it has taken: it is for a worker."""
        requests = batch.requests
        with self._lock:
            stopped = self._stopped
            if stopped:
                self._running -= slot.empty()
                requests[0].place = None
            else:
                self._requeue(slot, batch, monotonic())
                self._check_quiet()
        if stopped:
            for request in requests:
                request.fail(Unavailable(self._refusal or ""))
            with self._lock:
                self._check_quiet()
        else:
            self.hand_over()

    def _plain(
        self, requests: Sequence[InferenceRequest], earliest: float, nbytes: int, now: float, *, fresh: bool
    ) -> bool:
        """Whether all of them are let in without a further look."""
        queue = requests[0].route.queue
        assert queue is not None
        return (
            fresh
            and earliest > now
            and self._refusal is None
            and queue.fair_share is None
            and queue.requests + len(requests) <= queue.max_requests
            and queue.nbytes + nbytes <= queue.max_bytes
            # While a worker is idle nothing is too late: only a run can show that what was learned is wrong.
            and (earliest - now >= self._base + self._each * (self._former.count + len(requests)) or bool(self._idle))
        )

    def _full_for_all(self, requests: Sequence[InferenceRequest], earliest: float, now: float) -> bool:
        """Whether none of them finds a place in its queue: for a flood, which is refused without a look at each."""
        queue = requests[0].route.queue
        assert queue is not None
        if queue.requests < queue.max_requests or earliest <= now or self._refusal is not None:
            return False
        if queue.who is None:
            return True
        shares = queue.fair_share
        return shares is not None and not any(shares.has_claim(request.call) for request in requests)

    def _admit(
        self,
        request: InferenceRequest,
        now: float,
        whole: InferenceRequest | None,
        gave_way: list[tuple[SignatureQueue, Sequence[InferenceRequest]]],
        *,
        admitted: bool,
    ) -> Rejection | None:
        """Why a request is not let in; None: it is. Who makes room for it has left the queue then."""
        queue = request.route.queue
        assert queue is not None
        asker = whole or request
        if whole is not None:
            whole.leaves_at, whole.enqueued_at = request.leaves_at, now
        if request.leaves_at <= now:
            request.enqueued_at = 0.0  # it never was
            return Rejection([request], Reason.EXPIRED, self._name, now=now)
        if self._stopped or (self._refusal is not None and not admitted):
            return Rejection([request], Reason.CLOSED, self._name, text=self._refusal or "")
        gone: Sequence[InferenceRequest] = ()
        full = not admitted and (queue.requests >= queue.max_requests or queue.nbytes + asker.nbytes > queue.max_bytes)
        if full:
            gone = queue.yielding(asker)
            if not gone:
                rejection = queue.full((asker,), self._name)
                rejection.requests = [request]
                return rejection
        former = self._former
        ahead = self._base + self._each * former.count
        if self._late is not None and request.leaves_at - now < ahead and not admitted and not self._idle:
            late = self._late.late(self._bucket(request), request, former.count, now)
            if late and queue.who is not None:
                gone, late = queue.instead(asker, gone, late)
            if late:
                left = (request.deadline or now) - now
                return Rejection([request], Reason.TOO_LATE, self._name, seconds=late, left=left)
        if gone:
            former.clear(gone)
            self._running += len(gone)
            gave_way.append((queue, gone))
        return None

    def _bucket(self, request: InferenceRequest) -> Bucket:
        route = request.route
        assert route.queue is not None
        return route.queue.buckets.get(route.key) or route.queue.bucket(route.key, self._discard)

    def _add(
        self,
        requests: Sequence[InferenceRequest],
        earliest: float,
        nbytes: int,
        now: float,
        whole: InferenceRequest | None = None,
    ) -> bool:
        queue = requests[0].route.queue
        assert queue is not None
        ready = self._former.add(self._bucket(requests[0]), requests, earliest, nbytes, now)
        if whole is not None:
            queue.charge(whole)
        if queue.fair_share is not None:
            for request in requests if whole is None else (whole,):
                queue.fair_share.join(request)
        if earliest < self.expirer.expires_at:
            self.expirer.expect(earliest)
        return ready

    def _count_dropped(self, rejection: Rejection) -> None:
        if rejection.reason in _DROPPED:
            for _ in rejection.requests:
                self._observer.dropped(_DROPPED[rejection.reason])

    def _give_way(self, queue: SignatureQueue, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            self._observer.dropped("cancelled" if request.finished else "full")
            place = request.place
            request.fail(
                Rejection([request], Reason.GAVE_WAY, self._name, queue.figures, accepted=place is not None).error()
            )
            if place is not None:  # it is under way in parts
                place.discard(request)
        with self._lock:
            self._running -= len(requests)
            self._check_quiet()

    def refund(self, queue: SignatureQueue, whole: InferenceRequest) -> None:
        """Gives back what was charged for the `whole` of `submit`."""
        with self._lock:
            queue.refund(whole)

    def _discard(self, bucket: Bucket, request: InferenceRequest) -> None:
        with self._lock:
            if request.place is not bucket:
                return
            self._former.remove(bucket, request)
            self._check_quiet()
        self._observer.dropped("expired" if isinstance(request.error, DeadlineExceeded) else "cancelled")

    # -- workers -------------------------------------------------------------------------------------------------------

    def next(self, slot: WorkerSlot) -> Batch | None:
        """The next batch, waiting for one; what the worker took before counts as done. None: the batcher is closed."""
        while True:
            batch, stopped, timeout = self._take(slot)
            if batch is not None or stopped:
                return batch
            if timeout is not None:
                self._idle.park(slot, timeout, self._lock)

    def take_inline(self, slot: WorkerSlot, budget: InlineBudget, *, first: bool = True) -> Batch | None:
        """The next batch if there is one now that may run on the loop; what was taken before counts as done.
        `first`: see `InlineBudget.allowance`."""
        former = self._former
        dropped: list[InferenceRequest] = []
        batch = None
        with self._lock:
            if slot.taken:
                self._running -= slot.empty()
                if self._refusal is not None:
                    self._check_quiet()
            if former.count:
                now = monotonic()
                bucket = former.pick(now)
                most = 0 if bucket is None else budget.allowance(bucket, first=first)
                if bucket is not None and most:
                    batch = former.take(bucket, now, dropped, most=most)
                    slot.taken = len(dropped) + (0 if batch is None else len(batch.requests))
                    self._running += slot.taken
        if dropped:
            self._drop(dropped)
        slot.batch = batch
        return batch

    def done(self, slot: WorkerSlot) -> None:
        """What was taken through `take_inline` is done."""
        with self._lock:
            self._running -= slot.empty()
            self._check_quiet()

    def hand_off(self, slot: WorkerSlot, answer: Callable[[], None]) -> bool:
        """Whether the expirer's thread answers what the worker has just run, so that the worker can run the next batch:
        not while it is busy with another.
        """
        with self._lock:
            if not self.expirer.take_over(answer, slot.taken):
                return False
            self._answered(slot)
            self._running -= slot.empty()
        return True

    def hand_over(self) -> None:
        """Wakes a worker for what waits."""
        if not self._former.count:
            return
        with self._lock:
            wake = self._idle.pop() if self._idle and self._former.count else None
        if wake is not None:
            wake.wake.release()

    def _take(self, slot: WorkerSlot) -> tuple[Batch | None, bool, float | None]:
        """A batch, whether the batcher is closed, and for how long to park (-1: until woken; None: look again)."""
        former, late = self._former, self._late
        batch = None
        wake = None
        timeout = -1.0
        dropped: list[InferenceRequest] = []
        with self._lock:
            if late is not None:
                late.idle(slot)
                self._base = self._each = 0.0
            if slot.batch is not None:
                self._answered(slot)
            self._running -= slot.empty()
            if former.count:
                now = monotonic()
                bucket = former.pick(now)
                if bucket is not None:
                    batch = former.take(bucket, now, dropped, cut=self._cut)
                if batch is None and former.count:
                    timeout = max(0.0, former.next_ripe() - now)
            if batch is not None or dropped:
                slot.taken = len(dropped) + (len(batch.requests) if batch is not None else 0)
                self._running += slot.taken
                if late is not None and batch is not None:
                    late.busy(slot, batch.bucket, batch.rows, now, former.active)
                    self._base, self._each = late.base, late.each
                if former.count and self._idle:
                    wake = self._idle.pop()
            elif self._stopped:
                return None, True, None
            else:
                self._check_quiet()
                self._idle.append(slot)
        if wake is not None:
            wake.wake.release()
        if dropped:
            self._drop(dropped)
        if batch is not None:
            slot.batch = batch
            return batch, False, None
        return None, False, None if dropped else timeout

    def _answered(self, slot: WorkerSlot) -> None:
        # Holds the lock.
        batch = slot.batch
        if batch is None:
            return
        now = monotonic()
        if self._late is not None:
            self._late.answered(batch.requests, batch.started_at, now)
        if not self._idle:  # a worker that is idle takes what there is
            self._former.answered(batch.bucket, batch.rows, now)

    def _drop(self, requests: Sequence[InferenceRequest]) -> None:
        now = monotonic()
        if self._late is not None and not all(request.finished for request in requests):
            with self._lock:
                self._late.expired()
        for request in requests:
            self._observer.dropped("cancelled" if request.finished else "expired")
            request.fail(expiry(request, now))

    # -- operations ----------------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Nothing waits. Without the lock: what comes meanwhile asks for its own turn."""
        return not self._former.count

    @property
    def depth(self) -> tuple[int, int]:
        """Requests and bytes that wait."""
        return sum(queue.requests for queue in self._queues), sum(queue.nbytes for queue in self._queues)

    def change(self, queue: SignatureQueue, *, limit: int, target: int, splits: bool, reason: str) -> None:
        """Sets how a signature is batched, for what waits already too."""
        with self._lock:
            queue.limit = limit
            queue.target = target
            queue.splits = splits
            queue.reason = reason
            self._former.ripen(queue)
        self.hand_over()

    def drain(self, refusal: str, timeout: float | None) -> bool:
        """Refuses new requests with `refusal` and waits for all others. Whether they are done. `timeout` in seconds."""
        with self._lock:
            self._refusal = refusal
            self._former.wait_no_more()
            self._check_quiet()
            self._idle.wake_all()
        return self._quiet.wait(timeout)

    def close(self, refusal: str) -> None:
        """Fails what waits with `refusal` and sends the workers home once they have finished their batch."""
        with self._lock:
            self._refusal = refusal
            self._stopped = True
            queued = self._former.everything()
            for bucket, request in queued:
                self._former.remove(bucket, request)
            self._running += len(queued)
            self.expirer.stop()
            self._idle.wake_all()
        for _, request in queued:
            request.fail(Unavailable(refusal))
        with self._lock:
            self._running -= len(queued)
            self._check_quiet()

    def _check_quiet(self) -> None:
        if self._refusal is not None and not self._former.count and not self._running and not self.expirer.in_hand:
            self._quiet.set()


_DROPPED = {Reason.FULL: "full", Reason.TOO_LARGE: "full", Reason.TOO_LATE: "late", Reason.EXPIRED: "expired"}
