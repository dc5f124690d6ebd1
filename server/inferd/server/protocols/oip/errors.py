"""The table from errors to status and text on the Open Inference Protocol.

It is the native table with Triton's exceptions: a full queue and a queue timeout are UNAVAILABLE, and the text for a
request that was decoded begins with the id of the request.
"""

from __future__ import annotations

from inferd.server.errors import (
    Code,
    ExecutionFailed,
    InvalidRequest,
    Overloaded,
    QueueTimeout,
    ServingError,
    Unavailable,
)
from inferd.server.inference.failures import Failure, failure_of

_PREFIXED = (InvalidRequest, Overloaded, QueueTimeout, ExecutionFailed)


def failure(error: BaseException, request_id: str = "") -> Failure:
    """The status and text for an exception."""
    if isinstance(error, Overloaded):
        error = _unavailable(error, f"Exceeds maximum queue size: {error.message}")
    elif isinstance(error, QueueTimeout):
        error = _unavailable(error, "Request timeout expired")
    return failure_of(error, request_id)


def in_hand(error: Exception, request_id: str) -> Exception:
    """The error of a request that failed after it was decoded: its text begins with the request's id, as in Triton."""
    if not isinstance(error, _PREFIXED):
        return error
    unprefixed = failure(error)
    kind = _KINDS.get(unprefixed.code, ExecutionFailed)
    text = f"[request id: {request_id or '<id_unknown>'}] {unprefixed.text}"
    return kind(text, accepted=error.accepted, retry_after=error.retry_after)


_KINDS: dict[Code, type[ServingError]] = {Code.UNAVAILABLE: Unavailable, Code.INVALID_ARGUMENT: InvalidRequest}


def _unavailable(error: ServingError, text: str) -> Unavailable:
    return Unavailable(text, accepted=error.accepted, retry_after=error.retry_after)
