"""One inference request on its way through the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from inferd.backends.api import Array
from inferd.server.errors import Cancelled, DeadlineExceeded, QueueTimeout, ServingError

_log = logging.getLogger("inferd.scheduling")
NEVER = float("inf")

# gRPC sends timeouts in two or three digits, rounded up: a client gives up that much before the deadline known here.
_ROUNDED = 0.02
_JITTER = 0.005  # seconds that the call may have taken longer on its way than its cancel


class QueuePlace(Protocol):
    """Where a request waits."""

    def discard(self, request: InferRequest) -> None:
        """Frees what `request` holds here, at once. Thread-safe; does nothing when it has already left."""
        ...


def _answered(_request: InferRequest) -> None:
    """Stands in for `on_done` once it has been called: so a finished request keeps nothing of its caller alive."""


class Route:
    """Where requests with equal inputs but for their values go, found out with the first of them: the scheduler's own
    notes, kept by the caller between such requests. Empty until then, and for ever where the values decide.

    run_now    `Express.run_now`, where the rows of such requests make a batch as they are, one after the other
    run_one    `Express.run_one`, likewise
    overflow   `refusals.overflow` for the callers and the bytes of such requests, once their queue is known
    large      copying such a request costs more than running it by itself does
    line_up    `Batcher.submit_together`, where such requests may wait for their model together
    """

    __slots__ = ("key", "large", "line_up", "overflow", "queue", "rows", "run_now", "run_one")

    def __init__(self) -> None:
        self.queue: Any = None  # a SignatureQueue
        self.key: Hashable = None
        self.rows = 0
        self.large = False
        self.run_now: Any = None
        self.run_one: Any = None
        self.overflow: Any = None
        self.line_up: Any = None


@dataclass(slots=True)  # not frozen: that would cost a microsecond a batch
class Ran:
    """One batch of requests that ran at once: `count` of them share `outputs`. Monotonic seconds."""

    outputs: dict[str, Array]
    count: int
    started_at: float
    finished_at: float


class InferRequest:
    """Inputs that have passed the signature check, and the promise of exactly one outcome.

    `on_done(request)` is called exactly once, from any thread, when `outputs` or `error` is set: by the instance that
    ran it, by the queue that dropped it, or by `cancel`. It must be quick and must not raise.

    inputs          C-contiguous arrays by name; maybe read-only, maybe unaligned views of the received bytes (`owned`
                    says False)
    wanted          names of the outputs asked for, None: all
    rows            size of the batch axis; set by the scheduler where the model has one, None elsewhere
    deadline        monotonic seconds at which the caller stops waiting, None: never
    queue_deadline  monotonic seconds at which the request leaves the queue unserved, None: never
    priority        1 is served before 2
    nbytes          bytes that the request holds while it waits
    owned           the arrays belong to this request alone and may be written to
    leaves_at       the earlier of the two deadlines, infinity: never; set by the scheduler
    route           notes shared by requests like this one, None: there are none
    place           where it waits, None once it is taken, dropped or done; the scheduler's own
    caller          what tells whose request this is, for who needs to know (`crowd.Who`); None: nobody's
    together        who answers it together with others of its route that ran in the same batch, None: nobody does
    """

    together: Callable[[Sequence[Any], dict[str, Array]], None] | None = None

    __slots__ = (
        "_unanswered", "batch_rows", "caller", "cancelled", "deadline", "enqueued_at", "error", "finished",
        "finished_at", "inputs", "leaves_at", "nbytes", "on_done", "outputs", "owned", "place", "priority",
        "queue_deadline", "route", "rows", "signature", "started_at", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        signature: str,
        inputs: dict[str, Array],
        on_done: Callable[[InferRequest], None],
        *,
        wanted: tuple[str, ...] | None = None,
        rows: int | None = None,
        deadline: float | None = None,
        queue_deadline: float | None = None,
        priority: int = 1,
        nbytes: int = 0,
        owned: bool = False,
        caller: Any = None,
    ) -> None:
        self.signature = signature
        self.inputs = inputs
        self.on_done = on_done
        self.wanted = wanted
        self.rows = rows
        self.deadline = deadline
        self.queue_deadline = queue_deadline
        self.priority = priority
        self.nbytes = nbytes
        self.owned = owned
        self.caller = caller
        self.outputs: dict[str, Array] | None = None
        self.error: ServingError | None = None
        self.finished = False
        self.cancelled = False
        self.enqueued_at = 0.0  # monotonic seconds, set by the scheduler
        self.started_at = 0.0
        self.finished_at = 0.0
        self.batch_rows = 0  # rows in the batch that this request ran in; 0: it never ran
        self.leaves_at = 0.0
        self.route: Route | None = None
        self.place: QueuePlace | None = None
        self._unanswered = True

    def succeed(self, outputs: dict[str, Array]) -> None:
        """Sets the outcome; does nothing when there is one already. Thread-safe."""
        try:  # as `_finish`, written out: most requests end here
            del self._unanswered
        except AttributeError:
            return
        self.outputs = outputs
        self.finished_at = monotonic()
        self.finished = True
        on_done = self.on_done
        self.on_done = _answered
        try:
            on_done(self)
        except Exception:
            _log.exception("on_done of a request raised")

    def enter(self, now: float, timeout: float | None) -> float:
        """The request comes to a queue where it may wait for `timeout` seconds unless it says so itself. Gives when it
        leaves unserved."""
        leaves_at = self.deadline
        if leaves_at is None:
            leaves_at = NEVER
        until = self.queue_deadline
        if until is None and timeout is not None:
            until = self.queue_deadline = now + timeout
        if until is not None and until < leaves_at:
            leaves_at = until
        self.leaves_at = leaves_at
        self.enqueued_at = now
        return leaves_at

    def claim(self) -> bool:
        """Whether the caller may answer the request itself, with what `together` was given: True for exactly one, and
        then `on_done` is not called. Thread-safe."""
        try:
            del self._unanswered
        except AttributeError:
            return False
        self.finished = True
        self.on_done = _answered
        return True

    def fail(self, error: ServingError) -> None:
        """Sets the outcome; does nothing when there is one already. Thread-safe."""
        self._finish(None, error)

    def cancel(self) -> None:
        """The caller went away, or its deadline has passed: drops the request if it has not finished. Thread-safe; its
        neighbours are not touched.
        """
        self.cancelled = True
        if self.finished:
            return
        self._finish(None, _departure(self))
        place = self.place
        if place is not None:
            place.discard(self)

    def _finish(self, outputs: dict[str, Array] | None, error: ServingError | None) -> None:
        # Deleting a slot is one atomic step of the interpreter that fails for everyone but the first: a test-and-set
        # that needs no lock, so no thread can lose its time slice while it holds one that all requests share.
        try:
            del self._unanswered
        except AttributeError:
            return
        self.outputs = outputs
        self.error = error
        self.finished_at = monotonic()
        self.finished = True
        on_done = self.on_done
        self.on_done = _answered
        try:
            on_done(self)
        except Exception:
            _log.exception("on_done of a request raised")  # the neighbours in the batch must still get their answers


def _departure(request: InferRequest) -> ServingError:
    """Why the caller of a request waits no longer: to a server, a client whose deadline passes is one that cancels."""
    if request.deadline is not None:
        left = request.deadline - monotonic()
        given = request.deadline - request.enqueued_at if request.enqueued_at else 0.0
        if left <= _JITTER + _ROUNDED * given:
            return DeadlineExceeded("the deadline passed before the answer was there")
    return Cancelled("the caller cancelled the request")


def expiry(request: InferRequest, now: float) -> ServingError:
    """Why a request that has expired was not served."""
    waited = f"after {max(0.0, now - request.enqueued_at):.3f} s in the queue" if request.enqueued_at else "on arrival"
    if request.deadline is not None and now >= request.deadline:
        return DeadlineExceeded(f"the deadline passed {waited}")
    return QueueTimeout(f"the request's queue timeout passed {waited}")
