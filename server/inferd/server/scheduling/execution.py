"""Runs batches on one instance and answers their requests. Whatever the model does, every request gets one outcome.

There are two strategies (policies/strategy.py): the rows are joined into one run, or the requests run one by one where
joining would cost more than it saves. A batch runs on the transport's loop if it is short, else on the instance's
worker. While the loop has other work, the model of a short batch runs on a thread beside it (overlap.py).

A batch that fails, or in whose answer the model omits an output, runs again one request at a time, so that only the
request that causes the failure fails. An inference may be repeated, because a stateful model is never batched, but only
where the model's traits say so: Python code may have effects, and then the whole batch fails. A batch whose outputs
have another number of rows than its inputs is never split: its requests run again one by one, and the signature is
served unbatched from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic

from inferd.backends.api import Array, BackendError, Instance, InstanceLost, InvalidInput, Traits
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError, Unavailable
from inferd.server.scheduling.batch import (
    Share,
    WrongRows,
    check_names,
    check_rows,
    join,
    keep,
    pick,
    private_inputs,
    received_inputs,
    split,
    wanted_outputs,
)
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.buffers import Buffers
from inferd.server.scheduling.inline import TOO_LONG, InlineBudget
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.overlap import OverlappedRun
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.policies.strategy import one_by_one
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import InferenceRequest, expiry

_log = logging.getLogger("inferd.scheduling")
_LONG, _MANY = 1e-3, 3  # seconds, requests: from here on, answering on another thread costs next to nothing
_LEARNED = 8  # one in so many batches on the loop is measured, because they are all short and alike
_LOG_EVERY = 10.0  # seconds between two log lines of unexpected failures
_NOT_REPEATED = (
    "a batch of {} requests failed, and none of them is run again, because the model's Python code is not declared "
    "idempotent (IDEMPOTENT = True)"
)


class Executor:
    """Runs batches on one instance, with its own buffers. Not thread-safe: it belongs to one worker, or to the loop."""

    def __init__(
        self,
        name: str,
        instance: Instance,
        traits: Traits,
        *,
        paddings: Mapping[str, Padding],
        observer: BatchObserver,
        unbatch: Callable[[SignatureQueue, str], None],
        budget: InlineBudget,
        inline: bool = False,
        on_cpu: bool = True,
        hand_off: Callable[[Callable[[], None]], bool] = lambda _answer: False,
    ) -> None:
        """
        unbatch    called with queue and reason when a model breaks its proof of independent rows
        budget     learns the costs of the model's runs
        inline     the runs are on the transport's loop
        on_cpu     False: a device, to which batches are copied in any case
        hand_off   makes another thread call the given function; returns False where it cannot
        """
        self._name = name
        self._instance = instance
        self._traits = traits
        # Signatures for which the model can read the received bytes directly, as read-only views with the usual
        # alignment of memory.
        views = not traits.may_write_inputs and traits.alignment <= 16
        self._takes_views = frozenset(name for name, padding in paddings.items() if views and not padding)
        self._paddings = paddings
        self._observer = observer
        self._unbatch = unbatch
        self._budget = budget
        self._inline = inline
        self._on_cpu = on_cpu
        self._hand_off = hand_off
        self._buffers = Buffers(traits.alignment, getattr(instance, "staging", None))
        self._unlearned = 0  # runs since the cost of one was learned
        self._logged_at = 0.0
        self._unlogged = 0

    def run(self, batch: Batch) -> float:
        """Runs a batch and answers its requests. Returns the seconds of the model's runs, 0 where they failed. Never
        raises."""
        requests = batch.requests
        try:
            first = requests[0]
            if (
                len(requests) > 1
                and self._on_cpu
                and one_by_one(first.nbytes, first.route.rows or 1, batch.bucket.effort)
            ):
                return self._run_each(batch)
            return self._run_joined(batch)
        except BaseException as error:
            self._broken(batch, error)
            return 0.0
        finally:
            if self._buffers.lent:
                self._buffers.begin()

    def _run_joined(self, batch: Batch) -> float:
        """One run for all requests of a batch. Repeats code of helper functions for the usual case, to save calls."""
        queue, requests, rows, route = batch.queue, batch.requests, batch.rows, batch.route
        budget, inline = self._budget, self._inline
        clock = budget.clock
        batch.started_at = started = monotonic()
        if not inline:  # on the loop, where cancels arrive, nothing reads it during the run
            for request in requests:
                request.started_at = started
        try:
            inputs = None
            if route is None:
                wanted = wanted_outputs(requests)
            else:
                wanted = route.wanted
                if queue.name in self._takes_views:
                    inputs = received_inputs(requests)
            if inputs is None:
                inputs = self._inputs(queue, requests, rows)
            began = clock()
            outputs = self._instance.run(queue.name, inputs, wanted)
            cost = clock() - began
            if inline and cost > TOO_LONG:
                self._charge(cost, queue, inputs, wanted)
            else:
                budget.ran(cost)
            outputs = self._checked(batch, outputs, wanted)
        except BaseException as error:
            self._failed(batch, error)
            return 0.0
        return self._ran(batch, outputs, wanted, cost, monotonic() - started)

    def _checked(self, batch: Batch, outputs: dict[str, Array], wanted: tuple[str, ...] | None) -> dict[str, Array]:
        """The wanted outputs of a run. Raises BackendError where one is missing or cannot be split."""
        if wanted is not None:
            outputs = pick(outputs, wanted)
        if len(batch.requests) > 1:
            rows = batch.rows
            if wanted is None:
                check_names(outputs, batch.queue.outputs)
            for output in outputs.values():
                if not output.ndim or output.shape[0] != rows:
                    check_rows(outputs, rows)
        if self._buffers.lent:
            keep(outputs, self._buffers)
        return outputs

    def _ran(
        self, batch: Batch, outputs: dict[str, Array], wanted: tuple[str, ...] | None, cost: float, seconds: float
    ) -> float:
        """Learns from a run and answers its requests. Returns `seconds`."""
        queue, requests, rows, route = batch.queue, batch.requests, batch.rows, batch.route
        count, inline = len(requests), self._inline
        self._unlearned += 1
        if self._unlearned >= _LEARNED or not inline or batch.bucket.cost.line is None:
            self._unlearned = 0
            queue.timed(seconds)
            batch.bucket.ran(rows, seconds, cost)
        if route is not None and (seconds < _LONG or count < _MANY):  # as below, without the calls
            requests[0].owner.answer(requests, outputs, batch.started_at, rows)
            self._observer.batch(queue.name, requests, rows, seconds)
            return seconds
        shares = split(outputs, requests, wanted) if route is None else ((requests, outputs),)
        # Many answers take time, during which the model would be idle: another thread sends them.
        if seconds < _LONG or count < _MANY or not self._hand_off(partial(self._answer, batch, shares, seconds)):
            self._answer(batch, shares, seconds)
        return seconds

    # -- a run beside the loop -----------------------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> OverlappedRun | None:
        """The run of a batch beside the loop. None, and nothing is done, where the batch must run by `run`."""
        queue, requests, route = batch.queue, batch.requests, batch.route
        if route is None or queue.name not in self._takes_views:
            return None
        if one_by_one(requests[0].nbytes, route.rows or 1, batch.bucket.effort):
            return None
        inputs = received_inputs(requests)
        if inputs is None:
            return None
        batch.started_at = started = monotonic()
        for request in requests:
            request.started_at = started
        return OverlappedRun(batch, inputs, route.wanted)

    def compute(self, run: OverlappedRun) -> None:
        """Runs the model. The only method for another thread. Never raises."""
        clock = self._budget.clock
        try:
            began = clock()
            run.outputs = self._instance.run(run.batch.queue.name, run.inputs, run.wanted)
            run.cost = clock() - began
        except BaseException as error:
            run.error = error
        run.seconds = monotonic() - run.batch.started_at

    def finish(self, run: OverlappedRun) -> None:
        """Answers the requests of a run that has ended. Never raises."""
        batch = run.batch
        try:
            try:
                if run.error is not None:
                    raise run.error
                self._budget.ran(run.cost)
                outputs = self._checked(batch, run.outputs, run.wanted)
            except BaseException as error:
                self._failed(batch, error)
            else:
                self._ran(batch, outputs, run.wanted, run.cost, run.seconds)
        except BaseException as error:
            self._broken(batch, error)

    def _broken(self, batch: Batch, error: BaseException) -> None:
        """A defect of this server, or a model that calls exit: no request may hang."""
        self._log_failure("the scheduler failed", error)
        for request in batch.requests:
            request.fail(ExecutionFailed("the server failed while it handled the request"))

    def _answer(self, batch: Batch, shares: Sequence[Share], seconds: float) -> None:
        started_at, rows = batch.started_at, batch.rows
        for requests, outputs in shares:
            requests[0].owner.answer(requests, outputs, started_at, rows)
        self._observer.batch(batch.queue.name, batch.requests, rows, seconds)

    def _run_each(self, batch: Batch) -> float:
        """One run for each request of a batch, which copies no rows."""
        seconds = 0.0
        batch.started_at = monotonic()
        for request in batch.requests:
            now = monotonic()
            if request.finished:
                continue
            if request.leaves_at <= now:
                request.fail(expiry(request, now))
                continue
            seconds += self._run_one(batch.queue, request, batch.bucket)
        return seconds

    def _run_one(self, queue: SignatureQueue, request: InferenceRequest, bucket: Bucket | None) -> float:
        """Runs one request alone. `bucket`: learns the cost of the run."""
        rows = request.route.rows or 1
        wanted = request.route.wanted
        budget = self._budget
        started = monotonic()
        request.started_at, request.batch_rows = started, rows
        try:
            inputs = None
            if queue.name in self._takes_views:
                inputs = received_inputs((request,))
            if inputs is None:
                inputs = self._inputs(queue, (request,), rows)
            began = budget.clock()
            outputs = pick(self._instance.run(queue.name, inputs, wanted), wanted)
            cost = budget.clock() - began
            if self._inline and cost > TOO_LONG:
                self._charge(cost, queue, inputs, wanted)
            if self._buffers.lent:
                keep(outputs, self._buffers)
                self._buffers.begin()
        except BaseException as error:
            request.fail(self._reason(error))
            return 0.0
        seconds = monotonic() - started
        if bucket is not None:
            self._unlearned += 1
            if self._unlearned >= _LEARNED:
                self._unlearned = 0
                bucket.ran(rows, seconds, cost)
        request.succeed(outputs, started, rows)
        self._observer.batch(queue.name, (request,), rows, seconds)
        return seconds

    def _inputs(self, queue: SignatureQueue, requests: Sequence[InferenceRequest], rows: int) -> dict[str, Array]:
        """The inputs of a run, where the received bytes cannot be used directly."""
        padding = self._paddings[queue.name]
        if len(requests) == 1 and not (queue.limit and padding):
            return private_inputs(requests[0], self._traits, self._buffers)
        return join(
            requests,
            rows,
            batched=queue.keys.batched,
            padding=padding,
            traits=self._traits,
            buffers=self._buffers,
        )

    def _charge(
        self, seconds: float, queue: SignatureQueue, inputs: dict[str, Array], wanted: Sequence[str] | None
    ) -> None:
        """Reports a run on the loop that took too long to the budget, with a function that repeats it if possible."""
        again = None
        if not self._traits.may_write_inputs:
            again = partial(self._instance.run, queue.name, inputs, wanted)
        self._budget.ran(seconds, inline=True, again=again)

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """Handles a failed run: its requests run again one by one where that can help, else they fail."""
        requests, queue = batch.requests, batch.queue
        for request in requests:
            request.started_at, request.batch_rows = batch.started_at, batch.rows
        if len(requests) == 1 or isinstance(error, InstanceLost):
            # A single request is the cause itself. Without an instance no request can run, and one of them may have
            # ended the instance.
            for request in requests:
                request.fail(self._reason(error))
            return
        if isinstance(error, WrongRows):
            _log.error("%s: %s; signature %s is served unbatched from now on", self._name, error, queue.name)
            self._unbatch(queue, f"at run time {error}")
        if not self._traits.repeatable:
            # The error's text is left out: it may tell what is in another caller's request.
            self._log_failure("a batch failed and is not run again", error)
            for request in requests:
                request.fail(ExecutionFailed(_NOT_REPEATED.format(len(requests))))
            return
        if not isinstance(error, WrongRows) and not isinstance(error, BackendError):
            self._log_failure("a batch failed and is run again one request at a time", error)
        for request in requests:
            now = monotonic()
            if request.finished:
                continue
            if request.deadline is not None and now >= request.deadline:
                request.fail(expiry(request, now))
                continue
            self._buffers.begin()
            self._run_one(queue, request, None)

    def _reason(self, error: BaseException) -> ServingError:
        """The error for the caller: the backend's text; for an exception that is no BackendError, only its type."""
        if isinstance(error, InvalidInput):
            return InvalidRequest(str(error), accepted=True)
        if isinstance(error, InstanceLost):
            if error.accepted and not self._traits.repeatable:  # a client would send it again
                return ExecutionFailed(f"{error}; the request may have run, and is not declared idempotent")
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
