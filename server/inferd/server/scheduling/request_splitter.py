"""A request with more rows than a batch takes: it is split into parts, whose outputs are put together again.

Parts stand in the queue like any request, at its end, one for each instance at a time: so a huge request neither fills
the queue nor keeps the others out, and its parts fill up batches. The request is admitted whole: its bytes are charged
to the queue when its first part is let in, until it is done, and no later part is refused for want of room.
"""

from __future__ import annotations

import threading
from functools import partial

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.queue import SignatureQueue
from inferd.server.scheduling.rejection import Rejection
from inferd.server.scheduling.request import Callback, InferenceRequest, Route


class RequestSplitter:
    """One request under way in parts; it is the request's `QueuePlace`. Thread-safe."""

    def __init__(self, request: InferenceRequest, queue: SignatureQueue, batcher: Batcher) -> None:
        """The request's Route names its bucket and rows. The size of a part is fixed here: `queue.limit` may change
        later. Raises InvalidRequest for rows of nothing: a message of fifty bytes may have 2^60 of them."""
        if not any(array.size for name, array in request.inputs.items() if name in queue.keys.batched):
            raise InvalidRequest(f"expected at most {queue.limit} rows without elements, got {request.rows}")
        self._request = request
        self._rows = request.route.rows
        self._queue = queue
        self._batcher = batcher
        self._size = queue.limit
        self._lock = threading.Lock()
        self._cut = 0
        self._left = -(-self._rows // self._size)
        self._outputs: list[dict[str, Array] | None] = [None] * self._left
        self._under_way: dict[int, InferenceRequest] = {}
        self._started_at = 0.0
        self._batch_rows = 0
        self._charged = True

    def start(self, parallel: int) -> list[Rejection]:
        """Queues the first parts, `parallel` of them at most. Gives why the request is refused, if it is; then no part
        is queued.
        """
        request = self._request
        first = self._next_part()
        if first is None:
            return []
        rejected = self._batcher.submit((first,), whole=request)
        if rejected:
            for rejection in rejected:
                rejection.requests = [request]
            return rejected
        with self._lock:
            if self._charged:  # nothing to give back before; nothing left when it is done by now
                request.place = self
        for _ in range(parallel - 1):
            self._advance()
        if request.finished:  # meanwhile: whoever did it may have looked for its place too early
            self.discard(request)
        return []

    def discard(self, request: InferenceRequest) -> None:
        """Drops the parts of a cancelled request and gives its bytes back."""
        self._end()
        request.forget_inputs()

    def _next_part(self) -> InferenceRequest | None:
        whole, queue = self._request, self._queue
        with self._lock:
            index = self._cut
            if index == len(self._outputs) or not self._charged:
                return None
            self._cut += 1
            rows = slice(index * self._size, min((index + 1) * self._size, self._rows))
            batched = queue.keys.batched
            part = InferenceRequest(
                Callback(partial(self._done, index)),
                Route(whole.signature, whole.wanted, queue, whole.route.key, rows.stop - rows.start),
                {
                    name: array[rows] if name in batched and array.ndim else array
                    for name, array in whole.inputs.items()
                },
                deadline=whole.deadline,
                priority=whole.priority,
            )
            if index == 0:  # the others are served as soon as this one is: the queue timeout is over then
                part.queue_deadline = whole.queue_deadline
            self._under_way[index] = part
            return part

    def _advance(self) -> None:
        part = self._next_part()
        if part is None:
            return
        for rejection in self._batcher.submit((part,), admitted=True):
            self._fail(rejection.error())

    def _done(self, index: int, part: InferenceRequest) -> None:
        if part.cancelled:
            return  # by `_end`: the request has its outcome already, or is about to get it
        if part.error is not None:
            self._fail(part.error)
            return
        outputs = part.outputs or {}
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != part.rows:
                self._fail(
                    ExecutionFailed(f"output {name!r} has shape {list(array.shape)} for a part of {part.rows} rows")
                )
                return
        with self._lock:
            self._under_way.pop(index, None)
            self._outputs[index] = outputs
            self._left -= 1
            left = self._left
            self._started_at = self._started_at or part.started_at
            self._batch_rows = max(self._batch_rows, part.batch_rows)
        if left:
            self._advance()
            return
        try:
            parts = [outputs for outputs in self._outputs if outputs is not None]
            joined = {name: np.concatenate([outputs[name] for outputs in parts]) for name in parts[0]}
        except ValueError as error:
            self._fail(ExecutionFailed(f"the parts of the request have outputs that do not fit together: {error}"))
            return
        self._end()
        self._request.succeed(joined, self._started_at, self._batch_rows)

    def _fail(self, error: ServingError) -> None:
        error.accepted = error.accepted or any(outputs is not None for outputs in self._outputs)
        self._end()
        self._request.started_at = self._started_at
        self._request.fail(error)

    def _end(self) -> None:
        with self._lock:
            if not self._charged:
                return
            self._charged = False
            under_way = list(self._under_way.values())
            self._under_way.clear()
        self._batcher.refund(self._queue, self._request)
        self._request.place = None
        for part in under_way:
            part.cancel()
