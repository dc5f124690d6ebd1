"""Why a scheduler does not take a request, or does not keep it: reason and figures, and the place that words them.

A protocol that has words of its own for a reason puts them around these (protocols/*/errors.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from inferd.server.errors import Overloaded, ServingError, TooLate, Unavailable
from inferd.server.scheduling.request import InferenceRequest, expiry


class Reason(enum.Enum):
    """Why. `FULL`, `TOO_LARGE`: the queue's bounds; `GAVE_WAY`: to another client's request; `TOO_LATE`: the deadline
    would pass before the answer; `EXPIRED`: it has passed, or the queue timeout has; `CLOSED`: the servable drains or
    is closed; `INVALID`: the request itself is wrong, or an ensemble's step could not be had."""

    FULL = "full"
    TOO_LARGE = "too large"
    GAVE_WAY = "gave way"
    TOO_LATE = "late"
    EXPIRED = "expired"
    CLOSED = "closed"
    INVALID = "invalid"


@dataclass(slots=True)
class QueueFigures:
    """A queue at one moment: requests and bytes in it, and the most that it takes; `retry_after`: seconds until there
    may be room."""

    requests: int
    max_requests: int
    nbytes: int
    max_bytes: int
    retry_after: float


@dataclass(slots=True)
class Rejection:
    """Requests that were not taken, all for one reason.

    name      the servable's
    figures   the queue as it was, for FULL, TOO_LARGE and GAVE_WAY
    nbytes    what the request holds
    seconds   until the answer would be there, `left` until the deadline, for TOO_LATE
    text      the whole text, for CLOSED
    cause     the error itself, for INVALID
    accepted  the request may have reached the model
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
        """The refusal in words."""
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
    """One request that was refused with an error of its own."""
    return Rejection([request], Reason.INVALID, cause=error)
