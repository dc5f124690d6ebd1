"""Admits requests to the queues of a servable, from any thread, and passes batches to idle workers.

One lock guards all queues of a servable. Each idle worker waits on a lock of its own, so that `submit` wakes exactly
one worker, and only when a batch is ready. An idle worker takes the waiting requests at once; with `max_queue_delay`
it waits up to that long for `preferred_batch_size` rows (by default `max_batch_size`), see batch_former.py.

A worker takes batches and runs them: a thread of an instance, or the transport's loop for short batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import attrgetter
from time import monotonic

from inferd.server.errors import DeadlineExceeded, Unavailable
from inferd.server.scheduling.batch_former import Batch, BatchFormer
from inferd.server.scheduling.deadline_expirer import DeadlineExpirer
from inferd.server.scheduling.inline import InlineBudget, InlineLoop, InlinePlace
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.rejection import Reason, Rejection
from inferd.server.scheduling.request import NEVER, NEXT_TURN, InferenceRequest, expiry
from inferd.server.scheduling.worker_slot import IdleWorkers, WorkerSlot

_NBYTES, _DEADLINE = attrgetter("nbytes"), attrgetter("deadline")


class Batcher:
    """The queues of one servable. Thread-safe.

    expirer   the owner runs its `run` on a thread of its own, from before the first `submit` until `close`
    inline    runs batches on the transport's loop; None: all batches run on workers. Set before the first `submit`
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
        """
        delay                `batching.max_queue_delay` in seconds
        deadline_admission   refuses requests that would be late; None: only the queues' bounds refuse
        cut                  batches are no larger than the cost model recommends; without a delay they may linger
        """
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
        """Queues requests whose Routes name their queues, in this order. Returns the refused ones, with the reasons.

        `whole`: the split request whose first part is submitted; its bytes count in the queue until `refund`.
        `admitted`: later parts of a split request, which are refused only when the batcher is closed.
        `alike`: the requests have one Route and one priority.
        """
        if not requests or (alike and self._take_at_once(requests)):
            return []
        rejected: list[Rejection] = []
        evicted: list[tuple[SignatureQueue, Sequence[InferenceRequest]]] = []
        wake = None
        fresh = whole is None and not admitted
        with self._lock:
            now = monotonic()
            if self.inline is not None and self.inline.taken:
                self._wait_after_all(now)
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
                    reason = self._admit(request, now, whole, evicted, admitted=admitted)
                    if reason is None:
                        ready = self._add((request,), request.leaves_at, request.nbytes, now, whole) or ready
                    else:
                        rejected.append(reason)
            if ready and self._idle and (self.inline is None or not self.inline.defer(count)):
                wake = self._idle.pop()
        if wake is not None:
            wake.wake.release()
        for queue, victims in evicted:
            self._fail_evicted(queue, victims)
        for rejection in rejected:
            self._count_dropped(rejection)
        return rejected

    def _take_at_once(self, requests: Sequence[InferenceRequest]) -> bool:
        """Makes requests that are alike a batch that the loop runs in the coming turn, without queueing them. Returns
        False, and does nothing, where other requests wait, where they do not fit into one batch, or where the loop may
        not run it."""
        inline, former = self.inline, self._former
        route, count = requests[0].route, len(requests)
        queue, rows = route.queue, count * route.rows
        if inline is None or queue is None:
            return False
        with self._lock:
            if former.count or former.delay or self._refusal is not None or not 0 < rows <= queue.limit:
                return False
            if queue.timeout is not None or queue.wholes or count > queue.max_requests:
                return False
            if sum(map(_NBYTES, requests)) > queue.max_bytes:
                return False
            if min(filter(None, map(_DEADLINE, requests)), default=NEVER) <= monotonic():
                return False
            bucket = queue.buckets.get(route.key)
            if bucket is None or not inline.take(Batch(queue, requests, rows, bucket, route)):
                return False
            self._running += count
            requests[0].place = NEXT_TURN
        return True

    def _wait_after_all(self, now: float) -> None:
        """Queues the batch that the loop has taken for the coming turn, so that later requests may share it."""
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
        """Queues a batch that the loop has taken and does not run, and wakes a worker for it. Fails its requests where
        the batcher is closed."""
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
        """Whether all requests can be admitted without checking each: no bound is near, and no deadline."""
        queue = requests[0].route.queue
        assert queue is not None
        return (
            fresh
            and earliest > now
            and self._refusal is None
            and queue.fair_share is None
            and queue.requests + len(requests) <= queue.max_requests
            and queue.nbytes + nbytes <= queue.max_bytes
            # While a worker is idle no request is refused as too late: only a run can correct a wrong prediction.
            and (earliest - now >= self._base + self._each * (self._former.count + len(requests)) or bool(self._idle))
        )

    def _full_for_all(self, requests: Sequence[InferenceRequest], earliest: float, now: float) -> bool:
        """Whether all requests can be refused without checking each, because the queue is full and none may evict."""
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
        evicted: list[tuple[SignatureQueue, Sequence[InferenceRequest]]],
        *,
        admitted: bool,
    ) -> Rejection | None:
        """Decides on one request. Returns the rejection, or None when it is admitted: the requests that it evicts have
        then left the queue and are appended to `evicted`; the caller fails them without the lock."""
        queue = request.route.queue
        assert queue is not None
        counted = whole or request  # a split request is counted as a whole
        if whole is not None:
            whole.leaves_at, whole.enqueued_at = request.leaves_at, now
        if request.leaves_at <= now:
            request.enqueued_at = 0.0  # it was never queued
            return Rejection([request], Reason.EXPIRED, self._name, now=now)
        if self._stopped or (self._refusal is not None and not admitted):
            return Rejection([request], Reason.CLOSED, self._name, text=self._refusal or "")
        victims: Sequence[InferenceRequest] = ()
        full = not admitted and (
            queue.requests >= queue.max_requests or queue.nbytes + counted.nbytes > queue.max_bytes
        )
        if full:
            victims = queue.yielding(counted)
            if not victims:
                rejection = queue.full((counted,), self._name)
                rejection.requests = [request]
                return rejection
        former = self._former
        ahead = self._base + self._each * former.count
        if self._late is not None and request.leaves_at - now < ahead and not admitted and not self._idle:
            late = self._late.late(self._bucket(request), request, former.count, now)
            if late and queue.who is not None:
                victims, late = queue.instead(counted, victims, late)
            if late:
                left = (request.deadline or now) - now
                return Rejection([request], Reason.TOO_LATE, self._name, seconds=late, left=left)
        if victims:
            former.clear(victims)
            self._running += len(victims)
            evicted.append((queue, victims))
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

    def _fail_evicted(self, queue: SignatureQueue, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            self._observer.dropped("cancelled" if request.finished else "full")
            place = request.place
            request.fail(
                Rejection([request], Reason.GAVE_WAY, self._name, queue.figures, accepted=place is not None).error()
            )
            if place is not None:  # a split request: its parts are still queued
                place.discard(request)
        with self._lock:
            self._running -= len(requests)
            self._check_quiet()

    def refund(self, queue: SignatureQueue, whole: InferenceRequest) -> None:
        """Takes the bytes of the split request `whole` off the queue's count."""
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
        """Waits for the next batch; the worker's previous batch counts as ended. None: the batcher is closed."""
        while True:
            batch, stopped, timeout = self._take(slot)
            if batch is not None or stopped:
                return batch
            if timeout is not None:
                self._idle.park(slot, timeout, self._lock)

    def take_inline(
        self, slot: WorkerSlot, budget: InlineBudget, loop: InlineLoop | None = None, *, first: bool = True
    ) -> Batch | None:
        """The next batch, if one is ready now and may run on the loop. The slot's previous batch counts as ended."""
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
                most = 0 if bucket is None else budget.allowance(bucket, first=first, loop=loop)
                if bucket is not None and most:
                    batch = former.take(bucket, now, dropped, most=most)
                    slot.taken = len(dropped) + (0 if batch is None else len(batch.requests))
                    self._running += slot.taken
        if dropped:
            self._drop(dropped)
        slot.batch = batch
        return batch

    def done(self, slot: WorkerSlot) -> None:
        """The batch from `take_inline` has ended."""
        with self._lock:
            self._running -= slot.empty()
            if self._refusal is not None:
                self._check_quiet()

    def hand_off(self, slot: WorkerSlot, answer: Callable[[], None]) -> bool:
        """Makes the expirer's thread call `answer`, which answers the batch that the worker has just run, so that the
        worker can run its next batch. Returns False, and does nothing, while that thread is busy.
        """
        with self._lock:
            if not self.expirer.take_over(answer, slot.taken):
                return False
            self._answered(slot)
            self._running -= slot.empty()
        return True

    def hand_over(self) -> None:
        """Wakes a worker if requests wait."""
        if not self._former.count:
            return
        with self._lock:
            wake = self._idle.pop() if self._idle and self._former.count else None
        if wake is not None:
            wake.wake.release()

    def _take(self, slot: WorkerSlot) -> tuple[Batch | None, bool, float | None]:
        """Returns a batch, whether the batcher is closed, and the seconds to wait (-1: until woken; None: call
        again)."""
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
        # The caller holds the lock.
        batch = slot.batch
        if batch is None:
            return
        now = monotonic()
        if self._late is not None:
            self._late.answered(batch.requests, batch.started_at, now)
        if not self._idle:  # an idle worker takes the waiting requests at once
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
        """Whether no request waits. Read without the lock: a request that arrives at the same time defers a turn
        itself."""
        return not self._former.count

    @property
    def depth(self) -> tuple[int, int]:
        """Waiting requests and their bytes."""
        return sum(queue.requests for queue in self._queues), sum(queue.nbytes for queue in self._queues)

    def change(self, queue: SignatureQueue, *, limit: int, target: int, splits: bool, reason: str, basis: str) -> None:
        """Sets how a signature is batched, also for requests that already wait."""
        with self._lock:
            queue.limit, queue.target, queue.splits = limit, target, splits
            queue.reason, queue.basis = reason, basis
            self._former.ripen(queue)
        self.hand_over()

    def drain(self, refusal: str, timeout: float | None) -> bool:
        """Refuses new requests with `refusal` and waits up to `timeout` seconds until all others have ended. Returns
        whether they have."""
        with self._lock:
            self._refusal = refusal
            self._former.wait_no_more()
            self._check_quiet()
            self._idle.wake_all()
        return self._quiet.wait(timeout)

    def close(self, refusal: str) -> None:
        """Fails the waiting requests with `refusal`. Workers get None from `next` after their current batch."""
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
