"""Splits a request with more rows than a batch holds into parts, and joins their outputs.

Each part is queued at the end of the queue like any request, and only one part for each instance at a time: so a huge
request neither fills the queue nor delays other requests, and its parts fill up batches. The request is admitted as a
whole: its bytes count in the queue from the admission of its first part until the request ends, and no later part is
refused because the queue is full.

The outputs of a part must have as many rows as the part, and those of all parts the same names, element types and other
dimensions. If they do not, rows are not independent, whatever the proof says: the request runs again in one piece, and
its signature is served unbatched from then on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.bucket import ALONE
from inferd.server.scheduling.queue import SignatureQueue
from inferd.server.scheduling.rejection import Rejection
from inferd.server.scheduling.request import Callback, InferenceRequest, Route

_log = logging.getLogger("inferd.scheduling")


class RequestSplitter:
    """The parts of one request; the QueuePlace of that request. Thread-safe."""

    def __init__(
        self,
        request: InferenceRequest,
        queue: SignatureQueue,
        batcher: Batcher,
        unbatch: Callable[[SignatureQueue, str], None],
    ) -> None:
        """The request's Route names its bucket and rows. The size of the parts is fixed here, because `queue.limit` may
        change later. `unbatch` is called with queue and reason when the parts do not fit together. Raises
        InvalidRequest for rows without elements: a message of fifty bytes may claim 2^60 of them."""
        if not any(array.size for name, array in request.inputs.items() if name in queue.keys.batched):
            raise InvalidRequest(f"expected at most {queue.limit} rows without elements, got {request.rows}")
        self._request = request
        self._rows = request.route.rows
        self._queue = queue
        self._batcher = batcher
        self._unbatch = unbatch
        self._size = queue.limit
        self._lock = threading.Lock()
        self._cut = 0
        self._left = -(-self._rows // self._size)
        self._outputs: list[dict[str, Array] | None] = [None] * self._left
        self._under_way: dict[int, InferenceRequest] = {}
        self._layout: dict[str, tuple[object, tuple[int, ...]]] = {}  # of the first part's outputs, without their rows
        self._in_one_piece = False
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
            if index == len(self._outputs) or not self._charged or self._in_one_piece:
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
        with self._lock:
            if self._in_one_piece:
                return
            problem = self._misfit(outputs, part.rows)
            if not problem:
                self._under_way.pop(index, None)
                self._outputs[index] = outputs
                self._left -= 1
            left = self._left
            self._started_at = self._started_at or part.started_at
            self._batch_rows = max(self._batch_rows, part.batch_rows)
        if problem:
            self._run_in_one_piece(problem)
        elif left:
            self._advance()
        else:
            self._join()

    def _misfit(self, outputs: Mapping[str, Array], rows: int) -> str:
        """Why the outputs of a part of `rows` rows cannot be joined with those of the parts before; "" if they can. The
        caller holds the lock."""
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != rows:
                return f"output {name!r} has shape {list(array.shape)} for a part of {rows} rows"
        layout = {name: (array.dtype, array.shape[1:]) for name, array in outputs.items()}
        self._layout = self._layout or layout
        if layout == self._layout:
            return ""
        if layout.keys() != self._layout.keys():
            return f"one part has the outputs {', '.join(self._layout)}, another one {', '.join(layout)}"
        name = next(name for name, found in layout.items() if found != self._layout[name])
        one, other = (f"{kind} {list(shape)}" for kind, shape in (self._layout[name], layout[name]))
        return f"a row of output {name!r} is {one} in one part and {other} in another"

    def _join(self) -> None:
        try:
            parts = [outputs for outputs in self._outputs if outputs is not None]
            joined = {name: np.concatenate([outputs[name] for outputs in parts]) for name in self._layout}
        except (ValueError, MemoryError) as error:
            self._fail(ExecutionFailed(f"the outputs of the request's parts cannot be joined: {error}"))
            return
        self._end()
        self._request.succeed(joined, self._started_at, self._batch_rows)

    def _run_in_one_piece(self, problem: str) -> None:
        whole, queue = self._request, self._queue
        reason = f"at run time the parts of a large request did not fit together: {problem}"
        _log.error("signature %s is served unbatched from now on: %s", queue.name, reason)
        self._unbatch(queue, reason)
        with self._lock:
            if not self._charged:
                return
            self._in_one_piece = True
            parts = list(self._under_way.values())
            self._outputs = []
            piece = InferenceRequest(
                Callback(self._done_in_one_piece),
                Route(whole.signature, whole.wanted, queue, ALONE),
                whole.inputs,
                deadline=whole.deadline,
                priority=whole.priority,
            )
            self._under_way = {0: piece}
        for part in parts:
            part.cancel()
        for rejection in self._batcher.submit((piece,), admitted=True):
            self._fail(rejection.error())

    def _done_in_one_piece(self, piece: InferenceRequest) -> None:
        if piece.cancelled:
            return
        if piece.error is not None:
            self._fail(piece.error)
            return
        self._end()
        self._request.succeed(piece.outputs or {}, piece.started_at, piece.batch_rows)

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
