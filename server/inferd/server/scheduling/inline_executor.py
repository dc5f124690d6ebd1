"""A servable on the front end's loop: batches of its queue, and requests that came together and need no queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from inferd.backends.api import Array, BackendError, Traits
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.execution import Executor
from inferd.server.scheduling.inline import InlineBudget, InlineLoop, InlineQueue
from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.request import Ran, Route
from inferd.server.scheduling.worker_slot import WorkerSlot

T = TypeVar("T")
LARGE = 128 * 2**10  # bytes of a request: joining such ones costs more than a run for each, where runs are short


def may_run_inline(traits: Traits, devices: Sequence[str]) -> bool:
    """Whether a model that keeps no state may be on the loop at all, as far as its backend knows."""
    return traits.bounded and traits.concurrent and all(device == "cpu" for device in devices)


def make_inline_queue(
    loop: InlineLoop, pace: InlineBudget, batcher: Batcher, parking: WorkerSlot, executor: Executor
) -> InlineQueue:
    """The lane that runs the queue's batches on the loop."""

    def take_and_run() -> bool:
        batch = batcher.look(parking)
        if batch is None:
            batcher.hand_over()  # what waits for company is a worker's: the loop has no clock
            return False
        executor.run(batch)
        batcher.done(parking)
        return True

    return InlineQueue(loop, pace, take_and_run, batcher.hand_over)


def fits(traits: Traits) -> bool:
    """Whether a model takes inputs that are read-only, and aligned as memory usually is."""
    return not traits.may_write_inputs and traits.alignment <= 16


class InlineExecutor:
    """Requests of one route that came together, run as one batch at once. On the loop's thread only."""

    def __init__(self, lane: InlineQueue, executor: Executor) -> None:
        self._lane = lane
        self._executor = executor

    def run_now(
        self,
        route: Route,
        wanted: tuple[str, ...] | None,
        parts: Sequence[T],
        join: Callable[[Sequence[T]], dict[str, Array] | None],
    ) -> Ran | None:
        """Runs requests from the front, as many as fit into a batch. To be called for routes that name it, by who keeps
        the servable from being drained.

        `parts` are the requests as the caller has them, and `join` makes inputs of some of them. None where nothing may
        run: the model is not short enough, earlier requests wait, the queue would not take so many, `join` gave None.
        Raises BackendError. Whatever was not run may be submitted as usual.
        """
        queue = route.queue
        rows, limit = route.rows, queue.limit
        if rows > limit or len(parts) > queue.max_requests or (queue.requests and not route.large):
            return None
        most = limit // rows
        taken = parts if len(parts) <= most else parts[:most]
        bucket = queue.buckets.get(route.key)
        if bucket is None:
            return None
        if route.large:
            # Those who wait make the next batch of the model's own thread: they are not held up by who passes them.
            time = self._lane.time_for_each(bucket.effort, rows) if queue.requests * rows <= limit else 0.0
            if time:
                return self._lane.run_now(lambda: self._run_each(bucket, rows, wanted, taken, join, time))
            if queue.requests:
                return None
        if not self._lane.may_run(bucket.effort, rows * len(taken), len(taken)):
            return None

        def run() -> Ran | None:
            inputs = join(taken)
            if inputs is None:
                return None
            return self._executor.run_now(bucket, inputs, rows * len(taken), len(taken), wanted)

        return self._lane.run_now(run)

    def _run_each(
        self,
        bucket: Bucket,
        rows: int,
        wanted: tuple[str, ...] | None,
        parts: Sequence[T],
        join: Callable[[Sequence[T]], dict[str, Array] | None],
        most: float,
    ) -> Ran | None:
        """Runs requests one by one, so that nothing is copied into a batch; they are answered together. Ends after
        `most` seconds of the servable's clock, and before the one that fails or whose outputs cannot stand beside the
        others'."""
        clock = self._lane.pace.clock
        began = clock()
        ran: list[Ran] = []
        for part in parts:
            inputs = join((part,))
            if inputs is None:
                break
            try:
                each = self._executor.run_now(bucket, inputs, rows, 1, wanted, large=True)
            except BackendError:
                if not ran:
                    raise
                break
            if ran and not _alike(each.outputs, ran[0].outputs):
                break
            ran.append(each)
            if clock() - began >= most:
                break
        if len(ran) <= 1:
            return ran[0] if ran else None
        outputs = {name: np.concatenate([each.outputs[name] for each in ran]) for name in ran[0].outputs}
        return Ran(outputs, len(ran), ran[0].started_at, ran[-1].finished_at)

    def run_one(
        self, route: Route, wanted: tuple[str, ...] | None, part: T, inputs_of: Callable[[T], dict[str, Array] | None]
    ) -> Ran | None:
        """The same for one request that has no company: its turn is its own, and it is enough that batches as small as
        this one are short. The servable may be drained or closed meanwhile; where it is closed nothing runs."""
        queue, lane = route.queue, self._lane
        bucket = queue.buckets.get(route.key)
        if bucket is None or queue.requests or route.rows > queue.limit:
            return None
        if not lane.may_run(bucket.effort, route.rows, 1, lone=True):
            return None
        with lane.busy:
            if lane.closed:
                return None
            inputs = inputs_of(part)
            if inputs is None:
                return None
            return self._executor.run_now(bucket, inputs, route.rows, 1, wanted, large=route.large)


def _alike(outputs: dict[str, Array], first: dict[str, Array]) -> bool:
    return outputs.keys() == first.keys() and all(
        array.shape[1:] == first[name].shape[1:] and array.dtype == first[name].dtype for name, array in outputs.items()
    )
