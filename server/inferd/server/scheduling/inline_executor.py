"""A servable's place on the front end's loop: it takes batches from the queues and runs them right there."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from inferd.backends.api import Traits
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.execution import Executor
from inferd.server.scheduling.inline import InlineBudget
from inferd.server.scheduling.worker_slot import WorkerSlot


def may_run_inline(traits: Traits, devices: Sequence[str]) -> bool:
    """Whether a model that keeps no state may be on the loop at all, as far as its backend knows."""
    return traits.bounded and traits.concurrent and all(device == "cpu" for device in devices)


class InlineExecutor:
    """Of one servable. `take`, `give_back` and `defer` are called by the batcher, which holds its lock; `run` on the
    loop's thread."""

    __slots__ = ("_batcher", "_budget", "_busy", "_closed", "_deferred", "_executor", "_loop", "_slot", "taken")

    def __init__(self, budget: InlineBudget, batcher: Batcher, slot: WorkerSlot, executor: Executor) -> None:
        self._budget = budget
        self._loop = budget.loop
        self._batcher = batcher
        self._slot = slot
        self._executor = executor
        self._busy = threading.Lock()  # held while a batch runs
        self._closed = False  # no batch may be begun; read while `_busy` is held
        self._deferred = False  # the coming turn will look here
        self.taken: list[Batch] = []  # to be run in the coming turn, one at most; whoever pops it has it

    def take(self, batch: Batch) -> bool:
        """Whether the loop runs this batch in the coming turn, before anything that waits."""
        if self._deferred or self._closed or self._slot.taken:
            return False
        count, first = len(batch.requests), batch.requests[0]
        allowed = self._budget.allows(batch.bucket.effort, batch.rows, count, first.nbytes, first.route.rows)
        if allowed < count or not self._loop.defer(self, count):
            return False
        self._deferred = True
        self._slot.batch = batch
        self._slot.taken = count
        self.taken.append(batch)
        return True

    def give_back(self) -> tuple[WorkerSlot, Batch] | None:
        """What the loop was to run in the coming turn, unless it has begun: it is to wait with what comes now."""
        batch = self._pop()
        return None if batch is None else (self._slot, batch)

    def defer(self, requests: int) -> bool:
        """Whether what has just been queued will be looked at by the loop, so that no worker needs to be woken."""
        if self._deferred:
            self._loop.asked += requests
            return True
        budget = self._budget
        if budget.banned or budget.suspected or not self._loop.defer(self, requests):
            return False
        self._deferred = True
        return True

    def run(self) -> None:
        """Runs batches until none waits or the budget allows no more; a worker is woken for the rest."""
        self._deferred = False  # before the look: requests that come later ask anew
        batcher, slot = self._batcher, self._slot
        first = True
        with self._busy:
            batch = self._pop()
            while not self._closed:
                if batch is None:
                    batch = batcher.take_inline(slot, self._budget, first=first)
                    if batch is None:
                        break
                first = False
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

    def _pop(self) -> Batch | None:
        try:
            return self.taken.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """No batch runs here any more once this returns; what waits is for the workers."""
        with self._busy:
            self._closed = True
            batch = self._pop()
        if batch is not None:
            self._batcher.put_back(self._slot, batch)
        self._budget.settle()
        self._batcher.hand_over()
