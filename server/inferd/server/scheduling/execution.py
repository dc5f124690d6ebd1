"""Runs batches on one instance and answers their requests. Whatever the model does, every request gets one outcome.

A batch that fails, or for which the model leaves an output out, is run again one request at a time, so that only the
culprit fails: an inference may be repeated, since what is stateful is never batched. A batch whose outputs have other
rows than its inputs is never split: its requests run again alone, and the signature is served unbatched from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic

from inferd.backends.api import Array, BackendError, Instance, InstanceLost, InvalidInput, Traits
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError, Unavailable
from inferd.server.scheduling.batch import (
    WrongRows,
    check_names,
    check_rows,
    join,
    keep,
    pick,
    private_inputs,
    split,
    wanted_outputs,
)
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.buffers import Buffers
from inferd.server.scheduling.inline import TOO_LONG, InlineBudget
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import InferRequest, Ran, expiry

_log = logging.getLogger("inferd.scheduling")
_LONG, _MANY = 1e-3, 3  # seconds, requests: what such a batch costs more through another thread is next to nothing
_LEARNED = 8  # of so many batches that run at once, one is learned from: they are all short and alike
_LOG_EVERY = 10.0  # seconds between two logs of unexpected failures


class Executor:
    """One instance with its buffers. Not thread-safe: it belongs to its worker."""

    def __init__(
        self,
        name: str,
        instance: Instance,
        traits: Traits,
        *,
        paddings: Mapping[str, Padding],
        observer: BatchObserver,
        unbatch: Callable[[SignatureQueue, str], None],
        pace: InlineBudget,
        inline: bool = False,
        hand_off: Callable[[Callable[[], None]], bool] = lambda _answer: False,
    ) -> None:
        """`unbatch(queue, reason)` is called when a model breaks what its proof has shown. `pace` learns what the
        model's runs cost; `inline`: they run on the front end's loop. `hand_off` gives whether another thread calls
        what it gets.
        """
        self._name = name
        self._instance = instance
        self._traits = traits
        self._paddings = paddings
        self._observer = observer
        self._unbatch = unbatch
        self._pace = pace
        self._inline = inline
        self._hand_off = hand_off
        self._buffers = Buffers(traits.alignment, getattr(instance, "staging", None))
        self._runs = 0
        self._effort = 0.0  # seconds of the last run, on the pace's clock
        self._logged_at = 0.0
        self._unlogged = 0

    def run(self, batch: Batch) -> None:
        """Runs a batch and answers its requests. Never raises."""
        requests = batch.requests
        try:
            if len(requests) == 1:
                self._run_alone(batch.queue, requests[0], batch.rows, batch.bucket)
            else:
                self._run_together(batch)
        except BaseException as error:  # a defect of ours, or a model that exits: no request may hang for it
            self._log_failure("the scheduler failed", error)
            for request in requests:
                request.fail(ExecutionFailed("the server failed while it handled the request"))
        finally:
            self._buffers.begin()

    def _run_together(self, batch: Batch) -> None:
        queue, requests, rows = batch.queue, batch.requests, batch.rows
        started = monotonic()
        for request in requests:
            request.started_at = started
            request.batch_rows = rows
        try:
            inputs = self._join(queue, requests, rows)
            wanted = wanted_outputs(requests)
            outputs = pick(self._timed(queue, inputs, wanted), wanted)
            if wanted is None:
                check_names(outputs, queue.outputs)
            check_rows(outputs, rows)
            shares = split(outputs, requests, wanted)
            if self._buffers.lent:
                keep(outputs, self._buffers)
        except BaseException as error:
            self._retry(queue, requests, error)
            return
        seconds = monotonic() - started
        queue.timed(seconds)
        batch.bucket.ran(rows, seconds, self._effort)
        answer = partial(self._answer, batch, shares, seconds)
        # Many answers take a while, in which the model would have nothing to do.
        if seconds < _LONG or len(requests) < _MANY or not self._hand_off(answer):
            answer()

    def _answer(
        self, batch: Batch, shares: Sequence[tuple[Sequence[InferRequest], dict[str, Array]]], seconds: float
    ) -> None:
        for requests, share in shares:
            together = requests[0].together
            if together is None or len(requests) == 1:
                requests[0].succeed(share)
            else:
                together(requests, share)
        self._observer.batch(batch.queue.name, batch.requests, batch.rows, seconds)

    def _run_alone(self, queue: SignatureQueue, request: InferRequest, rows: int, bucket: Bucket | None = None) -> None:
        request.started_at = started = monotonic()
        request.batch_rows = rows
        try:
            if queue.limit and self._paddings[queue.name]:
                inputs = self._join(queue, (request,), request.rows or 1)
            else:
                inputs = private_inputs(request, self._traits, self._buffers)
            outputs = pick(self._timed(queue, inputs, request.wanted), request.wanted)
            if self._buffers.lent:
                keep(outputs, self._buffers)
        except BaseException as error:
            request.fail(self._reason(error))
            return
        seconds = monotonic() - started
        queue.timed(seconds)
        if bucket is not None:
            bucket.ran(rows, seconds, self._effort)
        request.succeed(outputs)
        self._observer.batch(queue.name, (request,), rows, seconds)

    def run_now(
        self,
        bucket: Bucket,
        inputs: dict[str, Array],
        rows: int,
        count: int,
        wanted: tuple[str, ...] | None,
        *,
        large: bool = False,
    ) -> Ran:
        """Runs the inputs of `count` requests, joined to so many rows. Raises BackendError: then the requests may run
        one at a time (`run`), where the culprit is found. `large`: that it was short says nothing of a batch of them.

        A request that comes alone finds cold caches, where every function on its way costs several times what it costs
        in a loop: so what is usual is written out here."""
        queue, pace = bucket.queue, self._pace
        clock = pace.clock
        started = monotonic()
        try:
            began = clock()
            outputs = self._instance.run(queue.name, inputs, wanted)
            cost = clock() - began
            if cost > TOO_LONG:
                self._charge(cost, queue, inputs, wanted)
            elif not large:
                pace.ran(cost)
            if wanted is not None:
                outputs = pick(outputs, wanted)
            for output in outputs.values():
                if not output.ndim or output.shape[0] != rows:
                    check_rows(outputs, rows)
        except BackendError:
            raise
        except BaseException as error:
            self._log_failure("requests that ran at once failed and are run again", error)
            raise BackendError("the model failed") from error
        finished = monotonic()
        self._runs += 1
        if self._runs % _LEARNED == 0 or bucket.cost.line is None:
            queue.timed(finished - started)
            bucket.ran(rows, finished - started, cost)
        self._observer.batch(queue.name, range(count), rows, finished - started)
        return Ran(outputs, count, started, finished)

    def _timed(self, queue: SignatureQueue, inputs: dict[str, Array], wanted: Sequence[str] | None) -> dict[str, Array]:
        clock = self._pace.clock
        began = clock()
        outputs = self._instance.run(queue.name, inputs, wanted)
        self._effort = clock() - began
        self._charge(self._effort, queue, inputs, wanted)
        return outputs

    def _charge(
        self, seconds: float, queue: SignatureQueue, inputs: dict[str, Array], wanted: Sequence[str] | None
    ) -> None:
        again = None
        if self._inline and seconds > TOO_LONG and not self._traits.may_write_inputs:
            again = partial(self._instance.run, queue.name, inputs, wanted)
        self._pace.ran(seconds, inline=self._inline, again=again)

    def _join(self, queue: SignatureQueue, requests: Sequence[InferRequest], rows: int) -> dict[str, Array]:
        return join(
            requests,
            rows,
            batched=queue.keys.batched,
            padding=self._paddings[queue.name],
            traits=self._traits,
            buffers=self._buffers,
        )

    def _retry(self, queue: SignatureQueue, requests: Sequence[InferRequest], error: BaseException) -> None:
        if isinstance(error, WrongRows):
            _log.error("%s: %s; signature %s is served unbatched from now on", self._name, error, queue.name)
            self._unbatch(queue, f"at run time {error}")
        elif isinstance(error, InstanceLost):
            for request in requests:  # there is nothing to run them on, and one of them may be what ended it
                request.fail(self._reason(error))
            return
        elif not isinstance(error, BackendError):
            self._log_failure("a batch failed and is run again one request at a time", error)
        for request in requests:
            now = monotonic()
            if request.finished:
                continue
            if request.deadline is not None and now >= request.deadline:
                request.fail(expiry(request, now))
                continue
            self._buffers.begin()
            self._run_alone(queue, request, request.rows or 1)

    def _reason(self, error: BaseException) -> ServingError:
        """The error that a caller sees: the backend's own words, nothing of an exception that no backend meant to
        raise.
        """
        if isinstance(error, InvalidInput):
            return InvalidRequest(str(error), accepted=True)
        if isinstance(error, InstanceLost):
            return Unavailable(str(error), accepted=error.accepted, retry_after=error.retry_after)
        if isinstance(error, BackendError):
            return ExecutionFailed(str(error))
        self._log_failure("the model failed", error)
        return ExecutionFailed(
            f"{self._name}: the model failed with an unexpected {type(error).__name__}; see the server's log"
        )

    def _log_failure(self, text: str, error: BaseException) -> None:
        now = monotonic()
        if self._logged_at and now - self._logged_at < _LOG_EVERY:
            self._unlogged += 1
            return
        _log.error("%s: %s (%d more since the last such line)", self._name, text, self._unlogged, exc_info=error)
        self._logged_at = now
        self._unlogged = 0
