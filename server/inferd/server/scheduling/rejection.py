"""Refusals of a scheduler: their reasons and figures, and their texts.

A protocol with its own texts for a reason adds them in `protocols/*/errors.py`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from inferd.server.errors import Overloaded, ServingError, TooLate, Unavailable
from inferd.server.scheduling.request import InferenceRequest, expiry


class Reason(enum.Enum):
    """The reason of a refusal.

    FULL        a bound of the queue is reached
    TOO_LARGE   the request has more bytes than the queue may hold
    GAVE_WAY    the request was evicted from the queue for another client's request
    TOO_LATE    the deadline would pass before the answer
    EXPIRED     the deadline or the queue timeout has passed
    CLOSED      the servable drains or is closed
    INVALID     the request is invalid, or a step of an ensemble is not available
    """

    FULL = "full"
    TOO_LARGE = "too large"
    GAVE_WAY = "gave way"
    TOO_LATE = "late"
    EXPIRED = "expired"
    CLOSED = "closed"
    INVALID = "invalid"


@dataclass(slots=True)
class QueueFigures:
    """The requests and bytes in a queue at one moment, and their bounds. `retry_after`: seconds after which a request
    may be admitted again."""

    requests: int
    max_requests: int
    nbytes: int
    max_bytes: int
    retry_after: float


@dataclass(slots=True)
class Rejection:
    """Requests that were refused, all for one reason.

    name       the servable
    figures    the queue at that moment; for FULL, TOO_LARGE and GAVE_WAY
    nbytes     bytes of the request; for FULL and TOO_LARGE
    seconds    predicted seconds until the answer; for TOO_LATE
    left       seconds until the deadline; for TOO_LATE
    now        monotonic seconds of the refusal; for EXPIRED
    text       the complete text; for CLOSED
    cause      the error; for INVALID
    accepted   the request may have reached the model
    """

    requests: list[InferenceRequest]
    reason: Reason
    name: str = ""
    figures: QueueFigures | None = None
    nbytes: int = 0
    seconds: float = 0.0
    left: float = 0.0
    now: float = 0.0
    text: str = ""
    cause: ServingError | None = None
    accepted: bool = False

    def error(self) -> ServingError:
        """The error for the refused requests."""
        name, figures, reason = self.name, self.figures, self.reason
        if self.cause is not None:
            return self.cause
        if reason is Reason.EXPIRED:
            return expiry(self.requests[0], self.now)
        if reason is Reason.TOO_LATE:
            return TooLate(
                f"{name} would answer in about {self.seconds:.3f} s, the deadline is in {self.left:.3f} s "
                f"(queue.admission: deadline)",
                retry_after=min(5.0, max(0.05, self.seconds - self.left)),
            )
        if figures is None:
            return Unavailable(self.text, accepted=self.accepted)
        if reason is Reason.GAVE_WAY:
            return Overloaded(
                f"the queue of {name} is full, and this client had most in it: the request gave way to another "
                f"client's (queue.fair)",
                accepted=self.accepted,
                retry_after=figures.retry_after,
            )
        if reason is Reason.TOO_LARGE:
            return Overloaded(
                f"the request holds {self.nbytes} bytes, the whole queue of {name} takes {figures.max_bytes} "
                f"(queue.bytes)"
            )
        return Overloaded(
            f"the queue of {name} is full: {figures.requests} of {figures.max_requests} requests (queue.requests), "
            f"{figures.nbytes} of {figures.max_bytes} bytes (queue.bytes), this request needs {self.nbytes}",
            retry_after=figures.retry_after,
        )


def invalid(request: InferenceRequest, error: ServingError) -> Rejection:
    """The rejection of one request with an error."""
    return Rejection([request], Reason.INVALID, cause=error)
