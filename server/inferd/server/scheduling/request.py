"""One inference request, from its decoding to its answer.

InferenceRequest     the promise of exactly one outcome
Route       what requests share that may run in one batch: the queue and bucket they go to, the outputs they want
Owner       who tells the outcome to the caller
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

# gRPC sends timeouts in two or three digits, rounded up: a client gives up that much before the deadline known here.
_ROUNDED = 0.02
_JITTER = 0.005  # seconds by which a call may have taken longer on its way than its cancel


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Where requests go. Requests with one Route object want the same outputs and have equally many rows.

    signature   name of the signature
    wanted      names of the outputs asked for, None: all
    queue       the queue of the signature, None: the scheduler has not looked at the inputs yet
    key         the bucket in that queue
    rows        size of the batch axis; 0: the request has none, or the signature is not batched
    """

    signature: str
    wanted: tuple[str, ...] | None = None
    queue: SignatureQueue | None = None
    key: Hashable = None
    rows: int = 0


class QueuePlace(Protocol):
    """Where a request waits."""

    def discard(self, request: InferenceRequest) -> None:
        """Frees what `request` holds here, at once. Thread-safe; does nothing when the request has left."""
        ...


class _NextTurn:
    """The place of requests that the loop has taken and runs before it looks at anything else: no cancel can come
    first, since cancels come on the loop's thread, too."""

    __slots__ = ()

    def discard(self, request: InferenceRequest) -> None:
        """Does nothing: the request runs, and its answer is dropped."""


NEXT_TURN: QueuePlace = _NextTurn()


class Owner(Protocol):
    """Tells the outcome of requests to whoever asked. Called on any thread; quick; must not raise."""

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """These requests, neighbours in a batch with one Route, have run. `outputs` are theirs together: views of the
        batch's outputs, the rows of one request after those of the one before. The batch, of `batch_rows` rows, started
        at this monotonic time. Each request is the owner's to `claim`."""
        ...

    def ended(self, request: InferenceRequest) -> None:
        """The request has failed: `request.error` says why."""
        ...


class Callback:
    """The Owner of requests whose outcome is told to a function. Thread-safe."""

    __slots__ = ("_on_done",)

    def __init__(self, on_done: Callable[[Any], None]) -> None:
        """`on_done(request)` is called once for each request, when its `outputs` or its `error` is set."""
        self._on_done = on_done

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """Gives each request its rows."""
        start = 0
        for request in requests:
            stop = start + (request.route.rows or 1)
            own = outputs
            if len(requests) > 1:
                own = {name: output[start:stop] for name, output in outputs.items()}
            start = stop
            if request.claim():
                request.started_at, request.batch_rows = started_at, batch_rows
                request.outputs = own
                request.finished_at = monotonic()
                self._tell(request)

    def ended(self, request: InferenceRequest) -> None:
        """Tells the failure."""
        self._tell(request)

    def _tell(self, request: InferenceRequest) -> None:
        request.owner = _NOBODY
        try:
            self._on_done(request)
        except Exception:
            _log.exception("on_done of a request raised")  # the neighbours in the batch must still get their answers


class _Nobody:
    """Stands in for the owner once the outcome is told: a finished request keeps nothing of its caller alive."""

    __slots__ = ()

    def answer(
        self, requests: Sequence[InferenceRequest], outputs: dict[str, Array], started_at: float, batch_rows: int
    ) -> None:
        """Does nothing."""

    def ended(self, request: InferenceRequest) -> None:
        """Does nothing."""


_NOBODY: Owner = _Nobody()


class InferenceRequest:
    """Inputs that have passed the signature check, and the promise of exactly one outcome.

    owner           tells the outcome
    route           where the request goes; the scheduler replaces a Route without a queue
    inputs          C-contiguous arrays by name; maybe read-only, maybe unaligned views of `message` (`owned` says
                    False)
    layout, message where the inputs lie in a received message, for messages whose layout is known; else None, b""
    deadline        monotonic seconds at which the caller stops waiting, None: never
    queue_deadline  monotonic seconds at which the request leaves the queue unserved, None: never
    priority        1 is served before 2
    nbytes          bytes that the request holds while it waits
    owned           the arrays belong to this request alone and may be written to
    call            whose request this is: fair sharing asks for its client, and the owner answers it; None: nobody's
    group           what the owner knows of requests that came together; the scheduler does not look at it
    request_id      the request's id as the answer echoes it
    lease           what the owner gives back with the answer, None: nothing
    leaves_at       the earlier of the two deadlines, infinity: never; set by the scheduler, as are the next three
    enqueued_at     monotonic seconds; 0: it was never queued
    started_at      monotonic seconds; 0: it has not run
    batch_rows      rows in the batch that it ran in; 0: it never ran
    place           where it waits, None once it is taken, dropped or done
    """

    # Defaults on the class, and no __slots__: what is usual need not be set for each request. (Python keeps the
    # attributes of such an instance in an array, as slots are.)
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
        """`inputs`: None for views of `message`, made when somebody asks for them."""
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
        """The arrays by name."""
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
        """The request will not run any more: lets go of the memory."""
        self.inputs = {}

    @property
    def signature(self) -> str:
        """Name of the signature."""
        return self.route.signature

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """Names of the outputs asked for, None: all."""
        return self.route.wanted

    @property
    def rows(self) -> int:
        """Size of the batch axis, 0 where there is none."""
        return self.route.rows

    def succeed(self, outputs: dict[str, Array], started_at: float, batch_rows: int = 1) -> None:
        """Gives the outcome to the owner, which takes it unless there is one already. Thread-safe."""
        self.owner.answer((self,), outputs, started_at, batch_rows)

    def claim(self) -> bool:
        """Whether the caller may tell the outcome: True for exactly one. Thread-safe.

        Deleting an attribute is one atomic step of the interpreter that fails for everyone but the first: a
        test-and-set that needs no lock, so no thread can lose its time slice while it holds one that all requests
        share.
        """
        try:
            del self._unanswered
        except AttributeError:
            return False
        self.finished = True
        return True

    def fail(self, error: ServingError) -> None:
        """Sets the outcome; does nothing when there is one already. Thread-safe."""
        if not self.claim():
            return
        self.error = error
        self.finished_at = monotonic()
        try:
            self.owner.ended(self)
        except Exception:
            _log.exception("the end of a request could not be told")

    def cancel(self) -> None:
        """The caller went away, or its deadline has passed: drops the request if it has not finished. Thread-safe; its
        neighbours are not touched.
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
    """A request whose outcome is told to a function: `options` as of InferenceRequest."""
    queue_deadline, owned = options.pop("queue_deadline", None), options.pop("owned", False)
    made = InferenceRequest(Callback(on_done), Route(signature, wanted, rows=rows), inputs, **options)
    made.queue_deadline, made.owned = queue_deadline, owned
    return made


def _departure(request: InferenceRequest) -> ServingError:
    """Why the caller of a request waits no longer: to a server, a client whose deadline passes is one that cancels."""
    if request.deadline is not None:
        left = request.deadline - monotonic()
        given = request.deadline - request.enqueued_at if request.enqueued_at else 0.0
        if left <= _JITTER + _ROUNDED * given:
            return DeadlineExceeded("the deadline passed before the answer was there")
    return Cancelled("the caller cancelled the request")


def expiry(request: InferenceRequest, now: float) -> ServingError:
    """Why a request that has expired was not served."""
    waited = f"after {max(0.0, now - request.enqueued_at):.3f} s in the queue" if request.enqueued_at else "on arrival"
    if request.deadline is not None and now >= request.deadline:
        return DeadlineExceeded(f"the deadline passed {waited}")
    return QueueTimeout(f"the request's queue timeout passed {waited}")
