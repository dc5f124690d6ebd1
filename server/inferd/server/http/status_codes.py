"""Canonical codes to HTTP statuses: one table for each protocol."""

from __future__ import annotations

from typing import Final

from inferd.server.errors import Code

OIP: Final = {
    Code.INTERNAL: 500,
    Code.UNKNOWN: 500,
    Code.NOT_FOUND: 404,
    Code.UNAVAILABLE: 503,
    Code.UNIMPLEMENTED: 501,
    # Triton has no errors of these kinds and would answer 400. The specific status tells a client what it can do.
    Code.PERMISSION_DENIED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.RESOURCE_EXHAUSTED: 429,  # the limits of this client; a full server is UNAVAILABLE on this protocol
    Code.DEADLINE_EXCEEDED: 504,
    Code.CANCELLED: 499,
}
"""Triton's statuses. Every other code is 400."""

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
"""TensorFlow Serving's statuses. Every other code is 500."""


def oip_status(code: Code) -> int:
    """The HTTP status for a code on the Open Inference Protocol, as Triton answers."""
    return OIP.get(code, 400)


def tfs_status(code: Code) -> int:
    """The HTTP status for a code on TensorFlow Serving's REST API."""
    return TFS.get(code, 500)
