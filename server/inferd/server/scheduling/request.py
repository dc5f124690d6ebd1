"""One inference request, from its decoding to its answer.

InferenceRequest   inputs and exactly one outcome
Route              the queue, bucket, rows and wanted outputs of requests that may run in one batch
Owner              sends the outcome of requests to their callers
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from inferd.backends.api import Array
from inferd.server.errors import Cancelled, DeadlineExceeded, QueueTimeout, ServingError

if TYPE_CHECKING:
    from inferd.server.scheduling.queue import SignatureQueue
    from inferd.wire.message_forms import MessageLayout

_log = logging.getLogger("inferd.scheduling")
NEVER = float("inf")

# gRPC sends timeouts in two or three digits, rounded up: a client's deadline may be so much earlier than the one known
# here.
_ROUNDED = 0.02
_JITTER = 0.005  # seconds by which a call may have taken longer to arrive than its cancel


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The destination of requests in a scheduler. Requests with the same Route object want the same outputs and have
    equally many rows.

    signature   name of the signature
    wanted      names of the requested outputs; None: all
    queue       the queue of the signature; None: the scheduler has not resolved the Route yet
    key         the bucket in that queue
    rows        size of the batch axis; 0: the request has none, or the signature is not batched
    """

    signature: str
    wanted: tuple[str, ...] | None = None
    queue: SignatureQueue | None = None
    key: Hashable = None
    rows: int = 0


class QueuePlace(Protocol):
    """The object that holds a waiting request."""

    def discard(self, request: InferenceRequest) -> None:
        """Removes a request that has ended, and frees its memory. Thread-safe; does nothing when it is not here."""
        ...


class _NextTurn:
    """The place of requests in a batch that the loop runs in the coming turn. No cancel can arrive before, because
    cancels arrive on the loop's thread too."""

    __slots__ = ()

    def discard(self, request: InferenceRequest) -> None:
        """Does nothing: the request runs, and its answer is dropped."""


NEXT_TURN: QueuePlace = _NextTurn()


class Owner(Protocol):
    """Sends the outcome of requests to their callers. Called on any thread; must be quick and must not raise."""

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """Answers requests that have run in one batch and have the same Route. The owner must `claim` each request.

        outputs      views of the batch's outputs: the rows of these requests, one request after the other
        started_at   monotonic seconds at which the batch started
        batch_rows   rows of the whole batch
        """
        ...

    def ended(self, request: InferenceRequest) -> None:
        """Ends a failed request, whose error is `request.error`. It is claimed."""
        ...


class Callback:
    """The Owner of requests whose outcome is passed to a function. Thread-safe."""

    __slots__ = ("_on_done",)

    def __init__(self, on_done: Callable[[Any], None]) -> None:
        """`on_done(request)` is called once for each request, when its `outputs` or its `error` is set."""
        self._on_done = on_done

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """See Owner. Sets `outputs` of each request to its rows."""
        start = 0
        for request in requests:
            stop = start + (request.route.rows or 1)
            part = outputs
            if len(requests) > 1:
                part = {name: output[start:stop] for name, output in outputs.items()}
            start = stop
            if request.claim():
                request.started_at, request.batch_rows = started_at, batch_rows
                request.outputs = part
                request.finished_at = monotonic()
                self._call(request)

    def ended(self, request: InferenceRequest) -> None:
        """See Owner."""
        self._call(request)

    def _call(self, request: InferenceRequest) -> None:
        request.owner = _NOBODY
        try:
            self._on_done(request)
        except Exception:
            _log.exception("on_done of a request raised")  # the other requests of the batch must still be answered


class _Nobody:
    """Replaces the owner of a finished request, so that the request keeps no object of its caller alive."""

    __slots__ = ()

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """Does nothing."""

    def ended(self, request: InferenceRequest) -> None:
        """Does nothing."""


_NOBODY: Owner = _Nobody()


class InferenceRequest:
    """Inputs that have passed the signature check, and exactly one outcome. `claim`, `succeed`, `fail` and `cancel` are
    thread-safe.

    owner           sends the outcome
    route           the destination; the scheduler replaces a Route without a queue
    inputs          C-contiguous arrays by name; without `owned` they may be read-only, and unaligned views of `message`
    layout, message the received message and the positions of the inputs in it, where the layout is known; else None,
    b""
    deadline        monotonic seconds at which the caller stops waiting; None: never
    queue_deadline  monotonic seconds at which the request leaves the queue without running; None: never
    priority        1 is served before 2
    nbytes          bytes that the request holds while it waits
    owned           no other object refers to the arrays, so they may be written to
    call            the call that the owner answers, and by which fair sharing finds the client; None: no client
    group           the owner's own data for requests that arrived together; the scheduler does not use it
    request_id      the id that the answer repeats
    lease           released by the owner with the answer; None: nothing
    leaves_at       the earlier of the two deadlines, infinity: never; set by the scheduler, as are the next three
    enqueued_at     monotonic seconds; 0: it was never queued
    started_at      monotonic seconds; 0: it has not run
    batch_rows      rows of the batch in which it ran; 0: it has not run
    place           the object that holds it while it waits; None after it was taken or has ended
    """

    # Defaults are class attributes, without __slots__, so that usual values need not be set for each request. (CPython
    # keeps the attributes of such an instance in an array, as it does with slots.)
    queue_deadline: float | None = None
    owned = False
    error: ServingError | None = None
    finished = False
    cancelled = False
    enqueued_at = 0.0
    started_at = 0.0
    finished_at = 0.0
    leaves_at = NEVER
    batch_rows = 0
    place: QueuePlace | None = None
    lease: Any = None
    outputs: dict[str, Array] | None = None

    def __init__(
        self,
        owner: Owner,
        route: Route,
        inputs: dict[str, Array] | None,
        layout: MessageLayout[Any] | None = None,
        message: bytes = b"",
        deadline: float | None = None,
        priority: int = 1,
        nbytes: int = 0,
        call: Any = None,
        group: Any = None,
        request_id: str = "",
    ) -> None:
        """`inputs`: None for views of `message`, which are made on first use."""
        self.owner = owner
        self.route = route
        self._inputs = inputs
        self.layout = layout
        self.message = message
        self.deadline = deadline
        self.priority = priority
        self.nbytes = nbytes
        self.call = call
        self.group = group
        self.request_id = request_id
        self._unanswered = True

    @property
    def inputs(self) -> dict[str, Array]:
        """The input arrays by name."""
        inputs = self._inputs
        if inputs is None:
            assert self.layout is not None
            inputs = self._inputs = self.layout.inputs(self.message) or {}
        return inputs

    @inputs.setter
    def inputs(self, inputs: dict[str, Array]) -> None:
        self._inputs = inputs
        self.layout = None
        self.message = b""

    def forget_inputs(self) -> None:
        """Frees the inputs of a request that will not run any more."""
        self.inputs = {}

    @property
    def signature(self) -> str:
        """Name of the signature."""
        return self.route.signature

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """Names of the requested outputs; None: all."""
        return self.route.wanted

    @property
    def rows(self) -> int:
        """Size of the batch axis; 0: there is none."""
        return self.route.rows

    def succeed(self, outputs: dict[str, Array], started_at: float, batch_rows: int = 1) -> None:
        """Passes the outputs to the owner, unless the request has an outcome."""
        self.owner.answer((self,), outputs, started_at, batch_rows)

    def claim(self) -> bool:
        """Claims the right to set the outcome. True for exactly one thread.

        Deleting an attribute is atomic and fails for every thread but the first: a test-and-set without a lock. A lock
        that all requests share could be held by a thread that loses its time slice.
        """
        try:
            del self._unanswered
        except AttributeError:
            return False
        self.finished = True
        return True

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error, unless it has an outcome."""
        if not self.claim():
            return
        self.error = error
        self.finished_at = monotonic()
        try:
            self.owner.ended(self)
        except Exception:
            _log.exception("the end of a request could not be told")

    def cancel(self) -> None:
        """Ends the request because its caller has cancelled or its deadline has passed, unless it has an outcome.
        Takes it out of its queue. Other requests are not affected.
        """
        self.cancelled = True
        if self.finished:
            return
        self.fail(_departure(self))
        place = self.place
        if place is not None:
            place.discard(self)


def callback_request(
    signature: str,
    inputs: dict[str, Array],
    on_done: Callable[[Any], None],
    *,
    wanted: tuple[str, ...] | None = None,
    rows: int = 0,
    **options: Any,
) -> InferenceRequest:
    """A request whose outcome is passed to a function. `options`: see InferenceRequest."""
    queue_deadline, owned = options.pop("queue_deadline", None), options.pop("owned", False)
    made = InferenceRequest(Callback(on_done), Route(signature, wanted, rows=rows), inputs, **options)
    made.queue_deadline, made.owned = queue_deadline, owned
    return made


def _departure(request: InferenceRequest) -> ServingError:
    """The error of a cancelled request. A client whose deadline passes looks like one that cancels, so the time
    decides."""
    if request.deadline is not None:
        remaining = request.deadline - monotonic()
        allowed = request.deadline - request.enqueued_at if request.enqueued_at else 0.0
        if remaining <= _JITTER + _ROUNDED * allowed:
            return DeadlineExceeded("the deadline passed before the answer was there")
    return Cancelled("the caller cancelled the request")


def expiry(request: InferenceRequest, now: float) -> ServingError:
    """The error of a request that has expired before it ran. `now`: monotonic seconds."""
    waited = f"after {max(0.0, now - request.enqueued_at):.3f} s in the queue" if request.enqueued_at else "on arrival"
    if request.deadline is not None and now >= request.deadline:
        return DeadlineExceeded(f"the deadline passed {waited}")
    return QueueTimeout(f"the request's queue timeout passed {waited}")
