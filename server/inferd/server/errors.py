"""The errors with which the server refuses or fails a request, each with a canonical code. Also LayoutError, for files
in a repository that cannot be served.

    ServingError                      code
    ├── InvalidRequest                INVALID_ARGUMENT     names the tensor, what was expected, what came
    ├── NotFound                      NOT_FOUND            unknown model, version or label (not signature)
    ├── AlreadyExists                 ALREADY_EXISTS       the name is taken
    ├── Conflict                      FAILED_PRECONDITION  the version failed to load; a label of an unavailable version
    ├── Unavailable                   UNAVAILABLE          the version is loading or unloading; the server drains
    ├── Overloaded                    RESOURCE_EXHAUSTED   queue or memory budget is full; carries the retry pushback
    │   └── TooLate                   RESOURCE_EXHAUSTED   the queue is so long that the deadline would pass
    ├── RateLimited                   RESOURCE_EXHAUSTED   this client is over its limits; the same on every protocol
    ├── DeadlineExceeded              DEADLINE_EXCEEDED    the caller's deadline passed, in the queue or later
    ├── QueueTimeout                  DEADLINE_EXCEEDED    the request's own queue timeout passed (OIP: UNAVAILABLE)
    ├── Cancelled                     CANCELLED            the caller has cancelled or disconnected
    ├── Unauthenticated               UNAUTHENTICATED      credentials are missing or wrong
    ├── Forbidden                     PERMISSION_DENIED    names the configuration key that would allow it
    ├── Unsupported                   UNIMPLEMENTED        the server does not offer this
    └── ExecutionFailed               INTERNAL             the backend's message, never a traceback

Each protocol has a table from these errors to its own status and text (`inference/failures.py`,
`protocols/*/errors.py`). Nothing below the protocols knows gRPC or HTTP.
"""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """Canonical codes. The values are gRPC's numbers, which TensorFlow uses, too."""

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
    """A request is refused or has failed. `str(error)` is sent to the client.

    `accepted` says whether the request may have reached the model: a request to a stateful model may be retried only if
    it is False. `retry_after` is the retry pushback in seconds, None for none.
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
    """The model, version or label does not exist, or was unloaded."""

    code = Code.NOT_FOUND


class Conflict(ServingError):
    """The state of the model forbids the request, and waiting will not help."""

    code = Code.FAILED_PRECONDITION


class AlreadyExists(ServingError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class Unavailable(ServingError):
    """The request can succeed later: the version is loading or unloading, or the server drains."""

    code = Code.UNAVAILABLE


class Overloaded(ServingError):
    """A queue or budget is full: the request is refused at once instead of buffered."""

    code = Code.RESOURCE_EXHAUSTED


class TooLate(Overloaded):
    """The deadline would pass before the request is answered. The code is not DEADLINE_EXCEEDED, because the deadline
    has not passed: a less busy replica may still answer in time, and operators see an overload, not a slow model.
    """


class RateLimited(ServingError):
    """The client is over its own limits. Other clients are served."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(ServingError):
    """The caller's deadline has passed."""

    code = Code.DEADLINE_EXCEEDED


class QueueTimeout(DeadlineExceeded):
    """The request's own queue timeout has passed."""


class Cancelled(ServingError):
    """The caller has cancelled the request or disconnected."""

    code = Code.CANCELLED


class Unauthenticated(ServingError):
    """The credentials are missing or wrong."""

    code = Code.UNAUTHENTICATED


class Forbidden(ServingError):
    """The caller has no permission for this."""

    code = Code.PERMISSION_DENIED


class Unsupported(ServingError):
    """The server does not offer this."""

    code = Code.UNIMPLEMENTED


class ExecutionFailed(ServingError):
    """The backend failed while it ran the request."""

    code = Code.INTERNAL

    def __init__(self, message: str, *, accepted: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message, accepted=accepted, retry_after=retry_after)


class LayoutError(Exception):
    """A directory in a repository cannot be served. The text says what was expected and what was found."""
