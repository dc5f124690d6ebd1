"""A method of the control plane as data: its request message, its handler, how its errors are worded."""

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
    """One request, one answer. `handle` gets the call, its parsed request and the caller, who may do what the method's
    rule says with every model that the request names. It may raise; it runs on the transport's thread."""

    request: type[Message]
    handle: Callable[[UnaryCall, Any, Caller], None]
    boundary: ErrorBoundary


@dataclass(frozen=True, slots=True)
class WatchMethod:
    """One request, many answers. As UnaryMethod; `handle` takes care of drain and cancel from the request on."""

    request: type[Message]
    handle: Callable[[StreamCall, Any, Caller], None]
    boundary: ErrorBoundary
