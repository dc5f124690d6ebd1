"""Why a queue does not take a request, or keep it, for who sent it."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.server.errors import Overloaded, TooLate
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.queue import SignatureQueue
from inferd.server.scheduling.request import InferRequest


def full(name: str, queue: SignatureQueue, nbytes: int) -> Overloaded:
    """The queue of servable `name` has no room for a request of so many bytes."""
    if nbytes > queue.max_bytes:
        return Overloaded(
            f"the request holds {nbytes} bytes, the whole queue of {name} takes {queue.max_bytes} (queue.bytes)"
        )
    return Overloaded(
        f"the queue of {name} is full: {queue.requests} of {queue.max_requests} requests (queue.requests), "
        f"{queue.nbytes} of {queue.max_bytes} bytes (queue.bytes), this request needs {nbytes}",
        retry_after=queue.drain_seconds,
    )


def gave_way(name: str, retry_after: float, *, accepted: bool) -> Overloaded:
    """A request that waited in the queue of servable `name` makes room for another client's."""
    return Overloaded(
        f"the queue of {name} is full, and this client had most in it: the request gave way to another client's "
        f"(queue.fair)",
        accepted=accepted,
        retry_after=retry_after,
    )


def overflow(
    name: str, queue: SignatureQueue, observer: BatchObserver, callers: Sequence[object], nbytes: int
) -> Overloaded | None:
    """What to tell requests of these callers that come together, each of so many bytes, when the queue of servable
    `name` is full and none of them has a claim to a place; they count as dropped. None: they should be submitted. Looks
    without the batcher's lock: what changes meanwhile might have changed a moment later."""
    if queue.requests < queue.max_requests:
        return None
    if queue.who is not None and (queue.crowd is None or any(map(queue.crowd.has_claim, callers))):
        return None
    for _ in callers:
        observer.dropped("full")
    return full(name, queue, nbytes)


def too_late(name: str, request: InferRequest, seconds: float, now: float) -> TooLate:
    """Servable `name` would answer in `seconds`, after the request's deadline. `now`: monotonic seconds."""
    left = (request.deadline or now) - now
    return TooLate(
        f"{name} would answer in about {seconds:.3f} s, the deadline is in {left:.3f} s (queue.admission: deadline)",
        retry_after=min(5.0, max(0.05, seconds - left)),
    )
