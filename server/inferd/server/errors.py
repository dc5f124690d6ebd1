"""Every way in which the server refuses or fails a request, with a canonical code of our own; and LayoutError, for what
lies in a repository and cannot be served.

    ServingError                      code
    ├── InvalidRequest                INVALID_ARGUMENT     names tensor, what was expected, what came
    ├── NotFound                      NOT_FOUND            unknown model, version, label, signature is InvalidRequest
    ├── AlreadyExists                 ALREADY_EXISTS       the name is taken
    ├── Conflict                      FAILED_PRECONDITION  the version failed to load; a label to an unavailable version
    ├── Unavailable                   UNAVAILABLE          known, but loading or unloading; the server drains
    ├── Overloaded                    RESOURCE_EXHAUSTED   queue or memory budget is full; carries the retry pushback
    │   └── TooLate                   RESOURCE_EXHAUSTED   too much waits before it: the deadline would pass
    ├── RateLimited                   RESOURCE_EXHAUSTED   this client asks for too much; so on every protocol
    ├── DeadlineExceeded              DEADLINE_EXCEEDED    the caller's deadline passed, in the queue too
    ├── QueueTimeout                  DEADLINE_EXCEEDED    the request's own queue timeout passed (OIP: UNAVAILABLE)
    ├── Cancelled                     CANCELLED            the caller went away
    ├── Unauthenticated               UNAUTHENTICATED
    ├── Forbidden                     PERMISSION_DENIED    names the configuration key that would allow it
    ├── Unsupported                   UNIMPLEMENTED
    └── ExecutionFailed               INTERNAL             the backend's message, never a traceback

One table per protocol maps codes at the edge (`core/status.py`); nothing below knows gRPC or HTTP.
"""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """Canonical codes. The values are gRPC's numbers, which TensorFlow uses too."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request is refused or has failed. `str(error)` is shown to the client.

    `accepted` says whether the request may have reached the model: a retry of a stateful model is safe only when it is
    False. `retry_after` is the pushback in seconds, None where there is none.
    """

    code = Code.INTERNAL

    def __init__(self, message: str, *, accepted: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.accepted = accepted
        self.retry_after = retry_after


class InvalidRequest(ServingError):
    """The request itself is wrong."""

    code = Code.INVALID_ARGUMENT


class NotFound(ServingError):
    """No such model, version or label, or it was unloaded."""

    code = Code.NOT_FOUND


class Conflict(ServingError):
    """The state of the model forbids it, and waiting will not help."""

    code = Code.FAILED_PRECONDITION


class AlreadyExists(ServingError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class Unavailable(ServingError):
    """Not now: the version is loading or unloading, or the server drains."""

    code = Code.UNAVAILABLE


class Overloaded(ServingError):
    """Full: refused at once instead of buffered."""

    code = Code.RESOURCE_EXHAUSTED


class TooLate(Overloaded):
    """The deadline has not passed, but would before the answer. Not DEADLINE_EXCEEDED: the caller's time is not over, a
    less busy replica may still make it, and whoever watches the codes should see an overload, not a slow model.
    """


class RateLimited(ServingError):
    """This client asks for more than is its own: others are served."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(ServingError):
    """The caller's deadline has passed."""

    code = Code.DEADLINE_EXCEEDED


class QueueTimeout(DeadlineExceeded):
    """The request's own queue timeout has passed."""


class Cancelled(ServingError):
    """The caller went away."""

    code = Code.CANCELLED


class Unauthenticated(ServingError):
    """No credentials, or bad ones."""

    code = Code.UNAUTHENTICATED


class Forbidden(ServingError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class Unsupported(ServingError):
    """Not offered here."""

    code = Code.UNIMPLEMENTED


class ExecutionFailed(ServingError):
    """The backend failed while it ran."""

    code = Code.INTERNAL

    def __init__(self, message: str, *, accepted: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message, accepted=accepted, retry_after=retry_after)


class LayoutError(Exception):
    """A directory cannot be served as it lies there: what was expected, what was found."""
