"""Runs the short batches of one servable on the loop of a front end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from inferd.backends.api import Traits
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.inline import InlineBudget, InlineLoop
from inferd.server.scheduling.overlap import ModelThread, OverlappedRun, overlaps
from inferd.server.scheduling.worker_slot import WorkerSlot


def may_run_inline(traits: Traits, devices: Sequence[str]) -> bool:
    """Whether the backend's traits and the devices allow a stateless model to run on the loop."""
    return traits.bounded and traits.concurrent and all(device == "cpu" for device in devices)


class RunsBatches(Protocol):
    """What runs a batch on the loop or beside it: an Executor, see there."""

    def run(self, batch: Batch) -> float: ...

    def prepare(self, batch: Batch) -> OverlappedRun | None: ...

    def compute(self, run: OverlappedRun) -> None: ...

    def finish(self, run: OverlappedRun) -> None: ...


class InlineExecutor:
    """The executor of one servable on one loop. The batcher calls `take`, `give_back` and `defer` and holds its lock;
    the loop's thread calls `run` and `collect`; `close` is thread-safe.

    One batch may be in hand beside the loop (overlap.py): requests that arrive meanwhile wait for its end, so that they
    share a batch.
    """

    __slots__ = (
        "_batcher",
        "_beside",
        "_budget",
        "_busy",
        "_closed",
        "_deferred",
        "_executor",
        "_in_hand",
        "_loop",
        "_model_thread",
        "_nice",
        "_other",
        "_slot",
        "taken",
    )

    def __init__(
        self,
        budget: InlineBudget,
        batcher: Batcher,
        slots: tuple[WorkerSlot, WorkerSlot],
        executor: RunsBatches,
        loop: InlineLoop | None = None,
        beside: Callable[[], InlineExecutor | None] = lambda: None,
        *,
        nice: int = 0,
    ) -> None:
        """
        loop     None for the budget's own
        beside   gives the executor on another loop, where the caller's thread is that loop's: its requests run there
        nice     `instances.nice`, for the thread beside the loop
        """
        self._nice = nice
        self._budget = budget
        self._loop = loop or budget.loop
        self._beside = beside
        self._batcher = batcher
        self._slot, self._other = slots  # the second one is for the batch that follows one beside the loop
        self._in_hand: list[OverlappedRun] = []  # at most one run beside the loop; the thread that pops it owns it
        self._model_thread: ModelThread | None = None
        self._executor = executor
        self._busy = threading.Lock()  # held while a batch runs
        self._closed = False  # no batch may start; read while `_busy` is held
        self._deferred = False  # the coming turn will call `run`
        self.taken: list[Batch] = []  # at most one batch for the coming turn; the thread that pops it owns it

    def take(self, batch: Batch) -> bool:
        """See InlinePlace. False where the budget does not allow the whole batch."""
        slot, requests, loop = self._slot, batch.requests, self._loop
        if threading.get_ident() != loop.thread:
            beside = self._beside()
            return beside is not None and beside.take(batch)
        if self._deferred or self._closed or slot.taken or self._in_hand:
            return False
        count, first = len(requests), requests[0]
        allowed = self._budget.allows(batch.bucket.effort, batch.rows, count, first.nbytes, first.route.rows, loop=loop)
        if allowed < count:
            return False
        loop.call_in_turn(self, count)
        self._deferred = True
        slot.batch = batch
        slot.taken = count
        self.taken.append(batch)
        return True

    def give_back(self) -> tuple[WorkerSlot, Batch] | None:
        """See InlinePlace."""
        batch = self._pop()
        return None if batch is None else (self._slot, batch)

    def defer(self, requests: int) -> bool:
        """Makes the loop's coming turn call `run` for the queued requests. False: a worker must be woken instead."""
        budget = self._budget
        if not self._deferred and (budget.banned or budget.suspected):
            return False
        beside = self._beside()
        if beside is not None:
            return beside.defer(requests)
        if self._in_hand:
            return True
        if self._deferred:
            self._loop.asked += requests
            return True
        if not self._loop.defer(self, requests):
            return False
        self._deferred = True
        return True

    def run(self) -> None:
        """Runs batches until none waits or the budget allows no more; then wakes a worker for the rest."""
        self._deferred = False  # before the queues are read, so that later requests defer a turn again
        batcher = self._batcher
        first = True
        with self._busy:
            if self._in_hand:
                return
            slot, batch = self._slot, self._pop()
            while not self._closed:
                if batch is None:
                    batch = batcher.take_inline(slot, self._budget, self._loop, first=first)
                    if batch is None:
                        break
                first = False
                if self._start(batch):
                    return
                self._loop.spent += self._executor.run(batch)
                batch = None  # its requests' memory
                if batcher.empty:
                    batcher.done(slot)
                    return
            else:
                if batch is not None:
                    batcher.put_back(slot, batch)
                batcher.done(slot)
        batcher.hand_over()

    def _start(self, batch: Batch) -> bool:
        """Starts a batch beside the loop where that pays, and returns whether it has. The caller holds `_busy`."""
        loop = self._loop
        if not loop.overlaps or not overlaps(batch, loop.in_flight):
            return False
        run = self._executor.prepare(batch)
        if run is None:
            return False
        if self._model_thread is None:
            name = f"inferd-{self._budget.name}-beside"
            ended = partial(loop.ended, self)
            self._model_thread = ModelThread(name, self._executor.compute, ended, nice=self._nice)
        self._in_hand.append(run)
        loop.overlapped += 1
        self._model_thread.start(run)
        return True

    def collect(self) -> None:
        """Starts the next batch and answers the one that has run beside the loop."""
        batcher = self._batcher
        with self._busy:
            try:
                run = self._in_hand.pop()  # from here on, requests that arrive defer a turn again
            except IndexError:
                return
            slot = self._slot
            batch = None
            if not self._closed and not batcher.empty:
                batch = batcher.take_inline(self._other, self._budget, self._loop)
            if batch is not None:
                self._slot, self._other = self._other, slot
                if self._start(batch):
                    batch = None
            self._executor.finish(run)
            if batch is not None:
                self._loop.spent += self._executor.run(batch)
            batcher.done(slot)
            if not self._in_hand:
                batcher.done(self._slot)
        if not batcher.empty and not self._in_hand and not self._deferred:
            self._again()

    def _again(self) -> None:
        """Requests wait: the coming turn looks at them, or a worker."""
        if self._loop.defer(self, 1):
            self._deferred = True
        else:
            self._batcher.hand_over()

    def _pop(self) -> Batch | None:
        try:
            return self.taken.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """Ends the use of the loop: after the return no batch runs here or beside the loop, and the workers get the
        waiting requests."""
        with self._busy:
            self._closed = True
            batch = self._pop()
        if batch is not None:
            self._batcher.put_back(self._slot, batch)
        if self._model_thread is not None:
            self._model_thread.close()
            self.collect()  # unless the loop does
        self._budget.settle()
        self._batcher.hand_over()
