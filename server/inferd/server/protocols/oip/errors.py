"""The one table from errors to status and text on the Open Inference Protocol.

It is the native one but for what Triton has otherwise: a full queue and a queue timeout are UNAVAILABLE, and errors
of a request that the server had in hand begin with its id.
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
    """The status for an exception."""
    if isinstance(error, Overloaded):
        error = _unavailable(error, f"Exceeds maximum queue size: {error.message}")
    elif isinstance(error, QueueTimeout):
        error = _unavailable(error, "Request timeout expired")
    return failure_of(error, request_id)


def in_hand(error: Exception, request_id: str) -> Exception:
    """The error of a request that was decoded and then failed: with the request's own id in front, as Triton's core
    puts it there."""
    if not isinstance(error, _PREFIXED):
        return error
    named = failure(error)
    kind = _KINDS.get(named.code, ExecutionFailed)
    text = f"[request id: {request_id or '<id_unknown>'}] {named.text}"
    return kind(text, accepted=error.accepted, retry_after=error.retry_after)


def failure_in_hand(error: BaseException, request_id: str) -> Failure:
    """The status of such a request."""
    return failure(in_hand(error, request_id) if isinstance(error, Exception) else error, request_id)


_KINDS: dict[Code, type[ServingError]] = {Code.UNAVAILABLE: Unavailable, Code.INVALID_ARGUMENT: InvalidRequest}


def _unavailable(error: ServingError, text: str) -> Unavailable:
    return Unavailable(text, accepted=error.accepted, retry_after=error.retry_after)
