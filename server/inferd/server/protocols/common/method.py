"""A method of the control plane as data: its request message, its handler, and the boundary that words its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from inferd.server.access.caller import Caller
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import StreamCall, UnaryCall


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A method with one request and one response. `handle` gets the call, its parsed request, and the caller; the
    caller has been authorized, by the method's access rule, for every model that the request names. `handle` may raise.
    It runs on the transport's thread and must not block."""

    request: type[Message]
    handle: Callable[[UnaryCall, Any, Caller], None]
    boundary: ErrorBoundary


@dataclass(frozen=True, slots=True)
class WatchMethod:
    """A method with one request and many responses. As UnaryMethod; once `handle` is called, it must handle drain and
    cancel itself."""

    request: type[Message]
    handle: Callable[[StreamCall, Any, Caller], None]
    boundary: ErrorBoundary
