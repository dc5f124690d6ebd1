"""Admission and hand-over: requests come in from any thread, batches go out to idle workers.

One lock guards all queues of a servable. Workers park on locks of their own, so a submit wakes exactly one of them, and
only when there is something to run. An idle worker takes what waits at once; with `max_queue_delay` it waits up to that
long for `preferred_batch_size` rows (none: for `max_batch_size`), as forming.py says.

A worker is anything that calls `next` and executes what it gets: a thread today, the front end's loop where batches are
known to be short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from time import monotonic

from inferd.server.errors import DeadlineExceeded, Unavailable
from inferd.server.scheduling.batch_former import Batch, BatchFormer
from inferd.server.scheduling.deadline_expirer import DeadlineExpirer
from inferd.server.scheduling.inline import InlineQueue
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.refusals import full, gave_way, too_late
from inferd.server.scheduling.request import InferRequest, expiry
from inferd.server.scheduling.worker_slot import Idle, WorkerSlot


class Batcher:
    """The queues of one servable. Thread-safe.

    watcher   its `run` is due on a thread of its own, from before the first submit until `close`
    lane      the servable's place on the front end's loop, None: it has none; set before the first submit
    """

    def __init__(
        self,
        name: str,
        queues: Sequence[SignatureQueue],
        *,
        delay: float,
        observer: BatchObserver,
        outlook: DeadlineAdmission | None = None,
        cut: bool = False,
    ) -> None:
        """`outlook` finds the requests that cannot be answered in time; None: only bounds refuse. `cut`: batches are no
        larger than pays, and without a delay they wait for callers who come back where that pays."""
        self._name = name
        self._queues = queues
        self._observer = observer
        self._lock = threading.Lock()
        self._forming = BatchFormer(delay, holds=cut)
        self._outlook = outlook
        self._cut = cut
        self._base = self._each = 0.0  # the outlook's bound
        self._running = 0
        self._idle = Idle()
        self._refusal: str | None = None
        self._stopped = False
        self._quiet = threading.Event()
        self.watcher = DeadlineExpirer(self._lock, self._forming, self._drop, self._check_quiet)
        self.lane: InlineQueue | None = None

    # -- callers -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: InferRequest,
        queue: SignatureQueue,
        key: Hashable,
        *,
        whole: InferRequest | None = None,
        admitted: bool = False,
    ) -> None:
        """Queues a request whose `rows` are set. Raises Overloaded, DeadlineExceeded or Unavailable; then it is not
        queued.

        `whole` is the request whose first part this is: its bytes are charged to the queue until `refund`. An
        `admitted` request belongs to one that was let in before: it is refused only when the batcher is closed.
        """
        now = monotonic()
        leaves_at = request.enter(now, None if admitted else queue.timeout)
        if now >= leaves_at:
            self._observer.dropped("expired")
            request.enqueued_at = 0.0  # it never was
            raise expiry(request, now)
        wake = None
        late = 0.0
        asker = whole or request
        if whole is not None:
            whole.leaves_at, whole.enqueued_at = leaves_at, now
        gone: Sequence[InferRequest] = ()  # who give way to it
        with self._lock:
            refused = self._stopped or (
                not admitted
                and (
                    self._refusal is not None
                    or queue.requests >= queue.max_requests
                    or queue.nbytes + asker.nbytes > queue.max_bytes
                )
            )
            if refused and queue.who is not None and self._refusal is None:
                gone = queue.yielding(asker)
                refused = not gone
            if not refused:
                bucket = queue.buckets.get(key)
                if bucket is None:
                    bucket = queue.bucket(key, self._discard)
                forming, watcher = self._forming, self.watcher
                # While a worker is idle nothing is too late: only a run can show that what was learned is wrong.
                if leaves_at - now < self._base + self._each * forming.count and not admitted and not self._idle:
                    late = self._outlook.late(bucket, request, forming.count, now) if self._outlook else 0.0
                    if late and queue.who is not None:
                        gone, late = queue.instead(asker, gone, late)
                if not late:
                    if gone:
                        forming.clear(gone)
                        self._running += len(gone)
                    ready = forming.add(bucket, request, now)
                    if whole is not None:
                        queue.charge(whole)
                    if queue.crowd is not None:
                        queue.crowd.join(asker)
                    if leaves_at < watcher.expires_at:
                        watcher.expect(leaves_at)
                    if ready and self._idle and (self.lane is None or not self.lane.defer()):
                        wake = self._idle.pop()
        if late:
            self._observer.dropped("late")
            raise too_late(self._name, request, late, now)
        if refused:
            if (refusal := self._refusal) is not None:
                raise Unavailable(refusal)
            self._observer.dropped("full")
            raise full(self._name, queue, asker.nbytes)
        if wake is not None:
            wake.wake.release()
        if gone:
            self._give_way(queue, gone)
        if request.cancelled:  # meanwhile: whoever did it may have looked for its place too early
            place = request.place
            if place is not None:
                place.discard(request)

    def submit_together(self, requests: Sequence[InferRequest], queue: SignatureQueue, key: Hashable) -> bool:
        """Queues requests whose `rows` are set, all of them, where each is let in plainly. False: none is queued, and
        each should be submitted by itself, which finds a place or the reason why there is none.
        """
        now = monotonic()
        expires_at = min([request.enter(now, queue.timeout) for request in requests])
        nbytes = sum([request.nbytes for request in requests])
        wake = None
        with self._lock:
            forming, watcher = self._forming, self.watcher
            refused = (
                self._refusal is not None
                or queue.crowd is not None
                or queue.requests + len(requests) > queue.max_requests
                or queue.nbytes + nbytes > queue.max_bytes
            )
            last = now + self._base + self._each * (forming.count + len(requests))
            if refused or expires_at <= now or (expires_at < last and not self._idle):
                return False
            bucket = queue.bucket(key, self._discard)
            ready = False
            for request in requests:
                ready = forming.add(bucket, request, now) or ready
            if expires_at < watcher.expires_at:
                watcher.expect(expires_at)
            if ready and self._idle and (self.lane is None or not self.lane.defer()):
                wake = self._idle.pop()
        if wake is not None:
            wake.wake.release()
        return True

    def _give_way(self, queue: SignatureQueue, requests: Sequence[InferRequest]) -> None:
        for request in requests:
            self._observer.dropped("cancelled" if request.finished else "full")
            place = request.place
            request.fail(gave_way(self._name, queue.drain_seconds, accepted=place is not None))
            if place is not None:  # it is under way in parts
                place.discard(request)
        with self._lock:
            self._running -= len(requests)
            self._check_quiet()

    def refund(self, queue: SignatureQueue, whole: InferRequest) -> None:
        """Gives back what was charged for the `whole` of `submit`."""
        with self._lock:
            queue.refund(whole)

    def _discard(self, bucket: Bucket, request: InferRequest) -> None:
        with self._lock:
            if request.place is not bucket:
                return
            self._forming.remove(bucket, request)
            self._check_quiet()
        self._observer.dropped("expired" if isinstance(request.error, DeadlineExceeded) else "cancelled")

    # -- workers -------------------------------------------------------------------------------------------------------

    def next(self, parking: WorkerSlot) -> Batch | None:
        """The next batch, waiting for one; what the worker took before counts as done. None: the batcher is closed."""
        while True:
            batch, stopped, timeout = self._take(parking, park=True)
            if batch is not None or stopped:
                return batch
            if timeout is not None:
                self._idle.park(parking, timeout, self._lock)

    def look(self, parking: WorkerSlot) -> Batch | None:
        """The next batch if there is one now; what was taken before counts as done. For who does not wait."""
        return self._take(parking, park=False)[0]

    def done(self, parking: WorkerSlot) -> None:
        """What was taken through `look` is done."""
        with self._lock:
            self._running -= parking.empty()
            self._check_quiet()

    def hand_off(self, parking: WorkerSlot, answer: Callable[[], None]) -> bool:
        """Whether the watcher answers what the worker has just run, so that the worker can run the next batch: not
        while it is busy with another.
        """
        with self._lock:
            if not self.watcher.take_over(answer, parking.taken):
                return False
            self._answered(parking)
            self._running -= parking.empty()
        return True

    def hand_over(self) -> None:
        """Wakes a worker for what waits."""
        if not self._forming.count:
            return
        with self._lock:
            wake = self._idle.pop() if self._idle and self._forming.count else None
        if wake is not None:
            wake.wake.release()

    def _take(self, parking: WorkerSlot, *, park: bool) -> tuple[Batch | None, bool, float | None]:
        """A batch, whether the batcher is closed, and for how long to park (-1: until woken; None: look again)."""
        forming = self._forming
        batch = None
        wake = None
        timeout = -1.0
        dropped: list[InferRequest] = []
        with self._lock:
            outlook = self._outlook if park else None
            if outlook is not None:
                outlook.idle(parking)
                self._base = self._each = 0.0
            if park and parking.requests:
                self._answered(parking)
            self._running -= parking.empty()
            if forming.count:
                now = monotonic()
                batch = forming.take(now, dropped, cut=park and self._cut)
                if batch is None and forming.count:
                    timeout = max(0.0, forming.next_ripe() - now)
            if batch is not None or dropped:
                parking.taken = len(dropped) + (len(batch.requests) if batch is not None else 0)
                self._running += parking.taken
                if outlook is not None and batch is not None:
                    outlook.busy(parking, batch.bucket, batch.rows, now, forming.active)
                    self._base, self._each = outlook.base, outlook.each
                if park and forming.count and self._idle:
                    wake = self._idle.pop()
            elif self._stopped:
                return None, True, None
            else:
                self._check_quiet()
                if park:
                    self._idle.append(parking)
        if wake is not None:
            wake.wake.release()
        if dropped:
            self._drop(dropped)
        if batch is not None:
            parking.requests, parking.rows, parking.bucket = batch.requests, batch.rows, batch.bucket
            return batch, False, None
        return None, False, None if dropped else timeout

    def _answered(self, parking: WorkerSlot) -> None:
        # Holds the lock.
        now = monotonic()
        if self._outlook is not None:
            self._outlook.answered(parking.requests, now)
        if parking.bucket is not None and not self._idle:  # who is idle takes what there is
            self._forming.answered(parking.bucket, parking.rows, now)

    def _drop(self, requests: Sequence[InferRequest]) -> None:
        now = monotonic()
        if self._outlook is not None and not all(request.finished for request in requests):
            with self._lock:
                self._outlook.expired()
        for request in requests:
            self._observer.dropped("cancelled" if request.finished else "expired")
            request.fail(expiry(request, now))

    # -- operations ----------------------------------------------------------------------------------------------------

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
            self._forming.ripen(queue)
        self.hand_over()

    def drain(self, refusal: str, timeout: float | None) -> bool:
        """Refuses new requests with `refusal` and waits for all others. Whether they are done. `timeout` in seconds."""
        with self._lock:
            self._refusal = refusal
            self._forming.wait_no_more()
            self._check_quiet()
            self._idle.wake_all()
        return self._quiet.wait(timeout)

    def close(self, refusal: str) -> None:
        """Fails what waits with `refusal` and sends the workers home once they have finished their batch."""
        with self._lock:
            self._refusal = refusal
            self._stopped = True
            queued = self._forming.everything()
            for bucket, request in queued:
                self._forming.remove(bucket, request)
            self._running += len(queued)
            self.watcher.stop()
            self._idle.wake_all()
        for _, request in queued:
            request.fail(Unavailable(refusal))
        with self._lock:
            self._running -= len(queued)
            self._check_quiet()

    def _check_quiet(self) -> None:
        if self._refusal is not None and not self._forming.count and not self._running and not self.watcher.in_hand:
            self._quiet.set()
