"""The table from errors to status and text on TensorFlow Serving's API.

It is the native table with TensorFlow Serving's exceptions: a full queue is UNAVAILABLE; an unknown signature is
FAILED_PRECONDITION (see `error_messages.unknown`).
"""

from __future__ import annotations

from inferd.server.errors import Overloaded, Unavailable
from inferd.server.inference.failures import Failure, failure_of


def failure(error: BaseException, request_id: str = "") -> Failure:
    """The status and text for an exception."""
    if isinstance(error, Overloaded):
        text = f"The batch scheduling queue to which this task was submitted is full: {error.message}"
        error = Unavailable(text, accepted=error.accepted, retry_after=error.retry_after)
    return failure_of(error, request_id)
