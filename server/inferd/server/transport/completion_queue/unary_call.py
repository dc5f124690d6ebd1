"""Unary calls on the completion queue: the seam's UnaryCall, and the methods that answer them.

The two batches that every unary call has are tagged with the call itself, so that the loop knows them without a bound
method for each.
"""

from __future__ import annotations

from typing import Any

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import header_text
from inferd.server.transport.calls import CallsHandler, Metadata, MethodTable
from inferd.server.transport.completion_queue.call import NO_FLAGS, OK, CompletionQueueCall, Home


class Service:
    """A unary method as the transport serves it.

    handle     takes calls whose requests are there
    gathered   its calls wait for the end of the turn, in `arrived`, with those of all methods that have this handler
    exempt     taken even when the bounds are reached, and while the server drains
    """

    __slots__ = ("arrived", "exempt", "gathered", "handle", "method")

    def __init__(
        self,
        method: str,
        handle: CallsHandler,
        arrived: list[CompletionQueueUnaryCall],
        *,
        gathered: bool,
        exempt: bool,
    ) -> None:
        self.arrived = arrived
        self.method = method
        self.handle = handle
        self.gathered = gathered
        self.exempt = exempt


def services(table: MethodTable) -> dict[bytes, Service]:
    """The unary methods of a table, by path as the core gives it."""
    arrived: dict[CallsHandler, list[CompletionQueueUnaryCall]] = {}
    return {
        method.encode(): Service(
            method,
            handler,
            arrived.setdefault(handler, []),
            gathered=method in table.gathered,
            exempt=method in table.exempt,
        )
        for method, handler in table.unary.items()
    }


class CompletionQueueUnaryCall(CompletionQueueCall):
    """One request, one answer. The transport fills it in, asks for the request and hears of both batches' ends: the
    call is their tag, and `waits` says which one it is.

    A call that is answered at once asks for its close together with its answer: one batch and one event less. One that
    has to wait for its answer is watched meanwhile.

    deadline    monotonic seconds at which the client stops waiting, None: never
    service     who answers it
    request     the message, b"" until it is there
    waits       for its message
    """

    __slots__ = ("deadline", "request", "service", "waits")

    def __init__(self, home: Home, event: Any, service: Service, deadline: float | None) -> None:
        # As CompletionQueueCall's own, written out, and the first batch begun: this is made for every request.
        self._home = home
        self.event = event
        self._call = call = event.call
        self._unanswered = self._unwatched = self.waits = True
        self._cancel_fns = []
        self.method = service.method
        self.cancelled = False
        self.entered = False
        self.held = 0
        self.deadline = deadline
        self.service = service
        self.request = b""
        call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self)

    def reply(self, message: bytes) -> None:
        """Answers with OK. Thread-safe; the first answer counts."""
        try:  # as `_claim` and `_send`, written out: most calls end here
            del self._unanswered
        except AttributeError:
            return
        if self._cancel_fns:
            self._cancel_fns.clear()
        operations: tuple[Any, ...]
        try:
            del self._unwatched
        except AttributeError:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), OK, b"", NO_FLAGS),
            )
        else:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), OK, b"", NO_FLAGS),
                cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
            )
        self._call.start_server_batch(operations, self)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """Answers with an error. Thread-safe; the first answer counts."""
        if not self._claim():
            return
        self._cancel_fns.clear()
        try:
            del self._unwatched
            close = True
        except AttributeError:  # it is watched already
            close = False
        # While it waits for its message, the call is the tag of that.
        tag = self._sent if self.waits else self
        self._home.statuses.give(self._call, tag, code.value, header_text(text).encode(), tuple(trailing), close=close)

    def _sent(self, _event: Any) -> None:
        self._home.gone(self)

    @property
    def unheard(self) -> bool:
        """Whether the request has not come, and nobody has answered without it."""
        return self.waits and not self.answered

    @property
    def answered(self) -> bool:
        """Whether somebody has answered, or nobody needs to any more."""
        return not hasattr(self, "_unanswered")

    def _abandon(self) -> None:
        if self._claim():
            self._home.gone(self)
