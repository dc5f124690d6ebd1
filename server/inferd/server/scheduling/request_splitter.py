"""Splits a request with more rows than a batch holds into parts, and joins their outputs.

Each part is queued at the end of the queue like any request, and only one part for each instance at a time: so a huge
request neither fills the queue nor delays other requests, and its parts fill up batches. The request is admitted as a
whole: its bytes count in the queue from the admission of its first part until the request ends, and no later part is
refused because the queue is full.
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
    """The parts of one request; the QueuePlace of that request. Thread-safe."""

    def __init__(self, request: InferenceRequest, queue: SignatureQueue, batcher: Batcher) -> None:
        """The request's Route names its bucket and rows. The size of the parts is fixed here, because `queue.limit` may
        change later. Raises InvalidRequest for rows without elements: a message of fifty bytes may claim 2^60 of
        them."""
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
        """Queues the first parts, at most `parallel` of them. Returns the rejection of the request if it is refused;
        then no part is queued.
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
            if self._charged:  # else the request has already ended
                request.place = self
        for _ in range(parallel - 1):
            self._advance()
        if request.finished:  # a cancel may have run before `place` was set
            self.discard(request)
        return []

    def discard(self, request: InferenceRequest) -> None:
        """Cancels the parts of a cancelled request and takes its bytes off the queue's count."""
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
            if index == 0:  # the queue timeout applies until the first part runs
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
            return  # `_end` has cancelled it: the request has its outcome, or is about to get it
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
