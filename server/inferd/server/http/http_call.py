"""An inference request that has come whole: its call, until the connection has the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from inferd.server.access.client_limits import Lease
from inferd.server.errors import Code
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.known_heads import KnownHead
from inferd.server.http.method_call import MethodFailed
from inferd.server.http.reply import Reply


class RespondsTo(Protocol):
    """The connection of a call. Used on the event loop."""

    peer: str
    certificate: tuple[str, ...]

    def respond(self, reply: Reply) -> None:
        """Sends the response to the request that the connection has passed on."""
        ...


class Answers(Protocol):
    """What takes the outcomes of calls; see `infer_turns.InferTurns`."""

    def settle(self, call: HttpCall, outcome: Any) -> None:
        """Takes the outcome of a call: what the codec has encoded, or a MethodFailed. Thread-safe."""
        ...


class HttpCall:
    """One call (`inference.interfaces.Call`). `reply`, `fail` and `on_cancel` are thread-safe; everything else is for
    the event loop.

    target     what its path names
    headers    by lower-case name
    request    the body
    parsed     None: the body is read by the codec
    started    monotonic seconds at which the request had arrived
    deadline   monotonic seconds at which the client gets 504
    entered    it counts within the bounds, with its body
    ended      it has its outcome, or needs none
    """

    __slots__ = (
        "_cancel",
        "_cancelled",
        "_turns",
        "connection",
        "deadline",
        "ended",
        "entered",
        "headers",
        "lease",
        "method",
        "request",
        "started",
        "target",
    )
    parsed: Any = None

    def __init__(self, turns: Answers, connection: RespondsTo, head: KnownHead, body: bytes, timeout: float) -> None:
        """`timeout`: seconds until the deadline."""
        self._turns = turns
        self.connection = connection
        self.target: InferTarget = head.target
        self.method = head.target.method
        self.headers = head.headers
        self.request = body
        self.started = started = monotonic()
        self.deadline: float | None = started + timeout
        self.lease: Lease | None = None
        self.entered = self.ended = self._cancelled = False
        self._cancel: Callable[[], None] | None = None

    @property
    def model(self) -> str:
        """The name in the path."""
        return self.target.model

    @property
    def peer(self) -> str:
        """The client's address in gRPC's form."""
        return self.connection.peer

    def metadata(self, key: str) -> str | None:
        """A header, under the name that gRPC calls have for it."""
        return self.headers.get(key)

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate."""
        return self.connection.certificate

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """See Call."""
        self._cancel = fn
        if self._cancelled:
            fn()

    def cancel(self) -> None:
        """Cancels the work for this call: the client has disconnected, or its deadline has passed."""
        self._cancelled = True
        if self._cancel is not None:
            self._cancel()

    def reply(self, message: Any) -> None:
        """See Call."""
        self._turns.settle(self, message)

    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        """See Call."""
        self._turns.settle(self, MethodFailed(code, text, trailing))
