"""Codes of our own as HTTP statuses: one table for each protocol."""

from __future__ import annotations

from typing import Final

from inferd.server.errors import Code

OIP: Final = {
    Code.INTERNAL: 500,
    Code.UNKNOWN: 500,
    Code.NOT_FOUND: 404,
    Code.UNAVAILABLE: 503,
    Code.UNIMPLEMENTED: 501,
    # Triton has no such errors of its own and would say 400: these tell a client what it can do.
    Code.PERMISSION_DENIED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.RESOURCE_EXHAUSTED: 429,  # a client's own bounds; a full server is UNAVAILABLE on this protocol
    Code.DEADLINE_EXCEEDED: 504,
    Code.CANCELLED: 499,
}
"""Everything else is 400."""

TFS: Final = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
"""Everything else is 500."""


def oip_status(code: Code) -> int:
    """Triton's status."""
    return OIP.get(code, 400)


def tfs_status(code: Code) -> int:
    """TensorFlow Serving's status."""
    return TFS.get(code, 500)
